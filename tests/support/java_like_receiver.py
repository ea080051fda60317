"""Our own receiver made to answer as the Java service does where that one is known to differ.

``python -m tests.support.java_like_receiver postgresql serve`` (or ``mysql``) runs it. What it imitates is what the protocol
page says of the Java service: "Seen with the Java service itself", and each **ours** that this service has not.
"""

import dataclasses
import json
import os
import sys
from decimal import Decimal

from receiver import commands, encoding, envelope, problems, signature
from receiver.idempotency import Effect
from receiver.stores.sqlite import SqliteStore
from tests.support.faults.contents import changing_content
from tests.support.faults.http import middleware
from tests.support.faults.times import stores_rounded_times
from tests.support.faulty_receivers import FAULTS

SECOND, MICROSECOND = 10**9, 10**3  # nanoseconds
SAME = (  # faults that are the Java service's too, on every database
    *("accepts base64 padding", "accepts states that are not encrypted", "answers 500 to an empty array"),
    "takes no empty text for a UUID",
)


class Unhandled(Exception):
    """What the Java service does not catch: 500."""


def jsonb(text: str) -> str:
    """Return ``text`` as PostgreSQL's jsonb writes it; raises ValueError where that refuses it."""
    value = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=_refuse)
    return _written(value)


def _refuse(text: str) -> None:
    raise ValueError(text)


def _written(value: object) -> str:
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return "{" + ", ".join(f"{_written(name)}: {_written(value[name])}" for name in ordered) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, Decimal):
        return format(abs(value) if value == 0 else value, "f")
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("U+0000 cannot be converted to text")
        value.encode()  # a lone surrogate
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _answer_500_to_tokens() -> None:
    whole = envelope.open_states

    def open_states(*what):
        try:
            return whole(*what)
        except problems.BadRequest as fault:
            raise Unhandled(str(fault)) from None

    envelope.open_states = open_states


def _answer_500_to_unknown_key_ids() -> None:
    whole = signature._named_key

    def named(headers, header, *what):
        try:
            return whole(headers, header, *what)
        except problems.BadRequest:
            if encoding.canonical_uuid(headers.get(header)):
                raise Unhandled("no such key") from None
            raise

    signature._named_key = named


def _compare_neither_tenant_nor_sub() -> None:
    whole = envelope._claims_fault

    def fault(claims, tenant):
        return whole(dict(claims, tenant=encoding.canonical_uuid(tenant), sub=claims["id"]), tenant)

    envelope._claims_fault = fault


def _answer_401_without_a_body() -> None:
    def after(_environ, status, headers, found):
        if status[:3] != "401":
            return status, headers, found
        return status, [one for one in headers if not one[0].startswith(("Content", "X-ManyWho"))], b""

    middleware(after=after)


def _keep_contents_as_jsonb() -> None:
    def kept(text):
        try:
            return jsonb(text)
        except ValueError as fault:
            raise Unhandled(str(fault)) from None

    changing_content(kept)


def _save_by_the_id_alone() -> None:
    """Let the tenant that has an id keep it, whichever tenant saves it."""
    whole = SqliteStore.save

    def save(self, tenant, found, receipt):
        effect = Effect()
        for state in found:
            with self._reading() as connection:
                row = connection.execute("select tenant from states where id = ?", [state.id]).fetchone()
            owner = row[0] if row else state.tenant
            effect = whole(self, owner, [dataclasses.replace(state, tenant=owner)], receipt)
        return effect

    SqliteStore.save = save


def make(database: str) -> None:
    """Turn our receiver into the Java service on ``database``: postgresql or mysql."""
    os.environ |= {"STORAGE_REPLAY": "off", "STORAGE_CLOCK_SKEW": "0"}
    for name in SAME:
        FAULTS[name].make()
    if database == "mysql":
        FAULTS["needs expiresAt"].make()
        FAULTS["ignores an equal updatedAt"].make()
    _answer_500_to_tokens()
    _answer_500_to_unknown_key_ids()
    _compare_neither_tenant_nor_sub()
    _answer_401_without_a_body()
    _keep_contents_as_jsonb()
    stores_rounded_times(SECOND if database == "mysql" else MICROSECOND)
    _save_by_the_id_alone()


if __name__ == "__main__":
    make(sys.argv.pop(1))
    commands.main()
