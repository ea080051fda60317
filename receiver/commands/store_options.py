"""Options that several commands of ``receiver store`` share."""

import click

from receiver import files
from receiver.stores.urls.store_url import StoreURL, parse

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tenant_option = click.option("--tenant", type=click.UUID, help="UUID of a tenant: only its states.")


def parsed_url(_context: click.Context, _parameter: click.Parameter, text: str | None) -> StoreURL | None:
    """Return the StoreURL that an option holds, or that the file holds which it names as @FILE.

    The list of processes shows what is typed, but not what is in a file. Raises click's BadParameter, whose message
    does not repeat the URL.
    """
    if text is None:
        return None
    try:
        return parse(files.read_text(text[1:]).strip() if text.startswith("@") else text)
    except ValueError as cause:
        raise click.BadParameter(str(cause)) from None
