"""The settings: ``table.py`` declares, ``options.py`` parses each, ``reading.py`` takes all from the environment."""

from receiver.settings.environment import SettingsMistakes, read
from receiver.settings.table import Settings, declared
from receiver.settings.tenant_stores import TenantStore

__all__ = ["Settings", "SettingsMistakes", "TenantStore", "declared", "read"]
