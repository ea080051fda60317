"""The floor: a server that does what no receiver can avoid, on inputs made ready at its start, and nothing else.

No base64, no JSON, no deflate, no routing: the primitives of ``cryptography`` in the number and on the sizes that the
contract asks for, and for a change one durable write that concurrent requests of a worker share.
"""

import itertools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.bench.bare import Bare

_ES384 = ec.ECDSA(hashes.SHA384())
_SIGNATURE = 600  # bytes of a request's signature that are signed
_ID = 40  # bytes that a deletion writes
_LARGEST = 256 << 20  # bytes of a journal before it begins anew


class Journal:
    """A file that requests append to; those that wait at the same moment share one fdatasync."""

    def __init__(self, folder: str):
        self.file, self.name = tempfile.mkstemp(prefix="floor-", dir=folder)
        self.turn = threading.Condition()
        self.written = self.durable = self.size = 0
        self.leads = False

    def append(self, data: bytes) -> None:
        """Write ``data``, and return once it is durable."""
        with self.turn:
            self._write(data)
            mine = self.written
            while self.durable < mine:
                if self.leads:
                    self.turn.wait()
                else:
                    self._lead()

    def _write(self, data: bytes) -> None:
        if self.size > _LARGEST:
            os.ftruncate(self.file, 0)
            os.lseek(self.file, 0, os.SEEK_SET)
            self.size = 0
        left = memoryview(data)
        while left:
            left = left[os.write(self.file, left) :]
        self.size += len(data)
        self.written += 1

    def _lead(self) -> None:
        """Make durable what is written by now, for all who wait for it."""
        self.leads, until = True, self.written
        self.turn.release()
        try:
            os.fdatasync(self.file)
        finally:
            self.turn.acquire()
            self.leads = False
            self.turn.notify_all()
        self.durable = until


class Inputs:
    """What the requests about states of one size work on; sizes in bytes."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, jws: int, compressed: int, content: int, token: int):
        self.jws = os.urandom(jws)
        self.jws_signature = key.sign(self.jws, _ES384)
        self.compressed = os.urandom(compressed // 16 * 16)
        self.content = os.urandom(content)
        self.reply = json.dumps({"token": "t" * token}).encode()


class Floor:
    """The WSGI application. The tenant in the path tells which of ``sizes`` (tenant → the sizes of Inputs) is meant."""

    def __init__(self, sizes: dict[str, dict[str, int]], folder: str):
        self.key, self.other = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        self.public, self.other_public = self.key.public_key(), self.other.public_key()
        self.inputs = {tenant: Inputs(self.key, **one) for tenant, one in sizes.items()}
        self.signed = os.urandom(_SIGNATURE)
        self.signature = self.key.sign(self.signed, _ES384)
        self.secret, self.mac_secret, self.iv = os.urandom(24), os.urandom(24), os.urandom(16)
        self.journal = Journal(folder)

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        inputs = self.inputs[path.split("/", 6)[5]]
        self.public.verify(self.signature, self.signed, _ES384)
        if method == "GET":
            self._seal(inputs)
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(inputs.reply)))]
            start_response("200 OK", headers)
            return [inputs.reply]
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["receiver.body_read"] = True  # else the receiver's worker closes the connection
        if method == "POST":
            self._open(inputs)
        self.journal.append(inputs.content if method == "POST" else inputs.content[:_ID])
        start_response("204 No Content", [])
        return []

    def _seal(self, inputs: Inputs) -> None:
        self.key.sign(inputs.jws, _ES384)
        ec.generate_private_key(ec.SECP384R1()).exchange(ec.ECDH(), self.other_public)
        encryptor = Cipher(algorithms.AES(self.secret), modes.CBC(self.iv)).encryptor()
        self._mac(encryptor.update(inputs.compressed))
        encryptor.finalize()

    def _open(self, inputs: Inputs) -> None:
        self.key.exchange(ec.ECDH(), self.other_public)
        self._mac(inputs.compressed)
        decryptor = Cipher(algorithms.AES(self.secret), modes.CBC(self.iv)).decryptor()
        decryptor.update(inputs.compressed)
        decryptor.finalize()
        self.public.verify(inputs.jws_signature, inputs.jws, _ES384)

    def _mac(self, data: bytes) -> None:
        mac = hmac.HMAC(self.mac_secret, hashes.SHA384())
        mac.update(data)
        mac.finalize()


def main() -> None:
    """Serve: the arguments are the class of the worker, the folder of the journals, and the sizes as JSON."""
    worker, folder, sizes = itertools.islice(sys.argv, 1, 4)
    Bare(lambda: Floor(json.loads(sizes), folder), worker).run()


if __name__ == "__main__":
    main()
