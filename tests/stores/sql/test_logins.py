"""Passwords of database servers that change while a receiver runs: taken from their files, without a failed request."""

import contextlib
import gc
import signal
import threading
import time

import pytest

from receiver.problems import LoginRefused
from receiver.secret import Secret
from receiver.stores import open_store
from receiver.stores.logins import Logins
from receiver.stores.urls.store_url import parse
from tests.support import servers
from tests.support.callers import Player, calling
from tests.support.reloading import hang_up, log_of
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.states import TENANT, a_state, uid
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request):
    if request.param == "mariadb":
        needed("mariadbd", "mariadb-install-db")
    return request.getfixturevalue(request.param)


@pytest.fixture
def database(server):
    """A database and two users who may do everything there; none is left afterwards."""
    name = server.new_database()
    users = f"one_{name}", f"two_{name}"
    for user in users:
        if isinstance(server, servers.Postgres):
            server.execute(f"create role {user} login superuser password 'first'")
        else:
            server.execute(f"create user {user}@'127.0.0.1' identified by 'first'")
            server.execute(f"grant all on {name}.* to {user}@'127.0.0.1'")
    yield name, *users
    for user in users:
        with contextlib.suppress(Exception):  # tables of a role of PostgreSQL stay as long as the database
            server.execute(f"drop user {user}@'127.0.0.1'" if not isinstance(server, servers.Postgres) else "select 1")


def change_password(server, user, password):
    if isinstance(server, servers.Postgres):
        server.execute(f"alter role {user} password '{password}'")
    else:
        server.execute(f"alter user {user}@'127.0.0.1' identified by '{password}'")


def end_connections(server, user):
    if isinstance(server, servers.Postgres):
        server.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{user}'")
        return
    for row in server.execute("show processlist"):
        if row[1] == user:
            with contextlib.suppress(Exception):
                server.execute(f"kill {row[0]}")


def users_of(server, database):
    if isinstance(server, servers.Postgres):
        rows = server.execute(f"select distinct usename from pg_stat_activity where datname = '{database}'")
        return {row[0] for row in rows}
    return {row[1] for row in server.execute("show processlist") if row[3] == database}


def url_of(server, database, login=""):
    kind = "postgresql" if isinstance(server, servers.Postgres) else "mysql"
    return f"{kind}://{login}127.0.0.1:{server.port}/{database}"


def players(platform_at, url, count=6):
    return [Player(platform_at(url), seed) for seed in range(count)]


def served(callers, count=20):
    goals = [len(caller.answers) + count for caller in callers]
    until(lambda: all(len(caller.answers) >= goal for caller, goal in zip(callers, goals, strict=True)))


def statuses(callers):
    return {status for caller in callers for _, status, _ in caller.answers}


@pytest.mark.parametrize("where", ["variables", "url", "tenant's url"])
def test_another_login_is_taken_under_load_and_no_request_fails(
    server, database, keys, platform_at, tenant, tmp_path, where
):
    name, one, two = database
    files = {file: tmp_path / file for file in ("user", "password", "url")}
    if where == "variables":
        environment = {"DATABASE_URL": url_of(server, name)}
        environment |= {f"DATABASE_{file.upper()}_FILE": str(files[file]) for file in ("password",)}
        environment["DATABASE_USERNAME_FILE"] = str(files["user"])
    else:
        variable = "DATABASE_URL" if where == "url" else f"STORAGE_TENANT_{tenant.replace('-', '_')}"
        environment = {f"{variable}_FILE": str(files["url"])}

    def write(user, password):
        files["user"].write_text(f"{user}\n")
        files["password"].write_text(f"{password}\n")
        files["url"].write_text(url_of(server, name, f"{user}:{password}@") + "\n")

    write(one, "first")
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="info", **environment) as running:
        with calling(players(platform_at, running.url)) as callers:
            served(callers)
            assert users_of(server, name) == {one}
            write(two, "first")
            hang_up(running, tmp_path)
            served(callers, 40)
            until(lambda: users_of(server, name) == {two})
            change_password(server, two, "second")  # connections that are there stay
            write(two, "second")
            hang_up(running, tmp_path)
            served(callers)
        assert statuses(callers) == {200, 204}
    log = log_of(tmp_path)
    assert f"new connections use another login, of the user {two}" in log
    assert "second" not in log.replace("seconds", "")
    assert "takes effect with a restart" not in log


def test_workers_without_requests_hold_no_connection_of_a_former_login(server, database, keys, tmp_path):
    name, one, two = database
    user = tmp_path / "user"
    user.write_text(one)
    environment = {"DATABASE_URL": url_of(server, name), "DATABASE_USERNAME_FILE": str(user)}
    with serving(keys, tmp_path, DATABASE_PASSWORD="first", STORAGE_LOG_LEVEL="info", **environment) as running:
        until(lambda: users_of(server, name) == {one})
        user.write_text(two)
        hang_up(running, tmp_path)
        until(lambda: users_of(server, name) == {two})


def test_a_password_that_changes_at_the_server_first_costs_503_until_its_file_has_it(
    server, database, keys, platform_at, tmp_path
):
    name, user, _ = database
    password = tmp_path / "password"
    password.write_text("first")
    environment = {"DATABASE_URL": url_of(server, name), "DATABASE_USERNAME": user}
    environment |= {"DATABASE_PASSWORD_FILE": str(password), "STORAGE_LOG_LEVEL": "info"}
    with serving(keys, tmp_path, **environment) as running:
        with calling(players(platform_at, running.url, 4)) as callers:
            served(callers)
            change_password(server, user, "second")
            end_connections(server, user)
            until(lambda: all(caller.answers[-1][1] == 503 for caller in callers))
            password.write_text("second")  # a changed file is enough
            written = time.monotonic()
            until(lambda: all(caller.answers[-1][1] in (200, 204, 404) for caller in callers), 25)
            print(f"serves again {time.monotonic() - written:.1f} s after the file was written")
            served(callers)
        assert statuses(callers) <= {200, 204, 404, 503}
    log = log_of(tmp_path)
    told = [line for line in log.splitlines() if "refuses the login" in line]
    assert 1 <= len(told) <= 2  # each worker, once
    for line in told:
        assert " ERROR " in line
        assert user in line
        assert f"127.0.0.1:{server.port}" in line
    assert not [line for line in log.splitlines() if " ERROR " in line and "LoginRefused" in line]
    assert "first" not in log
    assert "second" not in log.replace("seconds", "")


def test_a_wrong_password_is_not_taken_and_tried_again_until_the_server_knows_it(
    server, database, keys, platform_at, tmp_path
):
    name, user, _ = database
    password = tmp_path / "password"
    password.write_text("first")
    environment = {"DATABASE_URL": url_of(server, name), "DATABASE_USERNAME": user}
    environment |= {"DATABASE_PASSWORD_FILE": str(password), "STORAGE_LOG_LEVEL": "info"}
    with serving(keys, tmp_path, **environment) as running:
        with calling(players(platform_at, running.url, 4)) as callers:
            served(callers)
            password.write_text("second")
            running.process.send_signal(signal.SIGHUP)
            until(lambda: "old keys and certificates stay in use" in log_of(tmp_path))
            served(callers)
            assert statuses(callers) == {200, 204}
            change_password(server, user, "second")
            until(lambda: "new connections use another login" in log_of(tmp_path), 40)
            served(callers)
        assert statuses(callers) == {200, 204}
    assert "check user and password" in log_of(tmp_path)


def test_connections_of_a_former_login_are_replaced_and_those_of_the_same_one_stay(server, database):
    name, one, two = database
    place = parse(url_of(server, name, f"{one}:first@"))
    logins = Logins([place])
    with contextlib.closing(open_store(place, 5.0, logins=logins)) as store:
        store.prepare()
        store.save(TENANT, [a_state(10)], None)
        logins.replace([place])
        before = store._engine().pool.checkedin()
        assert store.find(TENANT, uid(10)) == a_state(10)
        assert users_of(server, name) == {one}
        assert store._engine().pool.checkedin() == before
        logins.replace([parse(url_of(server, name, f"{two}:first@"))])
        assert store.find(TENANT, uid(10)) == a_state(10)
        assert two in users_of(server, name)
        logins.replace([parse(url_of(server, name, f"{two}:wrong@"))])
        with pytest.raises(LoginRefused) as refused:
            store.find(TENANT, uid(10))
        assert "wrong" not in refused.value.cause
        logins.replace([place])
        assert store.find(TENANT, uid(10)) == a_state(10)


@contextlib.contextmanager
def a_connection_in_use(store):
    """Use a connection of ``store`` meanwhile; yields a function that ends this."""
    begun, may_end = threading.Event(), threading.Event()

    def work(_connection):
        begun.set()
        assert may_end.wait(20)

    user = threading.Thread(target=store._read, args=(work,))
    user.start()
    try:
        assert begun.wait(20)
        yield may_end.set
    finally:
        may_end.set()
        user.join()


def test_a_connection_of_a_former_login_is_closed_when_its_work_is_done(server, database):
    name, one, two = database
    place = parse(url_of(server, name, f"{one}:first@"))
    logins = Logins([place])
    gc.disable()  # what a worker opens before its first request is never looked at again
    try:
        with contextlib.closing(open_store(place, 5.0, logins=logins)) as store:
            store.prepare()
            with a_connection_in_use(store) as end:
                logins.replace([parse(url_of(server, name, f"{two}:first@"))])
                assert store.find(TENANT, uid(10)) is None
                assert users_of(server, name) == {one, two}
                end()
            until(lambda: users_of(server, name) == {two}, 5)
    finally:
        gc.enable()


def test_while_the_server_refuses_new_connections_calls_wait_for_those_in_use(server, database):
    name, user, _ = database
    place = parse(url_of(server, name, f"{user}:first@"))
    with contextlib.closing(open_store(place, 5.0)) as store:
        store.prepare()
        with a_connection_in_use(store) as end:
            change_password(server, user, "second")
            threading.Timer(0.3, end).start()
            assert store.find(TENANT, uid(10)) is None
        with a_connection_in_use(store):
            began = time.monotonic()
            with pytest.raises(LoginRefused):  # it does not wait for ever
                store.find(TENANT, uid(10))
            assert time.monotonic() - began < 3
        assert store.find(TENANT, uid(10)) is None
        end_connections(server, user)
        began = time.monotonic()
        with pytest.raises(LoginRefused):  # nor when there is no connection
            store.find(TENANT, uid(10))
        assert time.monotonic() - began < 0.9


def test_a_login_shows_no_password():
    logins = Logins([parse("postgresql://me:hunter2@h/d")])
    assert logins.of(parse("postgresql://h/d")) == ("me", Secret("hunter2"))
    assert "hunter2" not in repr(logins.of(parse("postgresql://h/d")))
