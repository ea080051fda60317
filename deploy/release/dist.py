"""Build the source distribution and the wheel of the last commit, and check both: ``make dist``.

Everything comes from ``git archive``, so no uncommitted file, key or secret of this clone gets in. The wheel has to run
in an empty environment. A second build, in another folder, time zone and hash seed, has to give the same bytes.
"""

import argparse
import contextlib
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_STRANGE = {"TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONHASHSEED": "4711"}  # what must not change the result
_SECONDS = 30  # that a receiver may take to answer for the first time
# Python before 3.11.4 has no filters, and does what "tar" does.
_AS_IT_IS: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}


def main() -> None:
    """Read the command line, build, check, and leave both files and their checksums in one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="the folder for the files (default: dist)")
    parser.add_argument("--build-only", action="store_true", help="build once and check nothing")
    options = parser.parse_args()
    os.umask(0o022)
    if _git("status", "--porcelain"):
        print("Uncommitted changes are left out: this builds the last commit.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = build(work / "first", {})
        if not options.build_only:
            check_metadata(files)
            check_installed(next(path for path in files if path.suffix == ".whl"), work / "installed")
            check_same(files, build(work / "second" / "and deeper", _STRANGE))
        publish(files, options.into)


def build(folder: Path, environment: dict[str, str]) -> list[Path]:
    """Build both distributions of the last commit in ``folder``; return their paths, the wheel first."""
    source, result = folder / "source", folder / "result"
    source.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-c", "tar.umask=0022", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(source, **_AS_IT_IS)  # noqa: S202 - made by git, from our own commit
    epoch = _git("log", "-1", "--format=%ct")
    # Without isolation, so that the locked setuptools builds and nothing is fetched.
    _run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", result, source],
        environment={"SOURCE_DATE_EPOCH": epoch} | environment,
    )
    (packed_source,) = result.glob("*.tar.gz")
    normalise(packed_source, int(epoch))
    return sorted(result.iterdir(), key=lambda path: path.suffix != ".whl")


def normalise(archive: Path, epoch: int) -> None:
    """Rewrite ``archive`` (a .tar.gz) with sorted members, one owner and one time; setuptools takes the machine's."""
    with tarfile.open(archive) as packed:
        members = sorted(packed.getmembers(), key=lambda member: member.name)
        contents = {member.name: packed.extractfile(member).read() for member in members if member.isfile()}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for member in members:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.pax_headers = epoch, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            packed.addfile(member, io.BytesIO(contents[member.name]) if member.isfile() else None)
    archive.write_bytes(gzip.compress(written.getvalue(), mtime=epoch))


def check_metadata(files: list[Path]) -> None:
    """Let twine judge the metadata and the long description."""
    _run([sys.executable, "-m", "twine", "check", "--strict", *files])
    print("twine: metadata and long description are well-formed")


def check_same(first: list[Path], second: list[Path]) -> None:
    """End with an error unless both builds are equal to the byte."""
    for one, other in zip(first, second, strict=True):
        if digest(one) != digest(other):
            sys.exit(f"{one.name} is not reproducible: {digest(one)} and {digest(other)}")
    print("reproducible: the second build has the same checksums")


def check_installed(wheel: Path, folder: Path) -> None:
    """Install ``wheel`` into an empty environment with the locked dependencies; run the receiver from there."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    pip = [environment / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", "--require-hashes", "--requirement", ROOT / "requirements.txt"])
    _run([*pip, "install", "--no-deps", "--no-index", wheel])
    _run([*pip, "check"])  # what the wheel requires is what requirements.txt locks
    receiver = environment / "bin/receiver"
    version = re.search(r"-([^-]+)-", wheel.name)[1]
    said = _run([receiver, "--version"], folder)
    if said != f"receiver, version {version}\n":
        sys.exit(f"receiver --version says {said!r}, the wheel is {version}")
    _run([receiver, "keys", "generate"], folder)
    with _serving(receiver, folder) as settings:
        _run([receiver, "health"], folder, settings)
        _run([receiver, "doctor", "--roundtrip"], folder, settings)
    print(f"installed: receiver {version} serves, is healthy, and passes a signed round trip")


@contextlib.contextmanager
def _serving(receiver: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run ``receiver serve`` in ``folder``; hands out its settings once it answers, and stops it."""
    ports = [_free_port(), _free_port()]
    settings = {
        "STORAGE_BIND": f"127.0.0.1:{ports[0]}",
        "STORAGE_ADMIN_BIND": f"127.0.0.1:{ports[1]}",
        "STORAGE_RUN_DIR": str(folder / "run"),
    }
    (folder / "run").mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([receiver, "serve"], cwd=folder, env=_environment(settings), stderr=log)
    try:
        _wait(f"http://127.0.0.1:{ports[0]}/api/storage/1/health")
        yield settings
        process.send_signal(signal.SIGTERM)
        if status := process.wait(_SECONDS):
            sys.exit(f"receiver serve ended with {status}")
    except BaseException:
        process.kill()
        print((folder / "log").read_text(), file=sys.stderr)
        raise


def _wait(url: str) -> None:
    """Wait until ``url`` answers 200."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    sys.exit(f"{url} did not answer within {_SECONDS} seconds")


def publish(files: list[Path], into: Path) -> None:
    """Copy ``files`` into the folder ``into``, with their checksums beside them."""
    into.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, into / path.name)
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in files)
    (into / "SHA256SUMS").write_text(sums)
    print(sums, end="")


def digest(path: Path) -> str:
    """Return the SHA-256 of the file at ``path`` in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return this environment without settings of a receiver and without this clone's Python path, with ``more``."""
    ours = re.compile(r"(STORAGE_|DATABASE_|JDBC_|PLATFORM_KEY|RECEIVER_KEY)|PORT$|PYTHONPATH$")
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | more


def _run(command: list, folder: str | Path = "/", environment: dict[str, str] | None = None) -> str:
    """Run ``command`` in ``folder``; return what it writes, or end with it when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
