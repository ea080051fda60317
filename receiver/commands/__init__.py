"""The ``receiver`` command line, a file per group.

Exit status: 0 done, 1 failed, 2 usage error, 75 an address is taken (a start may succeed later), 78 wrong settings.
"""

import contextlib
import importlib
import os
import sys

import click

from receiver import __version__
from receiver.commands import terminal
from receiver.conformance import printable
from receiver.problems import Problem
from receiver.settings import SettingsMistakes
from receiver.telemetry import logs, standard_error

EX_CONFIG = 78  # sysexits.h: systemd and people know it as "configuration error"
EX_TEMPFAIL = 75  # sysexits.h: it may work later; systemd starts it again
_COMMANDS = ("serve", "keys", "store", "config", "health", "doctor", "demo", "platform", "conformance")


class _Lazy(click.Group):
    """A group that loads a command's module when it is asked for: a container asks for health all day."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called ``cmd_name``, None when there is none."""
        if cmd_name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"receiver.commands.{cmd_name}"), cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what stops it may repeat what a server said, and is made visible."""
        try:
            return super().invoke(ctx)
        except click.ClickException as stop:
            stop.message = printable.visible_lines(stop.message)
            raise


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="external-storage-receiver")
def cli() -> None:
    """Keeps the runtime states of Flow apps in your own data centre."""


def main() -> None:
    """Run the command line; what an operator can mend ends as plain lines, a defect as a traceback without texts."""
    standard_error.open_closed_files()
    logs.configure("warning")
    terminal.guard()
    try:
        cli(prog_name="receiver")
    except SettingsMistakes as stop:
        found = "1 mistake" if len(stop.mistakes) == 1 else f"{len(stop.mistakes)} mistakes"
        _tell(f"receiver: {found} in the settings:", *(f"  {one}" for one in stop.mistakes))
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
