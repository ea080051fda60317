"""``receiver demo``: a receiver on a free port with a temporary store, and the platform playing against it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
from tabulate import tabulate

from receiver.mock_platform.client import Answer, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys, new_store

_SAVES = 12
_ADDRESS = re.compile(r"address\s+(http://\S+)")


@click.command()
@click.option("--seed", default=1, show_default=True, help="Another number makes another flow.")
def demo(seed: int) -> None:
    """Start a receiver with a temporary store and play the platform against it."""
    keys = new_store()
    with tempfile.TemporaryDirectory(prefix="receiver-demo-") as folder:
        click.echo(f"a store is created: platform key {keys.platform.kid}, receiver key {keys.receiver.kid}")
        with running_receiver(keys, Path(folder)) as url:
            click.echo(f"a receiver with a temporary store answers at {url}\n")
            play = _Play(Client(url, str(uuid.uuid4()), keys), seed)
            play.run()
    click.echo(tabulate(play.rows, headers=("call", "status", "size", "time", "verdict")))
    wrong = [row for row in play.rows if row[-1] != "ok"]
    click.echo(f"\n{len(play.rows) - len(wrong)} of {len(play.rows)} calls answered as the contract says")
    sys.exit(1 if wrong else 0)


@contextlib.contextmanager
def running_receiver(keys: StoreKeys, folder: Path, **environment: str) -> Iterator[str]:
    """Run ``receiver serve`` with a store in ``folder`` on a free port; yields its URL, stops it at the end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("STORAGE_", "PLATFORM_KEY"))}
    ours |= {
        "STORAGE_BIND": "127.0.0.1:0",
        "DATABASE_URL": f"sqlite:///{folder}/demo.db",
        "PLATFORM_KEY": json.dumps(keys.platform.public()),
        "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        "STORAGE_KEYS": str(folder),
        "STORAGE_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "receiver", "serve"]
    process = subprocess.Popen(command, env=ours | environment, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if found := _ADDRESS.search(line):
                yield found.group(1)
                return
        raise click.ClickException("the receiver did not start")
    finally:
        process.terminate()
        process.communicate(timeout=60)


class _Play:
    def __init__(self, client: Client, seed: int):
        self.client = client
        self.flow = FlowRun(client.tenant, seed)
        self.rows: list[tuple] = []

    def run(self) -> None:
        """Save a growing state, save an old one late, load, delete, ask again."""
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
