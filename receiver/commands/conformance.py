"""``receiver conformance``: does the receiver at a URL keep the contract? Any receiver, in any language."""

import contextlib
import json
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
from tabulate import tabulate

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver import files as key_files
from receiver.commands import terminal
from receiver.commands.demo import given_store, running_receiver
from receiver.commands.interrupting import Interruption
from receiver.commands.reaching import tls_context, url_parts
from receiver.conformance import files, registry, screen
from receiver.conformance.run import Report, run
from receiver.conformance.target import Target, Unreachable
from receiver.mock_platform import keyfiles
from receiver.mock_platform.keys import KeyFault, KeyPair, StoreKeys, new_store

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False, writable=True)


_OF_ANOTHER = ("url", "platform_key", "receiver_key", "folder", "ca", "client_cert", "client_key")


def _in_a_folder(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return ``path``; raises BadParameter now, and not after the run, where it could not be written."""
    if path and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.absolute().parent}")
    return path


@click.command()
@click.option("--url", help="Where it answers, without /api/storage/1: http://host:port, https://host/prefix.")
@click.option("--platform-key", type=_FILE, help="The platform's private JWK (mock-platform-<kid>.json).")
@click.option("--receiver-key", type=_FILE, help="The receiver's JWK; its public half is enough.")
@click.option(
    "--keys",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that holds both, as receiver keys generate wrote them; the newest are taken.",
)
@click.option("--tenant", help="UUID, for a receiver that serves one tenant only; a random one otherwise.")
@click.option("--level", type=click.Choice([*registry.LEVELS, "all"]), default="all", show_default=True)
@click.option("--only", multiple=True, help="A check, a group, or a pattern as save.*; may be repeated.")
@click.option("--junit", type=_OUT, callback=_in_a_folder, help="Write JUnit XML to this file.")
@click.option("--html", type=_OUT, callback=_in_a_folder, help="Write one self-contained HTML page to this file.")
@click.option("--json", "json_", type=_OUT, callback=_in_a_folder, help="Write JSON to this file.")
@click.option("--ca", type=_FILE, help="PEM of the authority that signed the receiver's certificate.")
@click.option("--client-cert", type=_FILE, help="PEM of the certificate to show to the receiver.")
@click.option("--client-key", type=_FILE, help="PEM of that certificate's key.")
@click.option(
    "--sign-path",
    type=click.Choice(["sent", "plain"]),
    default="sent",
    show_default=True,
    help="What is signed where the URL has a path: the path as it is sent, or without that prefix.",
)
@click.option("--list", "list_", is_flag=True, help="List the checks and end.")
@click.option("--markdown", is_flag=True, help="Print the table of the checks as CHECKS.md holds it, and end.")
def conformance(
    level: str,
    only: tuple[str, ...],
    junit: Path | None,
    html: Path | None,
    json_: Path | None,
    list_: bool,
    markdown: bool,
    **where: object,
) -> None:
    """Check a running receiver from outside, over HTTP alone, and tell whether it keeps the contract.

    It works in a tenant and with ids of its own and removes what it saved, so the store may be in use. Exit status:
    0 when every check of the level passes, 1 when one fails or cannot be decided, 2 for wrong words. Without --url and
    keys, this receiver itself is started and checked, with a temporary store or with that of DATABASE_URL.
    """
    terminal.allow_styles()
    if markdown:
        click.echo(registry.markdown_table(), nl=False)
        return
    checks = _chosen(level, only)
    if list_:
        rows = [(check.id, check.level, check.sentence, check.source) for check in checks]
        click.echo(tabulate(rows, headers=("check", "level", "what and why", "source"), tablefmt="plain"))
        return
    Interruption()
    with _receiver_of_its_own(where):
        report = _report(_target(**where), checks, level)
    click.echo(screen.summary(report))
    try:
        files.write(report, json=json_, junit=junit, html=html)
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None
    sys.exit(0 if report.conforms else 1)


def _chosen(level: str, only: tuple[str, ...]) -> list[registry.Check]:
    try:
        checks = registry.chosen(level, only)
    except KeyError as unknown:
        raise click.BadParameter(
            f"there is no check or group {unknown}; --list shows them", param_hint="--only"
        ) from None
    if not checks:
        raise click.BadParameter(f"there is no such check of level {level}", param_hint="--only")
    return checks


def _report(target: Target, checks: list[registry.Check], level: str) -> Report:
    show = (screen.Table if sys.stdout.isatty() else screen.Lines)(checks)
    try:
        report = run(target, checks, level, show, warn=lambda text: click.secho(f"{text}\n", fg="yellow", bold=True))
    except Unreachable as cause:
        raise click.ClickException(str(cause)) from None
    show.close()
    return report


@contextlib.contextmanager
def _receiver_of_its_own(where: dict) -> Iterator[None]:
    """Start a receiver and fill ``where`` with its address and keys, if nothing in it says which one is meant."""
    if any(where[name] for name in _OF_ANOTHER):
        yield
        return
    keys = new_store()
    with tempfile.TemporaryDirectory(prefix="receiver-conformance-") as text:
        folder = Path(text)
        for name, members in (("platform_key", keys.platform.private()), ("receiver_key", keys.receiver.public())):
            where[name] = folder / f"{name}.json"
            where[name].touch(mode=0o600)
            where[name].write_text(json.dumps(members))
        with running_receiver(keys, folder, STORAGE_LOG_LEVEL="error", **given_store()) as running:
            where["url"] = running.url
            click.echo(f"a receiver answers at {running.url}, its store is {running.store}\n")
            yield


def _target(
    url: str | None,
    platform_key: Path | None,
    receiver_key: Path | None,
    folder: Path | None,
    tenant: str | None,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    sign_path: str,
) -> Target:
    """Return the Target of the options; raises click's UsageError for what cannot be."""
    one_by_one = {"--platform-key": platform_key, "--receiver-key": receiver_key}
    for name, value in ({"--url": url} | ({} if folder else one_by_one)).items():
        if value is None:
            raise click.UsageError(f"{name} is needed" + ("" if name == "--url" else ", or --keys"))
    if folder and any(one_by_one.values()):
        raise click.UsageError("--keys stands for --platform-key and --receiver-key")
    parts = url_parts(url)
    try:
        tenant = str(uuid.UUID(tenant)) if tenant else str(uuid.uuid4())
    except ValueError:
        raise click.BadParameter("must be a UUID", param_hint="--tenant") from None
    keys = _keys(folder, platform_key, receiver_key)
    tls = None
    if parts.scheme == "https":
        tls = tls_context(ca, client_cert, client_key)
    elif ca or client_cert or client_key:
        raise click.UsageError("--ca, --client-cert and --client-key are for https URLs")
    return Target(url.rstrip("/"), keys, tenant, sign_path, tls)


def _keys(folder: Path | None, platform_key: Path | None, receiver_key: Path | None) -> StoreKeys:
    if not folder:
        return StoreKeys(_key(platform_key, "--platform-key", private=True), _key(receiver_key, "--receiver-key"))
    try:
        return keyfiles.read(folder)
    except KeyFault as cause:
        raise click.BadParameter(str(cause), param_hint="--keys") from None


def _key(path: Path, option: str, private: bool = False) -> KeyPair:
    """Return the key in the JWK file at ``path``; raises click's BadParameter, which shows nothing of the file."""
    what = "the platform's private JWK, mock-platform-<kid>.json" if private else "a JWK of the receiver"
    reason = ""
    try:
        pair = KeyPair.read(key_files.read_text(path))
        if not private or pair.jwk.has_private:
            return pair
    except ValueError as cause:  # KeyFault, or no text, or no regular file
        reason = f": it {cause}"
    raise click.BadParameter(f"{path} must be {what} (EC, P-384, with a kid){reason}", param_hint=option)
