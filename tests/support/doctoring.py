"""A doctor in a process of its own, and a receiver for it to look at."""

import contextlib
import functools
import json
import time

from receiver.commands.demo import running_receiver
from receiver.doctor import findings
from receiver.doctor.findings import Finding
from receiver.mock_platform.keys import new_store
from receiver.process.running import services
from receiver.sealing import generate
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.key_files import put
from tests.support.waiting import until as waited

OF_THIS_MACHINE = ("nobody outside of this container", "the kernel", "root")  # what depends on where tests run


class Report:
    """What the doctor said: its exit status ``code``, the ``found`` Findings, and what came on standard error."""

    def __init__(self, code, stdout, stderr=""):
        self.code, self.stderr = code, stderr
        told = json.loads(stdout)
        self.summary = told["summary"]
        names = ("subject", "verdict", "seen", "mend")
        self.found = [Finding(*map(one.get, names), tuple(one["details"])) for one in told["findings"]]

    def of(self, subject, verdict=None):
        return [one for one in self.found if one.topic == subject and verdict in (None, one.verdict)]

    def one(self, subject, verdict, *texts):
        """Return the one finding of ``subject`` with ``verdict`` that holds all ``texts``."""
        fitting = [
            one for one in self.of(subject, verdict) if all(text in f"{one.message} {one.fix}" for text in texts)
        ]
        assert len(fitting) == 1, (subject, verdict, texts, self.found)
        return fitting[0]

    def worse_than_ok(self):
        """Return what is not well, apart from what is so on this machine whatever is tested."""
        bad = [one for one in self.found if one.verdict != "ok"]
        return [one for one in bad if not any(text in one.message for text in OF_THIS_MACHINE)]


def doctor(*words, cwd=None, **environ):
    """Run the doctor in a process of its own."""
    ran = receiver("doctor", "--json", *words, cwd=cwd, **environ)
    assert "Traceback" not in ran.stderr
    return Report(ran.returncode, ran.stdout, ran.stderr)


def reported(found):
    """Return a Report of ``found``, which a check yielded."""
    return Report(0, json.dumps(findings.as_json(list(found))))


def seal(folder):
    key = generate(time.time())
    (folder / f"sealing-{key['kid']}.json").write_text(json.dumps(key))
    (folder / f"sealing-{key['kid']}.json").chmod(0o600)


until = functools.partial(waited, seconds=30)


@contextlib.contextmanager
def serving(folder, program=("receiver",), **environment):
    """Run a receiver with key files in ``folder``; yields it, with the variables that a doctor needs as ``environ``."""
    (folder / "keys").mkdir(exist_ok=True)
    made = new_store()
    put(folder / "keys", made)
    seal(folder / "keys")
    given = {
        "STORAGE_BIND": "127.0.0.1:0",
        "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        "STORAGE_RUN_DIR": str(folder),
        "STORAGE_KEYS": str(folder / "keys"),
        "DATABASE_URL": f"sqlite:///{folder}/states.db",
        "STORAGE_LOG_FORMAT": "text",
        "PLATFORM_KEY": "",
        "RECEIVER_KEY": "",
    } | environment
    with open(folder / "log", "a") as log, running_receiver(made, folder, log, program, **given) as running:
        running.environ = {name: value for name, value in given.items() if value}
        running.keys = made
        yield running


def service_of(running):
    return next(one for one in services(running.environ["STORAGE_RUN_DIR"]) if one.pid == running.process.pid)


def left_of_trials(running):
    return [path for path in service_of(running).trial.rglob("*") if path.is_file()]


def left_in_the_store(running):
    """Return the states that a doctor left: those that will expire."""
    with contextlib.closing(open_store(running.environ["DATABASE_URL"], 5, create=False)) as store:
        return [one for one in store.summaries() if one.expires_at]
