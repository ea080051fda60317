"""The known deviations of the Java service: a table that also says how a failure is recognised as one of them.

Sources: protocol, section 9, and what that page marks **Own**; `deploy/SWITCHING.md`.
The table has no check of level must, because the Java service passes all of those.
"""

from collections.abc import Callable
from dataclasses import dataclass

from receiver.conformance.answers import Observation, same_meaning

Fits = Callable[[Observation], bool]


@dataclass(frozen=True)
class Deviation:
    """What the Java service ``does``, the ``checks`` that fail because of it, and whether a failure ``fits``."""

    does: str
    checks: tuple[str, ...]
    fits: Fits


def known_deviation(check: str, observation: Observation) -> str:
    """Return what the Java service does, if ``check`` failed with ``observation`` because of just that; else ""."""
    for deviation in DEVIATIONS:
        if check in deviation.checks and deviation.fits(observation):
            return deviation.does
    return ""


def remark(does: str) -> str:
    """Return the remark that a report makes about a known deviation."""
    return f"the Java service does this too: it {does}"


def markdown_table() -> str:
    """Return the known deviations as a Markdown table."""
    checks: dict[str, list[str]] = {}
    for one in DEVIATIONS:
        checks.setdefault(one.does, []).extend(f"`{id}`" for id in one.checks)
    lines = ["| the Java service | checks that fail for it |", "|---|---|"]
    lines += [f"| {does} | {', '.join(ids)} |" for does, ids in checks.items()]
    return "\n".join(lines) + "\n"


def _answered(*statuses: int, probe: str = "") -> Fits:
    return lambda observation: observation.status in statuses and probe in observation.what


def _same_value(observation: Observation) -> bool:
    return (
        observation.wanted is not None
        and observation.found is not None
        and same_meaning(observation.wanted, observation.found)
    )


def _another_value(observation: Observation) -> bool:
    """Return whether the answer had the content of another save than the expected one."""
    return (
        observation.wanted is not None
        and observation.found is not None
        and not same_meaning(observation.wanted, observation.found)
    )


def _gone(observation: Observation) -> bool:
    return observation.wanted is not None and observation.found is None


def _unsigned_without_a_body(observation: Observation) -> bool:
    return observation.status == 401 and not observation.body


_DONE = _answered(200, 204)
_BROKE = _answered(500)

_BREAKS = "answers 500 to a token that it cannot open and to a claim that is missing or malformed"

DEVIATIONS = (
    Deviation(
        "accepts base64 padding",
        ("signature.segments", "signature.base64-spelling"),
        _answered(200, 204, probe="padd"),
    ),
    Deviation("accepts a signed state that is not encrypted", ("tokens.not-encrypted",), _DONE),
    Deviation('answers 500 to "" in place of a UUID or a time', ("save.empties",), _BROKE),
    Deviation("answers 500 to []", ("batch.empty", "delete.empty"), _BROKE),
    Deviation("answers 500 to a null expiresAt on MySQL", ("save.never-expires",), _BROKE),
    Deviation("answers 500 to a key id that is not configured", ("signature.key-ids-unknown",), _BROKE),
    Deviation("answers 401 without a body", ("http.error-shape",), _unsigned_without_a_body),
    Deviation(
        _BREAKS,
        (
            *("tokens.uniform", "tokens.deflate-damaged", "tokens.bomb", "tokens.names-item"),
            *("tokens.claims-odd", "save.required-named", "save.wrong-types", "save.nullable-wrong"),
            *("save.almost-boolean", "save.id-spelling", "times.spelling", "content.nul", "content.surrogates"),
            *("content.no-text", "batch.invalid-last", "batch.invalid-first", "batch.unreadable", "batch.keeps-old"),
            "batch.index",
        ),
        _BROKE,
    ),
    Deviation(_BREAKS, ("http.error-shape",), _answered(500, probe="for a token")),
    Deviation("allows no clock skew", ("claims.exp-skew",), _answered(401)),
    Deviation(
        "ignores jti: a signature can be used again, even for another request",
        (
            *("claims.jti-missing", "claims.jti-odd", "replay.no-second-effect", "replay.other-body"),
            *("replay.other-method", "replay.new-signature", "concurrency.retries", "concurrency.one-jti"),
        ),
        _DONE,
    ),
    Deviation("ignores jti: a late copy of a DELETE deletes again", ("replay.no-second-delete",), _gone),
    Deviation("does not compare sub with the state's id", ("tokens.sub",), _answered(204, probe="another")),
    Deviation("does not compare the tenant claim with the path", ("tenants.claim",), _DONE),
    Deviation("saves by id alone, over another tenant's state", ("tenants.save",), _another_value),
    Deviation("saves by id alone, so that two tenants cannot use the same id", ("tenants.same-id",), _gone),
    Deviation(
        "stores contents in a JSON column: the same value comes back in another spelling",
        ("content.spelling", "content.duplicates", "content.numbers", "content.trailing", "content.bytes"),
        _same_value,
    ),
    Deviation(
        "answers 500 to a content that its database does not accept as JSON",
        ("content.separators", "content.controls", "content.not-json", "content.empty", "content.escapes"),
        _BROKE,
    ),
    Deviation(
        "keeps six fraction digits of a time, and none on MySQL: it cannot tell closer times apart",
        ("times.ticks", "times.nanoseconds", "times.microseconds"),
        _another_value,
    ),
    Deviation(
        "rounds times, and ignores a tie that looks older after rounding",
        ("times.ticks-tie", "times.offsets-odd"),
        _another_value,
    ),
    Deviation(
        "ignores a save with an equal updatedAt on MySQL",
        ("save.equal-replaces", "times.offsets-same", "times.digits-same"),
        _another_value,
    ),
)
