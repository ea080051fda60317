"""Runs an image as operators do: by Docker where an engine answers, else in a sandbox from what buildah unpacks.

Always as the image's own user, with a read-only root, no capabilities and nothing to gain.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from tests.support import sandbox
from tests.support.servers import free_port


def _out(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Container:
    """A program of an image. It runs in a with statement, and is killed at the end of it."""

    def __init__(self, command: list[str], port: int):
        self.command = command
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self):
        self.output = tempfile.TemporaryFile("a+b")  # appending, so that reading does not move where it writes
        self.process = subprocess.Popen(self.command, stdout=self.output, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.CalledProcessError, OSError, IndexError):  # it ended meanwhile
                self.send(signal.SIGKILL)
            self.process.wait(60)
        self.output.close()

    @property
    def said(self) -> str:
        """All that the program has written, its log included."""
        self.output.seek(0)
        return self.output.read().decode()

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the program to end by itself; return its exit status, and what it wrote."""
        return self.process.wait(seconds), self.said

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """Run ``words`` inside, beside the program."""
        command = self.inside(words)
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


class OfDocker(Container):
    def __init__(self, name: str, command: list[str], port: int):
        super().__init__(command, port)
        self.name = name

    def send(self, sign: signal.Signals) -> None:
        _out("docker", "kill", "--signal", sign.name, self.name)

    def inside(self, words: tuple[str, ...]) -> list[str]:
        return ["docker", "exec", self.name, *words]


class Docker:
    """The image ``name``, by Docker's command line."""

    def __init__(self, name: str):
        self.name = name
        self.config = json.loads(_out("docker", "image", "inspect", name))[0]["Config"]

    @contextlib.contextmanager
    def unpacked(self):
        """The image's files, in a folder."""
        with tempfile.TemporaryDirectory(prefix="image-") as folder:
            made = _out("docker", "create", self.name)
            try:
                subprocess.run(f"docker export {made} | tar -xpC {folder}", shell=True, check=True)
            finally:
                _out("docker", "rm", "--volumes", made)
            yield Path(folder)

    @contextlib.contextmanager
    def volume(self):
        """A new volume, as ``start`` takes it."""
        made = _out("docker", "volume", "create")
        try:
            yield made
        finally:
            _out("docker", "volume", "rm", "--force", made)

    def start(self, *words, environment=(), volumes=(), groups=(), program=None, network="bridge") -> OfDocker:
        """Return a container of the image, with other ``words`` or another ``program`` than its own.

        ``volumes`` is path → (volume or folder, may it be written); ``network="host"`` is to reach servers on loopback.
        """
        name, port = f"image-test-{uuid.uuid4().hex[:12]}", free_port()
        environment = dict(environment)
        if network == "host":
            environment |= {"PORT": str(port), "STORAGE_ADMIN_BIND": f"127.0.0.1:{free_port()}"}
            reached = []
        else:
            reached = ["--publish", f"127.0.0.1:{port}:8080"]
        command = ["docker", "run", "--rm", "--name", name, "--network", network, *reached]
        command += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        for path, (source, writable) in dict(volumes).items():
            command += ["--volume", f"{source}:{path}:{'rw' if writable else 'ro'}"]
        for group in groups:
            command += ["--group-add", str(group)]
        for variable, value in environment.items():
            command += ["--env", f"{variable}={value}"]
        command += ["--entrypoint", program] if program else []
        return OfDocker(name, [*command, self.name, *words], port)

    def close(self) -> None:
        """There is nothing to tidy up."""


class OfBuildah(Container):
    def __init__(self, image: "Buildah", how: dict, words: list[str], port: int):
        make = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork"]
        super().__init__([*make, *image.sandbox("make", how, words)], port)
        self.image, self.how = image, how

    def _first(self) -> str:
        """Return the process that is the container's first one, as the host counts it."""
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def send(self, sign: signal.Signals) -> None:
        os.kill(int(self._first()), sign)

    def inside(self, words: tuple[str, ...]) -> list[str]:
        enter = ["nsenter", "--target", self._first(), "--mount", "--pid", "--ipc", "--uts"]
        return [*enter, *self.image.sandbox("enter", self.how, words)]


class Buildah:
    """The image ``name`` of buildah's own storage. Its programs run in tests/support/sandbox.py, with the host's network."""

    def __init__(self, name: str):
        self.name = name
        self.config = json.loads(_out("buildah", "inspect", "--type", "image", name))["Docker"]["config"]
        self.made = _out("buildah", "from", "--pull-never", name)
        self.root = Path(_out("buildah", "mount", self.made))

    @contextlib.contextmanager
    def unpacked(self):
        """The image's files, in a folder."""
        yield self.root

    @contextlib.contextmanager
    def volume(self):
        """A folder that is as the image has it, like a new volume of Docker's."""
        with tempfile.TemporaryDirectory(prefix="image-volume-") as folder:
            os.chmod(folder, 0o755)
            subprocess.run(["cp", "--archive", self.root / "data", folder], check=True)
            yield f"{folder}/data"

    def start(self, *words, environment=(), volumes=(), groups=(), program=None, network="host") -> OfBuildah:
        """Return a container of the image, as Docker.start does."""
        port = free_port()
        given = {"HOME": "/data", "PORT": str(port), "STORAGE_ADMIN_BIND": f"127.0.0.1:{free_port()}"}
        how = {
            "user": self.config["User"],
            "groups": list(groups),
            "folder": self.config["WorkingDir"],
            "environment": dict(one.split("=", 1) for one in self.config["Env"]) | given | dict(environment),
            "volumes": {path: [str(source), writable] for path, (source, writable) in dict(volumes).items()},
        }
        words = [program, *words] if program else [*self.config["Entrypoint"], *(words or self.config["Cmd"])]
        return OfBuildah(self, how, words, port)

    def sandbox(self, step: str, how: dict, words) -> list[str]:
        return [sys.executable, sandbox.__file__, step, str(self.root), json.dumps(how), *words]

    def close(self) -> None:
        _out("buildah", "rm", self.made)


@contextlib.contextmanager
def opened(name: str):
    """The image ``name``, as what is on this machine knows it."""
    asked = subprocess.run("docker version", shell=True, capture_output=True, check=False)
    image = Docker(name) if asked.returncode == 0 else Buildah(name)
    try:
        yield image
    finally:
        image.close()
