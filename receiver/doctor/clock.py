"""The clock: what the kernel says of it, and how far others are from it. The platform signs for five minutes."""

import ctypes
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.settings import Settings

SUBJECT = "clock"
_UNSYNCHRONISED = 0x40  # STA_UNSYNC, adjtimex(2)
_NOTEWORTHY = 5.0  # seconds
_MEND = "timedatectl set-ntp true (or start chrony); on a virtual machine, its host's clock counts"


class Offset(NamedTuple):
    """By how many ``seconds`` the clock of ``whom`` is ahead of this one, ``unsure`` by so many more or less."""

    whom: str
    seconds: float
    unsure: float


class _Timex(ctypes.Structure):
    """The kernel's view of its clock, as far as it is looked at: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def is_synchronised() -> bool | None:
    """Return whether somebody keeps the kernel's clock right; None when it does not say. Sets nothing."""
    asked = _Timex()  # modes 0: only to read
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not asked.status & _UNSYNCHRONISED


def check(settings: Settings, offsets: Iterable[Offset], synchronised: bool | None) -> Iterator[Finding]:
    """Yield what there is to say of the clock, of which the kernel says whether it is ``synchronised``."""
    fine, bad = [], []
    for whom, seconds, unsure in offsets:
        apart = max(0.0, abs(seconds) - unsure)
        text = f"{abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} {whom}"
        if apart > settings.clock_skew:
            seen = f"{text}, more than STORAGE_CLOCK_SKEW grants ({settings.clock_skew:g} s): one of the two is wrong"
            bad.append(fail(SUBJECT, seen, _MEND))
        elif apart > _NOTEWORTHY:
            bad.append(warn(SUBJECT, text, _MEND))
        else:
            fine.append(text if apart else f"as {whom} has it")
    if synchronised is False:
        bad.append(warn(SUBJECT, "the kernel knows of nobody who keeps this clock right: it will drift", _MEND))
    elif synchronised:
        fine.insert(0, "kept right, says the kernel")
    yield from bad
    if fine or not bad:
        yield ok(SUBJECT, ", ".join(fine) or "the kernel does not say whether it is kept right")
