"""Chromium, headless: what a page looks like, and what it becomes once it is drawn."""

import os
import subprocess
from pathlib import Path

from tests.support import servers

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Time of the page, which stands still while it waits for an answer: what its first calls bring is drawn, however
    # busy the machine is.
    "--virtual-time-budget=3000",
)


def chromium(folder: Path, url: str, *flags: str, dark: bool = False) -> str:
    """Return what Chromium prints about the page at ``url`` with those ``flags``; ``folder`` holds its profile."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [servers.program("chromium"), *_FLAGS, f"--user-data-dir={folder}/profile", scheme, *flags, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def dom_of(folder: Path, page: Path, dark: bool = False) -> str:
    """Return the HTML of ``page`` as Chromium has it after its scripts ran; ``folder`` holds the profile."""
    return chromium(folder, page.as_uri(), "--window-size=1280,1000", "--dump-dom", dark=dark)


def screenshot(folder: Path, page: Path, name: str, width: int, height: int, dark: bool = False) -> Path:
    """Return the PNG of ``page`` in a window of that size, in $SCREENSHOTS or in ``folder``."""
    path = Path(os.environ.get("SCREENSHOTS") or folder).absolute() / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    chromium(folder, page.as_uri(), f"--window-size={width},{height}", f"--screenshot={path}", dark=dark)
    return path
