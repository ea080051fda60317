"""The manual says what is: commands, options, targets, settings, messages, links and anchors of its pages exist.

Each check is a function from a page's text to what is wrong with it, so that the tests also show that it finds faults.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from receiver.commands import cli
from receiver.settings.table import declared

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOW_TOS = sorted((DOCS / "how-to").glob("*.md"))
LINKED = [*PAGES, *sorted((ROOT / "deploy").rglob("*.md")), ROOT / "keys" / "README.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_SEPARATORS = re.compile(r"[;|&()]+")
_BEFORE = {"sudo", "time", "exec", "env"}
_UUID = r"[0-9a-fA-F]{8}(?:[-_][0-9a-fA-F]{4}){3}[-_][0-9a-fA-F]{12}"
SETTINGS = {field.metadata["name"] for field in declared()}
_WITH_UUID = ("PLATFORM_KEY", "RECEIVER_KEY", "STORAGE_TENANT", "STORAGE_REGION", "STORAGE_STORE_ID")
# The package's code as one text: a message that spans lines is put together, and what is filled in is left out.
CODE = re.sub(r'"\n\s*f?"', "", "".join(path.read_text() for path in sorted((ROOT / "receiver").rglob("*.py"))))
CODE = re.sub(r"%[sdg]|\{[^{}\n]*\}", "", CODE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Commands


def shell_lines(text: str) -> Iterator[str]:
    """Yield the lines of the ``text``'s shell blocks, those that a backslash continues as one."""
    for indent, kind, block in _FENCED.findall(text):
        if kind in ("sh", "console"):
            yield from re.sub(rf"^{indent}", "", block, flags=re.M).replace("\\\n", " ").splitlines()


def simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell ``line``, without assignments and what runs it for another."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if _SEPARATORS.fullmatch(word):
            if words:
                yield words
            words = []
        elif words or not (re.fullmatch(r"[A-Za-z_]\w*=.*", word, re.S) or word in _BEFORE):
            words.append(word)


def receivers_words(words: list[str]) -> list[str] | None:
    """Return what ``words``, a simple command, give to the receiver's command line; None if it is another program."""
    program = words[0].rpartition("/")[2]
    if program == "receiver":
        return words[1:]
    if program == "receiver-at":
        return words[2:]
    if program == "kubectl" and "--" in words:
        return receivers_words(words[words.index("--") + 1 :])
    if program == "docker" and "exec" in words:
        last = max((number for number, word in enumerate(words) if word == "receiver"), default=-1)
        return words[last + 1 :] if last >= 0 else None
    if program == "docker" and "run" in words:
        image = next((n for n, word in enumerate(words) if word.startswith("external-storage-receiver")), len(words))
        return words[image + 1 :] or None
    return None


def fault_of_command(words: list[str]) -> str | None:
    """Return what the receiver's command line would say of ``words``, without doing it; None if it takes them."""
    command, context = cli, click.Context(cli, info_name="receiver")
    rest = re.sub(r"(?:^| )\d?[<>]+ ?\S+", "", " ".join(shlex.quote(one) if " " in one else one for one in words))
    rest = [word for word in shlex.split(rest) if word != "…"]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            return f"there is no command {rest[0]}"
        command, context, rest = found, click.Context(found, parent=context), rest[1:]
    if isinstance(command, click.Group) and not rest:
        return "a command is missing"
    try:
        _, extra, _ = command.make_parser(context).parse_args(list(rest))
    except click.UsageError as error:
        return error.format_message()
    return f"more than the command takes: {extra}" if extra else None


def wrong_commands(text: str) -> list[str]:
    wrong = []
    for line in shell_lines(text):
        for words in simple_commands(line):
            given = receivers_words(words)
            fault = fault_of_command(given) if given is not None else None
            if fault:
                wrong.append(f"{line}: {fault}")
    return wrong


def wrong_targets(text: str) -> list[str]:
    named = {
        words[1] for line in shell_lines(text) for words in simple_commands(line) if words[0] == "make" and words[1:]
    }
    named |= set(re.findall(r"`make ([a-z-]+)", text))
    return sorted(one for one in named if not re.search(rf"^{re.escape(one)}:.*  ## \w", MAKEFILE, re.M))


# Settings


def wrong_settings(text: str) -> list[str]:
    wrong = set()
    for name, after in re.findall(r"(?<![\w-])(STORAGE_\w*|DATABASE_\w+|JDBC_DATABASE_\w+)(.?)", text):
        bare = re.sub(rf"_{_UUID}$", "", name.removesuffix("_FILE"))
        if after in ("…", "*", "<") or bare.endswith("_"):
            known = any(one.startswith(bare) for one in SETTINGS) or bare.rstrip("_") in _WITH_UUID
        else:
            known = bare in SETTINGS or (bare in _WITH_UUID and name != bare)
        if not known:
            wrong.add(name)
    return sorted(wrong)


# Links


def slugs(path: Path) -> set[str]:
    """Return the anchors of ``path``, a page: the manual's as MkDocs makes them, others as GitHub does."""
    text = _FENCED.sub("", path.read_text())
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+?)(?: \{#.*)?$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        kept = re.sub(r"[^\w\s-]", "", plain).strip()
        found.add(re.sub(r"[-\s]+", "-", kept) if DOCS in path.parents else kept.replace(" ", "-"))
    return found | set(re.findall(r"^#+ .*\{#([\w-]+)", text, re.M))


def wrong_links(path: Path, text: str) -> list[str]:
    wrong = []
    prose = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", text))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        to = (path.parent / place).resolve() if place else path
        if not to.exists() or (anchor and (to.is_dir() or anchor not in slugs(to))):
            wrong.append(target)
    return wrong


# Messages


def wrong_messages(text: str) -> list[str]:
    """Return the messages in the first column of the tables "Message" and "Line" of ``text`` that no code says."""
    wrong = []
    for table in re.findall(r"^\| (?:Message|Line) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        for row in table.splitlines():
            for message in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
                parts = [part.strip() for part in message.split("…")]
                wrong += [part for part in parts if len(part) > 3 and part not in CODE]
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_target_and_setting_of_a_page_exists(path):
    text = path.read_text()
    assert wrong_commands(text) == []
    assert wrong_targets(text) == []
    assert wrong_settings(text) == []


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_every_link_and_anchor_leads_somewhere(path):
    assert wrong_links(path, path.read_text()) == []


@pytest.mark.parametrize("path", HOW_TOS, ids=name_of)
def test_a_how_to_has_the_form_of_all_others(path):
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= 150
    assert re.match(r"# .+\n\nYou ", text), "it begins with what the reader gets"
    assert "## Check it\n" in text
    assert "## If it fails\n" in text
    assert text.index("## Check it") < text.index("## If it fails")
    assert text.count("```") % 2 == 0


# What is said beside the commands of the samples: tried by hand, or of the receiver itself.
ALSO = (
    "make image",
    "docker exec receiver receiver store purge",
    "docker run --rm --user $ id -g",
    "journalctl -u receiver@8080",
    "kubectl get pods",
    "kubectl logs deployment/receiver",
    "../../../.venv/bin/receiver keys sealing --directory keys",
    "cp -r example production",
    "curl -i http://127.0.0.1:$PORT/api/storage/1/health",
    "receiver keys check",
    "receiver config",
    "install -D -m 0400 /dev/stdin /etc/credstore/receiver-8080.DATABASE_PASSWORD",
)


# The commands of these samples are run by the tests of deploy/ (image, units, manifests, the Java service's way).
@pytest.mark.parametrize(
    ("page", "sample"),
    [
        ("run-in-a-container", "docker/README.md"),
        ("run-on-kubernetes", "kubernetes/README.md"),
        ("run-under-systemd", "systemd/README.md"),
        ("switch-from-the-java-service", "SWITCHING.md"),
    ],
)
def test_a_page_says_the_commands_of_its_sample(page, sample):
    def commands(path):
        return {tuple(words) for line in shell_lines(path.read_text()) for words in simple_commands(line)}

    known = commands(ROOT / "deploy" / sample) | {tuple(words.split()) for words in ALSO}
    there = commands(DOCS / "how-to" / f"{page}.md")
    assert there - known == set()
    assert len(there) > 5


def test_every_message_that_is_explained_is_one_of_the_programs():
    text = (DOCS / "how-to" / "troubleshoot.md").read_text()
    assert text.count("| Message |") + text.count("| Line |") == 2
    assert wrong_messages(text) == []


def test_every_reason_of_a_refusal_is_explained():
    from receiver.problems import REASONS

    text = (DOCS / "how-to" / "troubleshoot.md").read_text()
    assert [reason for reason in REASONS if reason != "http" and f"`{reason}`" not in text] == []


def test_the_checks_see_what_is_in_the_pages():
    texts = [path.read_text() for path in HOW_TOS]
    commands = [words for text in texts for line in shell_lines(text) for words in simple_commands(line)]
    assert sum(receivers_words(words) is not None for words in commands) > 80
    assert sum(words[0] == "make" for words in commands) > 4


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("receiver store cpy --to @url", "no command cpy"),
        (".venv/bin/receiver store copy --too @url", "--too"),
        ("sudo receiver-at 8080 doctor --roundtripp", "--roundtripp"),
        ("docker exec receiver receiver heal", "no command heal"),
        ("docker run --rm external-storage-receiver keys make", "no command make"),
        ("kubectl exec deployment/receiver -- receiver doctor --urll x", "--urll"),
        ("A=1 time receiver store purge now && true", "more than the command takes"),
        ("(umask 077; true) && receiver keys", "a command is missing"),
    ],
)
def test_a_wrong_command_is_found(line, fault):
    (found,) = wrong_commands(f"1. Do:\n\n    ```sh\n    {line}\n    ```\n")
    assert fault in found


@pytest.mark.parametrize(
    "line",
    ["docker logs receiver", "pip install receiver[mysql]", "receiver store stats | head -3", "receiver --version"],
)
def test_what_is_right_or_another_programs_is_not(line):
    assert wrong_commands(f"```sh\n{line}  # a comment\n```\n") == []


def test_wrong_targets_settings_links_and_messages_are_found(tmp_path):
    assert wrong_targets("`make runn` and\n```sh\nmake platfrom\nmake run\n```\n") == ["platfrom", "runn"]
    assert wrong_settings("STORAGE_WORKRES, STORAGE_BIND_FILE, STORAGE_TLS_…, STORAGE_TSL_…, DATABASE_URI") == [
        "DATABASE_URI",
        "STORAGE_TSL_",
        "STORAGE_WORKRES",
    ]
    assert wrong_settings("STORAGE_TENANT_<uuid>, STORAGE_REGION_918f5a24_290e_4659_9cd6_c8d95aee92c6_FILE") == []
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## One `part`, two\n")
    text = "[a](page.md) [b](page.md#one-part-two) [c](page.md#three) [d](none.md) [e](https://example.com/x)"
    assert wrong_links(tmp_path / "other.md", text) == ["page.md#three", "none.md"]
    table = "| Message | Fix |\n|---|---|\n| `is protected by a passphrase`, `is guarded by … a wodr` | x |\n"
    assert wrong_messages(table) == ["is guarded by", "a wodr"]
