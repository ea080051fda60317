"""What each parameter of a Java driver's URL means to this receiver: translated, without a meaning here, or refused.

There is a table per driver, checked against pgjdbc 42.7.8, MySQL Connector/J 8.4 and 9.4, MariaDB Connector/J 3.5.6 and
mssql-jdbc 13.2, with the parameters of older versions. A parameter in no table is refused by name: one that is dropped
silently may be the one that asks for TLS.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a Java driver.

    ``native`` is its name in the native URL (or, without a hyphen or underscore, its name in ``jdbc.py``); "" if it has
    none there. ``values`` maps the values it may have, in upper or lower case, to the native ones; None for any.
    ``convert`` takes a value and returns the native one, or raises ValueError with what is valid. ``why`` says why
    nothing is lost without it, or why it is refused.
    """

    native: str = ""
    values: Mapping[str, str] | None = None
    convert: Callable[[str], str] = str
    why: str = ""

    def meaning(self, name: str, value: str) -> str:
        """Return the native value of ``value``, "" for none; raises ValueError, which repeats only ``name``."""
        known = value if self.values is None else {k.lower(): v for k, v in self.values.items()}.get(value.lower())
        if known is None:
            valid = ", ".join(filter(None, self.values or ()))
            parts = filter(None, (valid and f"which must be one of {valid}", self.why))
            raise ValueError(f"has a parameter {name}, {': '.join(parts)}")
        if self.native and self.values is None and not value and name not in CREDENTIALS:
            raise ValueError(f"has a parameter {name} without a value")
        try:
            return self.convert(known) if self.native else ""
        except ValueError as cause:
            raise ValueError(f"has a parameter {name}, {cause}") from None


CREDENTIALS = {"user": Parameter("user"), "password": Parameter("password")}


def _harmless(why: str, names: str, *only: str) -> dict[str, Parameter]:
    values = dict.fromkeys(only, "") if only else None
    return {name: Parameter(values=values, why=why) for name in names.split()}


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


def _refused(why: str, names: str) -> dict[str, Parameter]:
    return {name: Parameter(values={}, why=why) for name in names.split()}


def _whole(value: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or int(value) > most:
        raise ValueError(f"which must be a whole number from 0 to {most}")
    return int(value)


# 0 means no limit to the Java drivers: it is left out, and STORAGE_STORE_TIMEOUT bounds the wait.
def _seconds(value: str) -> str:
    return str(_whole(value, 86_400) or "")


def _milliseconds_of_seconds(value: str) -> str:
    return str(1000 * _whole(value, 86_400) or "")


def _seconds_of_milliseconds(value: str) -> str:
    return str(-(-_whole(value, 86_400_000) // 1000) or "")


def _schema(value: str) -> str:
    # pgjdbc sends it as search_path, where PostgreSQL reads names as SQL does: lower case unless quoted.
    match = re.fullmatch(r'(?P<bare>[a-z_]\w{0,62})|"(?P<quoted>[a-z_]\w{0,62})"', value, re.ASCII | re.IGNORECASE)
    if not match:
        raise ValueError("which must be the name of one schema: letters, digits and underscores")
    return match["quoted"] or match["bare"].lower()


def _pem_key(value: str) -> str:
    if value.lower().endswith((".pk8", ".p12", ".pfx", ".der", ".jks")):
        raise ValueError("which must be a PEM file, since libpq reads no other; openssl pkcs8 or pkcs12 converts it")
    return value


def _pem_file(value: str) -> str:
    if value.startswith(("classpath:", "-----BEGIN")):
        raise ValueError("which must be the path of a PEM file")
    return value


def _utf8_collation(value: str) -> str:
    if not value.lower().startswith("utf8mb4_"):
        raise ValueError("which must be a collation of utf8mb4: this receiver speaks UTF-8")
    return ""


_TRUTH = {"true": "true", "false": "false"}
_YES = {"true": "yes", "false": "no"}

_PERFORMANCE = "how the Java driver prepares, batches, caches and reads; it changes no result"
_TYPES = "how the Java driver turns values into Java's types and describes a schema"
_TIME = "how the Java driver turns times of the database into Java's; this receiver keeps them as whole numbers"
_LOGS = "what the Java driver writes to its log or tells the server for its lists"
_WAITING = "STORAGE_STORE_TIMEOUT bounds each wait, and the connections of a pool are tried before use"
_STRICTER = "this receiver allows it in no case"
_OFF = "only what is off by itself can be left off"
_STORE = "a store must be written to"
_KEYSTORE = "which is of a Java key store; PEM files are named by "

POSTGRESQL = {
    **CREDENTIALS,
    "ApplicationName": Parameter("application_name"),
    "options": Parameter("options"),
    "currentSchema": Parameter("search_path", convert=_schema),
    "targetServerType": Parameter(
        "target_session_attrs", {"any": "any", "primary": "read-write", "master": "read-write"}, why=_STORE
    ),
    "loadBalanceHosts": Parameter("load_balance_hosts", {"true": "random", "false": "disable"}),
    "connectTimeout": Parameter("connect_timeout", convert=_seconds),
    "loginTimeout": Parameter("connect_timeout", convert=_seconds),
    "socketTimeout": Parameter("tcp_user_timeout", convert=_milliseconds_of_seconds),
    "tcpKeepAlive": Parameter("keepalives", {"true": "1", "false": "0"}),
    "kerberosServerName": Parameter("krbsrvname"),
    # libpq has no "allow", which encrypts if the server wants it; "prefer" does if the server can.
    "gssEncMode": Parameter("gssencmode", {"allow": "prefer", **_same("disable prefer require")}),
    "channelBinding": Parameter("channel_binding", _same("disable prefer require")),
    "sslNegotiation": Parameter("sslnegotiation", _same("postgres direct")),
    "ssl": Parameter("ssl", {"": "true", **_TRUTH}),
    "sslmode": Parameter("sslmode", _same("disable allow prefer require verify-ca verify-full")),
    "sslrootcert": Parameter("sslrootcert"),
    "sslcert": Parameter("sslcert"),
    "sslkey": Parameter("sslkey", convert=_pem_key),
    "sslfactory": Parameter(
        "sslfactory",
        {
            "org.postgresql.ssl.NonValidatingFactory": "trusting",
            "org.postgresql.ssl.LibPQFactory": "",
            "org.postgresql.ssl.jdbc4.LibPQFactory": "",
        },
        why="others are Java code; sslmode=verify-full with sslrootcert=system or a PEM file checks the server",
    ),
    **_refused("which cannot be given to libpq; take the passphrase off the key file", "sslpassword"),
    **_refused(
        "which names Java code", "sslpasswordcallback sslhostnameverifier sslfactoryarg authenticationPluginClassName"
    ),
    **_refused(
        "which names Java code; a Unix socket is ?host=/folder of a postgresql:// URL", "socketFactory socketFactoryArg"
    ),
    **_harmless(_STORE, "readOnly", "false"),
    **_harmless("prepared statements are chosen so that PgBouncer can be used", "prepareThreshold preferQueryMode"),
    **_harmless(
        _PERFORMANCE,
        """adaptiveFetch adaptiveFetchMaximum adaptiveFetchMinimum autosave binaryTransfer binaryTransferDisable
        binaryTransferEnable cleanupSavepoints databaseMetadataCacheFields databaseMetadataCacheFieldsMiB
        defaultRowFetchSize groupStartupParameters maxResultBuffer maxSendBufferSize preparedStatementCacheQueries
        preparedStatementCacheSizeMiB readOnlyMode receiveBufferSize reWriteBatchedInserts sendBufferSize tcpNoDelay""",
    ),
    **_harmless(
        _TYPES,
        """allowEncodingChanges assumeMinServerVersion disableColumnSanitiser escapeSyntaxCallMode
        hideUnprivilegedObjects quoteReturningIdentifiers stringtype unknownLength xmlFactoryFactory""",
    ),
    **_harmless(_LOGS, "loggerLevel loggerFile logServerErrorDetail logUnclosedConnections"),
    **_harmless(_WAITING, "cancelSignalTimeout gssResponseTimeout hostRecheckSeconds sslResponseTimeout"),
}

_UTF8 = ("UTF-8", "utf8", "utf8mb4")
# Shared by MySQL's and MariaDB's drivers. URLs may still have parameters that MariaDB's version 3 dropped.
_MYSQL_FAMILY = {
    **CREDENTIALS,
    "connectTimeout": Parameter("connect-timeout", convert=_seconds_of_milliseconds),
    "allowPublicKeyRetrieval": Parameter("retrieval", {"true": "", "yes": "", "false": "refused", "no": "refused"}),
    "connectionCollation": Parameter("collation", convert=_utf8_collation),
    **_harmless("this receiver speaks UTF-8", "useUnicode", "true", "yes"),
    **_harmless("this receiver speaks UTF-8", "characterEncoding characterSetResults", *_UTF8),
    **_harmless("the database must exist", "createDatabaseIfNotExist", "false", "no"),
    **_harmless("weaker TLS is never spoken", "tlsVersions enabledTLSProtocols enabledSslProtocolSuites",
                "TLSv1.2", "TLSv1.2,TLSv1.3", "TLSv1.3,TLSv1.2"),
    **_harmless("the CAs of the system are used where ssl-ca names none", "fallbackToSystemTrustStore", "true", "yes"),
    **_harmless(_WAITING, """socketTimeout autoReconnect autoReconnectForPools initialTimeout maxReconnects
        netTimeoutForStreamingResults queryTimeoutKillsConnection reconnectAtTxEnd retriesAllDown tcpKeepAlive"""),
    **_harmless(_STRICTER, "allowMultiQueries allowLoadLocalInfile allowUrlInLocalInfile allowLocalInfile"),
    **_harmless(_TIME, """cacheDefaultTimeZone connectionTimeZone forceConnectionTimeZoneToSession
        noDatetimeStringSync preserveInstants sendFractionalSeconds sendFractionalSecondsForTime serverTimezone
        timezone treatUtilDateAsTimestamp useJDBCCompliantTimezoneShift useLegacyDatetimeCode useTimezone
        yearIsDateType zeroDateTimeBehavior"""),
    **_harmless(_TYPES, """blobsAreStrings databaseTerm emptyStringsConvertToZero functionsNeverReturnBlobs
        generateSimpleParameterMetadata getProceduresReturnsFunctions jdbcCompliantTruncation noAccessToProcedureBodies
        nullCatalogMeansCurrent nullDatabaseMeansCurrent nullNamePatternMatchesAll padCharsWithSpace tinyInt1isBit
        transformedBitIsBoolean useAffectedRows useColumnNamesInFindColumn useInformationSchema
        useOldAliasMetadataBehavior"""),
    **_harmless(_PERFORMANCE, """allowNanAndInf alwaysSendSetIsolation autoClosePStmtStreams cacheCallableStmts
        cachePrepStmts cacheResultSetMetadata cacheServerConfiguration callableStmtCacheSize continueBatchOnError
        defaultFetchSize dontTrackOpenResources elideSetAutoCommits enableQueryTimeouts
        holdResultsOpenOverStatementClose maintainTimeStats maxAllowedPacket metadataCacheSize prepStmtCacheSize
        prepStmtCacheSqlLimit rewriteBatchedStatements tcpNoDelay tcpRcvBuf tcpSndBuf useCompression useCursorFetch
        useLocalSessionState useLocalTransactionState useReadAheadInput useServerPrepStmts useUnbufferedInput"""),
    **_harmless(_LOGS, """autoSlowLog connectionAttributes dumpQueriesOnException explainSlowQueries gatherPerfMetrics
        includeInnodbStatusInDeadlockExceptions includeThreadDumpInDeadlockExceptions logger logSlowQueries
        maxQuerySizeToLog profileSQL profilerEventHandler slowQueryThresholdMillis slowQueryThresholdNanos
        traceProtocol useUsageAdvisor"""),
    **_refused(_KEYSTORE + "ssl-ca of a mysql:// URL", """trustCertificateKeyStoreUrl trustCertificateKeyStoreType
        trustCertificateKeyStorePassword trustStore trustStoreType trustStorePassword"""),
    **_refused(_KEYSTORE + "ssl-cert and ssl-key of a mysql:// URL", """clientCertificateKeyStoreUrl
        clientCertificateKeyStoreType clientCertificateKeyStorePassword keyStore keyStoreType keyStorePassword
        keyPassword"""),
    **_refused("which names Java code; a Unix socket is ?unix-socket=/path of a mysql:// URL", "socketFactory"),
    **_refused("which has no counterpart: the session is set up by this receiver", "sessionVariables initSql"),
}  # fmt: skip

# useSSL=true means PREFERRED to Connector/J. Its author wants TLS, so here it is required.
CONNECTOR_J = {
    **_MYSQL_FAMILY,
    "sslMode": Parameter(
        "ssl-mode",
        {
            "DISABLED": "disabled", "PREFERRED": "preferred", "REQUIRED": "required",
            "VERIFY_CA": "verify-ca", "VERIFY_IDENTITY": "verify-identity",
        },
    ),
    "useSSL": Parameter("ssl-mode", {"true": "required", "yes": "required", "false": "disabled", "no": "disabled"}),
    "requireSSL": Parameter("ssl-mode", {"true": "required", "yes": "required", "false": "", "no": ""}),
    "verifyServerCertificate": Parameter("ssl-mode", {"true": "verify-ca", "yes": "verify-ca", "false": "", "no": ""}),
    "failOverReadOnly": Parameter("readonly", {"true": "", "yes": "", "false": "false", "no": "false"}),
    **_harmless("the server names how to authenticate", "defaultAuthenticationPlugin"),
    **_harmless(_WAITING, """queriesBeforeRetryMaster queriesBeforeRetrySource secondsBeforeRetryMaster
        secondsBeforeRetrySource"""),
    **_harmless("the password is sent in UTF-8", "passwordCharacterEncoding", *_UTF8),
    **_harmless(_OFF, "dnsSrv", "false", "no"),
    **_refused("which is of MariaDB's driver; its URLs begin with jdbc:mariadb:", "permitMysqlScheme"),
}  # fmt: skip

MARIADB = {
    **_MYSQL_FAMILY,
    "sslMode": Parameter(
        "ssl-mode",
        {
            "disable": "disabled", "disabled": "disabled", "trust": "required", "required": "required",
            "verify-ca": "verify-ca", "verify_ca": "verify-ca", "verify-full": "verify-identity",
            **dict.fromkeys(("verify_full", "verify-identity", "verify_identity"), "verify-identity"),
        },
    ),
    **dict.fromkeys(("useSsl", "useSSL"), Parameter("usessl", {**_TRUTH, "": "true", "1": "true", "0": "false"})),
    "trustServerCertificate": Parameter("trusting", _TRUTH),
    "disableSslHostnameVerification": Parameter("nameless", _TRUTH),
    "serverSslCert": Parameter("ssl-ca", convert=_pem_file),
    "localSocket": Parameter("unix-socket"),
    **_harmless("it lets this driver take jdbc:mysql: as well", "permitMysqlScheme"),
    **_harmless("this receiver commits each change at once", "autocommit", "true", "1"),
    **_harmless(_WAITING, "tcpKeepCount tcpKeepIdle tcpKeepInterval tcpAbortiveClose"),
    **_harmless(_TYPES, "blankTableNameMeta geometryDefaultType useCatalogTerm useMysqlMetadata uuidAsString"),
    **_harmless(_PERFORMANCE, """disablePipeline maxIdleTime maxPoolSize minPoolSize pool poolName poolValidMinDelay
        registerJmxPool returnMultiValuesGeneratedIds useBatchMultiSend useBulkStmts useBulkStmtsForInserts
        usePipelineAuth useResetConnection"""),
}  # fmt: skip

SQLSERVER = {
    **CREDENTIALS,
    "userName": Parameter("user"),
    **dict.fromkeys(("databaseName", "database"), Parameter("database")),
    **dict.fromkeys(("serverName", "server"), Parameter("host")),
    **dict.fromkeys(("portNumber", "port"), Parameter("port")),
    "instanceName": Parameter("instance"),
    "encrypt": Parameter(
        "encrypt",
        {"true": "yes", "mandatory": "yes", "strict": "strict", "false": "no", "no": "no", "optional": "no"},
    ),
    "trustServerCertificate": Parameter("trust-server-certificate", _YES),
    "hostNameInCertificate": Parameter("host-name-in-certificate"),
    "multiSubnetFailover": Parameter("multi-subnet-failover", _YES),
    "applicationIntent": Parameter("application-intent", {"ReadWrite": "readwrite"}, why=_STORE),
    **_harmless("weaker TLS is never spoken", "sslProtocol", "TLS", "TLSv1.2"),
    **_harmless("it is the other way of signing in", "integratedSecurity", "false"),
    **_harmless("user and password sign in", "authentication", "NotSpecified", "SqlPassword"),
    **_harmless("user and password sign in", "authenticationScheme", "nativeAuthentication"),
    **_harmless("nothing is encrypted per column", "columnEncryptionSetting", "Disabled"),
    **_harmless(_OFF, "fips replication serverNameAsACE useDefaultGSSCredential useDefaultJaasConfig", "false"),
    **_harmless(_WAITING, """cancelQueryTimeout connectRetryCount connectRetryInterval lockTimeout loginTimeout
        queryTimeout socketTimeout"""),
    **_harmless(_LOGS, "applicationName workstationID"),
    **_harmless(_TYPES, """calcBigDecimalPrecision datetimeParameterType lastUpdateCount sendTimeAsDatetime
        sendStringParametersAsUnicode useFmtOnly xopenStates"""),
    **_harmless(_PERFORMANCE, """cacheBulkCopyMetadata delayLoadingLobs disableStatementPooling
        enablePrepareOnFirstPreparedStatementCall iPAddressPreference maxResultBuffer packetSize prepareMethod
        responseBuffering selectMethod sendTemporalDataTypesAsStringForBulkCopy serverPreparedStatementDiscardThreshold
        statementPoolingCacheSize transparentNetworkIPResolution useBulkCopyForBatchInsert"""),
    **_refused("which is of a Java key store; the CAs of the system are used",
               "trustStore trustStorePassword trustStoreType"),
    **_refused("which names Java code", "trustManagerClass trustManagerConstructorArg socketFactoryClass"),
    **_refused("which has no counterpart; an availability group's listener takes multiSubnetFailover=true",
               "failoverPartner"),
}  # fmt: skip
