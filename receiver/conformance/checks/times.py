"""Stage 3: times are instants and are compared to the last digit. Cases C08 and C10."""

from receiver.conformance import clock
from receiver.conformance.checks.saving import save
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial, versioned

_NO_TIMES = (
    *("2026-01-01T00:00:00", "now", "infinity", "2026-02-30T00:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01"),
    *("2026-01-01T24:00:00Z", "2026-W01-1T00:00:00Z", "1767225600", "2026-01-01T00:00:00+25:00", ""),
    *(
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00.12345678901Z",
        "\u0662026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n",
    ),
)


def _ordered(trial: Trial, earlier: str, later: str) -> None:
    """Fail unless ``later`` replaces ``earlier``, and ``earlier`` does not replace ``later``."""
    state = trial.stored(updatedAt=earlier)
    save(trial, state, f"{later} after {earlier}", updatedAt=later, content=versioned("later"))
    trial.expect_content(state["id"], versioned("later"), f"what was saved at {later}, later than {earlier}")
    save(trial, state, f"{earlier} after {later}", updatedAt=earlier, content=versioned("earlier"))
    trial.expect_content(state["id"], versioned("later"), f"what was saved at {later}, still later than {earlier}")


def _same(trial: Trial, one: str, other: str) -> None:
    """Fail unless both are the same instant: each replaces the other."""
    for first, second in ((one, other), (other, one)):
        state = trial.stored(updatedAt=first)
        save(trial, state, f"{second} after {first}", updatedAt=second, content=versioned("second"))
        trial.expect_content(
            state["id"], versioned("second"), f"what was saved at {second}, the same instant as {first}"
        )


@check("times.seconds", "must", "A time that is a second later is later.", "protocol, section 5.7")
def seconds(trial: Trial) -> None:
    _ordered(trial, "2026-01-01T23:59:59Z", "2026-01-02T00:00:00Z")


@check("times.digits", "must", "A time may have 0, 3, 6 or 7 fraction digits.", "C10")
def digits(trial: Trial) -> None:
    state = trial.state()
    for number, fraction in enumerate(("", ".000", ".000000", ".0000000", "")):
        text = f"2026-02-28T23:30:0{number}{fraction}Z"
        save(trial, state, text, updatedAt=text, content=versioned(text))
        trial.expect_content(state["id"], versioned(text), f"what was saved at {text}, a second later")


@check("times.microseconds", "should", "A time that is a microsecond later is later.", "protocol, section 5.7")
def microseconds(trial: Trial) -> None:
    _ordered(trial, "2026-01-01T00:00:00.0000010Z", "2026-01-01T00:00:00.0000020Z")


@check(
    "times.ticks",
    "should",
    "A time that is 100 ns later is later: the platform counts in 100 ns ticks.",
    "protocol, section 5.5",
)
def ticks(trial: Trial) -> None:
    _ordered(trial, "2026-01-01T00:00:00.1234561Z", "2026-01-01T00:00:00.1234562Z")


@check(
    "times.ticks-tie",
    "should",
    "The same tick again is a tie and replaces the state: the receiver rounds nothing on the way to the store.",
    "protocol, section 5.7",
)
def ticks_tie(trial: Trial) -> None:
    for text in ("2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00.1234562Z"):
        _same(trial, text, text)


@check("times.nanoseconds", "should", "The receiver orders times to the ninth digit.", "protocol, section 5.5")
def nanoseconds(trial: Trial) -> None:
    _ordered(trial, "2026-01-01T00:00:00.123456788Z", "2026-01-01T00:00:00.123456789Z")


@check("times.offsets-order", "must", "Times are compared as instants, not as text.", "C10")
def offsets_order(trial: Trial) -> None:
    _ordered(trial, "2026-01-01T12:00:00.0000000+05:00", "2026-01-01T08:00:00.0000000Z")
    _ordered(trial, "2026-01-01T01:00:00.0000000+02:00", "2025-12-31T23:30:00.0000000Z")


@check("times.offsets-same", "should", "One instant with two offsets is a tie.", "C10")
def offsets_same(trial: Trial) -> None:
    _same(trial, "2026-03-01T00:30:00.0000000+01:00", "2026-02-28T23:30:00.0000000Z")


@check("times.digits-same", "should", "0, 3, 6 and 7 fraction digits can spell the same instant.", "C10")
def digits_same(trial: Trial) -> None:
    _same(trial, "2026-02-28T23:30:00Z", "2026-02-28T23:30:00.000Z")
    _same(trial, "2026-02-28T23:30:00.100Z", "2026-02-28T23:30:00.1000000+00:00")
    _same(trial, "2026-02-28T23:30:00.123456Z", "2026-02-28T23:30:00.1234560Z")


@check(
    "times.offsets-odd",
    "should",
    "The receiver compares half-hour offsets, -00:00, leap days and year ends as instants.",
    "C10",
)
def offsets_odd(trial: Trial) -> None:
    _same(trial, "2026-02-28T23:30:00.1234567Z", "2026-03-01T05:00:00.123456700+05:30")
    _same(trial, "2026-02-28T23:30:00.000-00:00", "2026-02-28T23:30:00.000000000Z")
    _same(trial, "2024-02-29T23:59:59.9999999-12:00", "2024-03-01T11:59:59.999999900Z")


@check("times.bounds", "should", "The receiver stores and compares times in the first and the last year.", "C10")
def bounds(trial: Trial) -> None:
    _ordered(trial, "0001-01-01T00:00:00Z", "1969-12-31T23:59:59.9999999Z")
    _ordered(trial, "2262-04-12T00:00:00Z", "9999-12-31T23:59:59.9999999Z")


@check(
    "times.spelling", "should", "A time that does not exist, or is not ISO 8601 with an offset, is answered 400.", "C10"
)
def spelling(trial: Trial) -> None:
    state = trial.state()
    for claim in ("createdAt", "updatedAt", "expiresAt"):
        for text in _NO_TIMES if claim == "updatedAt" else _NO_TIMES[:6]:
            trial.expect(trial.client.save(state | {claim: text}), 400, what=f"{claim} {text!r}")
    trial.expect_absent(state["id"], "each save of it was refused")


@check(
    "times.clock",
    "should",
    "The Date header shows that the receiver's clock is right to within ten seconds.",
    "RFC 9110 6.6.1",
)
def right_clock(trial: Trial) -> None:
    found = clock.read(trial.client.health())
    if found.ahead is None:
        trial.fail("a Date header with a date", "none came")
    if abs(found.ahead) > 10:
        trial.fail("a clock within 10 seconds of this machine's", f"it is {found.words}")
