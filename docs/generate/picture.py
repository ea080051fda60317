"""``make picture``: take docs/assets/platform.png, the page of the simulated platform, with Chromium.

It starts a receiver and a simulated platform on free ports, lets a crowd of users run flows, and ends both.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs.generate.sources import ROOT

PICTURE = ROOT / "docs/assets/platform.png"
COUNTRIES = ("JP", "US", "GB", "SG", "FR", "DE")
_PROGRAM = (sys.executable, "-m", "receiver")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@contextmanager
def _running(folder: Path, *words: str, **environment: str) -> Iterator[str]:
    """Run the receiver command with ``words`` in ``folder``; yields the address that it prints."""
    command = [*_PROGRAM, *words]
    environment = {"PYTHONPATH": str(ROOT), "STORAGE_ADMIN_BIND": "off", "STORAGE_LOG_FORMAT": "text", **environment}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield next(found[0] for line in process.stdout if (found := _ADDRESS.search(line)))
    finally:
        process.terminate()
        process.communicate()


def _call(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - the platform that was started here
        return json.load(answer)


def _play(platform: str) -> None:
    """Let a crowd run flows for some seconds, then start a run in each of COUNTRIES."""
    crowd = f"{platform}/api/simulator/1/crowd"
    _call(crowd, {"users": 4, "seconds": 4})
    time.sleep(5)
    _call(f"{crowd}/end", {})
    for country in COUNTRIES:
        run = _call(f"{platform}/api/run/1/state", {"flow": "Claim", "country": country})["stateId"]
        for _ in range(2):
            _call(f"{platform}/api/run/1/state/{run}", {"action": "step", "country": country})


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([*_PROGRAM, "keys", "generate"], cwd=folder, env={"PYTHONPATH": str(ROOT)}, check=True)
        with (
            _running(folder, "serve", STORAGE_BIND="127.0.0.1:0") as receiver,
            _running(folder, "platform", "serve", "--bind", "127.0.0.1:0", "--receiver", receiver) as platform,
        ):
            _play(platform)
            flags = ("--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=3000")
            light = "--blink-settings=preferredColorScheme=1"
            where = (f"--user-data-dir={folder}/profile", "--window-size=1200,1000", f"--screenshot={PICTURE}")
            subprocess.run(["chromium", *flags, light, *where, platform], check=True)  # noqa: S607


if __name__ == "__main__":
    main()
