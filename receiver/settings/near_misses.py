"""Variables whose names are nearly those of settings, so that a setting would silently keep its default.

| the variable's name                            | stops a start that leaves the setting at its default |
|------------------------------------------------|------------------------------------------------------|
| the setting's but for case, quotes, a BOM …    | if the value fits the setting                        |
| one or two letters off (one for short names)   | if the value fits the setting                        |
| another word for it (DB_URL, DATABASE_USER)    | if the value fits the setting                        |
| DB_USER, DB_PASSWORD and the like              | never: other programs use them                       |

All other cases are warnings. No message repeats a value: it may be a secret.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from receiver import files
from receiver.settings import parsers
from receiver.settings.key_sources import kid_in_name
from receiver.settings.table import Settings, declared
from receiver.stores.urls import store_url
from receiver.stores.urls.store_url import SERVERS

_URLS = ("DATABASE_URL", "JDBC_DATABASE_URL")
_CREDENTIALS = {"DATABASE_USERNAME": "username", "DATABASE_PASSWORD": "password"}
_KEYS = ("PLATFORM_KEY", "RECEIVER_KEY")
_WITH_UUID = (*_KEYS, "STORAGE_TENANT", "STORAGE_REGION", "STORAGE_STORE_ID")
_OTHER_WORDS = {
    "DATABASE_URL": "DB_URL DB_URI DATABASE_DSN DB_DSN DATABASE STORE_URL DATABASE_CONNECTION_STRING",
    "JDBC_DATABASE_URL": "JDBC_URL JDBC_URI JDBC_DB_URL",
    "DATABASE_USERNAME": "DATABASE_USER DATABASE_LOGIN DB_USERNAME DB_USER",
    "STORAGE_SEALING_KEY": "SEALING_KEY",
    "DATABASE_PASSWORD": "DATABASE_PASS DATABASE_PASSWD DATABASE_PWD DB_PASSWORD DB_PASS",
}
_SHARED = re.compile(r"DB_(?:USER|USERNAME|PASSWORD|PASS)")  # too common to stop a start that needs none
_UUID = re.compile(r"[_-]?(?P<kid>[0-9A-Fa-f]{8}(?:[-_][0-9A-Fa-f]{4}){3}[-_][0-9A-Fa-f]{12})")
# A byte order mark in UTF-8, also as Latin-1 or as bytes that could not be decoded; then other invisible characters.
_MARK = re.compile("^(?:\ufeff|\u00ef\u00bb\u00bf|\udcef\udcbb\udcbf)")
_AROUND = "\"'`\u2018\u2019\u201c\u201d:$\u200b\u200c\u200d\u2060\ufeff\u00a0"
_STORE_URL = re.compile(
    r"(?:jdbc:|(?:sqlite|file|postgres(?:ql)?|mysql|mariadb|sqlserver|mssql|oracle)(?:\+\w+)?:)",
    re.ASCII | re.IGNORECASE,
)
_LEAST_PORT = 1024  # below it, only 80 and 443 are likely to be meant as a port


class _Target(NamedTuple):
    """A name to compare others with: that of the setting ``name``, or another word for it.

    ``granted`` is how many letters may be wrong; ``letters`` is the set of its letters (see _letters).
    """

    spelled: str
    name: str
    granted: int
    file: bool
    letters: int


@dataclass(frozen=True)
class NearMiss:
    """``variable`` is nearly the setting ``name`` and holds ``value``; ``because`` says what else is wrong.

    With ``file``, it names a file with the value: ``value`` is its content, None if it cannot be read.
    """

    variable: str
    name: str
    value: str | None
    because: str = ""
    file: bool = False

    @property
    def nearest(self) -> str:
        """The variable to set instead."""
        return f"{self.name}_FILE" if self.file else self.name


def judge(environ: Mapping[str, str], settings: Settings, given: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the mistakes and the warnings about names in ``environ``, from which ``settings`` were read.

    ``given`` are the names of settings and keys that were set, without ``_FILE``.
    """
    mistakes: list[str] = []
    warnings: list[str] = []
    for miss in _near_misses(environ):
        why = f" ({miss.because})" if miss.because else ""
        message = f"{miss.variable}: there is no such setting; the nearest is {miss.nearest}{why}"
        if _leaves_default(miss, settings, given) and _fits(miss) and not _SHARED.match(miss.variable):
            for_another = f". If it is for another program, set {miss.name} as well"
            mistakes.append(message + ("" if miss.because.startswith("its name") else for_another))  # a BOM, quotes
        else:
            warnings.append(f"{message}. It is not read")
    return mistakes, warnings


def _near_misses(environ: Mapping[str, str]) -> Iterator[NearMiss]:
    targets = _targets()
    known = {target.name for target in targets}
    for variable, value in sorted(environ.items()):
        bare = variable.removesuffix("_FILE")
        if not value or variable.startswith("STORAGE_") or {variable, bare} & known or _is_key(bare):
            continue
        cleaned, because = _cleaned(variable)
        name, is_file = _nearest(cleaned, targets)
        if name:
            is_path = is_file and not _STORE_URL.match(value)
            yield NearMiss(variable, name, _content(value) if is_path else value, because, is_file)


@cache
def _targets() -> tuple[_Target, ...]:
    names = [field.metadata["name"] for field in declared()]
    words = [(word, name, 0) for name, words in _OTHER_WORDS.items() for word in words.split()]
    words += [(name, name, 1 if name.startswith("STORAGE_") or len(name) < 8 else 2) for name in (*names, *_KEYS)]
    return tuple(
        _Target(spelled + suffix, name, granted, bool(suffix), _letters(spelled + suffix))
        for spelled, name, granted in words
        for suffix in ("", "_FILE")
    )


def _is_key(bare: str) -> bool:
    return bare.startswith(tuple(f"{name}_" for name in _KEYS))  # receiver.settings.environment checks the rest


def _cleaned(variable: str) -> tuple[str, str]:
    """Return ``variable`` in the spelling of a setting's name, and what was wrong with it besides letters."""
    name = _MARK.sub("", variable)
    because = "its name begins with a byte order mark: save the file without one" if name != variable else ""
    bare = re.sub(r"^export\s+", "", name.strip().strip(_AROUND)).strip().strip(_AROUND)
    if bare != name and not because:
        because = "its name has quotes, spaces or the like around it"
    kid = _UUID.search(bare)
    stem = bare[: kid.start()] if kid else bare
    spelled = re.sub(r"[-. ]", "_", stem).upper()
    if spelled != stem and not because:
        because = "names are in upper case, with underscores"
    return spelled + (f"_{kid['kid']}{bare[kid.end() :].upper()}" if kid else ""), because


def _nearest(cleaned: str, targets: Sequence[_Target]) -> tuple[str, bool]:
    """Return the setting that ``cleaned`` nearly names, "" if there is none, and whether it has _FILE."""
    kid = _UUID.search(cleaned)
    if kid:
        stem = next((name for name in _WITH_UUID if _distance(cleaned[: kid.start()], name) <= 2), "")
        suffix = cleaned[kid.end() :]
        is_file = bool(suffix) and _distance(suffix, "_FILE") <= 2
        return (f"{stem}_{kid['kid']}", is_file) if stem and (is_file or not suffix) else ("", False)
    best, letters = (99, "", False), _letters(cleaned)
    for target in targets:
        if abs(len(cleaned) - len(target.spelled)) > target.granted:
            continue
        if (letters ^ target.letters).bit_count() > 2 * target.granted:  # each wrong letter makes two at most
            continue
        off = _distance(cleaned, target.spelled)
        if off <= target.granted and off < best[0]:
            best = off, target.name, target.file
    return best[1], best[2]


def _letters(name: str) -> int:
    """Return the set of letters in ``name`` as a number with a bit for each."""
    found = 0
    for letter in name:
        found |= 1 << (ord(letter) & 63)
    return found


def _distance(one: str, other: str) -> int:
    """Return how many letters of ``one`` are missing, too many, wrong or swapped, compared with ``other``."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            off = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                off = min(off, earlier[j - 2] + 1)
            row.append(off)
    return row[-1]


def _content(path: str) -> str | None:
    try:
        return files.read_text(path).rstrip("\r\n")
    except ValueError:
        return None


def _leaves_default(miss: NearMiss, settings: Settings, given: frozenset[str]) -> bool:
    """Tell whether the setting that ``miss`` may have meant keeps its default, and that matters."""
    if miss.name in _URLS:
        return not given & set(_URLS)
    if miss.name in _CREDENTIALS and miss.name not in given:
        store_url = settings.store_url
        return store_url.kind in SERVERS.values() and not getattr(store_url, _CREDENTIALS[miss.name])
    if miss.name == "PORT":
        return not given & {"PORT", "STORAGE_BIND"}
    return miss.name.lower().replace("-", "_") not in {name.lower().replace("-", "_") for name in given}


def _fits(miss: NearMiss) -> bool:
    """Tell whether the value of ``miss`` could be meant for the setting."""
    value = (miss.value or "").strip().strip("\"'")
    if not value:
        return False
    if miss.name in _URLS or miss.name.startswith("STORAGE_TENANT_"):
        return bool(_STORE_URL.match(value)) or _parses(store_url.parse, value)
    if miss.name.startswith(_KEYS):
        return value.startswith(("{", "-----BEGIN")) or kid_in_name(miss.name) is not None
    if miss.name == "PORT":
        return bool(re.fullmatch(r"\d{2,5}", value, re.ASCII)) and (
            int(value) in (80, 443) or _LEAST_PORT <= int(value) <= 65535
        )
    parse = {field.metadata["name"]: field.metadata["parse"] for field in declared()}
    return _parses(parse.get(miss.name, parsers.label), value)


def _parses(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True
