"""``receiver demo``: starts a receiver on a free port with a temporary store, and plays the platform against it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
from tabulate import tabulate

from receiver.commands.interrupting import Interruption
from receiver.mock_platform.client import Answer, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys, new_store

_SAVES = 12
_NOT_INHERITED = ("STORAGE_", "DATABASE_", "JDBC_", "PORT", "PLATFORM_KEY", "RECEIVER_KEY")
_BANNER = re.compile(r"address\s+(https?://\S+).*\n\s+admin\s+(\S+).*\n\s+database\s+(.+)\n")


@click.command()
@click.option("--seed", default=1, show_default=True, help="Another number makes another flow.")
def demo(seed: int) -> None:
    """Start a receiver and play the platform against it, with a temporary store or that of DATABASE_URL."""
    Interruption()
    keys = new_store()
    with tempfile.TemporaryDirectory(prefix="receiver-demo-") as folder:
        click.echo(f"a store is created: platform key {keys.platform.kid}, receiver key {keys.receiver.kid}")
        with running_receiver(keys, Path(folder), STORAGE_LOG_LEVEL="warning", **given_store()) as running:
            click.echo(f"a receiver answers at {running.url}, its store is {running.store}\n")
            with contextlib.closing(Client(running.url, str(uuid.uuid4()), keys)) as client:
                play = _Play(client, seed)
                play.run()
    click.echo(tabulate(play.rows, headers=("call", "status", "size", "time", "verdict")))
    wrong = [row for row in play.rows if row[-1] != "ok"]
    click.echo(f"\n{len(play.rows) - len(wrong)} of {len(play.rows)} calls answered as the contract says")
    sys.exit(1 if wrong else 0)


def given_store() -> dict[str, str]:
    """Return the variables of this process that name the store, for ``running_receiver``."""
    return {name: value for name, value in os.environ.items() if name.startswith(("DATABASE_", "JDBC_")) and value}


@dataclass
class Running:
    """A receiver that runs as a ``process`` of its own, answers at ``url`` and keeps states in ``store``.

    ``admin`` is the address of its admin listener, or "off".
    """

    url: str
    admin: str
    store: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def running_receiver(
    keys: StoreKeys,
    folder: Path,
    stderr: IO[str] | None = None,
    program: Sequence[str] = ("receiver",),
    /,
    **environment: str,
) -> Iterator[Running]:
    """Run ``receiver serve`` with a store in ``folder`` on a free port; yields it, and stops it at the end.

    ``environment`` adds variables for the receiver. Its log goes to ``stderr``, or to that of this process. Another
    ``program`` than the receiver is a module and its first arguments.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    ours |= {
        "STORAGE_BIND": "127.0.0.1:0",
        "STORAGE_ADMIN_BIND": "off",
        "STORAGE_LOG_FORMAT": "text",
        "PLATFORM_KEY": json.dumps(keys.platform.public()),
        "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        "STORAGE_KEYS": str(folder / "keys"),
    }
    if not any(name.startswith(("DATABASE_URL", "JDBC_DATABASE_URL")) for name in environment):
        ours["DATABASE_URL"] = f"sqlite:///{folder}/states.db"
    (folder / "keys").mkdir(exist_ok=True)
    command = [sys.executable, "-m", *program, "serve"]
    process = subprocess.Popen(command, env=ours | environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        url, admin, store = _announced(process)
        yield Running(url, admin, store, process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _announced(process: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Return the address, the admin address and the store that the banner of ``process`` names, once it is printed."""
    text = ""
    for line in process.stdout or ():
        text += line
        if found := _BANNER.search(text):
            return found[1], found[2], found[3]
    raise click.ClickException("the receiver did not start")


class _Play:
    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.flow = FlowRun(client.tenant, seed)
        self.rows: list[tuple[str, int, str, str, str]] = []

    def run(self) -> None:
        """Save a growing state, save an old version late, load, delete, load again."""
        self._note("health", self.client.health(), 200)
        first = self.flow.state()
        for number in range(1, _SAVES + 1):
            latest = self.flow.state()
            self._note(f"save {number}", self.client.save(latest), 204, latest["content"])
            self.flow.step()
        self._load(latest["content"], "load")
        self._note("save the first again, late", self.client.save(first), 204, first["content"])
        self._load(latest["content"], "load: the latest still")
        self._note("delete", self.client.delete([self.flow.id]), 204)
        self._note("load: gone", self.client.load(self.flow.id), 404)
        self._note("delete again", self.client.delete([self.flow.id]), 204)

    def _load(self, expected: str, call: str) -> None:
        answer = self.client.load(self.flow.id)
        same = answer.status == 200 and self.client.open(self.flow.id, answer) == expected
        self._note(call, answer, 200, expected, "ok" if same else "other content than was saved")

    def _note(self, call: str, answer: Answer, expected: int, content: str = "", verdict: str = "ok") -> None:
        if answer.status != expected:
            verdict = f"{expected} was expected"
        size = f"{len(content.encode()):,} B" if content else ""
        self.rows.append((call, answer.status, size, f"{1000 * answer.seconds:.1f} ms", verdict))
