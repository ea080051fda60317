"""The ``receiver`` command line, a module for each group of commands.

Exit status: 0 done, 1 failed, 2 usage error, and those of ``exit_status.py``.
"""

import contextlib
import importlib
import os
import sys

import click

from receiver import __version__
from receiver.commands import terminal
from receiver.commands.exit_status import EX_CONFIG
from receiver.commands.interrupting import StuckEnd
from receiver.conformance import printable
from receiver.problems import Problem
from receiver.settings import SettingsMistakes
from receiver.telemetry import logs, standard_error

_COMMANDS = ("serve", "keys", "store", "config", "health", "doctor", "demo", "platform", "conformance")


class _Lazy(click.Group):
    """A group that imports a command's module on use: containers run ``receiver health`` all day."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called ``cmd_name``, None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"receiver.commands.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; escape control characters in the message of its error, which may quote a server."""
        try:
            return super().invoke(ctx)
        except click.ClickException as stop:
            text = printable.visible_lines(stop.message)
            stop.message = text  # type: ignore[misc]  # click calls it final, and offers no other place to change it
            raise


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="external-storage-receiver")
def cli() -> None:
    """Keeps the runtime states of Flow apps in your own data centre."""


def main() -> None:
    """Run the command line. Print errors that an operator can fix as plain lines, and defects without their texts."""
    standard_error.open_closed_files()
    logs.configure("warning")
    terminal.guard()
    stuck = StuckEnd()
    try:
        cli(prog_name="receiver", obj=stuck)
    except SettingsMistakes as stop:
        found = "1 mistake" if len(stop.mistakes) == 1 else f"{len(stop.mistakes)} mistakes"
        _print_error(f"receiver: {found} in the settings:", *(f"  {one}" for one in stop.mistakes))
        sys.exit(EX_CONFIG)
    except Problem as problem:
        _print_error(f"receiver: {problem.cause}")
        sys.exit(1)
    except OSError as cause:  # such as a full disk under standard output
        with contextlib.suppress(OSError):
            _print_error(f"receiver: {cause}")
        os._exit(1)  # a normal exit would flush again, and fail with a traceback


def _print_error(*lines: str) -> None:
    """Print ``lines`` to standard error, escaped: they may quote a server or the name of a file."""
    for line in lines:
        click.echo(logs.escape(line), err=True)
