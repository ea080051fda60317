"""Faults in what becomes of a request that comes again."""

import os

from receiver import problems, routes, signature
from receiver.idempotency import Receipt
from receiver.problems import BadRequest, SignatureRefused
from tests.support.faults.declaring import fault, parts_of


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
        return parts_of(routes.request.headers[signature.SIGNATURE].encode())[1]

    def checked(headers, *rest):
        if parts_of(headers.get(signature.SIGNATURE, "e30.e30.").encode())[1] in seen:
            raise SignatureRefused
        return check(headers, *rest)

    os.environ["STORAGE_WORKERS"] = "1"
    routes._items, signature.check = items, checked
