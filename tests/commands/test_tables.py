"""Tables and banners: how wide they are, and what becomes of a row that is too wide."""

import os
import re

import pytest

from receiver.commands.serve import banner
from receiver.commands.tables import columns, counted, fitted, folded
from receiver.settings import Settings, TenantStore
from receiver.stores import open_store
from receiver.stores.urls.store_url import parse
from tests.support.commands import receiver
from tests.support.platform_client import ring_of
from tests.support.states import TENANT


@pytest.fixture
def folder(folder_with_keys):
    return folder_with_keys


@pytest.mark.parametrize(("number", "told"), [(0, "0 states"), (1, "1 state"), (2, "2 states"), (1000, "1,000 states")])
def test_counts_agree_with_their_noun(number, told):
    assert counted(number, "state") == told


def test_the_banner_fits_80_columns_and_is_a_table_where_there_is_room(keys, tenant, monkeypatch):
    rings = ring_of(keys), ring_of(keys, tenants=[tenant])
    stores = {tenant: TenantStore(parse("sqlite:///" + "x" * 50), "STORAGE_TENANT_x")}
    for ring in rings:
        told = banner(Settings(tenant_stores=stores), ring, ["http://127.0.0.1:8080"], "http://127.0.0.1:8081")
        assert max(map(len, told.splitlines())) <= 80, told
        for key in ring:
            assert key.kid in told and key.thumbprint in told
        assert (tenant in told) or ring is rings[0]
    monkeypatch.setattr("receiver.commands.serve.columns", lambda: 300)
    monkeypatch.setattr("receiver.commands.tables.columns", lambda: 300)
    told = banner(Settings(), rings[0], ["http://127.0.0.1:8080"], None)
    assert re.search(r"^    role +kid +tenant +age +thumbprint +protected +from$", told, re.MULTILINE)


def test_a_table_is_as_wide_as_its_terminal_and_fits_80_columns_elsewhere(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda _fallback: os.terminal_size((200, 50)))
    rows = [{"name": "x" * 60, "number": 1_234_567, "more": "y" * 60}, {"name": "z", "number": 1, "more": None}]
    assert (columns(), len(fitted(rows).split("\n\n"))) == (80, 2)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    header, first, second = fitted(rows).splitlines()
    assert header.split() == ["name", "number", "more"]
    assert "1,234,567" in first and second.split() == ["z", "1", "-"]
    assert second.index("1") == first.index("1,234,567") + 8  # numbers stand to the right
    assert fitted(rows, 80).splitlines()[:3] == ["name    " + "x" * 60, "number  1,234,567", "more    " + "y" * 60]
    assert fitted([]) == ""


def test_a_row_that_is_too_wide_is_folded_and_the_others_stay_a_table():
    rows = [
        {"setting": "DATABASE_URL", "value": "x" * 70, "from": "DATABASE_URL"},
        {"setting": "STORAGE_THREADS", "value": "8", "from": "default"},
        {"setting": "PORT", "value": "", "from": "default"},
    ]
    assert folded(rows, 80).splitlines() == [
        "setting          value    from",
        "DATABASE_URL",
        f"  value  {'x' * 70}",
        "  from  DATABASE_URL",
        "STORAGE_THREADS  8        default",
        "PORT                      default",
    ]
    assert len(folded(rows, 120).splitlines()) == 4
    assert folded([]) == ""


def test_config_and_residency_fit_80_columns(folder):
    url = f"sqlite:///{folder}/{'long' * 12}.db"
    open_store(url, 5).prepare()
    environ = {"DATABASE_URL": url, f"STORAGE_TENANT_{TENANT}": f"sqlite:///{folder}/other.db"}
    open_store(environ[f"STORAGE_TENANT_{TENANT}"], 5).prepare()
    for words in (("config",), ("store", "residency")):
        ran = receiver(*words, cwd=folder, **environ)
        assert ran.returncode == 0, ran.stderr
        assert max(len(line) for line in ran.stdout.splitlines() if str(folder) not in line) <= 80
        assert "long.db" in ran.stdout
