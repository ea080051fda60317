"""The page for those who come from the Java service: what it names exists, and its commands do what it says."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pymysql
import pytest

from receiver import problems
from receiver.commands import cli
from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.settings import declared
from receiver.stores import open_store
from tests.support import servers
from tests.support.commands import receiver
from tests.support.java_service import COUNT, OTHER, TENANT, Java, content_of, give_back
from tests.support.paths import ROOT
from tests.support.platform_client import loaded
from tests.support.servers import needed
from tests.support.states import a_state, uid

pytestmark = pytest.mark.slow

PAGE = (ROOT / "deploy/SWITCHING.md").read_text()
BLOCKS = [re.sub("^ +", "", block, flags=re.MULTILINE) for block in re.findall(r" *```sh\n(.*?)```", PAGE, re.DOTALL)]
COMMAND = re.compile(r"\breceiver (?=[a-z])([^`|>\n]*)")
TRIAL, TRIAL_ON_MARIADB, LOOK, SWITCH, CHECK, OPEN, BACK, BACK_ON_MARIADB = BLOCKS
(MARKS,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[str]:
    """Return the words after "receiver" of every command line in the page's code."""
    code = [*"\n".join(BLOCKS).splitlines(), *re.findall(r"`([^`\n]+)`", PAGE)]
    return sorted({match[1].strip() for text in code for match in COMMAND.finditer(text)})


def test_there_is_a_block_for_each_step():
    assert "createdb" in TRIAL
    assert "mariadb-dump" in TRIAL_ON_MARIADB
    assert CHECK == "receiver store adopt --check-back\n"
    assert "mariadb flow" in BACK_ON_MARIADB
    assert "receiver store stats" in LOOK
    assert "plan.json" in SWITCH
    assert "--open" in OPEN
    assert "psql" in BACK
    assert len(commands()) > 9


@pytest.mark.parametrize("line", commands())
def test_every_command_exists_with_its_options_and_arguments(line):
    command, words = cli, line.split()
    while isinstance(command, click.Group):
        assert words, line
        command = command.get_command(click.Context(command), words.pop(0))
        assert command, line
    known = {option for parameter in command.params for option in parameter.opts}
    given = {word for word in words if word.startswith("-")}
    assert given <= known, line
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    assert len([word for word in words if not word.startswith("-")]) <= len(arguments), line


def test_every_setting_that_is_named_exists():
    names = {field.metadata["name"] for field in declared()}
    named = set(re.findall(r"\b(STORAGE_[A-Z_]*[A-Z]|(?:JDBC_)?DATABASE_[A-Z]+|PORT)\b", PAGE))
    assert {"PORT", "DATABASE_URL", "JDBC_DATABASE_URL", "DATABASE_USERNAME", "DATABASE_PASSWORD"} <= named
    assert named <= names


def test_the_values_that_are_named_are_those_of_the_settings():
    said = {field.metadata["name"]: (field.default, field.metadata["parse"]) for field in declared()}
    for value in ("observe", "off", "enforce"):
        assert said["STORAGE_REPLAY"][1](value) == value
    assert said["STORAGE_CLEAR_STATES"][1]("write") == "write"
    assert "the clocks may differ by 30 seconds" in PAGE
    assert said["STORAGE_CLOCK_SKEW"][0] == 30
    assert said["STORAGE_CLOCK_SKEW"][1]("300") == 300
    with pytest.raises(ValueError):
        said["STORAGE_CLOCK_SKEW"][1]("301")
    assert "413 over 32 MiB of body, 64 MiB inflated, 1000 states or ids" in PAGE
    limits = [said[name][0] for name in ("STORAGE_MAX_BODY", "STORAGE_MAX_INFLATED", "STORAGE_MAX_ITEMS")]
    assert limits == [32 << 20, 64 << 20, 1000]
    for reason in re.findall(r"`reason=(\w+)`", PAGE):
        assert reason in problems.REASONS


def test_every_file_that_is_named_exists():
    named = re.findall(r"\]\(([\w./-]+)\)", PAGE)
    assert named
    for path in named:
        assert (ROOT / "deploy" / path).exists(), path
    for path in re.findall(r"`((?:tests|deploy)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path


class Machine:
    """The machine of somebody who switches: a shell in ``folder`` with the variables that the Java service had.

    The service's ``user`` is not the administrator of the databases, whose programs run as that one.
    """

    def __init__(self, server, database, folder, keys, user="receiver"):
        self.server, self.database, self.folder = server, database, folder
        self.scheme = "postgresql" if isinstance(server, servers.Postgres) else "mariadb"
        programs = Path(servers.postgresql_program("postgres")).parent
        if not (programs / "psql").exists():
            programs = Path(servers.postgresql_program("postgres", embedded=True)).parent
        command = folder / "bin/receiver"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m receiver "$@"\n')
        command.chmod(0o755)
        self.variables = {
            "PATH": f"{command.parent}:{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "receiver",
            "PGPASSWORD": server.password,
            "HOME": str(folder),
            "DATABASE_USERNAME": user,
            "DATABASE_PASSWORD": server.password,
            "STORAGE_RUN_DIR": str(folder),  # so that the doctor finds the receiver of this test and no other
            "PLATFORM_KEY": json.dumps(keys.platform.public()),
            "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        }
        options = folder / ".my.cnf"
        options.write_text(f"[client]\nhost=127.0.0.1\nport={server.port}\nuser=receiver\npassword={server.password}\n")
        options.chmod(0o600)
        self.of_databases = {"trial": f"{database}_trial", "flow": database}

    @property
    def url(self) -> str:
        return f"jdbc:{self.scheme}://127.0.0.1:{self.server.port}/{self.database}"

    def run(self, script: str, fails: bool = False, **variables: str) -> str:
        """Run a block of the page; returns all that it wrote."""
        for name, real in self.of_databases.items():
            script = re.sub(rf"(?<![\w.]){name}\b", real, script)
        script = re.sub(r"127\.0\.0\.1:(5432|3306)", f"127.0.0.1:{self.server.port}", script)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ran.returncode != 0) == fails, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def serving(self, keys, url=None):
        given = {name: self.variables[name] for name in ("DATABASE_USERNAME", "DATABASE_PASSWORD", "STORAGE_RUN_DIR")}
        return running_receiver(
            keys, self.folder, DATABASE_URL=url or self.url, STORAGE_ADMIN_BIND="127.0.0.1:0", **given
        )


USER = "flow_user"


def filled(server, user="receiver") -> Java:
    """Return the Java service with its states in a database of ``server`` that its ``user`` has, and no other."""
    made = Java("postgresql" if isinstance(server, servers.Postgres) else "mariadb", server, server.new_database())
    made.make()
    for number in range(COUNT):
        made.save(number, content_of(number))
    if user != "receiver" and made.engine == "postgresql":
        made.run(f"create role {user} login password '{server.password}'")
        made.run(f"alter table states owner to {user}")
    elif user != "receiver":
        made.run(f"create user {user} identified by '{server.password}'")
        made.run(f"grant all on {made.database}.* to {user}")
    return made


@pytest.fixture
def java(postgresql):
    return filled(postgresql)


@pytest.fixture
def machine(java, tmp_path, keys):
    return Machine(java.server, java.database, tmp_path, keys)


def test_the_trial_on_a_copy_leaves_the_java_services_database_alone(tmp_path, keys):
    with servers.postgresql("fsync=on") as server:  # the doctor looks at that
        java = filled(server, USER)
        play_the_trial(TRIAL, java, Machine(server, java.database, tmp_path, keys, USER), keys)


def test_the_trial_on_mariadb_needs_no_more_rights_than_the_page_grants(mariadb, tmp_path, keys):
    needed("mariadb", "mariadb-dump")
    java = filled(mariadb, USER)
    try:
        play_the_trial(TRIAL_ON_MARIADB, java, Machine(mariadb, java.database, tmp_path, keys, USER), keys)
    finally:
        mariadb.execute(f"drop user {USER}")


def play_the_trial(trial, java, machine, keys):
    *before, serve = trial.splitlines()
    assert serve == "PORT=8089 STORAGE_ADMIN_BIND=127.0.0.1:9089 receiver serve"
    said = machine.run("\n".join(before))
    assert f"holds {COUNT} states" in said
    assert "To go back later" in said
    assert f"{COUNT} states adopted" in said
    assert "real" in said  # how long it took
    url = f"{machine.url}_trial"
    with machine.serving(keys, url):
        said = machine.run(LOOK, DATABASE_URL=url, TENANT=TENANT, ID=uid(1))
    assert json.dumps(content_of(1)["number"]) in said
    java.save(1, {"still": "works"}, minute=1)
    assert java.load(1) == [{"still": "works"}]


def test_the_whole_way_there_and_back(java, machine, keys):
    machine.run(SWITCH, DATABASE_URL=machine.url)
    with machine.serving(keys) as running:
        with contextlib.closing(Client(running.url, TENANT, keys)) as client:
            assert client.health().status == 200
            assert json.loads(loaded(client, uid(1))) == content_of(1)
            meanwhile = FlowRun(TENANT, seed=1).state() | {"updatedAt": "2026-03-02T01:00:00.1234567Z"}
            assert client.save(meanwhile).status == 204
            assert client.delete([uid(2)]).status == 204
        with contextlib.closing(Client(running.url, OTHER, keys)) as client:
            assert json.loads(loaded(client, uid(3))) == content_of(3)
    assert machine.run(CHECK, DATABASE_URL=machine.url) == "nothing prevents going back\n"
    machine.run(BACK)
    assert java.load(1) == [content_of(1)]
    assert java.load(2) == []
    ((content, updated),) = java.run("select content, updated_at from states where id = %s", (meanwhile["id"],))
    assert content == json.loads(meanwhile["content"])
    assert updated.microsecond == 123457  # rounded
    java.save(4, {"java": "saves again"}, minute=59)
    assert java.load(4) == [{"java": "saves again"}]


def test_what_stands_in_the_way_back_is_told_and_changes_nothing(java, machine, keys):
    """Sealed contents, an id of two tenants, a content that is not JSON; each is taken out of the way as the page says."""
    machine.run(SWITCH, DATABASE_URL=machine.url)
    machine.run("receiver keys sealing --delay 0 && receiver store reseal --stopped", DATABASE_URL=machine.url)
    flow = FlowRun(TENANT, seed=2).state() | {"content": "not JSON"}
    with machine.serving(keys) as running:
        with contextlib.closing(Client(running.url, TENANT, keys)) as client:
            assert client.save(flow).status == 204
        with contextlib.closing(Client(running.url, OTHER, keys)) as client:
            assert client.save(flow | {"id": uid(1), "tenant": OTHER, "content": "{}"}).status == 204

    def stopped_by(text, told):
        assert told in machine.run(CHECK, fails=True, DATABASE_URL=machine.url)
        assert text in machine.run(BACK, fails=True)
        with machine.serving(keys) as running, contextlib.closing(Client(running.url, TENANT, keys)) as client:
            assert json.loads(loaded(client, uid(1))) == content_of(1)

    stopped_by("states_in_the_clear", "sealed: 42 states")
    machine.run(OPEN, DATABASE_URL=machine.url)
    (keyfile,) = (machine.folder / "keys").glob("sealing-*")
    keyfile.unlink()
    stopped_by("could not create unique index", f"    {OTHER} {uid(1)}\n")
    machine.run(f"receiver store delete {OTHER} {uid(1)} --yes", DATABASE_URL=machine.url)
    stopped_by("invalid input syntax for type json", f"    {TENANT} {flow['id']}\n")
    machine.run(f"receiver store delete {TENANT} {flow['id']} --yes", DATABASE_URL=machine.url)
    machine.run(BACK)
    assert java.load(1) == [content_of(1)]
    assert len(java.run("select id from states")) == COUNT


def test_the_whole_way_there_and_back_on_mariadb(mariadb, tmp_path, keys):
    needed("mariadb")
    java = filled(mariadb)
    machine = Machine(mariadb, java.database, tmp_path, keys)
    machine.run(SWITCH, DATABASE_URL=machine.url)
    with machine.serving(keys) as running, contextlib.closing(Client(running.url, TENANT, keys)) as client:
        meanwhile = FlowRun(TENANT, seed=1).state() | {"updatedAt": "2026-03-02T01:00:00.1234567Z"}
        assert client.save(meanwhile).status == 204
    assert machine.run(CHECK, DATABASE_URL=machine.url) == "nothing prevents going back\n"
    machine.run(BACK_ON_MARIADB)
    ((updated,),) = java.run("select updated_at from states where id = %s", (meanwhile["id"],))
    assert updated.microsecond == 123457  # rounded
    assert java.load(1) == [content_of(1)]


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_states_that_an_earlier_version_adopted_are_marked_by_the_pages_statement(engine, request, tmp_path):
    server = request.getfixturevalue(engine)
    java = filled(server)
    url = server.url(java.database)
    assert receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url).returncode == 0
    order = "select updated_second, updated_nanosecond from states order by tenant_id, id"
    marked = java.run(order)
    java.run("update states set updated_nanosecond = 123456000")  # as an earlier version had them
    for _ in range(2):
        java.run(MARKS)
        assert java.run(order) == marked


def test_a_way_back_on_mariadb_that_stopped_is_run_again_from_the_deletion_on(mariadb, tmp_path):
    java = Java("mariadb", mariadb, mariadb.new_database())
    java.make()
    java.save(1, content_of(1))
    url = mariadb.url(java.database)
    plan = json.loads(receiver("store", "adopt", "--plan", "--json", cwd=tmp_path, DATABASE_URL=url).stdout)
    assert receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url).returncode == 0
    with contextlib.closing(open_store(url, 5)) as store:
        assert store.save(OTHER, [a_state(1, content="{}")], None).stored == 1
        with pytest.raises(pymysql.Error, match="Duplicate entry"):
            give_back(java, plan["back"])
        assert store.find(TENANT, uid(1)).content.text
        assert store.delete(OTHER, [uid(1)], None).stored == 1
    assert "delete from states_java" in plan["back"]
    give_back(java, ["set time_zone = '+00:00'", *plan["back"][plan["back"].index("delete from states_java") :]])
    assert java.load(1) == [content_of(1)]
    java.save(1, {"java": "saves again"}, minute=59)
    assert java.load(1) == [{"java": "saves again"}]


def test_a_key_in_a_variable_with_hyphens_does_not_get_through_sh_and_one_with_underscores_does(machine):
    another = new_store().platform.public()
    for kid, arrives in ((another["kid"], False), (another["kid"].replace("-", "_"), True)):
        said = machine.run("sh -c 'receiver keys list'", **{f"PLATFORM_KEY_{kid}": json.dumps(another)})
        assert (another["kid"] in said) == arrives, said
