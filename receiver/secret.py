"""Secret: a text that refuses to be printed (protocol, section 10.7)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A passphrase, a password or a key. Only ``text`` holds it; str(), repr() and format() mask it."""

    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.text)

    def __repr__(self) -> str:
        return "********" if self.text else ""
