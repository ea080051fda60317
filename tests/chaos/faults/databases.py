"""Database servers that stop, die, freeze, cannot be reached, take no more connections, or lose the answer to a COMMIT."""

import contextlib
import os
import random
import signal

import psycopg
import pymysql

from tests.chaos.faults import MARIADB, POSTGRESQL, Fault, fault
from tests.chaos.wire import HOLD, PASS, READERS, REFUSE, SWALLOW, Wire
from tests.support.servers import Postgres
from tests.support.waiting import pass_time, until

_REFUSED = (psycopg.OperationalError, pymysql.OperationalError)
_MEANWHILE = "Nothing acknowledged is lost or stale; meanwhile 503, in time; the first 2xx within 2 s of its return, without a restart."


class DatabaseFault(Fault):
    """A fault of the server of the store."""

    stores = (POSTGRESQL, MARIADB)
    guarantees = _MEANWHILE
    every = (4.0, 8.0)
    lasts = (2.0, 5.0)
    recovers_within = 2.0


@fault
class DatabaseStopped(DatabaseFault):
    name = "database-stop"
    injects = "the database server is stopped, and started again after 2 to 5 s"

    def inject(self, subject, step):
        subject.store.server.stop()
        pass_time(step.lasts, "how long it is away")
        subject.store.server.start()


@fault
class DatabaseKilled(DatabaseFault):
    name = "database-kill"
    injects = "kill -9 of the database server and its processes; it is started again after 2 to 5 s"

    def inject(self, subject, step):
        server = subject.store.server
        server.signal_all(signal.SIGKILL)
        server.process.wait()
        pass_time(step.lasts, "how long it is away")
        server.start()


@fault
class DatabasePaused(DatabaseFault):
    name = "database-pause"
    injects = "SIGSTOP of the database server and its processes, SIGCONT after 2 to 15 s"
    lasts = (2.0, 15.0)

    def inject(self, subject, step):
        server = subject.store.server
        server.signal_all(signal.SIGSTOP)
        try:
            pass_time(step.lasts, "how long it stands still")
        finally:
            server.signal_all(signal.SIGCONT)


class WireFault(DatabaseFault):
    """A fault of the connection between receivers and server."""

    def prepare(self, subject):
        store = subject.store
        wire = subject.memory["wire"] = Wire(store.server.port, READERS[store.kind])
        subject.environment["DATABASE_URL"] = store.url.replace(f":{store.server.port}/", f":{wire.port}/")

    def tidy(self, subject):
        if wire := subject.memory.get("wire"):
            wire.close()


@fault
class DatabaseBlackHole(WireFault):
    name = "database-black-hole"
    injects = "bytes to and from the database are swallowed, or held back, or connections refused, for 2 to 15 s"
    lasts = (2.0, 15.0)

    def details(self, chance: random.Random):
        return {"how": chance.choice((SWALLOW, HOLD, REFUSE))}

    def inject(self, subject, step):
        wire = subject.memory["wire"]
        wire.change(step.details["how"])
        try:
            pass_time(step.lasts, "how long the database cannot be reached")
        finally:
            wire.change(PASS)


@fault
class CommitCut(WireFault):
    name = "commit-cut"
    injects = "1 to 8 COMMITs reach the database, and the connection breaks before the answer"
    guarantees = "Nothing is lost, stale or done twice."
    every = (0.2, 1.0)
    lasts = (0.0, 0.0)
    recovers_within = None  # it ends with the last answer that is lost, and the next change may be one that waits

    def details(self, chance: random.Random):
        return {"commits": chance.randrange(1, 9)}

    def inject(self, subject, step):
        wire = subject.memory["wire"]
        wire.cut = step.details["commits"]
        until(lambda: wire.cut == 0, 10, "nobody commits")

    def finish(self, subject):
        assert subject.memory["wire"].was_cut > 0, "no answer was lost"


@fault
class DatabaseConnectionsUsedUp(DatabaseFault):
    name = "database-connections"
    injects = "others take all connections of the database, those of the receivers are ended, for 2 to 8 s"
    lasts = (2.0, 8.0)

    def prepare(self, subject):
        server = subject.store.server
        if isinstance(server, Postgres):  # there it takes a restart
            server.command = [word.replace("max_connections=200", "max_connections=60") for word in server.command]
            server.stop()
            server.start()
        else:
            server.execute("set global max_connections = 60")

    def inject(self, subject, step):
        server, held = subject.store.server, []
        receivers = [pid for one in subject.receivers for pid in one.family()]
        try:
            first = self._taken(server)
            held.append(first)
            _signal(receivers, signal.SIGSTOP)  # or they would take again what they lose
            until(lambda: self._is_full(server, held, first), 15, "a connection is always left")
            _signal(receivers, signal.SIGCONT)
            pass_time(step.lasts, "how long there is none left")
        finally:
            _signal(receivers, signal.SIGCONT)
            for one in held:
                one.close()

    def _is_full(self, server, held, first) -> bool:
        """Take what is free, end the receivers' connections, and return whether nobody else has any."""
        with contextlib.suppress(*_REFUSED):
            while True:
                held.append(self._taken(server))
        others = self._others(server, first, held)
        for number in others:
            with contextlib.suppress(*_REFUSED):  # it has gone
                self._end(server, first, number)
        return not others

    def _taken(self, server):
        if isinstance(server, Postgres):
            url = f"{server.url('postgres')}?application_name=chaos"
            return psycopg.connect(url, autocommit=True, connect_timeout=5)
        login = {"user": "receiver", "password": server.password, "host": "127.0.0.1", "port": server.port}
        return pymysql.connect(**login, autocommit=True, connect_timeout=5)

    def _others(self, server, first, held) -> list[int]:
        """Return the numbers of the receivers' connections."""
        if isinstance(server, Postgres):
            text = "select pid from pg_stat_activity where application_name = 'receiver'"
            return [pid for (pid,) in first.execute(text).fetchall()]
        ours = {one.thread_id() for one in held}
        with first.cursor() as cursor:
            cursor.execute("select id from information_schema.processlist where user = 'receiver'")
            return [id for (id,) in cursor.fetchall() if id not in ours]

    def _end(self, server, first, number: int) -> None:
        if isinstance(server, Postgres):
            first.execute("select pg_terminate_backend(%s)", [number])
            return
        with first.cursor() as cursor:
            cursor.execute(f"kill {number}")


def _signal(pids, number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@fault
class DatabasePassword(DatabaseFault):
    name = "database-password"
    injects = "the database's password is changed and all sessions ended; the receivers' file follows after 1 to 4 s"
    lasts = (1.0, 4.0)
    recovers_within = 15.0  # it looks for new files every 5 s, and takes what it finds twice

    def prepare(self, subject):
        store = subject.store
        subject.memory["file"] = file = subject.folder / "password"
        file.write_text(store.server.password)
        subject.environment["DATABASE_PASSWORD_FILE"] = str(file)
        subject.environment["DATABASE_URL"] = store.url.replace(f":{store.server.password}@", "@")

    def inject(self, subject, step):
        store, new = subject.store, f"{step.chance:.15f}"
        server, before = store.server, store.server.password
        if isinstance(server, Postgres):
            server.execute(f"alter role receiver password '{new}'")
        else:
            server.execute(f"alter user receiver@'127.0.0.1' identified by '{new}'")
        server.password = new
        store.url = store.url.replace(f":{before}@", f":{new}@")
        _end_sessions(server)
        pass_time(step.lasts, "an administrator takes a moment")
        file = subject.memory["file"]
        file.with_suffix(".new").write_text(new)
        file.with_suffix(".new").rename(file)


def _end_sessions(server) -> None:
    if isinstance(server, Postgres):
        server.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'receiver'")
        return
    for (id,) in server.execute("select id from information_schema.processlist where id <> connection_id()"):
        with contextlib.suppress(pymysql.OperationalError):
            server.execute(f"kill {id}")
