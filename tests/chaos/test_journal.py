"""What is written to the journal is read from it."""

from tests.chaos.contents import State
from tests.chaos.journal import ACKNOWLEDGED, UNKNOWN, Attempt, Item, Journal, Operation, read
from tests.chaos.schedule import chance_of


def test_operations_come_back_as_they_were_written(tmp_path):
    journal = Journal(tmp_path / "journal")
    operation = Operation(1, 2, "save", "a tenant", [Item("an id", 3, "abc")], "a jti")
    for attempt in (Attempt(1.0), Attempt(2.0, worker=7)):
        journal.begin(operation, attempt)
        attempt.ended, attempt.status, attempt.note, attempt.port = attempt.began + 0.5, 503, "odd", 4711
        journal.end(operation, attempt)
    load = Operation(2, 2, "load", "a tenant", [Item("an id")])
    journal.begin(load, found := Attempt(0.5))
    found.ended, found.outcome, found.status, found.digest = 0.7, ACKNOWLEDGED, 200, "abc"
    journal.end(load, found)
    unanswered = Operation(3, 2, "delete", "a tenant", [Item("an id")])
    journal.begin(unanswered, Attempt(5.0))
    journal.close()
    assert read([tmp_path / "journal"]) == [load, operation, unanswered]
    assert unanswered.attempts[0].outcome == UNKNOWN


def test_every_content_of_the_load_is_another_one_and_times_of_a_state_grow():
    chance, state = chance_of(1, "contents"), State("an id")
    saves = [state.next(0, "a tenant", chance) for _ in range(50)]
    items = [item for item, _ in saves]
    older, _ = state.next(0, "a tenant", chance, older=True)
    assert len({item.digest for item in (*items, older)}) == 51
    assert [item.updated for item in items] == sorted({item.updated for item in items})
    assert items[-2].updated < older.updated < items[-1].updated
    texts = [claims["updatedAt"] for _, claims in saves]
    assert texts == sorted(set(texts))
