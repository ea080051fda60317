"""The drivers' errors → the contract's errors, and which are worth another try.

| code                                          | means                                     |
|-----------------------------------------------|-------------------------------------------|
| 40001, 40P01 · 1205, 1213                      | another transaction interfered: try again |
| 08*, 57P01, 57P02, 57P03, 25006 · 2006, 2013, … | the connection is useless: try another    |
| 53100 · 1021, 1114, 3675                       | no free space                             |
| 28*, 3D000, 3F000, 42501 · 1044, 1045, 1049 …   | the settings are wrong                    |

A server's message may quote the content of a state. So a cause holds only its code and, for errors of connections, the
first line of the message.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from receiver.problems import LoginRefused, Problem, StoreFull, StoreMisplaced, StoreUnavailable

_AGAIN = re.compile("40001|40P01|1205|1213")
_ANOTHER = re.compile("08.*|57P0[1-3]|25006|1047|1053|1077|1290|1792|1836|1927|2006|2013|2055")
_QUOTING = re.compile("(?:22|23|P0).{3}")  # errors of data, constraints and triggers, whose messages quote values
_FULL = re.compile("53100|1021|1114|3675")
_MISPLACED = re.compile("28.{3}|3D000|3F000|42501|22P05|1044|1045|1049|1142|1665|1698|18456|4060")
# libpq reports a refused login without a code, in the language of the server.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|(?:database|role) \"[^\"]*\" does not exist|certificate verify failed"
    r"|root certificate file .* does not exist|server does not support SSL|permission denied for",
    re.DOTALL,
)

_LOGIN = re.compile("28.{3}|1045|1698|18456")
_LOGIN_TEXT = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|role \"[^\"]*\" (?:does not exist|is not permitted)"
)
_HINTS = {
    r"password|^28|^1045|^1698|pg_hba": "check user and password in the URL, DATABASE_USERNAME and DATABASE_PASSWORD",
    r"database .* does not exist|^3D000|^1049": "make the database, or correct its name in the URL",
    r"^1044|^1142|^42501|permission denied": "grant the user the right to read, write and make tables there",
    r"certificate|SSL": "check the parameters of TLS in the URL and the files they name",
}


def code_of(error: DBAPIError) -> str:
    """Return the SQLSTATE (PostgreSQL) or the number (MariaDB, MySQL, SQL Server) of ``error``, or ""."""
    return code_of_driver(error.orig)


def code_of_driver(error: BaseException | None) -> str:
    """Return the same for an ``error`` of the driver itself."""
    first = error.args[0] if error is not None and error.args else ""
    return str(first) if isinstance(first, int) else getattr(error, "sqlstate", None) or ""


def is_refused_login(error: BaseException | None) -> bool:
    """Return whether ``error``, raised by a driver while connecting, means that user or password are wrong."""
    # libpq reports it without a code, in the language of the server.
    return bool(_LOGIN.fullmatch(code_of_driver(error)) or _LOGIN_TEXT.search(str(error)))


def is_worth_another_try(error: DBAPIError) -> bool:
    """Return whether the whole transaction of ``error`` may succeed when it is tried again.

    That is safe whatever happened: a receipt that was kept makes it a repetition; without one, a save repeats itself
    and a delete finds nothing.
    """
    code = code_of(error)
    return bool(error.connection_invalidated or _AGAIN.fullmatch(code) or _ANOTHER.fullmatch(code))


def is_for_another_connection(error: DBAPIError) -> bool:
    """Return whether the connection of ``error`` works but leads to a server that cannot serve, such as a standby."""
    return not error.connection_invalidated and bool(_ANOTHER.fullmatch(code_of(error)))


def is_hopeless(error: DBAPIError) -> bool:
    """Return whether ``error`` says that the settings are wrong, so that waiting will not help."""
    return bool(_MISPLACED.fullmatch(code_of(error)))


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn the errors of SQLAlchemy and the drivers into those of the contract."""
    try:
        yield
    except DBAPIError as error:
        raise problem_of(error) from error
    except PoolTimeout as error:
        raise StoreUnavailable("no connection was free in time") from error
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(type(error).__name__) from error


def problem_of(error: DBAPIError) -> Problem:
    """Return the Problem for ``error``, with its cause for the log."""
    code = code_of(error)
    message = _first_line(error)
    cause = ": ".join(part for part in (type(error.orig).__name__, code, message) if part)
    if _FULL.fullmatch(code):
        return StoreFull(cause)
    if code == "1665":
        cause += ": the server's binlog_format must be ROW or MIXED"
    if message and (
        hint := next((hint for pattern, hint in _HINTS.items() if re.search(pattern, f"{code} {message}")), "")
    ):
        cause += f" ({hint})"
    if error.statement is None and is_refused_login(error.orig):
        return LoginRefused(cause)
    if _MISPLACED.fullmatch(code) or (not code and _REFUSED.search(message)):
        return StoreMisplaced(cause)
    return StoreUnavailable(cause)


def _first_line(error: DBAPIError) -> str:
    """Return the server's message about a connection; "" for a failed statement, which may quote content."""
    primary = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    if primary:  # without DETAIL, which holds the row
        return "" if _QUOTING.fullmatch(code_of(error)) else primary
    if error.statement is not None:
        return ""
    lines = str(error.orig.args[-1] if error.orig and error.orig.args else "").strip().splitlines()
    return lines[0] if lines else ""
