"""Settings: from the environment and from files, all mistakes at once, secrets never shown."""

import dataclasses
import os
from pathlib import Path

import pytest

from receiver import settings
from receiver.secret import Secret
from receiver.settings import Settings, parsers


def mistakes_of(**environ) -> list[str]:
    return settings.read(environ)[1]


def test_nothing_set_means_the_defaults():
    found, mistakes = settings.read({"PATH": "/bin", "HOME": "/root", "STORAGE": "x", "XSTORAGE_BIND": "y"})
    assert (found, mistakes) == (Settings(), [])
    assert (found.listen, found.store_url_text) == ("127.0.0.1:8080", "sqlite:///var/receiver.db")


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
        "STORAGE_STORE_ID": "0123ABCD-0000-0000-0000-000000000000",
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
        "STORAGE_MAX_HEADER": "16KiB",
        "STORAGE_KEEP_ALIVE": "620",
    }
    (tmp_path / "pem").touch()
    found, mistakes = settings.read(given)
    assert mistakes == []
    assert set(given) == {field.metadata["name"] for field in settings.declared()}
    assert {found.sources[field.name] for field in settings.declared()} == set(given)
    assert (found.max_body, found.max_inflated, found.clock_skew, found.keys) == (1 << 20, 2 << 20, 1.5, tmp_path)
    assert found.trusted_proxies == ("10.0.0.1/32", "10.1.0.0/16", "::1/128")
    assert (found.listen, found.store_url_text) == ("[::1]:0", "sqlite:////data/x.db")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.port = 1


def test_the_variables_of_the_java_service_mean_what_they_meant():
    found, mistakes = settings.read({"PORT": "8080", "JDBC_DATABASE_URL": "jdbc:sqlite:/data/x.db"})
    assert (mistakes, found.listen, found.store_url_text) == ([], parsers.every_address(8080), "jdbc:sqlite:/data/x.db")
    assert settings.read({"PORT": "0"})[0].listen in ("[::]:0", "0.0.0.0:0")


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


POSTGRES = "postgresql://u:hunter2@h/d"
JWK = '{"kty": "EC", "x": "hunter2"}'


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        *((name, POSTGRES, "DATABASE_URL") for name in ("DATABSE_URL", "DATABASE_URI", "DB_URL", "DATABASE_DSN")),
        *((name, POSTGRES, "DATABASE_URL") for name in ("database_url", "DATABASE-URL", "Database.Url", "ADTABASE_URL")),
        *((f"{mark}DATABASE_URL", POSTGRES, "DATABASE_URL") for mark in ("\ufeff", "\u00ef\u00bb\u00bf", "\udcef\udcbb\udcbf")),
        *((name, POSTGRES, "DATABASE_URL") for name in (" DATABASE_URL", '"DATABASE_URL', "DATABASE_URL ", "DATABASE_URL\u00a0")),
        *((name, POSTGRES, "DATABASE_URL") for name in ("export DATABASE_URL", "\ufeff'DATABASE_URL'", "\u201cDATABASE_URL")),
        ("DATABSE_URL", "mysql+pymysql://u:hunter2@h/d", "DATABASE_URL"),
        ("DATABSE_URL", f'"{POSTGRES}"', "DATABASE_URL"),
        ("DATABASE_ULR", "oracle://u:hunter2@h/d", "DATABASE_URL"),
        ("JDBC_DATABSE_URL", "jdbc:postgresql://h/d?user=u&password=hunter2", "JDBC_DATABASE_URL"),
        ("JDBC_URL", "jdbc:sqlite:/hunter2.db", "JDBC_DATABASE_URL"),
        *((name, "8080", "PORT") for name in ("PROT", "PORTS", "port", "\ufeffPORT", "PORT ")),
        *((name, JWK, "PLATFORM_KEY") for name in ("PLATFROM_KEY", "PLATFORMKEY", "platform_key", "\ufeffPLATFORM_KEY")),
        *((name, JWK, "RECEIVER_KEY") for name in ("RECIEVER_KEY", "RECEIVER_KEYS", "RECEIVER-KEY")),
        (f"RECIEVER_KEY_{UUID}", "hunter2", f"RECEIVER_KEY_{UUID}"),
        (f"\ufeffPLATFORM_KEY_{UUID}", "hunter2", f"PLATFORM_KEY_{UUID}"),
        (f"\ufeffSTORAGE_TENANT_{UUID}", POSTGRES, f"STORAGE_TENANT_{UUID}"),
        *((name, "3", "STORAGE_WORKERS") for name in ("\ufeffSTORAGE_WORKERS", "STORGE_WORKERS", "storage_workers")),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_that_of_a_setting_stops_the_start_that_it_would_leave_at_its_default(
    name, value, nearest
):
    (mistake,) = mistakes_of(**{name: value})
    assert mistake.startswith(f"{name}: there is no such setting; the nearest is {nearest}")
    assert "hunter2" not in mistake


@pytest.mark.parametrize("name", ["DATABSE_URL_FILE", "DATABASE_URLFILE", "DATABASE_URL_FIEL", "DB_URL_FILE"])
def test_so_does_one_that_names_a_file(tmp_path, name):
    (tmp_path / "value").write_text(f"{POSTGRES}\n")
    (mistake,) = mistakes_of(**{name: str(tmp_path / "value")})
    assert mistake.startswith(f"{name}: there is no such setting; the nearest is DATABASE_URL_FILE")
    assert settings.read({name: "/no/such/file"})[1] == []
    assert settings.read({name: "/no/such/file"})[0].warnings != ()


def test_so_does_a_credential_of_systemd(tmp_path):
    (tmp_path / "database_url").write_text(POSTGRES)
    (tmp_path / "keys_receiver.json").write_text("{}")
    (mistake,) = mistakes_of(CREDENTIALS_DIRECTORY=str(tmp_path))
    assert "the nearest is DATABASE_URL_FILE" in mistake


@pytest.mark.parametrize("name", ["DATABASE_PASSWRD", "DATABASE_PASS", "database_password", "DATABASE_PASSWORD "])
def test_a_password_under_a_wrong_name_stops_a_start_whose_store_needs_one(name):
    url = {"DATABASE_URL": "postgresql://u@h/d"}
    assert mistakes_of(**url, **{name: "hunter2"})
    for enough in ({"DATABASE_PASSWORD": "right"}, {"DATABASE_URL": POSTGRES}, {"DATABASE_URL": "sqlite:////x.db"}):
        assert mistakes_of(**(url | enough | {name: "hunter2"})) == []


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"DATABASE_URL": POSTGRES, "DATABSE_URL": POSTGRES}, "DATABSE_URL"),
        ({"JDBC_DATABASE_URL": "jdbc:sqlite:/x.db", "DB_URL": POSTGRES}, "DB_URL"),
        ({"DB_URL": "https://example.com/hunter2"}, "DB_URL"),
        ({"DATABASE_URL": "postgresql://u@h/d", "DB_PASSWORD": "hunter2"}, "DB_PASSWORD"),
        ({"STORAGE_BIND": "127.0.0.1:0", "PROT": "8080"}, "PROT"),
        ({"PROT": "tcp"}, "PROT"),
        ({f"PLATFORM_KEY_{UUID}": JWK, f"PLATFROM_KEY_{UUID.replace('-', '_')}": JWK}, "PLATFROM_KEY"),
    ],
)
def test_one_that_leaves_no_default_or_holds_something_else_is_warned_about(environ, name):
    found, mistakes = settings.read(environ)
    (warning,) = found.warnings
    assert mistakes == []
    assert warning.startswith(name)
    assert "hunter2" not in warning


def test_what_other_programs_are_told_disturbs_nobody():
    others = {
        "DATABASE_HOST": "h", "DATABASE_PORT": "5432", "DATABASE_NAME": "d", "POSTGRES_PASSWORD": "x", "PGHOST": "h",
        "PORTAGE": "1", "REPORT": "8080", "SUPPORT": "80", "HTTP_PORT": "8080", "SORT_BY": "x", "TEST_DATABASE_URL": POSTGRES,
        "RECEIVER_PORT": "tcp://10.0.0.7:80", "RECEIVER_PORT_80_TCP": "tcp://10.0.0.7:80", "RECEIVER_SERVICE_HOST": "10.0.0.7",
        "DATABASE_PORT_5432_TCP_ADDR": "10.0.0.8", "PLATFORM": "linux", "REDIS_URL": "redis://h", "STORE_ID": "7",
    }  # fmt: skip
    found, mistakes = settings.read(others)
    assert (mistakes, found.warnings) == ([], ())


@pytest.mark.parametrize(
    "url",
    ['mysql://u:p@h/d"', 'postgresql://u:"p"@h/d', "postgresql://u:'p'@h/d", "file:///data/'x'", "sqlite:///a.db'"],
)
def test_quotes_in_a_url_are_named_as_that(url):
    _, mistakes = settings.read({"DATABASE_URL": url})
    assert [one for one in mistakes if one.startswith("DATABASE_URL: must not have quotes around it or its parts")]


@pytest.mark.parametrize("url", ["file:///data/o'neil/states", "postgresql://u:it's@h/d", "postgresql://u:%22p%22@h/d"])
def test_quotes_that_belong_to_a_url_are_left_alone(url):
    assert settings.read({"DATABASE_URL": url})[1] == []


def test_only_a_name_that_another_program_could_have_is_said_to_be_perhaps_for_one():
    for name in ("\ufeffDATABASE_URL", "'DATABASE_URL'"):
        (mistake,) = mistakes_of(**{name: "mysql://h/d"})
        assert "another program" not in mistake
    (mistake,) = mistakes_of(DATABSE_URL="mysql://h/d")
    assert mistake.endswith(". If it is for another program, set DATABASE_URL as well")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL_FIEL", "postgresql://h/d"),
        ("SEALING_KEY", '{"kty": "oct"}'),
    ],
)
def test_a_near_miss_of_a_file_or_of_the_sealing_key_stops_the_start(name, value):
    _, mistakes = settings.read({name: value})
    assert [one for one in mistakes if one.startswith(f"{name}: there is no such setting")]
