"""Our own receiver with one fault each: what the conformance suite has to catch.

``python -m tests.support.faulty_receivers NAME serve`` runs ``receiver serve`` with the fault NAME: a patch of our code, made
before gunicorn forks its workers, or a WSGI middleware around the application.
"""

import sys

from receiver import commands
from tests.support.faults import claims, contents, http, replies, retries, signatures, stores, times, tokens
from tests.support.faults.declaring import FAULTS

DECLARE = (claims, contents, http, replies, retries, signatures, stores, times, tokens)  # being imported


def main():
    name = sys.argv.pop(1)
    if name != "none":
        FAULTS[name].make()
    commands.main()


if __name__ == "__main__":
    main()
