"""Each check finds a journal that was made bad by hand, and nothing in one that is good."""

import json

import pytest

from tests.chaos.checks import CHECKS, findings
from tests.chaos.evidence import Evidence, Window
from tests.chaos.journal import ACKNOWLEDGED, REFUSED, UNKNOWN, Attempt, Item, Operation
from tests.chaos.subject import End

TENANT, ID, OTHER = "a tenant", "an id", "another id"
_OUTCOMES = {2: ACKNOWLEDGED, 4: REFUSED, 5: UNKNOWN, 0: UNKNOWN}
LINE = json.dumps({"time": "now", "level": "info", "message": "save 204"})


class Story:
    """Operations in the order in which they are told, each a tenth of a second after the one before."""

    def __init__(self):
        self.operations, self.at = [], 0.0

    def __call__(self, call, *items, status=204, **attempt):
        """Tell of a ``call`` that took 50 ms and was answered with ``status`` (0: not at all)."""
        operation = Operation(len(self.operations) + 1, 0, call, TENANT, [Item(*item) for item in items])
        self.operations.append(operation)
        return self.again(operation, status, **attempt)

    def again(self, operation, status=204, seconds=0.05, **attempt):
        self.at += 0.1
        outcome = _OUTCOMES[status // 100]
        one = Attempt(self.at, self.at + seconds, outcome, status or None, **attempt)
        operation.attempts.append(one)
        return self

    def evidence(self, **more):
        known = {"began": 0.0, "ended": 100.0, "checked_from": 100.0, "most_seconds": 10.0} | more
        return Evidence(self.operations, **known)


def save(story, updated=1, digest="one", id=ID, status=204):
    return story("save", (id, updated, digest), status=status)


def load(story, digest="one", id=ID, **more):
    return story("load", (id,), status=200 if digest else 404, digest=digest, **more)


def good():
    """A story with everything in it that is allowed."""
    story = save(Story())
    save(story, 2, "two")
    load(story, "two")
    save(story, 1, "older")
    load(story, "two")
    story("bad", (ID, 3, "refused"), status=400)
    story("delete", (ID,))
    load(story, "")
    save(story, 1, "after", status=503)
    story.again(story.operations[-1], 0)
    story.again(story.operations[-1], 204)
    load(story, "after")
    load(story, "", OTHER)
    story("health", status=200)
    return story


def lost_at_the_end():
    story = save(Story(), 1, "one")
    save(story, 2, "two")
    story.at = 100
    return load(story, "one").evidence()


def refused_but_done():
    story = save(Story())
    story("bad", (ID, 2, "two"), status=400)
    return load(story, "two").evidence()


def refused_deletion_done():
    story = save(Story())
    story("delete", (ID,), status=400)
    return load(story, "").evidence()


def older_won():
    story = save(Story(), 2, "two")
    save(story, 1, "one")
    return load(story, "one").evidence()


def resurrected():
    story = save(Story())
    story("delete", (ID,))
    return load(story, "one").evidence()


def unsettled():
    story = save(Story(), status=503)
    return story.again(story.operations[0], 0).evidence()


def repeated_and_refused():
    story = save(Story(), status=503)
    return story.again(story.operations[0], 401).evidence()


def never_answered():
    story = save(Story(), status=0)
    story.operations[0].attempts[0].ended = None
    return story.evidence()


def killed(port):
    """A save that failed over the connection ``port``, while a worker was killed that had the connection 1."""
    story = save(Story(), status=0)
    story.operations[0].attempts[0].port = port
    story.again(story.operations[0])
    return story.evidence(windows=[Window(0.12, 0.13, "a worker is killed", frozenset({1}))])


def _with_log(*lines, secrets=()):
    return good().evidence(logs=["\n".join((LINE, *lines))], secrets=dict(secrets))


TOKEN = "eyJhbGciOiJFUzM4NCIsImtpZCI6.eyJpc3MiOiJtYW55d2hvIiwiYXVk.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
TRACED = json.dumps({"time": "now", "level": "error", "message": "a defect", "trace": "routes.py:3 KeyError"})
BAD = {
    "lost: 404 after the acknowledgement": ("lost", load(save(Story()), "").evidence()),
    "lost: older content at the end": ("lost", lost_at_the_end()),
    "lost: not in the store at the end": ("lost", save(Story()).evidence(contents=[])),
    "lost: a delete that was refused": ("lost", refused_deletion_done()),
    "stale: older content": ("stale", load(save(save(Story()), 2, "two"), "one").evidence()),
    "resurrected: a load": ("resurrected", resurrected()),
    "resurrected: in the store": (
        "resurrected",
        save(Story())("delete", (ID,)).evidence(contents=[(TENANT, ID, "one")]),
    ),
    "older wins": ("older wins", older_won()),
    "wrong content": ("wrong content", load(save(Story()), "mangled").evidence()),
    "wrong content: of another id": ("wrong content", load(save(save(Story()), 1, "two", OTHER), "two").evidence()),
    "wrong content: in the store": (
        "wrong content",
        save(Story()).evidence(contents=[(TENANT, ID, "one"), (TENANT, OTHER, "one")]),
    ),
    "wrong content: of another tenant": ("wrong content", load(Story()).evidence()),
    "effect of a refusal": ("effect of a refusal", refused_but_done()),
    "refused: a good save": ("refused", save(Story(), status=400).evidence()),
    "refused: a repeated one": ("refused", repeated_and_refused()),
    "refused: a bad one is not": ("refused", Story()("bad", (ID, 1, "one"), status=204).evidence()),
    "converges": ("converges", unsettled()),
    "no 500": ("no 500", Story()("load", (ID,), status=500).evidence()),
    "in time: a slow answer": ("in time", Story()("load", (ID,), status=404, seconds=10.5).evidence()),
    "in time: no answer at all": ("in time", never_answered()),
    "bystanders: another connection": ("bystanders", killed(port=2)),
    "answers": ("answers", Story()("load", (ID,), status=503).evidence(answers={"load": (200, 404)})),
    "power cut": ("power cut", good().evidence(wrong=[(1.0, "image 1.0: an id: lost")])),
    "replies verify": ("replies verify", load(save(Story()), note="not verified: ReplyRefused").evidence()),
    "health: another status": ("health", Story()("health", status=404).evidence()),
    "health: 503 at the end": ("health", Story()("health", status=503).evidence(checked_from=0)),
    "recovers: late": ("recovers", good().evidence(windows=[Window(0.1, 0.2, "a fault")], recovers_within=0.01)),
    "recovers: never": ("recovers", good().evidence(windows=[Window(5.0, 6.0, "a fault")], recovers_within=2.0)),
    "probes": ("probes", good().evidence(probes=[{"livez": 200, "readyz": 503}])),
    "processes: an end": ("processes", good().evidence(ends=[End(1, "receiver 1 ended with 1", False)])),
    "processes: an exit status": ("processes", good().evidence(statuses=[1])),
    "log: a token": ("log", _with_log(LINE[:-1] + f', "cause": "{TOKEN}"}}')),
    "log: a secret": ("log", _with_log(LINE[:-1] + ', "cause": "d-of-a-key"}', secrets={"a key": "d-of-a-key"})),
    "log lines: a forged one": ("log lines", _with_log("2026-01-01 INFO all is well")),
    "log lines: a torn one": ("log lines", _with_log(LINE[:20])),
    "defects": ("defects", _with_log(TRACED)),
    "defects: a traceback": ("defects", _with_log("Traceback (most recent call last):")),
    "leftovers": ("leftovers", good().evidence(leftovers=["tmp/x is left"])),
    "harness": ("harness", good().evidence(problems=["AssertionError: there is no worker"])),
}


def test_a_good_journal_has_no_findings():
    assert findings(good().evidence(contents=[(TENANT, ID, "after")], logs=[LINE], statuses=[0])) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_journal_is_found(name):
    check, evidence = BAD[name]
    assert check in {finding.check for finding in findings(evidence)}


def test_what_a_killed_worker_had_may_fail():
    evidence = killed(port=1)
    assert findings(evidence) == []
    assert evidence.failed_by_place == {"in flight": 1}


def test_a_finding_is_of_no_other_check_of_reads():
    of_reads = {"lost", "stale", "resurrected", "older wins", "wrong content", "effect of a refusal"}
    for check, evidence in BAD.values():
        found = {finding.check for finding in findings(evidence)} & of_reads
        assert found <= {check}, (check, found)


def test_every_check_has_a_bad_journal():
    assert {check for check, _ in BAD.values()} == set(CHECKS)


def test_a_load_beside_a_save_may_return_either():
    story = save(Story())
    save(story, 2, "two")
    story.operations[-1].attempts[0].ended = 1.0
    for digest in ("one", "two"):
        load(story, digest)
    assert findings(story.evidence()) == []


def test_a_load_beside_a_delete_that_is_unknown_may_return_either():
    story = save(Story())
    story("delete", (ID,), status=0)
    for digest in ("one", ""):
        load(story, digest)
    assert [finding.check for finding in findings(story.evidence())] == ["converges"]


def test_a_save_of_the_same_time_wins_and_an_older_one_after_a_delete_is_stored():
    story = save(save(Story(), 5, "one"), 5, "two")
    load(story, "two")
    story("delete", (ID,))
    load(save(story, 1, "three"), "three")
    assert findings(story.evidence()) == []
