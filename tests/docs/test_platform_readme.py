"""The walk-through of the simulated platform, line by line, against a real receiver and a real simulator."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.simulators import a_receiver, a_simulator
from tests.support.waiting import until

pytestmark = pytest.mark.slow

BLOCKS = [block for block in documents.blocks(documents.WALK_THROUGH.read_text(), "sh") if "curl" in block]
CUT = "--- the next command ---"


def steps_of(block):
    """Return the (command, text that its answer must hold or None) of ``block``."""
    steps = []
    for line in block.splitlines():
        if line.startswith("# → "):
            steps[-1] = (steps[-1][0], line.removeprefix("# → "))
        else:
            steps.append((line, None))
    return steps


def run(block, simulator, environment=None):
    """Run ``block`` in one shell; returns what each command wrote."""
    script = "".join(f"{command}\necho '{CUT}'\n" for command, _ in steps_of(block))
    script = script.replace("http://127.0.0.1:8090", simulator.url)
    ran = subprocess.run(
        ["bash", "-eu", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(CUT)[:-1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with a_receiver(tmp_path_factory.mktemp("walk-through")) as receiver, a_simulator(receiver) as simulator:
        yield receiver, simulator


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block[:70]))
def test_the_lines_of_the_page_answer_what_it_says(both, block):
    receiver, simulator = both
    if "/keys/use" in block:  # as the text before it says
        receiver.process.send_signal(signal.SIGHUP)
        until(lambda: "has taken keys and certificates" in receiver.log())
    steps = steps_of(block)
    answers = run(block, simulator)
    assert len(answers) == len(steps)
    for (command, expected), answer in zip(steps, answers, strict=True):
        assert expected is None or expected in answer, (command, answer)
    assert sum(expected is not None for _, expected in steps) >= 2


def test_the_migrated_states_are_in_the_store_each_once(both):
    receiver, _ = both
    tenant = "00000000-0000-4000-8000-000000001000"
    batches = re.findall(rf"POST /api/storage/1/states/{tenant} 204 .* stored=(\d+) ignored=(\d+)", receiver.log())
    assert batches == [("50", "0")] * 20


def test_the_tutorial_saves_a_state_and_finds_it_in_the_store(both):
    """Its commands between the start of both programs and the check of the contract, which .ci/run does."""
    receiver, simulator = both
    text = documents.TUTORIAL.read_text()
    chapters = text[text.index("Save and load a state") : text.index("Check the whole contract")]
    block = "\n".join(documents.blocks(chapters, "sh")).replace(".venv/bin/receiver", f"{sys.executable} -m receiver")
    of_the_service = Path(f"/proc/{receiver.process.pid}/environ").read_bytes().decode().split("\0")
    answers = run(block, simulator, dict(pair.split("=", 1) for pair in of_the_service if pair))
    steps = [command for command, _ in steps_of(block)]
    by_command = {command.split(" -m ")[-1]: answer for command, answer in zip(steps, answers, strict=True)}
    run_id = by_command['echo "$RUN"'].strip()
    assert any('"keptBy": ["local"]' in answer for answer in answers)
    assert run_id in by_command['receiver store list "$TENANT"']
    assert run_id in by_command['receiver store show "$TENANT" "$RUN"']
    assert len(by_command['receiver store show "$TENANT" "$RUN" --content']) > 1000


def test_the_page_shows_what_it_must():
    for word in ("platform only", "external only", "both at once", "keys/use", "/migrate", '"runs": 1000', "countries"):
        assert any(word in block for block in BLOCKS), word
