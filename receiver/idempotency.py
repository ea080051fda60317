"""What binds a change to the request that made it, and what became of it: a retry has no second effect."""

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.problems import ReplayRefused, StoreDamaged


@dataclass(frozen=True, slots=True)
class Receipt:
    """What binds a change to the request that made it (protocol, section 3.4).

    ``jti`` is the request's unique id, ``method`` its HTTP method, ``digest`` the SHA-256 of its body (32
    bytes). ``now`` and ``expires`` are seconds since the epoch: when it came, and until when it is kept.
    With ``enforce`` a conflicting use is refused, else it is only reported.
    """

    jti: str
    method: str
    digest: bytes
    now: int
    expires: int
    enforce: bool = True

    def compare(self, kept: Sequence[object] | None) -> str:
        """Return how this ``jti`` stands to what is ``kept`` under it: (method, digest), or None for nothing.

        "new", "repeated" or "conflicting". Raises ReplayRefused for a conflict under ``enforce``; without it, a
        repetition counts as new. Raises StoreDamaged when what is kept is no method and digest.
        """
        if kept is None:
            return "new"
        method, digest = kept
        if not (isinstance(method, str) and isinstance(digest, bytes | bytearray | memoryview)):
            raise StoreDamaged("the receipt of a request cannot be read back")
        same = (method, bytes(digest)) == (self.method, self.digest)
        if not self.enforce:
            return "new" if same else "conflicting"
        if not same:
            raise ReplayRefused("jti: used before for another change")
        return "repeated"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change did: ``stored`` states or deleted ids, ``ignored`` older states; and how its ``jti`` stood.

    ``jti_was`` is "new", "repeated" (the identical request before: no second effect) or "conflicting".
    """

    stored: int = 0
    ignored: int = 0
    jti_was: str = "new"
