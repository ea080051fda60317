"""The files that make the container image, as far as they can be judged without building it; `make image-test` judges the image."""

import importlib.util
import json
import re
import shlex
from email.message import Message

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

FOLDER = ROOT / "deploy/docker"


def instructions():
    """Return the Dockerfile's instructions: (word, the rest of the line)."""
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def the(word):
    return [rest for found, rest in instructions() if found == word]


def copied():
    """Return the files and folders that the Dockerfile takes from the build's context."""
    for rest in the("COPY"):
        words = shlex.split(rest)
        if not any(word.startswith("--from") for word in words):
            yield from words[:-1]


@pytest.fixture(scope="module")
def sbom():
    spec = importlib.util.spec_from_file_location("sbom", FOLDER / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_run_is_named_without_a_shell():
    assert [json.loads(rest) for rest in the("ENTRYPOINT")] == [["receiver"]]
    assert [json.loads(rest) for rest in the("CMD")] == [["serve"]]
    (health,) = the("HEALTHCHECK")
    assert json.loads(health.partition("CMD ")[2]) == ["receiver", "health"]


def test_the_user_is_a_number_that_is_not_root():
    assert [re.fullmatch(r"(\d+):(\d+)", rest).groups() for rest in the("USER")] == [("10001", "10001")]
    words = [found for found, _ in instructions()]
    assert words.index("USER") > len(words) - 1 - words[::-1].index("FROM")


def test_the_last_stage_holds_only_what_the_first_one_gathered():
    assert the("FROM") == ["debian:bookworm-slim AS build", "scratch"]
    last = instructions()[[rest for _, rest in instructions()].index("scratch") :]
    assert all(rest.startswith("--from=build") for word, rest in last if word == "COPY")
    assert "RUN" not in [word for word, _ in last]


def test_nothing_is_fetched_but_by_packages_that_are_locked():
    assert not the("ADD")
    assert not re.search(r"curl|wget|https?:", (FOLDER / "Dockerfile").read_text() + (FOLDER / "gather.sh").read_text())
    installs = [one for rest in the("RUN") for one in rest.split("&&") if " install " in one and "apt-get" not in one]
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)
    for name in (ROOT / "requirements.txt", FOLDER / "requirements-build.txt"):
        text = name.read_text()
        locked = re.findall(r"^[\w.-]+==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert len(locked) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)) > 5


def test_the_build_gets_what_it_copies_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"  # and so no keys, no var, no .git
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == set(copied())
    assert all((ROOT / name).exists() for name in allowed)
    assert {line for line in lines[1:] if not line.startswith("!")} == {"**/__pycache__"}


def test_the_build_has_the_setuptools_that_the_package_asks_for():
    wanted = re.search(r'"(setuptools[^"]*)"', (ROOT / "pyproject.toml").read_text())[1]
    assert wanted in (FOLDER / "requirements-build.in").read_text().splitlines()


def test_no_file_names_a_registry_or_a_folder_of_a_machine():
    for path in [*FOLDER.iterdir(), ROOT / ".ci/base-image", ROOT / ".ci/docker-engine"]:
        text = path.read_text()
        assert not re.search(r"index-url [=h]|pypi\.org|deb\.debian|/root/|/home/", text), path


STATUS = """\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u13
Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10-10~)
Description: GNU C Library: Shared libraries
 More about it.

Package: zlib1g
Maintainer: Mark Brown <broonie@debian.org>
Architecture: amd64
Source: zlib (1:1.2.13.dfsg-1)
Version: 1:1.2.13.dfsg-1+b1
Pre-Depends: libc6 (>= 2.14) | none
Description: compression library - runtime
"""


def test_a_debian_package_is_named_as_scanners_look_for_it(sbom):
    first, second = (sbom.debian_component(one, "12") for one in sbom.stanzas(STATUS))
    assert first["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12&upstream=glibc"
    assert first["supplier"]["name"].startswith("GNU Libc Maintainers")
    assert second["purl"].startswith("pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1%2Bb1?arch=amd64&distro=debian-12&")
    assert second["purl"].endswith("&upstream=zlib%401%3A1.2.13.dfsg-1")
    assert second["version"] == "1:1.2.13.dfsg-1+b1"


def wheel(folder, name, version, **more):
    info = folder / f"{name}-{version}.dist-info"
    (info / "sboms").mkdir(parents=True)
    metadata = Message()
    metadata["Metadata-Version"], metadata["Name"], metadata["Version"] = "2.4", name, version
    for field, values in more.items():
        for value in values:
            metadata[field.replace("_", "-")] = value
    (info / "METADATA").write_text(metadata.as_string())
    library = {"type": "library", "name": "openssl", "version": "3.5.4", "purl": "pkg:rpm/openssl@3.5.4"}
    (info / "sboms/auditwheel.cdx.json").write_text(json.dumps({"components": [library | {"scope": "required"}]}))
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/sboms/auditwheel.cdx.json,,\n")


def test_the_bill_names_python_packages_what_their_wheels_hold_and_who_needs_whom(sbom, tmp_path):
    site = tmp_path / "opt/receiver/lib/python3.11/site-packages"
    wheel(
        site,
        "external_storage_receiver",
        "0.1.0",
        License=["Apache-2.0"],
        Requires_Dist=["Psycopg.Binary[c]>=3", 'nothing; extra == "dev"'],
    )
    wheel(site, "psycopg_binary", "3.3.9", License_Expression=["LGPL-3.0-only"], Summary=["A driver"])
    for path, text in (("var/lib/dpkg/status", STATUS), ("etc/os-release", 'NAME="Debian"\nVERSION_ID="12"\n')):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    bill = sbom.bill(tmp_path, "2026-11-24T00:00:00+00:00")
    components = {one["name"]: one for one in bill["components"]}
    assert set(components) == {"external-storage-receiver", "psycopg-binary", "libc6", "zlib1g"}
    assert bill["metadata"]["component"]["version"] == "0.1.0"
    assert components["external-storage-receiver"]["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    driver = components["psycopg-binary"]
    assert driver["purl"] == "pkg:pypi/psycopg-binary@3.3.9"
    assert driver["licenses"] == [{"expression": "LGPL-3.0-only"}]
    (held,) = driver["components"]
    assert (held["name"], held["version"], held["purl"]) == ("openssl", "3.5.4", "pkg:rpm/openssl@3.5.4")
    assert "scope" not in held
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert len(needs["image"]) == 4
    assert needs["pkg:pypi/external-storage-receiver@0.1.0"] == ["pkg:pypi/psycopg-binary@3.3.9"]
    assert needs[components["zlib1g"]["bom-ref"]] == [components["libc6"]["bom-ref"]]
    assert sbom.bill(tmp_path, "2026-11-24T00:00:00+00:00") == bill
