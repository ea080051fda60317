"""``receiver config``: the settings in force, or the table of all of them."""

import json

import click
from tabulate import tabulate

from receiver import bootstrap, settings
from receiver.settings.display import shown_as, shown_rows
from receiver.telemetry import logs


@click.command()
@click.option("--markdown", is_flag=True, help="Print the table of all settings, as the manual shows it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(markdown: bool, as_json: bool) -> None:
    """Show every setting in force and where it came from; secrets are masked."""
    if markdown:
        click.echo(markdown_table())
        return
    in_force, _ = bootstrap.configure()
    logs.warn(in_force.warnings)
    rows, headers = shown_rows(in_force), ("setting", "value", "from")
    if as_json:
        click.echo(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1))
    else:
        click.echo(tabulate(rows, headers=headers))


def markdown_table() -> str:
    """Return the Markdown table of all declared settings."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for field in settings.declared():
        default = shown_as(field.default.text if field.metadata["secret"] else field.default)
        lines.append(f"| `{field.metadata['name']}` | {f'`{default}`' if default else ''} | {field.metadata['help']} |")
    return "\n".join(lines)
