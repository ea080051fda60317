"""Requests and answers as a report may show them: without whole tokens, signatures or private keys."""

import re
from dataclasses import dataclass, field

from receiver.conformance.printable import visible_lines
from receiver.mock_platform.client import Answer
from receiver.mock_platform.json_values import JSONObject

_MOST_TEXT = 500  # characters of a body in a report
_FIRST, _LAST = 2, 6  # exchanges of one check that are kept
_TOKEN = re.compile(r"[A-Za-z0-9_+=-]{48,}(?:\.[A-Za-z0-9_+=-]*)*")  # longer than any UUID; a token's header is


def masked(text: str) -> str:
    """Return ``text`` shortened, with anything that may be a token or a key cut to its first characters.

    Unprintable characters become escapes.
    """
    text = _TOKEN.sub(lambda match: f"{match[0][:10]}…({len(match[0])} characters)", text[: 1 << 20])
    return visible_lines(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters)")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, masked. Without an answer, ``status`` is 0 and ``answer`` says why."""

    request: str
    answer: str
    status: int
    seconds: float


def exchange_of(
    method: str, path: str, headers: JSONObject, body: bytes | None, answer: Answer | Exception
) -> Exchange:
    """Return the Exchange of a request and its Answer, or the error that came instead."""
    lines = [f"{method} {masked(path)}", *(f"{masked(name)}: {masked(str(value))}" for name, value in headers.items())]
    if body is not None:
        lines += [
            "",
            masked(body[: 1 << 16].decode("utf-8", "replace")) if len(body) < 1 << 16 else f"({len(body):,} B)",
        ]
    request = "\n".join(lines)
    if isinstance(answer, Exception):
        return Exchange(request, f"no answer: {type(answer).__name__}: {masked(str(answer))}", 0, 0.0)
    lines = [str(answer.status), *(f"{masked(name)}: {masked(value)}" for name, value in answer.headers.items())]
    if answer.body:
        lines += ["", masked(answer.body[: 1 << 16].decode("utf-8", "replace"))]
    return Exchange(request, "\n".join(lines), answer.status, answer.seconds)


@dataclass
class Record:
    """The first and the last exchanges of one check, and how many there were (appending to a list is atomic)."""

    first: list[Exchange] = field(default_factory=list)
    last: list[Exchange] = field(default_factory=list)
    count: int = 0
    times: list[tuple[str, float]] = field(default_factory=list)

    def add(self, method: str, exchange: Exchange) -> None:
        """Keep ``exchange``, dropping one from the middle if there are too many."""
        self.count += 1
        self.times.append((method, exchange.seconds))
        if len(self.first) < _FIRST:
            self.first.append(exchange)
        else:
            self.last = [*self.last[1 - _LAST :], exchange]

    @property
    def kept(self) -> list[Exchange]:
        """The exchanges that a report shows."""
        return self.first + self.last
