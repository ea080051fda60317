"""The clock: what the kernel says about it, and how far it is from other clocks. A signature lives for five minutes."""

import ctypes
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.settings import Settings

TOPIC = "clock"
_UNSYNCHRONISED = 0x40  # STA_UNSYNC, adjtimex(2)
_NOTEWORTHY = 5.0  # seconds
_FIX = "timedatectl set-ntp true (or start chrony); on a virtual machine, fix the clock of its host"


class Offset(NamedTuple):
    """The clock of ``whom`` is ``seconds`` ahead of this one, give or take ``unsure`` seconds."""

    whom: str
    seconds: float
    unsure: float


class _Timex(ctypes.Structure):
    """The kernel's view of its clock, as far as it is needed here: adjtimex(2)."""

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
    """Return whether something keeps the kernel's clock right; None if the kernel does not say. Sets nothing."""
    asked = _Timex()  # modes 0: only to read
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not asked.status & _UNSYNCHRONISED


def check(settings: Settings, offsets: Iterable[Offset], synchronised: bool | None) -> Iterator[Finding]:
    """Yield findings on this clock, from its ``offsets`` and from whether the kernel calls it ``synchronised``."""
    fine, bad = [], []
    for whom, seconds, unsure in offsets:
        apart = max(0.0, abs(seconds) - unsure)
        text = f"{abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} {whom}"
        if apart > settings.clock_skew:
            skew = f"STORAGE_CLOCK_SKEW allows ({settings.clock_skew:g} s)"
            bad.append(fail(TOPIC, f"{text}, more than {skew}: one of the two is wrong", _FIX))
        elif apart > _NOTEWORTHY:
            bad.append(warn(TOPIC, text, _FIX))
        else:
            fine.append(text if apart else f"agrees with {whom}")
    if synchronised is False:
        bad.append(warn(TOPIC, "the kernel says that nothing synchronises this clock: it will drift", _FIX))
    elif synchronised:
        fine.insert(0, "synchronised, says the kernel")
    yield from bad
    if fine or not bad:
        yield ok(TOPIC, ", ".join(fine) or "the kernel does not say whether it is synchronised")
