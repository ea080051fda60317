"""The ``receiver`` command line, a file per group. Exit status: 0 done, 1 failed, 2 wrong words, 78 wrong settings."""

import contextlib
import os
import sys

import click

from receiver import __version__, logs
from receiver.commands.config import config
from receiver.commands.conformance import conformance
from receiver.commands.demo import demo
from receiver.commands.keys import keys
from receiver.commands.platform import platform
from receiver.commands.serve import serve
from receiver.commands.store import store
from receiver.problems import Problem
from receiver.settings import SettingsMistakes

EX_CONFIG = 78  # sysexits.h: systemd and people know it as "configuration error"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="external-storage-receiver")
def cli() -> None:
    """Keeps the runtime states of Flow apps in your own data centre."""


for command in (serve, keys, store, config, demo, platform, conformance):
    cli.add_command(command)


def main() -> None:
    """Run the command line; what an operator can mend ends as plain lines, a defect as a traceback without texts."""
    logs.configure("warning")
    try:
        cli(prog_name="receiver")
    except SettingsMistakes as stop:
        _tell(f"receiver: {len(stop.mistakes)} mistake(s) in the settings:", *(f"  {one}" for one in stop.mistakes))
        sys.exit(EX_CONFIG)
    except Problem as problem:
        _tell(f"receiver: {problem.cause}")
        sys.exit(1)
    except OSError as cause:  # such as a full disk under what is printed
        with contextlib.suppress(OSError):
            _tell(f"receiver: {cause}")
        os._exit(1)  # what is still to be flushed would fail again, with a traceback


def _tell(*lines: str) -> None:
    """Print ``lines`` to standard error; they may repeat what a server said, or how a file is named."""
    for line in lines:
        click.echo(logs.escape(line), err=True)
