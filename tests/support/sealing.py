"""Keys for content at rest, and sealed stores."""

import json
import time
from dataclasses import replace

from receiver import sealing
from receiver.sealing import SealingKeys, generate, parse_keys
from receiver.states import Content
from receiver.stores.sealed import Sealed
from tests.support.commands import receiver
from tests.support.states import NOW, TENANT, uid
from tests.support.waiting import until


def seal(folder) -> str:
    """Make a sealing key in ``folder``, which seals at once; return its kid."""
    made = [json.loads(path.read_text())["nbf"] for path in (folder / "keys").glob("sealing-*.json")]
    until(lambda: time.time() > max(made, default=0) + 1)  # two keys never begin in the same second
    ran = receiver("keys", "sealing", "--directory", "keys", "--delay", "0", cwd=folder)
    assert (ran.stderr, ran.returncode) == ("", 0)
    return json.loads((folder / ran.stdout.removeprefix("wrote ").strip()).read_text())["kid"]


STORES = ["sqlite", "filesystem", "postgresql", "mariadb"]
NEEDLE = "the content that nobody may find"


def a_key(issued: int = NOW) -> sealing.SealingKey:
    (key,) = parse_keys(json.dumps(generate(issued)), "a test")
    return key


FIRST, SECOND = a_key(NOW - 10), a_key(NOW - 5)


def always(*keys):
    found = SealingKeys(keys)
    return lambda: found


def sealed(inner, *keys, clear_states="refuse", now=NOW) -> Sealed:
    return Sealed(inner, always(*keys), clear_states, lambda: now)


def text_of(store, number=10) -> str:
    return store.find(TENANT, uid(number)).content.text


def corrupt(inner, number, change):
    """Do with the stored content of a state what somebody with write access to the store could do."""
    state = inner.find(TENANT, uid(number))
    assert inner.replace_content(TENANT, [(state, replace(state, content=change(state.content)))]) == 1


def flipped(content):
    last = len(content.text) // 2
    other = "A" if content.text[last] != "A" else "B"
    return Content(content.text[:last] + other + content.text[last + 1 :], content.sealing_key)
