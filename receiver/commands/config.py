"""``receiver config``: the settings in force, or the table of all settings."""

import json

import click

from receiver import bootstrap, settings
from receiver.commands.tables import folded
from receiver.secret import Secret
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
    rows = [dict(zip(("setting", "value", "from"), row, strict=True)) for row in shown_rows(in_force)]
    click.echo(json.dumps(rows, indent=1) if as_json else folded(rows))


def markdown_table() -> str:
    """Return the Markdown table of all declared settings."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for field in settings.declared():
        default = shown_as(field.default.text if isinstance(field.default, Secret) else field.default)
        lines.append(f"| `{field.metadata['name']}` | {f'`{default}`' if default else ''} | {field.metadata['help']} |")
    return "\n".join(lines)
