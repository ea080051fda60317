"""A clock that steps: libfaketime reads its offset from a file; a client follows it, or does not."""

import functools
import glob
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from receiver.mock_platform import tokens
from receiver.mock_platform.client import Answer, Client
from tests.support.paths import ROOT

_LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@dataclass
class FakedClock:
    """The wall clock of processes that run with ``environment``; ``file`` holds its offset, ``offset`` is that in seconds.

    With ``monotonic`` the monotonic clock steps, too, as that of a virtual machine may that was frozen.
    """

    file: Path
    monotonic: bool = False
    offset: int = 0

    def step(self, offset: int) -> None:
        """Let the clock be ``offset`` seconds before (or behind) the true time, at once."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        new.rename(self.file)
        self.offset = offset

    def now(self) -> float:
        return time.time() + self.offset

    @property
    def environment(self) -> dict[str, str]:
        preloaded = f"{_waits()}:{glob.glob(_LIBRARY)[0]}"
        found = {"FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1"}
        return found | {"LD_PRELOAD": preloaded} | ({} if self.monotonic else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"})


@functools.cache
def _waits() -> Path:
    """Return the built waits.c."""
    built = ROOT / "build" / "waits.so"
    built.parent.mkdir(exist_ok=True)
    new = built.with_suffix(f".{time.monotonic_ns()}")
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", new, Path(__file__).with_name("waits.c")]
    subprocess.run(command, check=True, timeout=60)
    new.rename(built)
    return built


class FollowingClient(Client):
    """A client whose clock is ``clock``; unless ``follows`` is taken away."""

    clock: FakedClock
    follows = True

    def now(self) -> float:
        return self.clock.now() if self.follows else time.time()

    def headers(self, path: str, /, **claims) -> dict[str, str]:
        now = int(self.now())
        return super().headers(path, **{"iat": now, "exp": now + 300} | claims)

    def call(self, method, path, body=None, headers=None) -> Answer:
        """As of Client; a step of the monotonic clock ends connections that are kept alive."""
        return self.call_kept(method, path, body, headers)

    def save(self, *states, **how) -> Answer:
        return super().save(*(tokens.state_claims(state, self.now()) for state in states), **how)

    def open(self, id: str, answer: Answer) -> str:
        """Return the content; raises ReplyRefused also when the reply's times are not those of this client's clock."""
        return tokens.open_reply(answer.json["token"], self.tenant, id, self.keys, self.now())

    def open_at(self, id: str, answer: Answer, now: float) -> str:
        """Return the content as the platform does it at ``now``, or why it would refuse the reply."""
        try:
            return tokens.open_reply(answer.json["token"], self.tenant, id, self.keys, now)
        except tokens.ReplyRefused as refused:
            return f"refused: {refused}"
