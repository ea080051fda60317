"""The settings: ``table.py`` declares, ``options.py`` parses each, ``reading.py`` takes all from the environment."""

from receiver.settings.reading import SettingsMistakes, read
from receiver.settings.residents import Resident
from receiver.settings.table import Settings, declared

__all__ = ["Resident", "Settings", "SettingsMistakes", "declared", "read"]
