"""A receiver and the simulated platform beside it, as `make run` and `make platform` start them."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass

from receiver.commands.demo import running_receiver
from receiver.commands.platform import TENANT
from receiver.mock_platform import keyfiles
from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import new_store
from tests.support.servers import free_port


class Receiver:
    """A receiver on one port with the keys and the store in ``folder``; it may be restarted."""

    def __init__(self, folder, **environment):
        self.folder, self.keys, self.environment = folder, new_store(), environment
        self.port = free_port()
        self.stack = contextlib.ExitStack()
        list(keyfiles.write(folder / "keys", self.keys))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        log = self.stack.enter_context((self.folder / "receiver.log").open("a"))
        # A worker that is told to stop while it boots does not hear it, and is waited for: so there is one, and it is up.
        given = {"STORAGE_BIND": f"127.0.0.1:{self.port}", "STORAGE_WORKERS": "1"} | self.environment
        self.process = self.stack.enter_context(running_receiver(self.keys, self.folder, log, **given)).process
        with contextlib.closing(Client(self.url, TENANT, self.keys, timeout=10)) as client:
            assert client.health().status == 200

    def stop(self, *platforms):
        """Stop it, without the two seconds that it would grant the idle connections of ``platforms``."""
        for platform in platforms:
            platform.close()
        self.stack.close()

    def restart(self):
        self.stop()
        self.start()

    def log(self):
        return (self.folder / "receiver.log").read_text()


@contextlib.contextmanager
def a_receiver(folder, **environment):
    receiver = Receiver(folder, **environment)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


@dataclass
class Answer:
    status: int
    text: str

    @property
    def json(self):
        return json.loads(self.text)


@dataclass
class Simulator:
    """A running ``receiver platform serve`` at ``url``."""

    url: str
    process: subprocess.Popen

    def call(self, path, body=None, method=None, **headers) -> Answer:
        """Call ``path``, with ``body`` as JSON (bytes go as they are) if there is one."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"} | given, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, response.read().decode())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, refused.read().decode())


@contextlib.contextmanager
def a_simulator(receiver, *options, url=None):
    """Run the platform beside ``receiver``; it must end well, and without having written a traceback."""
    keys = str(receiver.folder / "keys")
    words = ["--bind", "127.0.0.1:0", "--receiver", url or receiver.url, "--keys", keys, *options]
    with open(receiver.folder / "platform.log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "platform", "serve", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            page = next(found for line in process.stdout if (found := re.search(r"page +(http://\S+)/", line)))
            yield Simulator(page.group(1), process)
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in (receiver.folder / "platform.log").read_text()
