"""The settings: ``table.py`` declares them, ``parsers.py`` reads a value, ``environment.py`` reads the environment.

``files.py`` of the package reads the files that they name; ``display.py`` shows them to people.
"""

from receiver.settings.environment import SettingsMistakes, read
from receiver.settings.table import RELOADED, Settings, declared
from receiver.settings.tenant_stores import TenantStore

__all__ = ["RELOADED", "Settings", "SettingsMistakes", "TenantStore", "declared", "read"]
