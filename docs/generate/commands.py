"""The command line, from click's own tree."""

from collections.abc import Iterator

import click

from docs.generate.markdown import code, described, exactly, plain, table
from docs.generate.sources import cli

STATUS = described("commands", "exit_statuses")


def leaves(command: click.Command = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the path and the command of everything that can be run, in the order of --help."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), f"{path} {name}".strip())


def pages() -> str:
    """Return a section for each command; raises LookupError when the exit status of one is not described."""
    found = dict(leaves())
    exactly(STATUS, found, "STATUS of commands")
    return "\n\n".join(_section(path, command) for path, command in found.items())


def _section(path: str, command: click.Command) -> str:
    parts = [f"### receiver {path}", f"```text\n{_usage(path, command)}\n```", _help(command)]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        parts.append(table(("option", "default", "meaning"), map(_option, options)))
    return "\n\n".join([*parts, f"**Exit status** {STATUS[path]}"])


def _usage(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"receiver {path}")
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _help(command: click.Command) -> str:
    return "\n\n".join(plain(paragraph) for paragraph in (command.help or "").split("\n\n"))


def _option(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    kind = "" if option.is_flag else f" {code(option.make_metavar(click.Context(cli)))}"
    has_default = not option.is_flag and option.show_default and option.default not in (None, "")
    bounds = option.type._describe_range() if isinstance(option.type, click.IntRange | click.FloatRange) else ""
    meaning = plain(option.help or "") + (f" From {bounds.replace('<=x<=', ' to ')}." if "<=x<=" in bounds else "")
    required = " Required." if option.required else ""
    return names + kind, code(str(option.default)) if has_default else "", meaning + required
