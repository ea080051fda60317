"""The pages that users read, and the commands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[next(n for n, up in enumerate(Path(__file__).parents) if (up / "setup.cfg").exists())]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs/tutorial/first-round-trip.md"
WALK_THROUGH = ROOT / "docs/how-to/simulate-the-platform.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = (README, CONTRIBUTING, *sorted((ROOT / "docs").rglob("*.md")))
OTHER_PAGES = (
    *sorted(set(ROOT.glob("*.md")) - {README, CONTRIBUTING}),
    ROOT / "keys/README.md",
    *sorted((ROOT / "deploy").rglob("*.md")),
)


@dataclass(frozen=True)
class Command:
    """One command of a page: its lines joined, without the comment at its end."""

    page: str
    text: str

    def __str__(self):
        return f"{self.page}: {self.text}"


def blocks(text: str, *languages: str) -> list[str]:
    """Return the contents of the fenced code blocks in ``text`` that are of one of ``languages``."""
    found = re.findall(rf"^ *```(?:{'|'.join(languages)})\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [
        re.sub(r"^ {2,4}(?=\S)", "", block, flags=re.MULTILINE) if block.startswith("  ") else block for block in found
    ]


def commands(text: str) -> list[str]:
    """Return the commands of the ``sh`` and ``console`` blocks in ``text``, each on one line."""
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(blocks(text, "sh", "console", "shell", "bash")))
    # The text of a here-document is no command.
    joined = re.sub(r"<<-?'?(\w+)'?(.*)\n(?:.*\n)*?\s*\1$", r"<<\1\2", joined, flags=re.MULTILINE)
    found = (re.sub(r"(^|\s+)#(?: .*)?$", "", line.strip()).removeprefix("$ ") for line in joined.splitlines())
    return [command for command in found if command]


def documented_commands() -> list[Command]:
    """Return every command of the README and of the manual."""
    return [Command(str(page.relative_to(ROOT)), text) for page in PAGES for text in commands(page.read_text("utf-8"))]


def code(text: str) -> list[str]:
    """Return what stands as code in ``text``: lines of fenced blocks, and spans between backticks."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^ *```\w*\n.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", rest)
