"""SQL Server by mssql-python (written, not run here: there is no such server on the machines of this project)."""

from collections.abc import Callable

import mssql_python
from sqlalchemy.engine.interfaces import DBAPIConnection

from receiver.stores.logins import Login
from receiver.stores.urls.store_url import StoreURL


def connector(
    store_url: StoreURL, _timeout: float, answer: float, login: Callable[[], Login]
) -> Callable[[], DBAPIConnection]:
    """Return a function that connects to the server at ``store_url`` with the ``login`` then in force.

    ``answer`` (seconds) bounds the wait for each answer.
    """
    parameters = store_url.parameters
    words = {
        "SERVER": ",".join(str(part) for part in store_url.hosts[0]),
        "DATABASE": store_url.database,
        "Encrypt": parameters.get("encrypt", "yes"),
        "TrustServerCertificate": parameters.get("trust-server-certificate", "no"),
        "HostNameInCertificate": parameters.get("host-name-in-certificate", ""),
        "MultiSubnetFailover": parameters.get("multi-subnet-failover", ""),
        "ApplicationIntent": parameters.get("application-intent", ""),
    }

    def connect() -> DBAPIConnection:
        username, password = login()
        ours = words | {"UID": username, "PWD": password.text}
        text = ";".join(f"{name}={{{value.replace('}', '}}')}}}" for name, value in ours.items() if value)
        connection: DBAPIConnection = mssql_python.connect(text, timeout=max(1, round(answer)))
        return connection

    return connect
