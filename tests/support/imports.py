"""The package's import graph: ``python -m tests.support.imports [FOLDER]`` prints folders, arrows and what is wrong.

FOLDER is a checkout to look at, this one by default. Nothing is imported: the files are parsed.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

# From the top down: a module may import from its own folder and from the rows below, never from a row above.
ORDER = (
    "__main__",
    "commands",
    "doctor",
    "conformance",
    "mock_platform",
    "worker",
    "server",
    "admin",
    "app",
    "routes",
    "envelope",
    "signature",
    "schemas",
    "body",
    "bootstrap",
    "keys",
    "network",
    "process",
    "settings",
    "stores",
    "sealing",
    "telemetry",
    "jose",
    "idempotency",
    "states",
    "wsgi",
    "problems",
    "protocol",
    "files",
    "secret",
    "encoding",
    "strictjson",
    "waits",
    "threadpool",
    "handover",
)
# What stands apart: it must work on any receiver, or be its opponent.
APART = {"conformance": {"conformance", "mock_platform"}, "mock_platform": {"mock_platform"}}
FLASK = {"app", "routes", "mock_platform.web"}

Arrow = tuple[str, str]


def modules(root: Path = ROOT) -> dict[str, ast.Module]:
    """Return the parsed modules of ``root``'s package by name, without the leading ``receiver``; "" is the package."""
    found = {}
    for path in sorted((root / "receiver").rglob("*.py")):
        parts = path.relative_to(root / "receiver").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def arrows(parsed: Mapping[str, ast.Module]) -> set[Arrow]:
    """Return (importer, imported) for every import in ``parsed``, in functions and under TYPE_CHECKING too."""
    return {
        (name, target)
        for name, tree in parsed.items()
        for target in _imported(tree, parsed)
        if target not in ("", name)  # the version
    }


def _imported(tree: ast.Module, parsed: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "receiver":
            base = node.module.removeprefix("receiver").removeprefix(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".removeprefix(".")
                yield whole if whole in parsed else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "receiver":
                    yield alias.name.removeprefix("receiver").removeprefix(".")


def room_of(module: str) -> str:
    """Return the folder or the single file at the package's top that ``module`` belongs to."""
    return module.partition(".")[0]


def against_the_order(found: set[Arrow]) -> list[Arrow]:
    """Return the arrows that lead upwards, and those out of what stands apart."""
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        (source, target)
        for source, target in found
        if source
        if rank[room_of(source)] > rank[room_of(target)]
        or room_of(target) not in APART.get(room_of(source), {room_of(target)})
    )


def circles(found: set[Arrow]) -> list[list[str]]:
    """Return the groups of names that import one another, directly or through others (Tarjan's algorithm)."""
    after = defaultdict(set)
    for source, target in found:
        after[source].add(target)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in after[name]:
            if target not in number:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], number[target])
        if low[name] == number[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for name in sorted(after):
        if name not in number:
            visit(name)
    return groups


def between_rooms(found: set[Arrow]) -> Counter[Arrow]:
    """Return how many arrows lead from one room to another."""
    return Counter(
        (room_of(source), room_of(target)) for source, target in found if source and room_of(source) != room_of(target)
    )


def main() -> None:
    """Print the graph."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    parsed = modules(root)
    found = arrows(parsed)
    rooms = Counter(room_of(name) for name in parsed if name)
    known = [name for name in ORDER if name in rooms] + sorted(rooms.keys() - set(ORDER))
    out = between_rooms(found)
    for name in known:
        targets = ", ".join(f"{target} {count}" for (source, target), count in sorted(out.items()) if source == name)
        print(f"{name:14} {rooms[name]:3} modules → {targets or 'nothing'}")
    top = [name for name in rooms if name in parsed and not any(other.startswith(f"{name}.") for other in parsed)]
    print(f"{len(parsed)} modules in {len(rooms) - len(top)} folders and {len(top)} files beside them")
    print(f"{len(found)} arrows, {sum(out.values())} of them between folders")
    if set(rooms) <= set(ORDER):
        wrong = against_the_order(found)
        print(f"{len(wrong)} against the order", *(f"  {source} → {target}" for source, target in wrong), sep="\n")
    else:
        print("the order is of another layout; not checked")
    for what, groups in (("modules", circles(found)), ("folders", circles(set(out)))):
        print(f"{len(groups)} circles of {what}", *(f"  {' ↔ '.join(group)}" for group in groups), sep="\n")


if __name__ == "__main__":
    main()
