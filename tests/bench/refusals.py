"""``python -m tests.bench.refusals``: what a refused request costs, and whether time tells why it was refused.

Each request of the tests of cases A and B that is refused is sent again, to the same application, while its cost is
taken: CPU of the process less that of one verification with P-384, measured in turn with it; memory above what was
there before; bytes that were read of its body.
"""

import gc
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from tabulate import tabulate

from receiver.app import create_app
from receiver.commands.demo import running_receiver
from receiver.jose import p384
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.client import Answer, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings
from receiver.signature import SIGNATURE
from receiver.stores import open_store
from tests.bench import attacks, machine, processes
from tests.support.platform_client import InProcess, ring_of

RESULTS = Path(__file__).parent / "results" / "refusals.md"
TESTS = ("signature", "test_envelope.py", "test_calls.py")
_BOUND = 2.0  # ms above one verification
_TIMES, _MOST_TIMES = 7, 200  # that each request is sent again
_SAMPLES = 300  # of each class whose time is compared
_AT_ONCE = 10  # of them that a server's time is taken for: it goes on a little behind each reply
_LARGE = 64 << 10  # bytes of a body whose hashing and parsing alone may take longer


class Verification:
    """One verification with P-384, the measure of all costs here."""

    def __init__(self):
        key = new_store().platform.jwk.get_op_key("sign")
        self.key, self.digest = key.public_key(), os.urandom(48)
        self.signature = p384.sign(key, self.digest)

    def __call__(self) -> None:
        assert p384.verify(self.key, self.signature, self.digest)


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of CPU that this process takes for ``call``."""
    began = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    call()
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) - began


class Counting(io.BytesIO):
    """A body that knows how much of it was read."""

    taken = 0

    def read(self, *args) -> bytes:
        """Read on."""
        data = super().read(*args)
        self.taken += len(data)
        return data


class Recorder:
    """A plug-in of pytest: sends again, and measures, what the tests of cases A and B see refused."""

    def __init__(self):
        self.verification = Verification()
        self.costs: dict[str, list[dict]] = defaultdict(list)
        self.cases: tuple[str, ...] = ()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note which cases the next test tries; none if it replaces parts of the receiver, or runs out of them."""
        own = [case for mark in item.iter_markers("case") for case in mark.args]
        replaces = "monkeypatch" in item._fixtureinfo.argnames
        self.cases = () if replaces else tuple(case for case in own if case[0] in "AB")

    def call(self, client: InProcess, method: str, path: str, body=None, headers=None) -> Answer:
        """Call the application as ``client`` does; measure it when it refuses."""
        headers = dict(client.headers(path) if headers is None else headers)
        answer = self.plain(client, method, path, body, headers)
        if 400 <= answer.status < 500 and answer.status != 404 and self.cases:
            cost = self.measure(client, method, path, body, headers) | {"status": answer.status}
            for case in self.cases:
                self.costs[case].append(cost)
        return answer

    def measure(self, client: InProcess, method: str, path: str, body: bytes | None, headers: dict) -> dict:
        """Return what the request costs: ms above a verification, MB, bytes read of its ``size``.

        What else runs on the machine only adds, so the least of some counts; of more where that is over the bound.
        """
        application, data = client.flask_client.application, body or b""
        with application.test_request_context(path, method=method, headers=headers) as context:
            environ = context.request.environ | {"CONTENT_LENGTH": str(len(data))}
        environ["CONTENT_TYPE"] = headers.get("Content-Type", "application/json")
        bodies, verified, refused = [], [], []
        gc.disable()  # pytest's rings are not the receiver's
        while len(refused) < _TIMES or (_above(verified, refused) > _BOUND and len(refused) < _MOST_TIMES):
            bodies.append(Counting(data))
            verified.append(seconds_of(self.verification))
            refused.append(seconds_of(lambda: _drain(application, environ | {"wsgi.input": bodies[-1]})))
        gc.enable()
        memory = _memory(lambda: _drain(application, environ | {"wsgi.input": Counting(data)}))
        read = max(body.taken for body in bodies)
        return {"ms": _above(verified, refused), "memory": memory, "read": read, "size": len(data)}


def _above(verified: list[float], refused: list[float]) -> float:
    return 1000 * (min(refused) - min(verified))


def _drain(application: Callable, environ: dict) -> None:
    for _ in application(environ, lambda *_args: None):
        pass


def _memory(call: Callable[[], object]) -> int:
    """Return by how many bytes the process's resident memory grows at most during ``call``."""
    before = processes.forget_peak(os.getpid())
    call()
    return max(0, processes.memory(os.getpid(), "VmHWM") - before)


def cases() -> dict[str, list[dict]]:
    """Run the tests and return the costs of every refusal, case by case."""
    recorder = Recorder()
    recorder.plain = InProcess.call

    def call(client: InProcess, *args, **named) -> Answer:
        return recorder.call(client, *args, **named)

    InProcess.call = call
    files = [str(Path(__file__).parents[1] / name) for name in TESTS]
    status = pytest.main(["-q", "-m", "case", "-p", "no:cacheprovider", *files], plugins=[recorder])
    if status != pytest.ExitCode.OK:
        sys.exit(f"the tests ended with {status!r}")
    return dict(sorted(recorder.costs.items()))


def told(costs: dict[str, list[dict]]) -> str:
    """Return the table of ``costs``, and what to think of it."""
    rows, dear = [], []
    for case, all_of_it in costs.items():
        small = [cost for cost in all_of_it if not _is_large(cost)]
        unsigned = [cost["read"] for cost in all_of_it if cost["status"] == 401]
        rows.append(
            (
                *(case, len(all_of_it), ", ".join(sorted({str(cost["status"]) for cost in all_of_it}))),
                *_middle_and_most(small),
                *(f"{max(cost['memory'] for cost in all_of_it) / 2**20:.1f}", max(unsigned) if unsigned else ""),
            )
        )
        dear += [
            (case, cost["status"], f"{cost['size']:,}", f"{cost['ms']:.2f}", f"{cost['memory'] / 2**20:.1f}")
            for cost in all_of_it
            if _is_large(cost)
        ]
    headers = (
        "case",
        "requests",
        "answers",
        "median, ms",
        "most, ms",
        "memory at most, MB",
        "read of an unsigned body",
    )
    text = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    most = max(cost["ms"] for found in costs.values() for cost in found if not _is_large(cost))
    verdict = f"The dearest: {most:.2f} ms of at most {_BOUND:g}: {'holds' if most <= _BOUND else '**missed**'}."
    large = tabulate(dear, ("case", "answer", "bytes of body", "ms", "memory, MB"), tablefmt="github")
    return (
        f"ms of CPU above one verification with P-384.\n\n{text}\n\n{verdict}\n\n"
        f"Apart from these: bodies of {_LARGE >> 10} KiB and more, which are hashed and parsed once their signature holds, and"
        f" those that inflate to the limit, which takes as long as a state of that size:\n\n{large}"
    )


def _is_large(cost: dict) -> bool:
    return cost["size"] >= _LARGE or cost["status"] == 413


def _middle_and_most(costs: list[dict]) -> Iterator[str]:
    for of in (statistics.median, max):
        yield f"{of(cost['ms'] for cost in costs):.2f}" if costs else "–"


def token_classes(keys, state: dict) -> dict[str, str]:
    """Return tokens that cannot be opened, by what is wrong; the first is well made but for its tag."""
    good = tokens.seal_state(state, keys)
    head, wrapped, iv, ciphertext, tag = good.split(".")
    epk = json.loads(forging.unb64(head))["epk"]
    others = {kind: json.loads(forging.JWK.generate(kty="EC", crv=kind).export_public()) for kind in ("P-256", "P-521")}
    broken = {
        "off the curve": epk | {"y": forging.b64(bytes(47) + b"\1")},
        "P-256": others["P-256"],
        "P-521": others["P-521"],
        "secp256k1": json.loads(forging.JWK.generate(kty="EC", crv="secp256k1").export_public()),
        "X448": json.loads(forging.JWK.generate(kty="OKP", crv="X448").export_public()),
        "an empty x": epk | {"x": ""},
        "zero": epk | {"x": forging.b64(bytes(48)), "y": forging.b64(bytes(48))},
        "no object": "x",
        "of another point": json.loads(forging.JWK.generate(kty="EC", crv="P-384").export_public()),
    }
    found = {"a good one, a wrong tag": f"{head}.{wrapped}.{iv}.{ciphertext}.{_flipped(tag)}"}
    found["a good one, a wrapped key that is none"] = f"{head}.{_flipped(wrapped)}.{iv}.{ciphertext}.{tag}"
    return found | {f"epk {name}": forging.with_header(good, epk=value) for name, value in broken.items()}


def signature_classes(keys, tenant: str, path: str) -> dict[str, str]:
    """Return signatures that do not hold, by what is wrong."""
    good = tokens.sign(tokens.request_claims(tenant, path), keys.platform)
    head, payload, signature = good.split(".")
    return {
        "a known kid, a wrong signature": f"{head}.{payload}.{_flipped(signature)}",
        "a known kid, another's signature": forging.jws(
            {"alg": "ES384", "kid": keys.platform.kid, "typ": "JWT"}, forging.unb64(payload), new_store().platform.jwk
        ),
        "an unknown kid": tokens.sign(tokens.request_claims(tenant, path), new_store().platform),
        "no token": "x",
    }


def _flipped(part: str) -> str:
    raw = bytearray(forging.unb64(part))
    raw[len(raw) // 2] ^= 1
    return forging.b64(bytes(raw))


def attacked(folder: Path, keys) -> str:
    """Return a table of what each bound lets a signed caller do with one request, at a receiver in this process."""
    store = open_store(f"sqlite:///{folder}/attacked.db", 5)
    store.prepare()
    run, rows = FlowRun("5eed0000-0000-4000-8000-000000000004", seed=1), []
    application = create_app(Settings(), ring_of(keys), store)
    client = InProcess(application.test_client(), run.tenant, keys)
    path = f"/api/storage/1/states/{run.tenant}"
    for name, body in attacks.bodies(run.state(), keys):
        answers: list[Answer] = []

        def send(body: bytes = body, answers: list = answers) -> None:
            answers.append(client.call("POST", path, body))

        cost, memory = min(seconds_of(send) for _ in range(3)), _memory(send)
        assert len({answer.status for answer in answers}) == 1
        rows.append((name, f"{len(body):,}", answers[0].status, f"{1000 * cost:.1f}", f"{memory / 2**20:.0f}"))
    store.close()
    return tabulate(
        rows,
        ("body", "bytes", "answer", "ms of CPU, its signing included", "memory, MB"),
        tablefmt="github",
        disable_numparse=True,
    )


def compared(folder: Path, keys, of_tokens: bool) -> str:
    """Return a table of the time that each class of refusal takes at a receiver in this process, and their ratios."""
    store = open_store(f"sqlite:///{folder}/{of_tokens}.db", 5)
    store.prepare()
    run = FlowRun("5eed0000-0000-4000-8000-000000000002", seed=1)
    application = create_app(Settings(), ring_of(keys), store)
    client = InProcess(application.test_client(), run.tenant, keys)
    path = f"/api/storage/1/states/{run.tenant}"
    classes = token_classes(keys, run.state()) if of_tokens else signature_classes(keys, run.tenant, path)
    taken, replies = {name: [] for name in classes}, set()
    for _ in range(_SAMPLES):
        for name, token in classes.items():
            headers = client.headers(path) | ({} if of_tokens else {SIGNATURE: token})
            body = json.dumps([{"token": token}] if of_tokens else []).encode()
            wall, cpu = time.perf_counter(), time.process_time()
            answer = client.call("POST", path, body, headers)
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            replies.add(answer.body)
    store.close()
    assert len(replies) == 1, replies
    medians = {
        name: [1000 * statistics.median(one) for one in zip(*all_of_it, strict=True)]
        for name, all_of_it in taken.items()
    }
    first = next(iter(medians.values()))
    rows = [
        (
            name,
            *(f"{value:.2f}" for value in two),
            *(f"{value / one:.3f}" for value, one in zip(two, first, strict=True)),
        )
        for name, two in medians.items()
    ]
    return tabulate(
        rows, ("what is wrong", "ms", "ms of CPU", "ratio", "ratio of CPU"), "github", disable_numparse=True
    )


def served(folder: Path, keys) -> str:
    """Return a table of what refusals cost a real server: all of its processes, sockets and HTTP included."""
    with open(folder / "log", "w") as log, running_receiver(keys, folder, log, STORAGE_WORKERS="1") as running:
        run = FlowRun("5eed0000-0000-4000-8000-000000000003", seed=1)
        client = Client(running.url, run.tenant, keys)
        path = f"/api/storage/1/states/{run.tenant}"
        empty = {
            f"signature: {name}": (token, b"[]") for name, token in signature_classes(keys, run.tenant, path).items()
        }
        sealed = token_classes(keys, run.state())
        bodies = {f"token: {name}": (None, json.dumps([{"token": token}]).encode()) for name, token in sealed.items()}
        rows, verification = [], Verification()
        pids = processes.family(running.process.pid)
        for name, (signature, body) in (empty | bodies).items():
            taken, verified = [], min(seconds_of(verification) for _ in range(_SAMPLES // 10))
            for _ in range(_SAMPLES // _AT_ONCE):
                headers = [
                    client.headers(path) | ({SIGNATURE: signature} if signature else {}) for _ in range(_AT_ONCE)
                ]
                before = sum(processes.cpu_of(pids).values())
                assert {client.call("POST", path, body, one).status for one in headers} <= {400, 401}
                taken.append((sum(processes.cpu_of(pids).values()) - before) / _AT_ONCE)
            rows.append((name, f"{1000 * (min(taken) - verified):.2f}"))
        client.close()
    return tabulate(rows, ("what is wrong", "ms above a verification"), tablefmt="github", disable_numparse=True)


def main() -> None:
    """Measure, and write the tables."""
    keys = new_store()
    with tempfile.TemporaryDirectory(prefix="refusals-") as folder:
        times = [compared(Path(folder), keys, of_tokens) for of_tokens in (True, False)]
        attack = attacked(Path(folder), keys)
        parts: Iterable[str] = (
            "# What a refusal costs",
            f"Measured on {machine.line(machine.describe())}. A verification takes"
            f" {1000 * statistics.median(seconds_of(Verification()) for _ in range(200)):.2f} ms.",
            "## Every case",
            told(cases()),
            "## Tokens that cannot be opened, in time",
            f"{_SAMPLES} of each, in turn; every reply is the same to the byte.",
            times[0],
            "## Signatures that do not hold, in time",
            "That a kid is not known here is told sooner: it is public, and stands in clear in every token.",
            times[1],
            "## Every bound, attacked by who can sign",
            attack,
            "## With a real server",
            served(Path(folder), keys),
        )
        RESULTS.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
