"""``receiver config``: the settings in force, or the table of all of them."""

import click
from tabulate import tabulate

from receiver import app, logs, settings
from receiver.settings.showing import shown_as, shown_rows


@click.command()
@click.option("--markdown", is_flag=True, help="Print the table of all settings, as the README shows it.")
def config(markdown: bool) -> None:
    """Show every setting in force and where it came from; secrets are masked."""
    if markdown:
        click.echo(markdown_table())
        return
    in_force, _ = app.configure()
    logs.warn(in_force.warnings)
    click.echo(tabulate(shown_rows(in_force), headers=("setting", "value", "from")))


def markdown_table() -> str:
    """Return the Markdown table of all declared settings."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for field in settings.declared():
        default = shown_as(field.default.text if field.metadata["secret"] else field.default)
        lines.append(f"| `{field.metadata['name']}` | {f'`{default}`' if default else ''} | {field.metadata['help']} |")
    return "\n".join(lines)
