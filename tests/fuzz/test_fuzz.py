"""What fuzzing knows is tried again, without a fuzzer: every input of the corpus, and whether the harness would tell."""

import subprocess
import sys
import time

import pytest

from tests.fuzz import limits, seeds
from tests.fuzz.targets import TARGETS
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def inputs_of(name: str) -> list[bytes]:
    """Return the corpus of the target ``name``, and the seeds that it began with."""
    return [path.read_bytes() for path in sorted((seeds.CORPUS / name).iterdir())] + list(seeds.SEEDS[name]())


@pytest.mark.parametrize("name", TARGETS)
def test_every_known_input_keeps_the_contract_within_the_limits(name):
    target = limits.Measured(TARGETS[name])
    for data in inputs_of(name):
        target(data)
    assert target.found["seconds"] > 0


def raising(*_args):
    raise KeyError


FAULTS = {
    "token": ("receiver.envelope.time_fault", lambda *_args: None),
    "claims": ("receiver.envelope._claims_fault", lambda *_args: "a value: \u00fc"),
    "signature": ("receiver.signature._check_claims", lambda *_args: None),
    "body": ("receiver.schemas.canonical_uuid", lambda _value: "none"),
    "json": ("receiver.strictjson._members", dict),
    "head": ("receiver.body._check_type", raising),
    "key": ("receiver.keys.keyring.KeyFault.__str__", lambda _self: "a value: \u00fc"),
    "url": ("receiver.stores.urls.store_url.TITLES", {}),
    "time": ("receiver.states.NANOSECONDS", 1),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_tells_when_the_contract_is_broken(name, monkeypatch):
    """So its inputs get past the refusals: each of these faults is behind them."""
    monkeypatch.setattr(*FAULTS[name])
    with pytest.raises((AssertionError, KeyError)):
        for data in inputs_of(name):
            TARGETS[name](data)


def test_an_input_that_takes_too_long_or_too_much_is_told(monkeypatch):
    def spin(_data):
        until = time.thread_time() + 1.5 * limits.SECONDS
        while time.thread_time() < until:
            pass

    with pytest.raises(limits.TooDear, match="ms"):
        limits.Measured(spin)(b"")
    monkeypatch.setattr(limits, "SECONDS", 60)
    peak = limits._peak()
    with pytest.raises(limits.TooDear, match="MB"):
        limits.Measured(lambda _data: len(b"\1" * (peak + limits.MEMORY)))(b"")


def test_the_corpus_is_small():
    files = [path for path in seeds.CORPUS.rglob("*") if path.is_file()]
    assert 50 < len(files) <= 300
    assert sum(path.stat().st_size for path in files) <= 500_000


def test_the_targets_need_no_atheris():
    code = "import sys; sys.modules['atheris'] = None; import tests.fuzz.targets, tests.fuzz.seeds, tests.fuzz.__main__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
