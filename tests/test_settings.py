"""Settings: from the environment and from files, all mistakes at once, secrets never shown."""

import dataclasses
import os
from pathlib import Path

import pytest

from receiver import settings
from receiver.secret import Secret
from receiver.settings import Settings


def mistakes_of(**environ) -> list[str]:
    return settings.read(environ)[1]


def test_nothing_set_means_the_defaults():
    found, mistakes = settings.read({"PATH": "/bin", "HOME": "/root", "STORAGE": "x", "XSTORAGE_BIND": "y"})
    assert (found, mistakes) == (Settings(), [])
    assert (found.listen, found.store_url) == ("127.0.0.1:8080", "sqlite:///var/receiver.db")


def test_every_setting_can_be_given_and_tells_where_it_came_from(tmp_path):
    given = {
        "DATABASE_URL": "sqlite:////data/x.db",
        "JDBC_DATABASE_URL": "jdbc:sqlite:y.db",
        "DATABASE_USERNAME": "u",
        "DATABASE_PASSWORD": "p",
        "PORT": "9000",
        "STORAGE_BIND": "[::1]:0",
        "STORAGE_WORKERS": "3",
        "STORAGE_THREADS": "4",
        "STORAGE_KEYS": str(tmp_path),
        "STORAGE_MAX_BODY": "1MiB",
        "STORAGE_MAX_INFLATED": "2097152",
        "STORAGE_REPLY_COMPRESSION": "100KiB",
        "STORAGE_CLOCK_SKEW": "1.5",
        "STORAGE_REPLAY": "observe",
        "STORAGE_STORE_TIMEOUT": "2",
        "STORAGE_READ_TIMEOUT": "3",
        "STORAGE_GRACEFUL_TIMEOUT": "5",
        "STORAGE_TRUSTED_PROXIES": "10.0.0.1, 10.1.0.0/16,::1",
        "STORAGE_LOG_LEVEL": "debug",
        "STORAGE_POOL_SIZE": "4",
        "STORAGE_TENANTS": "0123ABCD-0000-0000-0000-000000000000, 0123abcd-0000-0000-0000-000000000001",
        "STORAGE_REGION": "Frankfurt am Main",
        "STORAGE_SEALING_KEY": "{}",
        "STORAGE_CLEAR_STATES": "read",
        "STORAGE_KEY_PASSPHRASE": "correct horse",
        "STORAGE_INSECURE_KEYS": "warn",
        "STORAGE_TLS_CERT": str(tmp_path / "pem"),
        "STORAGE_TLS_KEY": str(tmp_path / "pem"),
        "STORAGE_TLS_CLIENT_CA": str(tmp_path / "pem"),
        "STORAGE_ALLOW_FROM": "192.0.2.0/24",
        "STORAGE_PUBLIC_PREFIX": "/flow/%7Ea",
        "STORAGE_MAX_ITEMS": "5000",
        "STORAGE_DRAIN": "5",
        "STORAGE_LOG_FORMAT": "json",
        "STORAGE_ADMIN_BIND": "off",
        "STORAGE_MIN_FREE": "0",
        "STORAGE_TALLY_EVERY": "60",
        "STORAGE_RUN_DIR": str(tmp_path),
    }
    (tmp_path / "pem").touch()
    found, mistakes = settings.read(given)
    assert mistakes == []
    assert set(given) == {field.metadata["name"] for field in settings.declared()}
    assert {found.sources[field.name] for field in settings.declared()} == set(given)
    assert (found.max_body, found.max_inflated, found.clock_skew, found.keys) == (1 << 20, 2 << 20, 1.5, tmp_path)
    assert found.trusted_proxies == ("10.0.0.1/32", "10.1.0.0/16", "::1/128")
    assert (found.listen, found.store_url) == ("[::1]:0", "sqlite:////data/x.db")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.port = 1


def test_the_variables_of_the_java_service_mean_what_they_meant():
    found, mistakes = settings.read({"PORT": "8080", "JDBC_DATABASE_URL": "jdbc:sqlite:/data/x.db"})
    assert (mistakes, found.listen, found.store_url) == ([], "0.0.0.0:8080", "jdbc:sqlite:/data/x.db")
    assert settings.read({"PORT": "0"})[0].listen == "0.0.0.0:0"


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        *(("PORT", "x", "0 to 65535"), ("PORT", "65536", "0 to 65535"), ("PORT", "-1", "0 to 65535")),
        *(
            ("STORAGE_WORKERS", "0", "1 to 256"),
            ("STORAGE_WORKERS", "\u0662", "1 to 256"),
            ("STORAGE_THREADS", "2.0", "1 to 256"),
        ),
        *(
            ("STORAGE_MAX_BODY", "32 megabytes", "32MiB"),
            ("STORAGE_MAX_BODY", "99GiB", "32MiB"),
            ("STORAGE_MAX_BODY", "1", "32MiB"),
        ),
        *(
            ("STORAGE_CLOCK_SKEW", "nan", "0 to 300"),
            ("STORAGE_CLOCK_SKEW", "301", "0 to 300"),
            ("STORAGE_CLOCK_SKEW", "-1", "0 to 300"),
        ),
        *(("STORAGE_REPLAY", "Enforce", "enforce, observe, off"), ("STORAGE_LOG_LEVEL", "loud", "debug, info")),
        *(
            ("STORAGE_BIND", "here", "host:port"),
            ("STORAGE_BIND", "host:99999", "host:port"),
            ("STORAGE_BIND", "[zzz]:1", "host:port"),
            ("STORAGE_BIND", "192.0.2.1:1", "address of this machine"),
            ("STORAGE_BIND", "256.1.1.1:1", "address of this machine"),
            ("STORAGE_BIND", "unix:/no/such/x.sock", "folder that exists"),
            ("STORAGE_BIND", "unix://tmp/x", "host:port"),
        ),
        *(("STORAGE_TRUSTED_PROXIES", "nginx", "10.0.0.5"), ("STORAGE_TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.5")),
        *(
            ("STORAGE_KEYS", "/no/such/directory", "directory that exists"),
            ("STORAGE_KEYS", "x" * 5000, "directory that exists"),
        ),
        *(("STORAGE_TLS_CERT", "/no/such/file", "file that exists"), ("STORAGE_TLS_KEY", "/tmp", "file that exists")),
        *(
            ("STORAGE_PUBLIC_PREFIX", value, "such as /flow")
            for value in ("flow", "/flow/", "/a//b", "/a/../b", "/a?b")
        ),
        *(("STORAGE_MAX_ITEMS", "0", "1 to 1000000"), ("STORAGE_CLEAR_STATES", "yes", "refuse, read, write")),
        *(
            ("DATABASE_URL", "postgresql://u:hunter2@h/d?pasword=hunter2", "not known for PostgreSQL: pasword"),
            ("JDBC_DATABASE_URL", "jdbc:sqlite:x;password=hunter2", "no parameters"),
        ),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_is_valid_and_is_not_repeated(name, value, valid):
    (mistake,) = mistakes_of(**{name: value})
    assert mistake.startswith(f"{name}: ")
    assert valid in mistake
    assert "hunter2" not in mistake
    assert (
        getattr(
            settings.read({name: value})[0], next(f.name for f in settings.declared() if f.metadata["name"] == name)
        )
        is not None
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        *(
            ("STORAGE_WORKRES", "STORAGE_WORKERS"),
            ("STORAGE_BINDING", "STORAGE_BIND"),
            ("STORAGE_MAXBODY", "STORAGE_MAX_BODY"),
        ),
        *(("STORAGE_THREADS_FIEL", "STORAGE_THREADS"), ("STORAGE_TYPO_FILE", "STORAGE_"), ("STORAGE_FILE", "STORAGE_")),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_one(name, nearest):
    (mistake,) = mistakes_of(**{name: "/etc/passwd"})
    assert mistake.startswith(f"{name}: there is no such setting; the nearest is {nearest}")


def test_all_mistakes_are_listed_at_once():
    found = mistakes_of(STORAGE_WORKERS="many", STORAGE_REPLAI="off", PORT="x", STORAGE_KEYS_FILE="/no/such/file")
    assert [mistake.partition(":")[0] for mistake in sorted(found)] == [
        "PORT",
        "STORAGE_KEYS_FILE",
        "STORAGE_REPLAI",
        "STORAGE_WORKERS",
    ]


def test_any_setting_can_come_from_a_file(tmp_path):
    (tmp_path / "value").write_text("7\n")
    (tmp_path / "password").write_text("  secret with spaces \r\n")
    found, mistakes = settings.read(
        {"STORAGE_WORKERS_FILE": str(tmp_path / "value"), "DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    )
    assert (mistakes, found.workers, found.database_password) == ([], 7, Secret("  secret with spaces "))
    assert found.sources["workers"] == "STORAGE_WORKERS_FILE"
    for field in settings.declared():
        name = field.metadata["name"]
        (mistake,) = mistakes_of(**{f"{name}_FILE": "/no/such/file"})
        assert mistake == f"{name}_FILE: the file it names cannot be read (No such file or directory)"


def test_a_value_and_a_file_for_it_are_a_mistake(tmp_path):
    (tmp_path / "value").write_text("7")
    (mistake,) = mistakes_of(STORAGE_WORKERS="7", STORAGE_WORKERS_FILE=str(tmp_path / "value"))
    assert mistake == "STORAGE_WORKERS_FILE: STORAGE_WORKERS is set as well; only one of them is valid"


@pytest.mark.parametrize("kind", ["folder", "pipe", "binary", "large", "device", "closed"])
def test_a_file_that_is_not_small_text_is_a_mistake_and_never_hangs(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif kind == "large":
        path.write_bytes(b"x" * 100_000)
    else:
        path = Path({"device": "/dev/zero", "closed": "/proc/1/mem"}[kind])
    (mistake,) = mistakes_of(STORAGE_WORKERS_FILE=str(path))
    assert mistake.startswith("STORAGE_WORKERS_FILE: the file it names ")


def test_an_empty_variable_is_one_that_is_not_set():
    assert settings.read({"STORAGE_WORKERS": "", "PLATFORM_KEY": "", "DATABASE_URL_FILE": ""}) == (Settings(), [])


def test_secrets_do_not_show_in_a_repr():
    found, _ = settings.read({"DATABASE_PASSWORD": "hunter2", "PLATFORM_KEY": "hunter2"})
    assert "hunter2" not in repr(found)
    assert found.key_texts == {"PLATFORM_KEY": Secret("hunter2")}


UUID = "01234567-89AB-cdef-0123-456789abcdef"


@pytest.mark.parametrize("suffix", ["", f"_{UUID}", f"_{UUID.replace('-', '_')}"])
@pytest.mark.parametrize("role", ["PLATFORM", "RECEIVER"])
def test_keys_come_by_any_of_their_names(tmp_path, role, suffix):
    (tmp_path / "key").write_text("text\n")
    name = f"{role}_KEY{suffix}"
    assert settings.read({name: "text"})[0].key_texts == {name: Secret("text")}
    from_file, mistakes = settings.read({f"{name}_FILE": str(tmp_path / "key")})
    assert (mistakes, from_file.key_texts) == ([], {f"{name}_FILE": Secret("text")})


@pytest.mark.parametrize(
    "name",
    ["PLATFORM_KEY_x", f"PLATFORM_KEY_{UUID}_OLD", f"RECEIVER_KEY_x{UUID}", "RECEIVER_KEY_", "PLATFORM_KEY_1_FILE"],
)
def test_a_key_under_a_name_that_is_no_kid_is_a_mistake(name):
    (mistake,) = mistakes_of(**{name: "text"})
    assert mistake.startswith(f"{name}: must end in the key's kid")
