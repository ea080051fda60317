"""What the image must keep, tried on the image itself: run by `make image-test`, in Docker or in a sandbox (tests/support/containers.py)."""

import contextlib
import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from receiver import __version__
from receiver.mock_platform import keyfiles
from receiver.mock_platform.flow_states import FlowRun
from tests.support import containers
from tests.support.platform_client import loaded
from tests.support.waiting import pass_time, until

PYTHON = "/opt/receiver/bin/python"
GROUP = 20001 if os.getuid() == 0 else os.getgid()


@pytest.fixture(scope="session")
def image():
    with containers.opened(os.environ.get("IMAGE", "external-storage-receiver:latest")) as found:
        print(f"\nby {type(found).__name__}: {found.name}")
        yield found


@pytest.fixture(scope="session")
def root(image):
    with image.unpacked() as folder:
        yield folder


@pytest.fixture(scope="session")
def sbom(root):
    return json.loads((root / "usr/share/sbom/receiver.cdx.json").read_text())


@pytest.fixture(scope="session")
def key_folder(keys, tmp_path_factory):
    """Keys as operators have them: for their owner and one group, which the container is given (README of deploy/docker)."""
    folder = tmp_path_factory.mktemp("keys")
    for path in keyfiles.write(folder, keys):
        path.chmod(0o440)
        os.chown(path, -1, GROUP)
    folder.chmod(0o750)
    os.chown(folder, -1, GROUP)
    return folder


@pytest.fixture
def volume(image):
    with image.volume() as made:
        yield made


@pytest.fixture
def serving(image, volume, key_folder, platform_at):
    """A context with a container of the service, once it is well."""

    @contextlib.contextmanager
    def start(**how):
        how = {"volumes": {"/data": (volume, True), "/keys": (key_folder, False)}, "groups": [GROUP]} | how
        with image.start(**how) as container:
            wait_until_well(container, platform_at)
            yield container

    return start


def wait_until_well(container, platform_at):
    client = platform_at(container.url)

    def is_well():
        assert container.process.poll() is None, container.said
        with contextlib.suppress(OSError, http.client.HTTPException):
            if client.health().status == 200:
                return True
        client.connection.close()
        return False

    until(is_well, seconds=60, message="the service does not answer", pause=0.1)


def inside(container, code: str):
    """Return what ``code``, an expression of Python, is in ``container``."""
    done = container.run(PYTHON, "-c", f"import json, os, pathlib; print(json.dumps({code}))")
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def files_of(root: Path):
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


# What it is


def test_it_is_configured_as_declared(image):
    config = image.config
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["receiver"], ["serve"])
    assert config["Healthcheck"]["Test"] == ["CMD", "receiver", "health"]
    assert list(config["Volumes"]) == ["/data"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert {"PORT=8080", "STORAGE_KEYS=/keys"} < set(config["Env"])
    labels = {name.rpartition(".")[2]: text for name, text in config["Labels"].items() if "opencontainers" in name}
    assert labels["title"] == "external-storage-receiver"
    assert (labels["version"], labels["licenses"]) == (__version__, "Apache-2.0")
    assert len(labels["revision"].removesuffix("-dirty")) == 40
    assert labels["created"].startswith("20")


def test_nothing_is_in_it_that_installs_or_is_a_shell(root):
    names = {path.name for path in files_of(root)}
    programs = [
        path.name for folder in ("usr/bin", "usr/sbin", "opt/receiver/bin") for path in (root / folder).iterdir()
    ]
    assert sorted(programs) == ["gunicorn", "python", "python3", "python3.11", "python3.11", "receiver", "sqlite-utils"]
    assert not (root / "usr/local").exists()
    packages = {path.name for path in root.glob("opt/receiver/lib/python*/site-packages/*")}
    packages |= {path.name for path in root.glob("usr/lib/python3*/*")}
    installers = ("pip", "setuptools", "wheel", "pkg_resources", "ensurepip", "_distutils_hack", "uv")
    assert not [name for name in packages if name.split("-")[0].split(".")[0] in installers]
    assert not names & {"pip.conf", "build-machine.pem", "Dockerfile"}  # of the machine that built it


def test_nobody_can_change_what_it_runs(root):
    for path in files_of(root):
        about = path.lstat()
        assert about.st_uid == about.st_gid == 0, path
        assert stat.S_ISLNK(about.st_mode) or not about.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), path
    about = (root / "data").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (10001, 10001, 0o755)


def test_all_bytecode_is_there_and_is_not_compared_with_its_source(root):
    sources = [path for path in files_of(root) if path.suffix == ".py"]
    assert len(sources) > 1000
    for path in sources:
        compiled = path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
        assert compiled.read_bytes()[4:8] == b"\x01\0\0\0", path  # PEP 552: by hash, unchecked


def test_the_bill_of_materials_names_what_is_there(root, sbom):
    named = Counter((one["name"], one["version"]) for one in sbom["components"])
    assert set(named.values()) == {1}
    site = next(root.glob("opt/receiver/lib/python*/site-packages"))
    there = {path.name.removesuffix(".dist-info").replace("_", "-").lower() for path in site.glob("*.dist-info")}
    of_python = {one["name"] + "-" + one["version"] for one in sbom["components"] if one["purl"].startswith("pkg:pypi")}
    assert {name.replace(".", "-") for name in of_python} == {name.replace(".", "-") for name in there}
    assert {"flask", "gunicorn", "psycopg-binary", "pymysql", "external-storage-receiver"} <= {one[0] for one in named}
    status = (root / "var/lib/dpkg/status").read_text()
    of_debian = {one["name"] for one in sbom["components"] if one["purl"].startswith("pkg:deb/debian/")}
    assert of_debian == {line.split()[1] for line in status.splitlines() if line.startswith("Package: ")}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= of_debian
    held = {one["name"] for package in sbom["components"] for one in package.get("components", ())}
    assert "openssl-libs" in held or "openssl" in held, sorted(held)


def test_its_size_and_packages_are_told(root, sbom):
    size = sum(path.lstat().st_size for path in files_of(root))
    print(f"\n{size / 1e6:.0f} MB uncompressed; {len(sbom['components'])} packages:")
    for one in sorted(sbom["components"], key=lambda one: one["purl"]):
        print(f"  {one['purl'].split('?')[0]}")
    assert size < 130e6


# What it does


def test_it_tells_its_version(image):
    with image.start("--version") as container:
        assert container.end() == (0, f"receiver, version {__version__}\n")


def test_every_compiled_module_finds_its_libraries(image, root):
    dotted = []
    for path in root.rglob("python3.11/**/*.so"):
        place = str(path).partition("site-packages/")[2] or path.name
        dotted.append(place.split(".")[0].replace("/", "."))
    assert len(dotted) > 40
    code = "import importlib, sys, psycopg; [importlib.import_module(name) for name in sys.argv[1:]]; print(len(sys.argv) - 1)"
    with image.start("-c", code, *dotted, program=PYTHON) as container:
        assert container.end() == (0, f"{len(dotted)}\n")


def test_without_keys_it_says_so_and_ends_with_78(image, volume):
    with image.start(volumes={"/data": (volume, True)}) as container:
        status, said = container.end()
    assert status == 78
    assert "put platform-<kid>.json into /keys" in said


def test_without_a_place_to_write_it_says_so(image, key_folder, tmp_path):
    tmp_path.chmod(0o755)
    with image.start(volumes={"/data": (tmp_path, False), "/keys": (key_folder, False)}, groups=[GROUP]) as container:
        status, said = container.end()
    assert status == 78, said
    assert "/data" in said


def test_it_is_confined(serving):
    with serving() as container:
        told = inside(container, "dict(line.split(':', 1) for line in open('/proc/1/status'))")
        assert set(told["Uid"].split()) == set(told["Gid"].split()) == {"10001"}
        assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert told["NoNewPrivs"].strip() == "1"
        folders = ("/", "/etc", "/opt/receiver", "/tmp", "/keys", "/data", "/dev/shm")
        assert inside(container, f"[one for one in {folders} if os.access(one, os.W_OK)]") == ["/data", "/dev/shm"]
        assert inside(container, "pathlib.Path('/proc/1/cmdline').read_text()").split("\0")[1:-1] == [
            "/opt/receiver/bin/receiver",
            "serve",
        ]


def test_temporary_files_have_a_place_on_the_volume(serving):
    vacuum = (
        "import tempfile; from sqlite_utils.utils import sqlite3; from pathlib import Path; c = sqlite3.connect('x.db');"
        " c.execute('pragma temp_store = file'); c.execute('create table t (a)');"
        " c.executemany('insert into t values (randomblob(100000))', [()] * 300); c.commit();"
        " c.execute('create table u as select * from t order by a'); c.commit(); c.execute('vacuum');"
        " print(tempfile.gettempdir(), Path('x.db').stat().st_size > 6e7)"
    )
    with serving() as container:
        assert container.run(PYTHON, "-c", vacuum).stdout == "/data True\n"


def test_it_is_well_from_within(image, serving):
    with serving() as container:
        done = container.run(*image.config["Healthcheck"]["Test"][1:])
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("where", ["sqlite", "postgresql", "mariadb"])
def test_it_keeps_states(request, where, serving, platform_at, flow):
    how = {}
    if where != "sqlite":
        server = request.getfixturevalue(where)
        how = {"network": "host", "environment": {"DATABASE_URL": server.url(server.new_database())}}
    with serving(**how) as container:
        platform = platform_at(container.url)
        for _ in range(5):
            flow.step()
            assert platform.save(flow.state()).status == 204
            assert loaded(platform, flow.id) == flow.state()["content"]
        assert platform.delete([flow.id]).status == 204
        assert platform.load(flow.id).status == 404


def test_it_conforms(serving, key_folder):
    """The whole suite, from outside."""
    with serving() as container:
        command = [sys.executable, "-m", "receiver", "conformance", "--url", container.url, "--keys", str(key_folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print("\n" + done.stdout.strip().splitlines()[-1])
        assert done.returncode == 0, done.stdout[-5000:]


def test_keys_may_be_variables_named_by_their_kid(image, volume, keys, platform_at, flow):
    environment = {
        f"PLATFORM_KEY_{keys.platform.kid}": json.dumps(keys.platform.public()),
        f"RECEIVER_KEY_{keys.receiver.kid}": json.dumps(keys.receiver.private()),
    }
    with image.start(volumes={"/data": (volume, True)}, environment=environment) as container:
        wait_until_well(container, platform_at)
        assert platform_at(container.url).save(flow.state()).status == 204


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, "sqlite:////data/receiver.db"),
        ({"DATABASE_URL": "file:///data/states"}, "file:///data/states"),
        ({"DATABASE_URL_FILE": "/tmp/url"}, "sqlite:////data/other.db"),
        ({"JDBC_DATABASE_URL": "jdbc:sqlite:/data/java.db"}, "jdbc:sqlite:/data/java.db"),
    ],
)
def test_a_store_that_is_named_takes_the_place_of_the_images_own(image, volume, key_folder, tmp_path, given, place):
    tmp_path.chmod(0o755)
    (tmp_path / "url").write_text("sqlite:////data/other.db\n")
    volumes = {"/data": (volume, True), "/keys": (key_folder, False), "/tmp": (tmp_path, False)}
    with image.start("config", volumes=volumes, groups=[GROUP], environment=given) as container:
        status, said = container.end()
    assert status == 0, said
    assert place in said


class Caller(threading.Thread):
    """Saves and loads a state over and over, until it is told to stop or nobody answers any more."""

    def __init__(self, platform, seed, stop):
        super().__init__()
        self.platform, self.stop = platform, stop
        self.flow = FlowRun(platform.tenant, seed)
        self.answered, self.wrong, self.cut = 0, [], None
        self.acknowledged = self.sent = None

    def run(self):
        try:
            while not self.stop.is_set():
                self.turn()
        except (OSError, http.client.HTTPException) as cause:
            self.cut = repr(cause)
        except Exception as failure:
            self.wrong.append(repr(failure))

    def turn(self):
        self.flow.step()
        del self.flow.entries[8:]
        state = self.flow.state()
        self.sent = state["content"]
        self.expect(self.platform.save(state), 204)
        self.acknowledged = self.sent
        answer = self.expect(self.platform.load(self.flow.id), 200)
        if self.platform.open(self.flow.id, answer) != self.acknowledged:
            self.wrong.append("another content than was acknowledged last")

    def expect(self, answer, status):
        self.answered += 1
        assert answer.status == status, (answer.status, answer.body)
        return answer


@contextlib.contextmanager
def callers(url, platform_at, stop):
    """Sixteen Callers that have begun; they have ended when the with statement does."""
    threads = [Caller(platform_at(url), seed, stop) for seed in range(16)]
    for thread in threads:
        thread.start()
    try:
        pass_time(1, "load before what is tried")
        yield threads
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def assert_kept(threads, platform):
    """Assert that all was answered rightly, and that what was acknowledged is there, or what was sent after it."""
    assert [thread.wrong for thread in threads] == [[]] * len(threads)
    for thread in threads:
        assert loaded(platform, thread.flow.id) in (thread.acknowledged, thread.sent)
    print(f"\n{sum(thread.answered for thread in threads)} requests answered, all of them rightly")


def test_sigterm_drains_under_load_and_no_request_fails(serving, platform_at):
    with serving(environment={"STORAGE_DRAIN": "4"}) as container:
        with callers(container.url, platform_at, threading.Event()) as threads:
            container.send(signal.SIGTERM)
            began = time.monotonic()
            pass_time(0.5, "well within the drain of 4 s")
            assert container.run("receiver", "health").returncode == 1  # nobody sends anything new, then
            before = [thread.answered for thread in threads]
            pass_time(1.5, "well within the drain of 4 s")
            after = [thread.answered for thread in threads]
        assert [thread.cut for thread in threads] == [None] * len(threads)
        assert all(more > less for less, more in zip(before, after, strict=True))
        platform_at.close()
        status, said = container.end()
        assert status == 0, said[-2000:]
        assert 4 <= time.monotonic() - began < 20
    with serving() as container:
        assert_kept(threads, platform_at(container.url))


def test_sigterm_under_load_without_a_drain_answers_what_it_has_and_loses_nothing(serving, platform_at):
    with serving() as container:
        stop = threading.Event()
        with callers(container.url, platform_at, stop) as threads:
            container.send(signal.SIGTERM)
            status, said = container.end()
        assert status == 0, said[-2000:]
    with serving() as container:
        assert_kept(threads, platform_at(container.url))


def test_the_readmes_commands_start_it_and_stop_it(image, tmp_path, platform_at):
    if not isinstance(image, containers.Docker) or not os.environ.get("CI"):
        pytest.skip("needs Docker, port 8080 and the name receiver, so it runs under CI only")
    text = Path("deploy/docker/README.md").read_text()
    start, make_keys = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)

    def sh(commands):
        done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    try:
        sh(make_keys)
        sh(start.replace("docker exec", "sleep 5\ndocker exec"))
        platform = platform_at("http://127.0.0.1:8080", keys=keyfiles.read(tmp_path / "keys"))
        state = FlowRun(platform.tenant).state()
        assert platform.save(state).status == 204
        assert loaded(platform, state["id"]) == state["content"]
        inspect = "docker inspect --format '{{.State.Health.Status}}' receiver"
        health = until(lambda: sh(inspect).strip().replace("starting", ""), seconds=60, pause=1)
        assert health == "healthy"
        platform_at.close()
        sh("docker stop receiver")
        assert sh("docker inspect --format '{{.State.ExitCode}}' receiver") == "0\n"
    finally:
        sh("docker rm --force --volumes receiver; docker volume rm --force receiver-data")


def test_the_offline_bundle_is_whole(image, root, tmp_path):
    subprocess.run(["deploy/docker/bundle.sh", tmp_path, image.name], check=True, stdout=subprocess.DEVNULL)
    (packed,) = tmp_path.iterdir()
    print(f"\n{packed.stat().st_size / 1e6:.0f} MB in {packed.name}")
    subprocess.run(["tar", "-xf", packed, "-C", tmp_path], check=True)
    folder = tmp_path / packed.name.removesuffix(".tar")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, check=False).returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(folder)) for path in files_of(folder)}
    assert listed == there - {"SHA256SUMS"}
    assert {"INSTALL.txt", "image.tar.gz", "receiver.cdx.json", "deploy/docker/README.md", "LICENSE"} <= there
    assert (folder / "receiver.cdx.json").read_bytes() == (root / "usr/share/sbom/receiver.cdx.json").read_bytes()
    with tarfile.open(folder / "image.tar.gz") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest["Config"]))
    (tag,) = manifest["RepoTags"]
    assert tag.removeprefix("docker.io/library/") == f"external-storage-receiver:{__version__}"
    assert config["config"]["User"] == "10001:10001"
    (folder / "receiver.cdx.json").write_text("{}")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode != 0
