"""Print as CycloneDX JSON what the image in a folder consists of: Python packages, what their wheels hold, Debian's.

Runs in the build stage, with Python alone.
"""

import argparse
import datetime
import json
import re
import uuid
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import quote

NAME = "external-storage-receiver"
_KEPT = ("type", "group", "name", "version", "purl", "cpe", "licenses")


def main() -> None:
    """Read the words of the command line, print the bill of materials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--created", default=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    words = parser.parse_args()
    print(json.dumps(bill(words.root, words.created), indent=1))


def bill(root: Path, created: str) -> dict:
    """Return the bill of materials of the image that lies in ``root``."""
    found = sorted(distributions(path=map(str, root.glob("opt/receiver/lib/python*/site-packages"))), key=_name)
    packages = list(stanzas((root / "var/lib/dpkg/status").read_text()))
    version = next(one.version for one in found if _name(one) == NAME)
    release = re.search(r'^VERSION_ID="?([^"\n]*)', (root / "etc/os-release").read_text(), re.MULTILINE)[1]
    components = [python_component(one) for one in found]
    components += [debian_component(one, release) for one in packages]
    refs = {component["name"]: component["bom-ref"] for component in components}
    needs = {refs[_name(one)]: {_normal(re.split(r"[^\w.-]", text)[0]) for text in _required(one)} for one in found}
    needs |= {refs[one["Package"]]: set(re.findall(r"(?:^|[,|]) *([^ :,|]+)", one["Depends"])) for one in packages}
    container = {"type": "container", "bom-ref": "image", "name": NAME, "version": version}
    edges = [{"ref": ref, "dependsOn": sorted(refs[one] for one in names & set(refs))} for ref, names in needs.items()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([components, created]))}",
        "version": 1,
        "metadata": {"timestamp": created, "component": container},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": sorted(refs.values())}, *edges],
    }


def python_component(package: Distribution) -> dict:
    """Return the component of an installed Python package; within it, the libraries that its wheel says it holds."""
    name, metadata = _name(package), package.metadata
    component = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{package.version}",
        "name": name,
        "version": package.version,
        "description": metadata.get("Summary") or name,
        "purl": f"pkg:pypi/{name}@{quote(package.version)}",
    }
    named = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier", ()) if one.startswith("License ::")]
    named = named or [one for one in metadata.get_all("License", ()) if "\n" not in one]
    if metadata.get("License-Expression"):
        component["licenses"] = [{"expression": metadata["License-Expression"]}]
    elif named:
        component["licenses"] = [{"license": {"name": one}} for one in named]
    held = list(_held(package, component["bom-ref"]))
    return component | ({"components": held} if held else {})


def _held(package: Distribution, ref: str) -> Iterator[dict]:
    """Yield the components of the bills that the wheel of ``package`` brought along (PEP 770)."""
    seen = set()
    for file in package.files or ():
        if ".dist-info/sboms/" in str(file) and file.locate().is_file():
            for one in json.loads(file.read_text()).get("components", ()):
                key = (one["name"], one.get("version"))
                if key not in seen and _normal(one["name"]) != _name(package):
                    seen.add(key)
                    yield {"bom-ref": f"{ref}#{len(seen)}"} | {field: one[field] for field in _KEPT if field in one}


def debian_component(package: dict[str, str], release: str) -> dict:
    """Return the component of an installed Debian package; scanners know its source by the word "upstream"."""
    name, version = package["Package"], package["Version"]
    source, _, other = package.get("Source", name).partition(" ")
    upstream = source + (f"@{other.strip('()')}" if other else "")
    words = f"arch={package['Architecture']}&distro=debian-{release}&upstream={quote(upstream, safe='')}"
    return {
        "type": "library",
        "bom-ref": f"pkg:deb/{name}@{version}",
        "supplier": {"name": package["Maintainer"]},
        "name": name,
        "version": version,
        "description": package["Description"].splitlines()[0],
        "purl": f"pkg:deb/debian/{name}@{quote(version, safe='~')}?{words}",
    }


def stanzas(status: str) -> Iterator[dict[str, str]]:
    """Yield the packages of dpkg's ``status``, each as a dict of its fields."""
    for text in re.split(r"\n\n+", status.strip()):
        fields = dict(HeaderParser().parsestr(text).items())
        needed = filter(None, map(fields.get, ("Pre-Depends", "Depends")))
        yield fields | {"Depends": ", ".join(needed)}


def _required(package: Distribution) -> list[str]:
    return [text for text in package.requires or () if "extra ==" not in text]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(package: Distribution) -> str:
    return _normal(package.metadata["Name"])


if __name__ == "__main__":
    main()
