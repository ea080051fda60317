"""What is asked of a deployment, whatever starts it: that the receiver takes its environment, and answers as it says."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from receiver.mock_platform import keyfiles
from receiver.settings import declared, read
from tests.support.paths import ROOT
from tests.support.waiting import until

DEPLOY = ROOT / "deploy"
_KEY = re.compile(r"(PLATFORM|RECEIVER)_KEY(_[0-9A-Fa-f_]{36})?")
_TENANT = re.compile(r"STORAGE_(TENANT|REGION)_[0-9A-Fa-f_]{36}")


def unknown(names) -> set[str]:
    """Return those of ``names`` that the receiver does not know."""
    known = {field.metadata["name"] for field in declared()}
    names = {name.removesuffix("_FILE") for name in names}
    return {name for name in names if name not in known and not _KEY.fullmatch(name) and not _TENANT.fullmatch(name)}


def mapped(environ: dict[str, str], folders: dict[str, Path]) -> dict[str, str]:
    """Return ``environ`` with the paths of a container or a unit replaced by ``folders`` of this machine."""
    found = dict(environ)
    for old, new in folders.items():
        path = re.compile(rf"(?<![\w.-]){re.escape(old)}(?=/|$)")
        found = {name: path.sub(lambda _, new=new: str(new), value) for name, value in found.items()}
    return found


def mistakes_in(environ: dict[str, str]) -> list[str]:
    """Return what the receiver would say against ``environ``."""
    return read(environ)[1]


def image_environment() -> dict[str, str]:
    """Return what the Dockerfile sets, as far as it concerns the receiver."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    lines = re.findall(r"^ENV ((?:.*\\\n)*.*)", text, re.MULTILINE)
    pairs = dict(word.split("=", 1) for line in lines for word in line.replace("\\\n", " ").split())
    known = {field.metadata["name"] for field in declared()}
    return {name: value for name, value in pairs.items() if name in known}


def key_folder(folder: Path, keys) -> Path:
    """Write the files of ``keys`` that a receiver is given into ``folder``, readable for owner and group; return it."""
    for path in keyfiles.write(folder, keys):
        path.unlink() if path.name.startswith("mock-") else path.chmod(0o440)
    return folder


@dataclass
class Started:
    """A receiver that a deployment's command started, with its log in the file ``log``."""

    process: subprocess.Popen
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def started(folder: Path, environ: dict[str, str], *arguments: str):
    """Run ``receiver`` with ``arguments`` and nothing but ``environ``; it is stopped at the end."""
    bare = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", *arguments], env=bare | environ, cwd=folder, stdout=log, stderr=log
        )
    running = Started(process, folder / "log")
    try:
        yield running
    finally:
        running.stop()


def eventually(call, seconds: float = 20):
    """Return what ``call`` does, tried again for ``seconds`` while nobody answers."""
    found, failures = [], []

    def answered():
        try:
            found.append(call())
        except OSError as failure:
            failures.append(failure)
        return bool(found)

    until(answered, seconds, lambda: f"nobody answers: {failures[-1]!r}")
    return found[0]


def asked(url: str) -> tuple[int, bytes]:
    """Return status and body of a GET of ``url``, once somebody answers there."""

    def ask():
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    return eventually(ask)


def seconds(text: str) -> float:
    """Return the seconds in ``text`` as Compose, systemd and the receiver write them: 45, 45s, 10min."""
    match = re.fullmatch(r"(\d+)(s|min|)", text)
    return int(match[1]) * {"min": 60}.get(match[2], 1)
