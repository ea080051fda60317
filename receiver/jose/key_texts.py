"""What people put where a JWK belongs: a JWK, a JWK set, or something else, which the message names with its remedy.

No message repeats anything of a text: it may be a private key.
"""

import base64
import binascii
import re
from collections.abc import Callable

from receiver import strictjson

BYTE_ORDER_MARK = "\ufeff"
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019", "\u00ab": "\u00bb"}
_PEM = "-----BEGIN "
_PATH = re.compile(r"(?:[A-Za-z]:\\|/|\.{1,2}/|~/|\\\\)[^\n{}]{1,400}|[\w./ -]{1,400}\.(?:json|jwk|pem)")
_TOKEN = re.compile(r"eyJ[\w-]+(?:\.[\w-]*){2,4}", re.ASCII)
_BARE_MEMBER = re.compile(r"\{\s*\w+\s*:")
_QUOTED_MEMBER = re.compile(r"\{\s*'\w+'\s*:")
_DER = b"\x30"  # of a SEQUENCE, as which every key in DER begins


def quoted(text: str) -> bool:
    """Tell whether ``text`` has quotes around it."""
    return len(text) > 1 and _QUOTES.get(text[0]) == text[-1]


# For a text that is neither JSON nor PEM nor base64 of them: the first test that holds gives the message.
_OTHER_THAN_JSON: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda text: text.startswith(("ssh-", "ecdsa-sha2-")), "is an OpenSSH key; a JWK is needed"),
    (_TOKEN.fullmatch, "is a token (JWT), not a key; a JWK is needed"),
    (_PATH.fullmatch, "is the path of a file: set the variable with _FILE at the end of its name instead"),
    (quoted, "has quotes around it: take them off (an env file keeps them as a part of the value)"),
    (lambda text: not text.startswith("{"), "must be one JWK as a JSON object"),
    (lambda text: '{\\"' in text[:3] or '\\"kty\\"' in text, "has backslashes before its quotes: take them off"),
    (
        lambda text: not text.endswith("}"),
        "is cut off: it begins as a JWK and does not end as one (a variable must hold it in one line)",
    ),
    (lambda text: "\u201c" in text or "\u201d" in text, "has typographic quotes: JSON needs plain ones"),
    (_QUOTED_MEMBER.match, "has single quotes in it: JSON needs double ones"),
    (
        lambda text: _BARE_MEMBER.match(text) and '"' not in text,
        "has lost its quotes, as a shell takes them off: put single quotes around all of it there",
    ),
)


class NotJwk(ValueError):
    """A text holds no JWK. The message says what it is instead, and what to do."""


def oddity(value: str) -> str:
    """Return what is odd around ``value``, a setting, to append to a message; "" if nothing is."""
    if value.endswith(("\n", "\r")):
        return " (it ends in a line end, which counts as part of it)"
    if quoted(value):
        return " (it has quotes around it, which count as part of it)"
    if value[:1] in _QUOTES or value[-1:] in _QUOTES.values():
        return " (it has a quote at one end, which counts as part of it)"
    return " (it has spaces around it, which count as part of it)" if value != value.strip() else ""


def jwks_in(text: str) -> list[dict[str, object]]:
    """Return the keys in ``text``, a JWK or a JWK set (RFC 7517 section 5), as dicts; checks no member of them.

    Skips a byte order mark, spaces and line ends around it. Raises NotJwk.
    """
    text = text.strip().removeprefix(BYTE_ORDER_MARK).strip()
    try:
        found = strictjson.loads(text.encode("utf-8", "replace"))
    except strictjson.MemberTwice:
        raise NotJwk("holds a member twice: which one is meant is not known") from None
    except strictjson.NotJson:
        raise NotJwk(_what_is(text)) from None
    if not isinstance(found, dict):
        quotes = isinstance(found, str)
        raise NotJwk("has quotes around it: take them off" if quotes else "must be one JWK as a JSON object, no other")
    keys = found.get("keys", [found])
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise NotJwk("is a JWK set without a key in it; one JWK is needed")
    if "kty" not in keys[0] and any(isinstance(value, dict) and "kty" in value for value in keys[0].values()):
        raise NotJwk("holds the key as one member of something larger: take the JWK out of it")
    return keys


def _what_is(text: str) -> str:
    """Return what ``text``, which is not JSON, is instead, as far as that shows."""
    known = (message for looks_so, message in _OTHER_THAN_JSON if looks_so(text))
    if not text or _PEM in text:
        return "is a PEM file; a JWK is needed" if text else "must be one JWK as a JSON object; it is empty"
    encoded = _what_is_encoded(text)
    return encoded or next(known, "must be one JWK as a JSON object; this is not valid JSON")


def _what_is_encoded(text: str) -> str | None:
    """Return what ``text`` is if it is a key in base64, else None."""
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    data = data.removeprefix(BYTE_ORDER_MARK.encode()).strip()
    if data.startswith(b"{"):
        return "is in base64: decode it once (base64 -d); the JWK itself is needed"
    if data.startswith(_PEM.encode()):
        return "is a PEM file in base64; a JWK is needed"
    return "is a key in DER and base64; a JWK is needed" if data.startswith(_DER) and len(data) > 48 else None
