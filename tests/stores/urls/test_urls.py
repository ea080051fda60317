"""Which store a URL means: what is understood, what is refused, and that nothing secret is ever repeated."""

from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from receiver.stores.urls.store_url import StoreURL, parse
from tests.support.urls import MA, MS, MY, PG, databases, texts

PATHS = {
    "sqlite:///var/x.db": StoreURL("sqlite", path="var/x.db"),
    "sqlite:////var/x.db": StoreURL("sqlite", path="/var/x.db"),
    "sqlite:////var/a%20b+c@d.db": StoreURL("sqlite", path="/var/a%20b+c@d.db"),
    "file:///var/states": StoreURL("file", path="/var/states"),
    "file:///var/a%20b+%25": StoreURL("file", path="/var/a b+%"),
    "jdbc:sqlite:/data/x.db": StoreURL("sqlite", path="/data/x.db"),
    "jdbc:sqlite:x.db": StoreURL("sqlite", path="x.db"),
    "jdbc:sqlite:/data/a%20b.db": StoreURL("sqlite", path="/data/a%20b.db"),
}

# URL → (hosts, database, username, password, parameters)
SERVERS = {
    "postgresql://h/d": ([("h", 5432)], "d", "", "", {}),
    "postgres://h:1/d": ([("h", 1)], "d", "", "", {}),
    "postgresql:///d": ([("localhost", 5432)], "d", "", "", {}),
    "postgresql://:99/d": ([("localhost", 99)], "d", "", "", {}),
    "postgresql://u@h/d?": ([("h", 5432)], "d", "u", "", {}),
    "postgresql://:p@h/d": ([("h", 5432)], "d", "", "p", {}),
    "postgresql://u:a:b@h/d": ([("h", 5432)], "d", "u", "a:b", {}),
    "postgresql://u%40x:%2F%3A%25%2B+%20%26%23%C3%A9é@h/a%20b%40": (
        *([("h", 5432)], "a b@"),
        *("u@x", "/:%++ &#éé", {}),
    ),
    "postgresql://h1:1,h-2.example,h_3:3/d": ([("h1", 1), ("h-2.example", 5432), ("h_3", 3)], "d", "", "", {}),
    "postgresql://[::1]:5,[fe80::2],127.0.0.1/d": (
        [("::1", 5), ("fe80::2", 5432), ("127.0.0.1", 5432)],
        "d",
        "",
        "",
        {},
    ),
    "postgresql://h,[::1]:7/d": ([("h", 5432), ("::1", 7)], "d", "", "", {}),
    "postgresql://%2Fvar%2Frun:6/d": ([("/var/run", 6)], "d", "", "", {}),
    "postgresql://%2fvar%2frun,h/d": ([("/var/run", 5432), ("h", 5432)], "d", "", "", {}),
    "postgresql:///d?host=/var/run/postgresql": ([("/var/run/postgresql", 5432)], "d", "", "", {}),
    "postgresql://u@:99/d?sslmode=disable&host=%2Ftmp": ([("/tmp", 99)], "d", "u", "", {"sslmode": "disable"}),
    "postgresql://h/d?application_name=a+b%20c&&sslmode=verify-full": (
        *([("h", 5432)], "d", "", ""),
        {"application_name": "a+b c", "sslmode": "verify-full"},
    ),
    "postgresql://h/d?connect_timeout=3&tcp_user_timeout=5000&keepalives_idle=10&search_path=a_1": (
        *([("h", 5432)], "d", "", ""),
        {"connect_timeout": "3", "tcp_user_timeout": "5000", "keepalives_idle": "10", "search_path": "a_1"},
    ),
    "mysql://u:p@h/d": ([("h", 3306)], "d", "u", "p", {}),
    "mariadb://h1,h2:2/d?ssl-mode=verify-identity&ssl_ca=/ca.pem": (
        *([("h1", 3306), ("h2", 2)], "d", "", ""),
        {"ssl-mode": "verify-identity", "ssl-ca": "/ca.pem"},
    ),
    "mysql://h/d?ssl-ca=/ca.pem&ssl-cert=/c.pem&ssl-key=/k.pem": (
        *([("h", 3306)], "d", "", ""),
        {"ssl-ca": "/ca.pem", "ssl-cert": "/c.pem", "ssl-key": "/k.pem"},
    ),
    "mysql://u@/d?unix-socket=/run/mysqld/mysqld.sock": ([("/run/mysqld/mysqld.sock", 3306)], "d", "u", "", {}),
    "mysql://u@%2Frun%2Fm.sock/d": ([("/run/m.sock", 3306)], "d", "u", "", {}),
    "sqlserver://h:1/d?encrypt=strict&application_intent=readwrite": (
        *([("h", 1)], "d", "", ""),
        {"encrypt": "strict", "application-intent": "readwrite"},
    ),
}

# URL → what the message says
REFUSED = {
    **dict.fromkeys(
        ("", "x", "oracle://h/hunter2", "postgresql:h/d", "PostgreSQL://h/d", "file:/x"), "must be sqlite:///"
    ),
    **dict.fromkeys((" postgresql://h/d", "sqlite://x.db", "postgresql+psycopg://u:hunter2@h/d"), "must be sqlite:///"),
    **{f"sqlite:///{path}": "must name a file" for path in ("", ":memory:", ":memory:?cache=shared")},
    **{f"sqlite:///x{more}": "takes no parameters" for more in ("?mode=ro", "#x", ";password=hunter2")},
    **{f"file:///{path}": "must name a folder" for path in ("", "/", "%2F")},
    **{f"file:///x{more}": "takes no parameters" for more in ("?mode=ro", "#x", ";password=hunter2")},
    "file:///x%00": "%00",
    "file:///x%18": "control character",
    "file:///a%0Ab": "control character",
    "file:///x%7F": "control character",
    "file:///x%zz": "hexadecimal",
    **{
        f"postgresql://u:hunter2@h/{rest}": "name of a database"
        for rest in ("", "?sslmode=require", "a/b", "a%2Fb", "a%0Ab")
    },
    "postgresql://u:hunter2@h": "name of a database",
    "postgresql://u:hunter2@h?sslmode=require": "name of a database",
    "postgresql://user:12/34@hunter2": "more than one @",
    "postgresql://u:hunter2@x@h/d": "more than one @",
    "postgresql://u:p@h1,u2:hunter2@h2/d": "more than one @",
    "postgresql://u:hunter2#x@h/d": "'#'",
    "postgresql://u:hunter2@h/d#x": "'#'",
    "postgresql://u:hunter2%@h/d": "hexadecimal",
    "postgresql://u:hunter2%4@h/d": "hexadecimal",
    "postgresql://u:hunter2%FF@h/d": "not UTF-8",
    "postgresql://u:hunter2%00@h/d": "%00",
    "postgresql://u:hunter2\udcff@h/d": "UTF-8",
    "postgresql://u:hunter2\n@h/d": "control characters",
    "postgresql://u:hunter2\t@h/d": "control characters",
    **{
        f"postgresql://u:hunter2@{hosts}/d": "hosts as name:port"
        for hosts in ("h:", "h:0", "h:65536", "h:x", "h:1:2", "h x", "::1", "[::1", "[::1]5", "[x]", "é", "h:\u0661")
    },
    **{f"postgresql://u:hunter2@{hosts}/d": "each of its hosts" for hosts in ("h,", "h,,i", "h,:1")},
    **{f"postgresql://u:hunter2@{hosts}/d": "hosts" for hosts in (",h", ":1,h")},
    **{f"postgresql://{hosts}/d": "absolute path" for hosts in ("%2Frun%2Cother", "%2Frun%0A", "%2f%2C")},
    **{f"postgresql:///d?host={value}": "absolute path" for value in ("other", "/a,/b", "/a%2Cb", "/", "")},
    "postgresql://h/d?host=/run": "no host can be named",
    "postgresql://h/d?hostaddr=1.2.3.4": "not known for PostgreSQL: hostaddr",
    **{
        f"postgresql://h/d?{name}=hunter2": f": {name}"
        for name in ("password", "user", "ssl", "sslpassword", "service")
    },
    "postgresql://h/d?sslmode": "sslmode",
    "postgresql://h/d?sslmode=": "sslmode, which must be one of disable",
    "postgresql://h/d?sslmode=hunter2": "sslmode, which must be one of disable",
    "postgresql://h/d?sslmode=require&sslmode=disable": "sslmode twice",
    "postgresql://h/d?SSLMODE=require": "not known for PostgreSQL: SSLMODE",
    "postgresql://h/d?sslrootcert=": "sslrootcert without a value",
    "postgresql://h/d?connect_timeout=1.5": "connect_timeout, which must be a whole number",
    "postgresql://h/d?search_path=a,b": "search_path, which must be the name of one schema",
    "postgresql://h/d?target_session_attrs=hunter2": "target_session_attrs, which must be one of any, read-write",
    "postgresql://h/d?application_name=x&hunter2": "& is written %26",
    "postgresql://h/d?hunter2@x=1": "& is written %26",
    "mysql://h/d?ssl-mode=VERIFY_CA": "ssl-mode, which must be one of disabled",
    "mysql://h/d?ssl-mode=required&ssl_mode=disabled": "ssl-mode twice",
    "mysql://h/d?ssl-mode=required&ssl-ca=/ca.pem": "ssl-ca, which needs ssl-mode=verify-identity",
    "mysql://h/d?ssl-mode=preferred&ssl-ca=/ca.pem": "ssl-ca, which needs ssl-mode=verify-identity",
    "mysql://h/d?ssl-mode=disabled&ssl-cert=/c.pem": "ssl-cert, which needs another ssl-mode",
    "mysql://h/d?ssl-key=/k.pem": "ssl-key, which needs ssl-cert",
    "mysql://h/d?charset=latin1": "not known for MariaDB/MySQL: charset",
    "mysql://h/d?unix-socket=/x": "no host can be named",
    "mysql:///d?unix-socket=x": "absolute path",
    "sqlserver://h1,h2/d": "must name one host",
    "sqlserver://%2Frun/d": "must name a host",
    "sqlserver://h/d?encrypt=maybe": "encrypt, which must be one of yes, no, strict",
    "sqlserver://h/d?application-intent=readonly": "application-intent, which must be one of readwrite",
}
# jdbc: URL → what the message says
UNTRANSLATED = {
    **dict.fromkeys(("jdbc:oracle:thin:@h", "jdbc:", "jdbc:mysql+srv://h/d"), "must begin with one of jdbc:sqlite:"),
    **{f"jdbc:sqlite:{path}": "must name a file" for path in ("", ":memory:")},
    **{f"jdbc:sqlite:{path}": "must name its file by a path" for path in (":resource:x.db", "file:/x.db", "jar:x")},
    **{f"jdbc:sqlite:/x.db?{more}": "takes no parameters" for more in ("foreign_keys=on", "password=hunter2")},
    "jdbc:postgresql://h": "must end in / and a database",
    "jdbc:postgresql://h?user=hunter2": "must end in / and a database",
    **{f"jdbc:postgresql:{rest}": "name of a database" for rest in ("", "/", "/d", "//h/", "//h/a/b", "?user=hunter2")},
    "jdbc:postgresql://u:hunter2@h/d": "user as user=",
    "jdbc:postgresql://%2Frun/d": "hosts as host:port",
    **{f"jdbc:postgresql://{hosts}/d": "hosts" for hosts in ("h:", "h:0", ",h", "h,,i")},
    f"{PG}?password=hunter2%zz": "hexadecimal",
    f"{PG}?password=hunter2%FF": "not UTF-8",
    f"{PG}?password=a&hunter2": "DATABASE_PASSWORD",
    f"{PG}?password=a&hunter2@=x": "DATABASE_PASSWORD",
    f"{PG}?password=hunter2&password=x": "password twice",
    f"{PG}?sslMode=require": "sslMode, which pgjdbc spells sslmode",
    f"{PG}?applicationname=x": "applicationname, which pgjdbc spells ApplicationName",
    f"{PG}?sslmod=require": "cannot be translated: sslmod",
    f"{PG}?PGHOST=other": "cannot be translated: PGHOST",
    f"{PG}?service=hunter2": "cannot be translated: service",
    f"{PG}?sslmode=hunter2": "sslmode, which must be one of disable, allow",
    f"{PG}?sslmode=": "sslmode, which must be one of disable, allow",
    f"{PG}?ssl=yes": "ssl, which must be one of true, false",
    f"{PG}?sslrootcert=": "sslrootcert without a value",
    **{f"{PG}?sslkey=/k.{end}": "sslkey, which must be a PEM file" for end in ("pk8", "p12", "pfx", "der", "PK8")},
    f"{PG}?sslpassword=hunter2": "sslpassword, which cannot be given to libpq",
    f"{PG}?sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory": "sslfactory, which must be one of",
    f"{PG}?sslmode=verify-full&sslfactory=org.postgresql.ssl.NonValidatingFactory": "sslfactory, which contradicts",
    **{
        f"{PG}?{name}=x": f"{name}, which names Java code"
        for name in ("sslhostnameverifier", "sslpasswordcallback", "socketFactory")
    },
    **{
        f"{PG}?targetServerType={role}": "targetServerType, which must be one of any, primary, master: a store"
        for role in ("secondary", "preferSecondary", "slave", "preferPrimary")
    },
    f"{PG}?currentSchema=a,b": "currentSchema, which must be the name of one schema",
    f"{PG}?readOnly=true": "readOnly, which must be one of false",
    f"{PG}?connectTimeout=1.5": "connectTimeout, which must be a whole number",
    f"{PG}?socketTimeout=-1": "socketTimeout, which must be a whole number",
    "jdbc:mysql:h/d": "must name its hosts and its database",
    "jdbc:mysql://u:hunter2@h": "name of a database",
    "jdbc:mysql://u:hunter2#@h/d": "'#'",
    f"{MY}?password=hunter2#x": "'#'",
    "jdbc:mysql://u:hunter2@x@h/d": "%40",
    "jdbc:mysql://u:p@h1,u:hunter2@h2/d": "%40",
    "jdbc:mysql://u,v:hunter2@h/d": "%2C",
    "jdbc:mysql://u:hunter2@h/d?user=v": "user twice",
    "jdbc:mysql://u:hunter2@h/d?password=hunter2": "password twice",
    "jdbc:mysql://h1,h2/d": "failOverReadOnly=false",
    "jdbc:mysql://h1,h2/d?failOverReadOnly=true": "failOverReadOnly=false",
    "jdbc:mysql:loadbalance://h1,h2/d": "loadbalance, which spreads its load",
    "jdbc:mysql:replication://h1,h2/d": "replication, which reads from other hosts",
    "jdbc:mysql:sequential://h1,h2/d": "must name its hosts",
    "jdbc:mysql:hunter2://h1/d": "must name its hosts",
    "jdbc:mysql://address=(host=h)(password=hunter2)/d": "hosts as name:port",
    f"{MY}?usessl=true": "usessl, which Connector/J spells useSSL",
    f"{MY}?sslmode=REQUIRED": "sslmode, which Connector/J spells sslMode",
    f"{MY}?useSSL": "useSSL, which must be one of true",
    f"{MY}?sslMode=verify-ca": "sslMode, which must be one of DISABLED, PREFERRED",
    f"{MY}?useSSL=maybe": "useSSL, which must be one of true, yes, false, no",
    f"{MY}?trustCertificateKeyStoreUrl=file:/x.jks": "trustCertificateKeyStoreUrl, which is of a Java key store; PEM files are named by ssl-ca",
    f"{MY}?trustCertificateKeyStorePassword=hunter2": "trustCertificateKeyStorePassword, which",
    f"{MY}?clientCertificateKeyStorePassword=hunter2": "clientCertificateKeyStorePassword, which",
    f"{MY}?fallbackToSystemTrustStore=false": "fallbackToSystemTrustStore, which must be one of true",
    f"{MY}?tlsVersions=TLSv1": "tlsVersions, which must be one of TLSv1.2",
    f"{MY}?tlsCiphersuites=x": "cannot be translated: tlsCiphersuites",
    f"{MY}?disabledAuthenticationPlugins=x": "cannot be translated: disabledAuthenticationPlugins",
    f"{MY}?allowPublicKeyRetrieval=false&useSSL=false": "allowPublicKeyRetrieval, which cannot be false",
    f"{MY}?characterEncoding=latin1": "characterEncoding, which must be one of UTF-8, utf8",
    f"{MY}?useUnicode=false": "useUnicode, which must be one of true",
    f"{MY}?connectionCollation=latin1_bin": "connectionCollation, which must be a collation of utf8mb4",
    f"{MY}?createDatabaseIfNotExist=true": "createDatabaseIfNotExist, which must be one of false",
    f"{MY}?sessionVariables=sql_mode=''": "sessionVariables, which has no counterpart",
    f"{MY}?connectTimeout=5s": "connectTimeout, which must be a whole number",
    f"{MY}?permitMysqlScheme=true": "begin with jdbc:mariadb:",
    f"{MY}?serverSslCert=/ca.pem": "cannot be translated: serverSslCert",
    "jdbc:mariadb://u:hunter2@h/d": "user as user=",
    "jdbc:mariadb:loadbalance://h1,h2/d": "loadbalance, which spreads its load",
    "jdbc:mariadb:replication://h1,h2/d": "replication, which reads from other hosts",
    "jdbc:mariadb:aurora://h1/d": "aurora, which asks the hosts",
    "jdbc:mariadb:load-balance-read://h1/d": "load-balance-read, which spreads",
    "jdbc:mariadb://h": "name of a database",
    f"{MA}?serverSslCert=/ca.pem": "serverSslCert, which needs sslMode=verify-full",
    f"{MA}?serverSslCert=/ca.pem&sslMode=trust": "serverSslCert, which needs sslMode=verify-full",
    f"{MA}?sslMode=verify-full&serverSslCert=classpath:ca": "serverSslCert, which must be the path of a PEM file",
    f"{MA}?sslMode=PREFERRED": "sslMode, which must be one of disable",
    f"{MA}?SSLMODE=trust": "SSLMODE, which MariaDB Connector/J spells sslMode",
    f"{MA}?useSsl=true&useSSL=false": "useSSL beside another of the same meaning",
    f"{MA}?keyStorePassword=hunter2": "keyStorePassword, which is of a Java key store",
    f"{MA}?localSocket=x": "absolute path",
    f"{MA}?password=a&hunter2": "DATABASE_PASSWORD",
    f"{MA}?allowPublicKeyRetrieval=false&useSsl=false": "allowPublicKeyRetrieval, which cannot be false",
    "jdbc:sqlserver:h;databaseName=d": "must name its host",
    "jdbc:sqlserver://h;password=hunter2": "databaseName",
    "jdbc:sqlserver://;databaseName=d": "must have a host",
    "jdbc:sqlserver://h\\i;databaseName=d": "instanceName",
    f"{MS};instanceName=i": "instanceName",
    "jdbc:sqlserver://h,1433;databaseName=d": "must name one host",
    "jdbc:sqlserver://h/d;databaseName=d": "hosts as host:port",
    "jdbc:sqlserver://h:1;databaseName=d;portNumber=2": "portNumber twice",
    "jdbc:sqlserver://h;databaseName=d;serverName=g": "serverName twice",
    f"{MS};Database=e": "database beside another of the same meaning",
    f"{MS};user=a;USER=b": "user twice",
    f"{MS};user=a;userName=b": "userName beside another of the same meaning",
    **{
        f"{MS};{text}": "name=value after its host"
        for text in ("hunter2", "=hunter2", "password={hunter2", "password=a{b;hunter2}")
    },
    f"{MS};pwd=hunter2": "cannot be translated: pwd",
    f"{MS};encrypt=yes": "encrypt, which must be one of true, mandatory",
    f"{MS};trustServerCertificate=1": "trustServerCertificate, which must be one of true, false",
    **{
        f"{MS};{name}=hunter2": f"{name}, which is of a Java key store" for name in ("trustStore", "trustStorePassword")
    },
    f"{MS};integratedSecurity=true": "integratedSecurity, which must be one of false",
    f"{MS};authentication=ActiveDirectoryIntegrated": "authentication, which must be one of NotSpecified, SqlPassword",
    f"{MS};applicationIntent=ReadOnly": "applicationIntent, which must be one of ReadWrite: a store must be written to",
    f"{MS};failoverPartner=x": "failoverPartner, which has no counterpart",
    f"{MS};serverCertificate=/x": "cannot be translated: serverCertificate",
}
beginnings = st.sampled_from(
    (
        *("", "sqlite:///", "file:///", "postgresql://", "mysql://u:p@h/d?", "sqlserver://"),
        *("jdbc:sqlite:", "jdbc:postgresql:", "jdbc:mysql:", "jdbc:mariadb://", "jdbc:sqlserver://"),
        *(f"{PG}?", f"{MY}?", f"{MA}?", f"{MS};"),
    )
)
junk = st.text(
    st.one_of(st.sampled_from("@:/?#&%;{}[],+ \\aA1.-_"), st.characters(exclude_characters="=")), max_size=20
)


def refusal_of(url: str) -> str:
    with pytest.raises(ValueError, match=r"^(must|takes|has|holds|names|is of) ") as refused:
        parse(url)
    assert type(refused.value) is ValueError
    return str(refused.value)


@pytest.mark.parametrize("url", PATHS)
def test_a_path_is_understood(url):
    assert parse(url) == PATHS[url]


@pytest.mark.parametrize("url", SERVERS)
def test_a_server_is_understood(url):
    hosts, database, username, password, parameters = SERVERS[url]
    found = parse(url)
    assert (found.hosts, found.database) == (tuple(hosts), database)
    assert (found.username, found.password, found.parameters) == (username, password, parameters)


@pytest.mark.parametrize("url", [*REFUSED, *UNTRANSLATED])
def test_what_is_not_understood_is_refused_and_nothing_of_it_repeated(url):
    message = refusal_of(url)
    assert {**REFUSED, **UNTRANSLATED}[url] in message
    assert "hunter2" not in message


def test_a_place_is_shown_without_credentials_and_parameters():
    assert str(parse("postgresql://u:hunter2@h1,[::1]:2/d?options=x")) == "PostgreSQL, h1:5432,[::1]:2, database d"
    assert str(parse("jdbc:mariadb://h/d?user=u&password=hunter2")) == "MariaDB/MySQL, h:3306, database d"
    assert str(parse("postgresql:///d?host=/run")) == "PostgreSQL, /run:5432, database d"
    assert str(parse("sqlite:////x.db")) == "SQLite, /x.db"
    assert "hunter2" not in repr(parse("postgresql://u:hunter2@h/d"))


def test_credentials_beside_the_url_fill_what_it_does_not_name():
    assert parse("mysql://h/d").with_credentials("u", "p") == parse("mysql://u:p@h/d")
    assert parse("mysql://u:p@h/d").with_credentials("v", "q") == parse("mysql://u:p@h/d")
    assert parse("sqlite:///x").with_credentials("u", "p") == parse("sqlite:///x")


@settings(max_examples=300, deadline=None)
@given(beginnings, st.text(st.characters(), max_size=60))
def test_any_text_is_understood_or_refused(beginning, rest):
    try:
        found = parse(beginning + rest)
    except ValueError as refused:
        assert type(refused) is ValueError  # a UnicodeError holds what it could not read
    else:
        assert found.path or (found.database and found.hosts)


@settings(max_examples=300, deadline=None)
@given(beginnings, junk, junk)
def test_a_refusal_repeats_no_part_of_a_url(beginning, before, after):
    for word in ("password=", ""):
        message = ""
        try:
            parse(f"{beginning}{word}{before}hunter2{after}")
        except ValueError as refused:
            message = str(refused)
        assert "hunter2" not in message


@settings(deadline=None)
@given(texts, texts, databases, st.sampled_from(["postgresql", "mysql", "sqlserver"]))
def test_percent_encoded_texts_arrive_as_they_were(username, password, database, scheme):
    encoded = [quote(text, safe="") for text in (username, password, database)]
    found = parse("{}://{}:{}@h/{}".format(scheme, *encoded))
    assert (found.username, found.password, found.database) == (username, password, database)


@settings(deadline=None)
@given(texts, st.sampled_from(["application_name", "sslrootcert", "passfile"]))
def test_a_parameter_arrives_as_it_was(text, name):
    assume(text)
    assert parse(f"postgresql://h/d?{name}={quote(text)}").parameters == {name: text}
