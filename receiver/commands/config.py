"""``receiver config``: the settings in force, or the table of all of them."""

import os
from pathlib import Path

import click
from tabulate import tabulate

from receiver import app, settings
from receiver.settings import options
from receiver.stores import urls


@click.command()
@click.option("--markdown", is_flag=True, help="Print the table of all settings, as the README shows it.")
def config(markdown: bool) -> None:
    """Show every setting in force and where it came from; secrets are masked."""
    if markdown:
        click.echo(markdown_table())
        return
    in_force, _ = app.configure()
    rows = []
    for field in settings.declared():
        value = getattr(in_force, field.name)
        shown = shown_as(value)
        if field.metadata["parse"] is options.database_url and value:
            shown = urls.masked(value.text)
        source = in_force.sources.get(field.name, "default")
        if field.name == "database_url" and in_force.store_url != value.text:
            shown, source = "", f"{in_force.store_variable} decides"
        if field.name == "bind" and in_force.listen != value:
            shown, source = in_force.listen, in_force.sources["port"]
        rows.append((field.metadata["name"], shown, source))
    residents = in_force.tenant_stores.items()
    rows += [(f"STORAGE_TENANT_{tenant}", str(resident.place), resident.variable) for tenant, resident in residents]
    rows += [(f"STORAGE_REGION_{tenant}", one.region, "") for tenant, one in residents if one.region]
    rows += [(name, str(text), name) for name, text in in_force.key_texts.items()]
    click.echo(tabulate(rows, headers=("setting", "value", "from")))


def shown_as(value: object) -> str:
    """Return ``value`` of a setting as one would write it in the environment."""
    if isinstance(value, (tuple, frozenset)):
        return ",".join(sorted(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    return "" if value in (0, "") else os.fspath(value) if isinstance(value, Path) else str(value)


def markdown_table() -> str:
    """Return the Markdown table of all declared settings."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for field in settings.declared():
        default = shown_as(field.default.text if field.metadata["secret"] else field.default)
        lines.append(f"| `{field.metadata['name']}` | {f'`{default}`' if default else ''} | {field.metadata['help']} |")
    return "\n".join(lines)
