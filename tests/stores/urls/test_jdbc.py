"""What a URL of the Java service's drivers means: each parameter is translated or has a reason, and texts arrive as they were."""

import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from receiver.stores.urls import jdbc_parameters
from receiver.stores.urls.jdbc import translate
from receiver.stores.urls.store_url import PARAMETERS, parse
from tests.support.urls import MA, MS, MY, PG, databases, texts, visible

DRIVERS = {
    "pgjdbc": jdbc_parameters.POSTGRESQL,
    "Connector/J": jdbc_parameters.CONNECTOR_J,
    "MariaDB Connector/J": jdbc_parameters.MARIADB,
    "mssql-jdbc": jdbc_parameters.SQLSERVER,
}
# jdbc: URL → native URL
TRANSLATED = {
    "jdbc:postgresql://h:1/d": "postgresql://h:1/d",
    "jdbc:postgresql://h1:1,h2:2/d": "postgresql://h1:1,h2:2/d",
    "jdbc:postgresql://[::1]:5432/d": "postgresql://[::1]:5432/d",
    "jdbc:postgresql://[::1],h/d": "postgresql://[::1],h/d",
    "jdbc:postgresql:///d": "postgresql:///d",
    "jdbc:postgresql:d": "postgresql://localhost/d",
    "jdbc:postgresql:d?user=u": "postgresql://u:@localhost/d",
    "jdbc:postgresql://h/a%20b+c#": "postgresql://h/a%20b%20c%23",
    f"{PG}?user=a%40b&password=%2F%3A%25%2B+%26%23%C3%A9é=;": "postgresql://a%40b:%2F%3A%25%2B%20%26%23%C3%A9%C3%A9%3D%3B@h/d",
    f"{PG}?password=": "postgresql://h/d",
    **{f"{PG}?ssl{value}": "postgresql://h/d?sslmode=verify-full" for value in ("", "=", "=true", "=TRUE")},
    f"{PG}?ssl=false": "postgresql://h/d?sslmode=prefer",
    f"{PG}?ssl=true&sslmode=require": "postgresql://h/d?sslmode=require",
    **{
        f"{PG}?sslmode={mode}": f"postgresql://h/d?sslmode={mode.lower()}"
        for mode in ("disable", "allow", "prefer", "Require", "verify-ca", "verify-full")
    },
    f"{PG}?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem": (
        "postgresql://h/d?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem"
    ),
    f"{PG}?ssl=true&sslfactory=org.postgresql.ssl.NonValidatingFactory": "postgresql://h/d?sslmode=require",
    f"{PG}?sslfactory=org.postgresql.ssl.NonValidatingFactory&sslmode=prefer": "postgresql://h/d?sslmode=prefer",
    f"{PG}?sslfactory=org.postgresql.ssl.LibPQFactory&ssl=true": "postgresql://h/d?sslmode=verify-full",
    f"{PG}?targetServerType=primary": "postgresql://h/d?target_session_attrs=read-write",
    f"{PG}?targetServerType=master": "postgresql://h/d?target_session_attrs=read-write",
    f"{PG}?targetServerType=any": "postgresql://h/d?target_session_attrs=any",
    f"{PG}?loadBalanceHosts=true": "postgresql://h/d?load_balance_hosts=random",
    f"{PG}?connectTimeout=5&socketTimeout=7": "postgresql://h/d?connect_timeout=5&tcp_user_timeout=7000",
    f"{PG}?connectTimeout=5&loginTimeout=30": "postgresql://h/d?connect_timeout=5",
    f"{PG}?loginTimeout=9&connectTimeout=10": "postgresql://h/d?connect_timeout=9",
    f"{PG}?connectTimeout=0&socketTimeout=0&loginTimeout=0": "postgresql://h/d",
    f"{PG}?currentSchema=Flow_1": "postgresql://h/d?search_path=flow_1",
    f"{PG}?currentSchema=%22Flow%22": "postgresql://h/d?search_path=Flow",
    f"{PG}?ApplicationName=my+app%2B": "postgresql://h/d?application_name=my%20app%2B",
    f"{PG}?tcpKeepAlive=true&gssEncMode=allow&channelBinding=require": (
        "postgresql://h/d?keepalives=1&gssencmode=prefer&channel_binding=require"
    ),
    f"{PG}?options=-c%20statement_timeout=9": "postgresql://h/d?options=-c%20statement_timeout%3D9",
    f"{PG}?stringtype=unspecified&prepareThreshold=0&reWriteBatchedInserts=true&readOnly=false": "postgresql://h/d",
    "jdbc:mysql://h:1/d": "mysql://h:1/d?ssl-mode=preferred",
    "jdbc:mysql:///d": "mysql:///d?ssl-mode=preferred",
    "jdbc:mysql://[::1]:7/d": "mysql://[::1]:7/d?ssl-mode=preferred",
    "jdbc:mysql://u:p%40+x%2B@h/d": "mysql://u:p%40%20x%2B@h/d?ssl-mode=preferred",
    "jdbc:mysql://u@h/d?password=x%26y=/?": "mysql://u:x%26y%3D%2F%3F@h/d?ssl-mode=preferred",
    f"{MY}? user = u &password=%20p%20": "mysql://u:%20p%20@h/d?ssl-mode=preferred",
    "jdbc:mysql://h1,h2:2/d?failOverReadOnly=false": "mysql://h1,h2:2/d?ssl-mode=preferred",
    "jdbc:mysql://h/d?failOverReadOnly=true": "mysql://h/d?ssl-mode=preferred",
    f"{MY}?useSSL=false": "mysql://h/d?ssl-mode=disabled",
    f"{MY}?useSSL=true": "mysql://h/d?ssl-mode=required",
    f"{MY}?requireSSL=true": "mysql://h/d?ssl-mode=required",
    f"{MY}?requireSSL=false&verifyServerCertificate=false": "mysql://h/d?ssl-mode=preferred",
    f"{MY}?useSSL=YES&requireSSL=true&verifyServerCertificate=true": "mysql://h/d?ssl-mode=verify-ca",
    f"{MY}?verifyServerCertificate=true&useSSL=true": "mysql://h/d?ssl-mode=verify-ca",
    f"{MY}?sslMode=DISABLED&requireSSL=true": "mysql://h/d?ssl-mode=required",
    f"{MY}?useSSL=false&sslMode=REQUIRED": "mysql://h/d?ssl-mode=required",
    **{
        f"{MY}?sslMode={mode}": f"mysql://h/d?ssl-mode={mode.lower().replace('_', '-')}"
        for mode in ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "verify_identity")
    },
    f"{MY}?connectTimeout=1500": "mysql://h/d?connect-timeout=2&ssl-mode=preferred",
    f"{MY}?connectTimeout=0&socketTimeout=30000": "mysql://h/d?ssl-mode=preferred",
    f"{MY}?allowPublicKeyRetrieval=true&useSSL=false": "mysql://h/d?ssl-mode=disabled",
    f"{MY}?allowPublicKeyRetrieval=false&sslMode=REQUIRED": "mysql://h/d?ssl-mode=required",
    f"{MY}?useUnicode=true&characterEncoding=UTF-8&serverTimezone=UTC&cachePrepStmts=true&autoReconnect=true": (
        "mysql://h/d?ssl-mode=preferred"
    ),
    f"{MY}?rewriteBatchedStatements=true&useLegacyDatetimeCode=false&zeroDateTimeBehavior=convertToNull": (
        "mysql://h/d?ssl-mode=preferred"
    ),
    f"{MY}?characterEncoding=utf8&connectionCollation=utf8mb4_bin&tlsVersions=TLSv1.2,TLSv1.3": (
        "mysql://h/d?ssl-mode=preferred"
    ),
    MA: "mysql://h/d?ssl-mode=preferred",
    "jdbc:mariadb://h1,h2:2/d": "mysql://h1,h2:2/d?ssl-mode=preferred",
    "jdbc:mariadb:sequential://h1,h2/d": "mysql://h1,h2/d?ssl-mode=preferred",
    "jdbc:mariadb:failover://h1,h2/d": "mysql://h1,h2/d?ssl-mode=preferred",
    f"{MA}?user=a%40+b&password=x=y#/?": "mysql://a%2540%2Bb:x%3Dy%23%2F%3F@h/d?ssl-mode=preferred",
    **{f"{MA}?{use}": "mysql://h/d?ssl-mode=verify-identity" for use in ("useSsl=true", "useSSL=1", "useSSL")},
    f"{MA}?useSsl=false": "mysql://h/d?ssl-mode=disabled",
    f"{MA}?useSsl=true&trustServerCertificate=true": "mysql://h/d?ssl-mode=required",
    f"{MA}?disableSslHostnameVerification=true&useSsl=true": "mysql://h/d?ssl-mode=verify-ca",
    f"{MA}?trustServerCertificate=true": "mysql://h/d?ssl-mode=preferred",
    f"{MA}?useSsl=false&sslMode=trust": "mysql://h/d?ssl-mode=required",
    f"{MA}?sslMode=disable&useSsl=true": "mysql://h/d?ssl-mode=verify-identity",
    **{
        f"{MA}?sslMode={mode}": f"mysql://h/d?ssl-mode={native}"
        for mode, native in (("disable", "disabled"), ("trust", "required"), ("REQUIRED", "required"))
    },
    **{f"{MA}?sslMode={mode}": "mysql://h/d?ssl-mode=verify-ca" for mode in ("verify-ca", "VERIFY_CA")},
    **{f"{MA}?sslMode={mode}": "mysql://h/d?ssl-mode=verify-identity" for mode in ("verify-full", "VERIFY_IDENTITY")},
    f"{MA}?sslMode=verify-full&serverSslCert=/ca.pem": "mysql://h/d?ssl-mode=verify-identity&ssl-ca=/ca.pem",
    "jdbc:mariadb://h/d?localSocket=/run/m.sock&user=u": "mysql://u:@/d?unix-socket=/run/m.sock&ssl-mode=preferred",
    f"{MA}?permitMysqlScheme&pool=true&maxPoolSize=9&allowPublicKeyRetrieval=true": "mysql://h/d?ssl-mode=preferred",
    MS: "sqlserver://h/d?encrypt=yes",
    "jdbc:sqlserver://h:1;Database=d;": "sqlserver://h:1/d?encrypt=yes",
    "jdbc:sqlserver://h\\i:1;databaseName=d": "sqlserver://h:1/d?encrypt=yes",
    "jdbc:sqlserver://;SERVERNAME=h;portNumber=1;databasename=d;instanceName=i": "sqlserver://h:1/d?encrypt=yes",
    "jdbc:sqlserver://;server=::1;port=1;database=d": "sqlserver://[::1]:1/d?encrypt=yes",
    "jdbc:sqlserver://[::1]:1;database=d": "sqlserver://[::1]:1/d?encrypt=yes",
    f"{MS};user=a%40+b;password={{;=}}}}{{@ é}} ;": "sqlserver://a%2540%2Bb:%3B%3D%7D%7B%40%20%C3%A9@h/d?encrypt=yes",
    f"{MS};userName = u ; PASSWORD = a}}b=c ;; ": "sqlserver://u:a%7Db%3Dc@h/d?encrypt=yes",
    **{f"{MS};encrypt={value}": "sqlserver://h/d?encrypt=yes" for value in ("true", "TRUE", "mandatory")},
    **{f"{MS};encrypt={value}": "sqlserver://h/d?encrypt=no" for value in ("false", "no", "optional")},
    f"{MS};encrypt=strict;hostNameInCertificate=*.x": "sqlserver://h/d?encrypt=strict&host-name-in-certificate=%2A.x",
    f"{MS};trustServerCertificate=true": "sqlserver://h/d?trust-server-certificate=yes&encrypt=yes",
    f"{MS};trustServerCertificate=false;multiSubnetFailover=true": (
        "sqlserver://h/d?trust-server-certificate=no&multi-subnet-failover=yes&encrypt=yes"
    ),
    f"{MS};applicationIntent=ReadWrite": "sqlserver://h/d?application-intent=readwrite&encrypt=yes",
    f"{MS};loginTimeout=30;applicationName=x;integratedSecurity=false;authentication=SqlPassword": (
        "sqlserver://h/d?encrypt=yes"
    ),
}
# Names that sound as if they concerned TLS or signing in: how long to wait, what to try first, in how many packets.
HARMLESS = ("sslResponseTimeout", "defaultAuthenticationPlugin", "usePipelineAuth")


@pytest.mark.parametrize("url", TRANSLATED)
def test_a_jdbc_url_becomes_the_native_one(url):
    assert translate(url) == TRANSLATED[url]
    assert parse(url) == parse(TRANSLATED[url])


@settings(deadline=None)
@given(texts, texts, databases, st.sampled_from([quote, quote_plus]))
def test_texts_in_jdbc_urls_that_are_encoded_arrive_as_they_were(username, password, database, encode):
    username, password, database = username.strip(), password.strip(), database.strip()
    assume(database)
    user, word, base = (encode(text, safe="") for text in (username, password, database))
    for url in (
        f"jdbc:postgresql://h/{base}?user={user}&password={word}",
        f"jdbc:mysql://h/{base}?user={user}&password={word}",
        f"jdbc:mysql://{user}:{word}@h/{base}",
    ):
        found = parse(url)
        assert (found.username, found.password, found.database) == (username, password, database)


@settings(deadline=None)
@given(visible, visible, databases)
def test_texts_in_jdbc_urls_that_are_not_encoded_arrive_as_they_were(username, password, database):
    braced = ["{" + text.replace("}", "}}") + "}" for text in (username, password, database)]
    found = parse("jdbc:sqlserver://h;user={};password={};databaseName={}".format(*braced))
    assert (found.username, found.password, found.database) == (username, password, database)
    assume(not set("&") & set(username + password) and "?" not in database)
    found = parse(f"jdbc:mariadb://h/{database}?user={username}&password={password}")
    assert (found.username, found.password, found.database) == (username, password, database)


@pytest.mark.parametrize("driver", DRIVERS)
def test_each_parameter_of_a_driver_is_translated_or_has_a_reason(driver):
    known = set().union(*PARAMETERS.values())
    for name, parameter in DRIVERS[driver].items():
        assert parameter.why or parameter.native, name
        assert parameter.native in known or re.fullmatch("[a-z]*", parameter.native), name


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_parameter_about_tls_or_signing_in_is_dropped_whatever_its_value(driver):
    concerns = re.compile("ssl|tls|trust|encrypt|cert|key(?!s)|auth|password|security|fips", re.IGNORECASE)
    dropped = {name for name, one in DRIVERS[driver].items() if not one.native and one.values is None}
    assert {name for name in dropped if concerns.search(name)} <= {*HARMLESS}
