"""Our own receiver with one fault each: what the conformance suite has to catch.

``python -m tests.faulty_receivers NAME serve`` runs ``receiver serve`` with the fault NAME: a patch of our code, made
before gunicorn forks its workers, or a WSGI middleware around the application.
"""

import base64
import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver import body, commands, envelope, problems, routes, schemas, signature, states, strictjson
from receiver.idempotency import Effect, Receipt
from receiver.jose import compact, jwe, jws, p384
from receiver.keys.keyring import Keyring
from receiver.problems import BadRequest, NotFound, SignatureRefused
from receiver.server import application
from receiver.states import Content
from receiver.stores import sqlite
from receiver.stores.sqlite import SqliteStore
from receiver.threadpool import waiting


@dataclass(frozen=True)
class Fault:
    """A fault by its ``name``, the checks that have to catch it, and the function that makes the receiver faulty."""

    name: str
    caught_by: tuple[str, ...]
    make: Callable[[], None]


FAULTS: dict[str, Fault] = {}


def fault(*caught_by):
    def declare(function):
        name = function.__name__.replace("_", " ")
        FAULTS[name] = Fault(name, caught_by, function)
        return function

    return declare


# Signatures


def _parts(token: bytes) -> tuple[dict, bytes]:
    head, payload, *_ = token.split(b".")
    return json.loads(_raw(head)), _raw(payload)


def _raw(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _trust_without_keys():
    """Let a token be taken though no key proved it: ours notes the keys that did, and fails where there is none."""
    whole = Keyring.note
    Keyring.note = lambda self, now, *keys: whole(self, now, *filter(None, keys))


def _verify_also(accepts):
    """Let both rooms take a token that ``accepts`` returns a payload for."""
    _trust_without_keys()

    def verify(token, find_key):
        with contextlib.suppress(Exception):
            if payload := accepts(token, find_key):
                return payload
        return jws.verify_jws(token, find_key)

    signature.verify_jws = envelope.verify_jws = verify


@fault("signature.alg-none", "tokens.inner-alg-none")
def accepts_alg_none():
    def accepts(token, _find):
        header, payload = _parts(token)
        return payload if header["alg"].lower() == "none" else None

    _verify_also(accepts)


@fault("signature.hmac-public-key")
def accepts_an_hmac_with_the_public_key():
    def accepts(token, find):
        header, payload = _parts(token)
        signed, _, mac = token.rpartition(b".")
        x, _ = p384.point_of(find(header["kid"]))
        public = JWK(kty="oct", k=compact.encode_base64url(x).decode())
        JWA.signing_alg(header["alg"]).verify(public, signed, _raw(mac))
        return payload if header["alg"].startswith("HS") else None

    _verify_also(accepts)


@fault("signature.embedded-key", "tokens.inner-embedded-key")
def trusts_the_key_in_the_token():
    def accepts(token, _find):
        header, payload = _parts(token)
        signed, _, mac = token.rpartition(b".")
        JWA.signing_alg("ES384").verify(JWK(**header["jwk"]), signed, _raw(mac))
        return payload

    _verify_also(accepts)


@fault("signature.tampered", "signature.forged-kid", "signature.flipped")
def does_not_verify_request_signatures():
    def verify(token, find_key):
        header, payload = _parts(token)
        if header["alg"] != "ES384" or find_key(header["kid"]) is None:
            raise compact.TokenFault("")
        return payload

    signature.verify_jws = verify


@fault("signature.segments", "signature.base64-spelling")
def accepts_base64_padding():
    def accepts(token, find_key):
        if b"=" not in token:
            return None
        header, payload = _parts(token)
        signed, _, mac = token.rpartition(b".")
        x, y = (compact.encode_base64url(number).decode() for number in p384.point_of(find_key(header["kid"])))
        public = JWK(kty="EC", crv="P-384", x=x, y=y)
        JWA.signing_alg("ES384").verify(public, signed, _raw(mac.rstrip(b"=")))
        return payload if header["alg"] == "ES384" else None

    _verify_also(accepts)


@fault("signature.parts")
def ignores_what_follows_the_third_part():
    _verify_also(lambda token, find: jws.verify_jws(b".".join(token.split(b".")[:3]), find))


@fault("signature.critical")
def ignores_crit():
    compact._FORBIDDEN -= {"crit", "b64"}


@fault("signature.header-unknown", "tokens.header-unknown")
def refuses_header_members_that_it_does_not_know():
    compact._FORBIDDEN |= {"x5t", "ver"}


@fault("tokens.header-refused")
def takes_what_points_to_a_key():
    compact._FORBIDDEN = frozenset()


@fault("tokens.epk-members")
def takes_no_ephemeral_key_with_more_members():
    whole = jwe._ephemeral_key
    jwe._ephemeral_key = lambda epk: whole(epk) if set(epk) == {"kty", "crv", "x", "y"} else None


@fault("http.byte-order-mark")
def takes_no_body_behind_a_byte_order_mark():
    body.codecs = SimpleNamespace(BOM_UTF8=b"")


@fault("signature.one-answer")
def tells_why_a_signature_was_refused():
    SignatureRefused.__init__ = lambda self, cause="", message="": problems.Problem.__init__(self, cause, cause)


@fault("signature.key-ids-missing", "signature.key-ids-malformed", "signature.key-ids-unknown")
def ignores_the_key_id_headers():
    def named(_headers, _header, role, _tenant, keyring):
        return next(key for key in keyring if key.role == role)

    signature._named_key = named


@fault("signature.before-body")
def looks_at_the_body_before_the_signature():
    def before(environ):
        if environ["REQUEST_METHOD"] != "GET" and environ.get("CONTENT_TYPE") != "application/json":
            return "415 No", b"{}"
        return None

    _middleware(before)


# Claims


def _claims_changed(change):
    whole = signature._check_claims

    def check(claims, path, tenant, now, skew):
        change(claims, path, tenant, now)
        whole(claims, path, tenant, now, skew)

    signature._check_claims = check


@fault("claims.path-other", "claims.path-exact")
def ignores_path():
    _claims_changed(lambda claims, path, tenant, now: claims.update(path=path))


@fault("claims.path-exact")
def takes_a_prefix_for_the_path():
    _claims_changed(
        lambda claims, path, tenant, now: claims.update(path=path if path.startswith(claims["path"]) else "?")
    )


@fault("claims.path-spelling")
def compares_the_path_without_letter_case():
    _claims_changed(
        lambda claims, path, tenant, now: claims.update(path=path if path.lower() == claims["path"].lower() else "?")
    )


@fault("claims.aud-other", "tenants.signature")
def ignores_aud():
    _claims_changed(lambda claims, path, tenant, now: claims.update(aud=[tenant]))


@fault("claims.aud-list")
def takes_aud_for_one_text():
    _claims_changed(lambda claims, path, tenant, now: claims.update(aud=claims["aud"][:1]))


@fault("claims.exp-past")
def ignores_exp():
    _claims_changed(lambda claims, path, tenant, now: claims.update(exp=max(claims["exp"], now)))


@fault("claims.exp-far")
def accepts_exp_far_ahead():
    _claims_changed(lambda claims, path, tenant, now: claims.update(exp=min(claims["exp"], now + 300)))


@fault("claims.exp-bounds")
def grants_ten_minutes_of_skew():
    whole = signature.time_fault
    signature.time_fault = lambda claims, now, _skew, lifetime: whole(claims, now, 600, lifetime)


@fault("claims.nbf-future")
def ignores_nbf():
    _claims_changed(lambda claims, path, tenant, now: claims.pop("nbf", None))


@fault("claims.iss")
def accepts_any_issuer():
    _claims_changed(lambda claims, path, tenant, now: claims.update(iss="manywho"))


# What replaces what


@fault("save.older-ignored", "save.any-order")
def older_wins():
    sqlite.UPSERT = sqlite.UPSERT.partition("where (excluded")[0]


@fault("save.equal-replaces")
def ignores_an_equal_updatedAt():
    sqlite.UPSERT = sqlite.UPSERT.replace(">=", ">")


def _nanoseconds(change):
    whole = states.Instant.parse

    def parse(text):
        instant = whole(text)
        return dataclasses.replace(instant, nanoseconds=change(instant))

    states.Instant.parse = staticmethod(parse)


@fault("times.digits")
def wants_seven_fraction_digits():
    def change(instant):
        if instant.text[19:20] != "." or len(instant.text.rstrip("Z")) != 27:
            raise ValueError("not seven digits")
        return instant.nanoseconds

    _nanoseconds(change)


@fault("times.ticks-tie")
def stores_times_rounded_to_microseconds():
    stores_rounded_times(1_000)


@fault("times.microseconds")
def keeps_whole_seconds():
    _nanoseconds(lambda instant: instant.nanoseconds // 10**9 * 10**9)


@fault("times.ticks", "times.nanoseconds")
def compares_only_to_microseconds():
    _nanoseconds(lambda instant: instant.nanoseconds // 1000 * 1000)


@fault("times.offsets-order", "times.offsets-same")
def ignores_the_offset():
    whole = states.Instant.parse
    _nanoseconds(lambda instant: whole(instant.text[:19] + "Z").nanoseconds)


@fault("times.digits-same")
def compares_times_as_texts():
    _nanoseconds(lambda instant: int.from_bytes(instant.text.encode().ljust(36, b"\0")[:36]) % 2**62)


def stores_rounded_times(unit):
    """Keep updatedAt in whole ``unit`` nanoseconds, rounded, and compare it with what comes in as it came."""
    whole = SqliteStore.save

    def rounded(instant):
        return dataclasses.replace(instant, nanoseconds=(instant.nanoseconds + unit // 2) // unit * unit)

    def save(self, tenant, found, receipt):
        newer = []
        for state in found:
            stored = self.find(tenant, state.id)
            if stored is None or state.updated_at.nanoseconds >= rounded(stored.updated_at).nanoseconds:
                newer.append(dataclasses.replace(state, updated_at=rounded(state.updated_at)))
        return whole(self, tenant, newer, receipt)

    SqliteStore.save = save


@fault("concurrency.newest-wins")
def reads_before_it_writes_without_a_lock():
    whole, find, upsert = SqliteStore.save, SqliteStore.find, sqlite.UPSERT.partition("where (excluded")[0]
    sqlite.UPSERT = upsert

    def save(self, tenant, found, receipt):
        kept = [find(self, tenant, state.id) for state in found]
        with waiting():
            time.sleep(0.03)
        late = [
            s for s, k in zip(found, kept, strict=True) if k and k.updated_at.nanoseconds > s.updated_at.nanoseconds
        ]
        return whole(self, tenant, [state for state in found if state not in late], receipt)

    SqliteStore.save = save


# Tenants


@fault("tenants.load")
def leaks_across_tenants():
    def find(self, _tenant, id):
        with self._reading() as connection:
            row = connection.execute(f"select {sqlite.COLUMNS} from states where id = ?", [id]).fetchone()
            return sqlite.state_of(row) if row else None

    SqliteStore.find = find


@fault("tenants.delete")
def deletes_across_tenants():
    def delete(self, tenant, ids, receipt):
        def work(connection, was):
            connection.executemany("delete from states where id = ?", [(id,) for id in ids])
            return Effect(jti_was=was)

        return self._change(self._bound(tenant, receipt, work))

    SqliteStore.delete = delete


@fault("tenants.save", "tenants.same-id")
def saves_by_the_id_alone():
    whole = SqliteStore.save

    def save(self, tenant, found, receipt):
        ids = [(state.id, tenant) for state in found]
        self._change(lambda connection: connection.executemany("delete from states where id = ? and tenant <> ?", ids))
        return whole(self, tenant, found, receipt)

    SqliteStore.save = save


@fault("tenants.claim")
def ignores_the_tenant_claim():
    whole = envelope._claims_fault
    envelope._claims_fault = lambda claims, tenant: whole(dict(claims, tenant=tenant.lower()), tenant)


# Batches and promises


@fault("batch.all", "batch.two")
def drops_the_last_item():
    whole = envelope.open_states
    envelope.open_states = lambda tokens, *rest: whole(tokens[: max(1, len(tokens) - 1)] if tokens else tokens, *rest)


@fault("batch.invalid-last", "batch.unreadable", "batch.keeps-old")
def stores_what_comes_before_the_first_fault():
    whole = envelope.open_states

    def open_states(tokens, tenant, *rest):
        good = []
        try:
            for token in tokens:
                good += whole([token], tenant, *rest)
        except BadRequest:
            routes._receiver().store.save(tenant.lower(), good, None)
            raise
        return good

    envelope.open_states = open_states


@fault("save.new", "concurrency.read-your-write")
def answers_before_it_commits():
    whole = SqliteStore.save

    def save(self, *what):
        threading.Timer(0.5, whole, (self, *what)).start()
        return Effect(1)

    SqliteStore.save = save


@fault("save.newer-wins", "concurrency.read-your-write")
def reads_from_a_stale_cache():
    whole, cache = SqliteStore.find, {}

    def find(self, tenant, id):
        if (tenant, id) not in cache and (found := whole(self, tenant, id)):
            cache[tenant, id] = found
        return cache.get((tenant, id))

    SqliteStore.find = find


@fault("delete.many")
def deletes_the_first_hundred_ids():
    whole = SqliteStore.delete
    SqliteStore.delete = lambda self, tenant, ids, receipt: whole(self, tenant, ids[:100], receipt)


@fault("delete.unknown", "delete.again")
def answers_404_to_a_delete_of_unknown_ids():
    whole = SqliteStore.delete

    def delete(self, tenant, ids, receipt):
        effect = whole(self, tenant, ids, receipt)
        if effect.stored < len(ids):
            raise NotFound
        return effect

    SqliteStore.delete = delete


@fault("batch.empty", "delete.empty")
def answers_500_to_an_empty_array():
    whole = routes._items

    def items(raw, schema):
        found = whole(raw, schema)
        if not found:
            raise RuntimeError("an empty batch")
        return found

    routes._items = items


@fault("save.empties")
def takes_no_empty_text_for_a_UUID():
    whole = schemas.EmptyIsNone._deserialize

    def deserialize(self, value, *what, **how):
        if value == "":
            raise schemas.ValidationError("must be a UUID")
        return whole(self, value, *what, **how)

    schemas.EmptyIsNone._deserialize = deserialize


@fault("save.never-expires")
def needs_expiresAt():
    whole = envelope.open_states

    def open_states(*what):
        states = whole(*what)
        if any(state.expires_at is None for state in states):
            raise RuntimeError("expiresAt is null")
        return states

    envelope.open_states = open_states


@fault("times.clock")
def has_a_clock_that_is_95_seconds_slow():
    right, whole = time.time, application.create_app
    time.time = lambda: right() - 95
    application.create_app = lambda *what: whole(*what, clock=time.time)


@fault("delete.no-body")
def takes_a_missing_body_for_an_empty_array():
    whole = body.read

    def read(environ, limit):
        if environ.get("CONTENT_LENGTH") in (None, "", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return b"[]"
        return whole(environ, limit)

    body.read = read


@fault("save.expired")
def hides_expired_states():
    whole = SqliteStore.find

    def find(self, tenant, id):
        found = whole(self, tenant, id)
        return None if found and found.expires_at and found.expires_at.nanoseconds < time.time_ns() else found

    SqliteStore.find = find


@fault("load.id-case", "claims.path-upper-case", "save.id-case", "delete.id-case")
def compares_ids_by_letter_case():
    routes._uuid = lambda text: text if compact.canonical_uuid(text) else routes.canonical_uuid(text)
    schemas.UniqueId._deserialize = lambda self, value, *_a, **_k: (
        str(value) if compact.canonical_uuid(value) else 1 / 0
    )


# Content


def _content(change):
    whole = SqliteStore.save

    def save(self, tenant, found, receipt):
        changed = [dataclasses.replace(state, content=Content(change(state.content.text))) for state in found]
        return whole(self, tenant, changed, receipt)

    SqliteStore.save = save


@fault("content.64k", "content.500k")
def truncates_at_64_KB():
    _content(lambda text: text[:65_535])


@fault("content.64k-bytes")
def truncates_at_64_KB_of_UTF_8():
    _content(lambda text: text.encode()[:65_536].decode(errors="ignore") if not text.isascii() else text)


@fault("content.spelling", "content.duplicates", "content.numbers", "content.bytes")
def serialises_JSON_anew():
    def anew(text):
        try:
            return json.dumps(json.loads(text))
        except ValueError:
            return text

    _content(anew)


@fault("content.unicode", "content.normal-forms")
def decodes_content_as_latin_1():
    _content(lambda text: text.encode().decode("latin-1"))


@fault("content.normal-forms")
def normalises_unicode():
    _content(lambda text: unicodedata.normalize("NFC", text))


@fault("content.unicode")
def keeps_three_bytes_of_a_character():
    _content(lambda text: "".join(one if ord(one) < 65536 else "?" for one in text))


@fault("content.trailing")
def strips_content():
    _content(str.strip)


@fault("content.separators")
def drops_byte_order_marks():
    _content(lambda text: text.replace("\ufeff", ""))


# Replies


def _reply(change):
    """Let ``change`` edit the claims of a reply before they are signed."""
    whole = jws.sign_jws

    def sign(payload, key, kid):
        claims = json.loads(payload)
        change(claims)
        return whole(strictjson.dumps(claims), key, kid)

    envelope.sign_jws = sign


@fault("load.signed")
def signs_replies_with_another_key():
    other = ec.generate_private_key(ec.SECP384R1())
    envelope.sign_jws = lambda payload, key, kid: jws.sign_jws(payload, other, kid)


@fault("load.signing-kid")
def names_another_key_in_replies():
    envelope.sign_jws = lambda payload, key, kid: jws.sign_jws(payload, key, str(uuid.uuid4()))


@fault("load.iss")
def replies_with_another_iss():
    _reply(lambda claims: claims.update(iss="receiver"))


@fault("load.aud")
def replies_with_another_aud():
    _reply(lambda claims: claims.update(aud=claims["iss"]))


@fault("load.sub")
def replies_with_another_sub():
    _reply(lambda claims: claims.update(sub=claims["iss"]))


@fault("load.exp")
def replies_without_exp():
    _reply(lambda claims: claims.pop("exp"))


@fault("load.jti")
def replies_with_one_jti_for_ever():
    _reply(lambda claims: claims.update(jti="1"))


@fault("load.encrypted", "load.encryption")
def replies_without_encryption():
    envelope.encrypt = lambda jws, *_to: b"".join(jws)


@fault("load.fresh", "load.jti")
def seals_a_state_once_and_keeps_the_reply():
    whole, kept = envelope.seal_state, {}
    envelope.seal_state = lambda state, *how: kept.setdefault((state.id, state.updated_at.text), whole(state, *how))


# Tokens


@fault("tokens.unknown-signer", "tokens.inner-alg-none", "tokens.inner-hmac")
def accepts_states_that_anyone_signed():
    _trust_without_keys()
    envelope.verify_jws = lambda token, _find: _parts(token)[1]


@fault("tokens.not-encrypted")
def accepts_states_that_are_not_encrypted():
    _trust_without_keys()
    whole = envelope.decrypt
    envelope.decrypt = lambda token, *rest: (token, 0) if token.count(b".") == 2 else whole(token, *rest)


@fault("tokens.not-signed")
def accepts_states_that_are_not_signed():
    _trust_without_keys()
    envelope.verify_jws = lambda token, find: token if token.startswith(b"{") else jws.verify_jws(token, find)


@fault("tokens.exp", "tokens.nbf")
def ignores_the_times_of_a_token():
    envelope.time_fault = lambda *_: None


@fault("tokens.aud", "tenants.token")
def ignores_aud_of_a_token():
    whole = envelope._claims_fault
    envelope._claims_fault = lambda claims, tenant: whole(dict(claims, aud=[tenant], tenant=tenant.lower()), tenant)


@fault("tokens.other-key-management")
def unwraps_by_whatever_the_header_says():
    jwe._WRAPS["ECDH-ES+A128KW"] = 16
    jwe._RULES["alg"] = compact.one_of(*jwe._WRAPS)


@fault("tokens.uncompressed", "content.500k-plain")
def needs_compression():
    whole = envelope.decrypt

    def decrypt(token, find_key, left):
        if b'"zip"' not in _raw(token.partition(b".")[0]):
            raise compact.TokenFault("no zip")
        return whole(token, find_key, left)

    envelope.decrypt = decrypt


@fault("tokens.unknown-members")
def refuses_unknown_claims():
    schemas.state_claims.unknown = "raise"


# Replay


@fault("replay.other-body", "replay.other-method", "replay.no-second-effect", "claims.jti-missing")
def does_not_look_at_jti():
    os.environ["STORAGE_REPLAY"] = "off"


@fault("replay.retry", "concurrency.retries")
def refuses_a_retry():
    def compare(self, kept):
        if kept is not None:
            raise problems.ReplayRefused("")
        return "new"

    Receipt.compare = compare


@fault("replay.other-body")
def compares_only_the_method_of_a_retry():
    Receipt.compare = lambda self, kept: "new" if kept is None else "repeated"


@fault("replay.free-after-refusal")
def uses_a_jti_up_with_a_refused_request():
    whole = routes._items

    def items(raw, schema):
        try:
            return whole(raw, schema)
        except BadRequest:
            seen.add(_jti())
            raise

    seen, check = set(), signature.check

    def _jti():
        return _parts(routes.request.headers[signature.SIGNATURE].encode())[1]

    def checked(headers, *rest):
        if _parts(headers.get(signature.SIGNATURE, "e30.e30.").encode())[1] in seen:
            raise SignatureRefused
        return check(headers, *rest)

    os.environ["STORAGE_WORKERS"] = "1"
    routes._items, signature.check = items, checked


# HTTP


def _middleware(before=None, after=None):
    """Answer what ``before`` (environ) returns, or let ``after`` (environ, status, headers, body) change the answer."""
    whole = application.create_app

    def create(*what):
        app = whole(*what)

        def called(environ, start):
            if before and (answer := before(environ)):
                start(answer[0], [("Content-Length", str(len(answer[1])))])
                return [answer[1]]
            told = []
            found = b"".join(app(environ, lambda status, headers, _=None: told.extend((status, headers))))
            status, headers = told
            if after:
                status, headers, found = after(environ, status, headers, found)
                headers = [one for one in headers if one[0] != "Content-Length"] + [("Content-Length", str(len(found)))]
            start(status, headers if status[:3] != "204" else [h for h in headers if h[0] != "Content-Length"])
            return [found]

        return called

    application.create_app = create


@fault("signature.key-ids-missing", "tokens.names-item")
def answers_500_instead_of_400():
    _middleware(after=lambda environ, status, *rest: ("500 Oops" if status[:3] == "400" else status, *rest))


@fault("load.unknown")
def answers_500_instead_of_404():
    _middleware(after=lambda environ, status, *rest: ("500 Oops" if status[:3] == "404" else status, *rest))


@fault("load.unknown", "delete.removes")
def answers_200_for_a_state_that_is_not_there():
    _middleware(
        after=lambda environ, status, headers, found: (
            ("200 OK", headers, b'{"token": null}') if status[:3] == "404" else (status, headers, found)
        )
    )


@fault("http.error-shape")
def answers_errors_without_JSON():
    _middleware(after=lambda environ, status, headers, found: (status, headers, b"" if status[0] in "45" else found))


@fault("http.error-silent")
def shows_a_stack_trace():
    trace = b'{"message": "Traceback (most recent call last): File \\"/srv/receiver/app.py\\", line 1"}'
    _middleware(after=lambda environ, status, headers, found: (status, headers, trace if status[0] in "45" else found))


@fault("http.health")
def wants_a_signature_for_health():
    _middleware(lambda environ: ("401 No", b"") if environ["PATH_INFO"].endswith("/health") else None)


@fault("http.health-silent")
def tells_its_version_in_health():
    told = b'{"status": "ok", "version": "1.2.3", "database": "sqlite:////var/lib/states.db"}'
    _middleware(lambda environ: ("200 OK", told) if environ["PATH_INFO"].endswith("/health") else None)


@fault("save.new")
def answers_200_instead_of_204():
    _middleware(
        after=lambda environ, status, headers, found: ("200 OK" if status[:3] == "204" else status, headers, found)
    )


@fault("http.method-override")
def lets_a_header_change_the_method():
    _middleware(
        lambda environ: environ.update(REQUEST_METHOD=environ.get("HTTP_X_HTTP_METHOD", environ["REQUEST_METHOD"]))
    )


@fault("http.head")
def does_not_answer_HEAD():
    _middleware(lambda environ: ("405 No", b"") if environ["REQUEST_METHOD"] == "HEAD" else None)


@fault("http.content-type-other")
def does_not_look_at_the_content_type():
    body._check_type = lambda environ: None


@fault("http.content-type")
def wants_the_content_type_to_the_letter():
    _middleware(
        lambda environ: ("415 No", b"{}") if environ.get("CONTENT_TYPE") not in (None, "", "application/json") else None
    )


@fault("http.duplicate-member")
def takes_the_last_of_two_members():
    strictjson._members = dict


@fault("http.not-json")
def reads_JSON_in_any_encoding():
    strictjson.loads = json.loads


@fault("framing.chunked")
def reads_no_chunks():
    _middleware(
        lambda environ: ("411 No", b"") if "HTTP_TRANSFER_ENCODING" in environ else None,
    )


@fault("framing.two-signatures")
def takes_the_last_of_two_signatures():
    def before(environ):
        name = "HTTP_X_MANYWHO_SIGNATURE"
        if "," in environ.get(name, ""):
            environ[name] = environ[name].rpartition(",")[2].strip()

    _middleware(before)


@fault("framing.huge")
def swallows_a_body_of_any_size():
    def read(environ, _limit):
        return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))

    body.read = read


def main():
    name = sys.argv.pop(1)
    if name != "none":
        FAULTS[name].make()
    commands.main()


if __name__ == "__main__":
    main()
