"""The manual's page on the simulated platform, line by line, against a real receiver and a real simulator."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulators import a_receiver, a_simulator

SECTION = (Path(__file__).parents[1] / "docs/how-to/simulate-the-platform.md").read_text()
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL) if "curl" in block]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if not line.startswith("#")]
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


def run(block, simulator):
    """Run ``block`` in one shell; returns what each command wrote."""
    script = "".join(f"{command}\necho '{CUT}'\n" for command, _ in steps_of(block))
    script = script.replace("http://127.0.0.1:8090", simulator.url)
    ran = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(CUT)[:-1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with a_receiver(tmp_path_factory.mktemp("readme")) as receiver, a_simulator(receiver) as simulator:
        yield receiver, simulator


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block[:70]))
def test_the_lines_of_the_page_answer_what_it_says(both, block):
    receiver, simulator = both
    if "/keys/use" in block:  # as the text before it says
        receiver.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            time.sleep(0.1)
            if "has taken keys and certificates" in receiver.log():
                break
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


def test_the_section_shows_what_it_must():
    for word in ("platform only", "external only", "both at once", "keys/use", "/migrate", '"runs": 1000', "countries"):
        assert any(word in block for block in BLOCKS), word


def test_the_commands_of_the_tutorial_save_load_and_show_a_state(tmp_path):
    """Its steps 5 to 7, at a receiver and a simulator of its own, in one shell."""
    text = (Path(__file__).parents[1] / "docs/tutorial/first-round-trip.md").read_text()
    steps = text[text.index("## 5.") : text.index("## 8.")].replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    script = "".join(re.findall(r"```sh\n(.*?)```", steps, re.DOTALL))
    script = script.replace("make conformance", f"{Path(sys.executable).parent}/receiver conformance --only http #")
    with a_receiver(tmp_path) as receiver, a_simulator(receiver) as simulator:
        ours = {"DATABASE_URL": f"sqlite:///{tmp_path}/states.db", "STORAGE_KEYS": str(tmp_path / "keys")}
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8090", simulator.url)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | ours,
        )
    assert ran.returncode == 0, ran.stderr
    run_id = ran.stdout.splitlines()[0]
    assert '"keptBy": ["local"]' in ran.stdout
    assert ran.stdout.count(run_id) >= 4
    assert '"compositeId"' in ran.stdout, "the content is shown"
    assert "conforms" in ran.stdout
