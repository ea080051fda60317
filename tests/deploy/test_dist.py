"""The distributions: the sdist is the repository, the wheel is the package, and neither takes along what lies beside them."""

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from receiver import __version__
from tests.support.documents import ROOT

pytestmark = pytest.mark.slow
NAME = f"external_storage_receiver-{__version__}"


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module", autouse=True)
def clone():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone: make dist builds its last commit")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What ``make dist`` builds of the last commit."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "deploy/release/dist.py", "--build-only", "--into", folder]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as opened:
        yield opened


@pytest.fixture(scope="module")
def sdist(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as opened:
        yield {member.name.removeprefix(f"{NAME}/"): member for member in opened.getmembers() if member.isfile()}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    ours = {name for name in wheel.namelist() if not name.startswith(f"{NAME}.dist-info/")}
    assert ours == set(git("ls-tree", "-r", "--name-only", "HEAD", "receiver"))
    assert "receiver/py.typed" in ours


def test_the_source_distribution_holds_every_file_of_the_repository(sdist):
    made = {"PKG-INFO"} | {name for name in sdist if name.startswith("external_storage_receiver.egg-info/")}
    assert set(sdist) - made == set(git("ls-tree", "-r", "--name-only", "HEAD"))


def test_scripts_stay_executable_and_the_files_have_no_owner(sdist):
    executable = {line.split("\t")[1] for line in git("ls-tree", "-r", "HEAD") if line.startswith("100755")}
    assert executable
    assert {name for name, member in sdist.items() if member.mode & 0o100} == executable
    assert {(member.uid, member.gid, member.uname, member.gname) for member in sdist.values()} == {(0, 0, "", "")}
    assert {member.mtime for member in sdist.values()} == {int(git("log", "-1", "--format=%ct")[0])}


def test_the_metadata_says_what_the_readme_says_and_shows_no_picture(wheel):
    told = email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    assert told["Version"] == __version__
    assert {"Typing :: Typed", "Development Status :: 5 - Production/Stable"} <= set(told.get_all("Classifier"))
    description = " ".join(told.get_payload().split())
    sentence = (ROOT / "README.md").read_text().split("\n\n")[1]
    assert description.startswith(" ".join(sentence.split()))
    assert not re.search(r"!\[|\]\(|https?:", description)


def test_what_lies_beside_the_repository_stays_out_of_a_build_in_the_clone(tmp_path):
    beside = [
        "keys/receiver-1.json",
        "deploy/compose/secrets/keys/receiver-1.json",
        "deploy/compose/receiver.env",
        "deploy/kubernetes/example/keys/receiver.json",
        "deploy/kubernetes/production/keys/receiver.json",
        "var/receiver.db",
        "tests/fuzz/found/token-1",
        "receiver/__pycache__/app.cpython-311.pyc",
    ]
    for name in git("ls-files"):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for name in beside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a secret")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path / "out", tmp_path]
    subprocess.run(command, cwd="/", check=True, capture_output=True)
    with tarfile.open(tmp_path / f"out/{NAME}.tar.gz") as opened:
        found = {name.removeprefix(f"{NAME}/") for name in opened.getnames()}
    assert "keys/README.md" in found
    assert not found & set(beside)


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == __version__
