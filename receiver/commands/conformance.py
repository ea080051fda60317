"""``receiver conformance``: checks whether a receiver keeps the contract; any receiver, in any language."""

import contextlib
import json
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict, Unpack

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


class _Where(TypedDict):
    """The options that say which receiver to check, as click passes them."""

    url: str | None
    platform_key: Path | None
    receiver_key: Path | None
    folder: Path | None
    tenant: str | None
    ca: Path | None
    client_cert: Path | None
    client_key: Path | None
    sign_path: str


def _in_a_folder(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return ``path``; raises BadParameter at once, not after the run, if it could not be written."""
    if path and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.absolute().parent}")
    return path


@click.command()
@click.option("--url", help="The receiver's address, without /api/storage/1: http://host:port, https://host/prefix.")
@click.option("--platform-key", type=_FILE, help="The platform's private JWK (mock-platform-<kid>.json).")
@click.option("--receiver-key", type=_FILE, help="The receiver's JWK; its public half is enough.")
@click.option(
    "--keys",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with both, as written by receiver keys generate; the newest are used.",
)
@click.option("--tenant", help="UUID, for a receiver that serves one tenant only; random by default.")
@click.option("--level", type=click.Choice([*registry.LEVELS, "all"]), default="all", show_default=True)
@click.option("--only", multiple=True, help="A check, a group, or a pattern such as save.*; may be repeated.")
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
    help="What to sign if the URL has a path: the path as it is sent, or without that prefix.",
)
@click.option("--list", "list_", is_flag=True, help="List the checks and exit.")
@click.option("--markdown", is_flag=True, help="Print the table of the checks, as in CHECKS.md, and exit.")
def conformance(
    level: str,
    only: tuple[str, ...],
    junit: Path | None,
    html: Path | None,
    json_: Path | None,
    list_: bool,
    markdown: bool,
    **where: Unpack[_Where],
) -> None:
    """Check a running receiver from outside, over HTTP alone, and print whether it keeps the contract.

    It uses a tenant and ids of its own and removes what it saved, so the store may be in use. Exit status: 0 if every
    check of the level passes, 1 if one fails or cannot be decided, 2 for a usage error. Without --url and keys, the
    command starts this receiver and checks it, with a temporary store or that of DATABASE_URL.
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
    with _target_of(where) as target:
        report = _report(target, checks, level)
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
def _target_of(where: _Where) -> Iterator[Target]:
    """Yield the target of ``where``; if it names no receiver, start one, and stop it at the end."""
    if any(value for name, value in where.items() if name not in ("tenant", "sign_path")):
        yield _target(**where)
        return
    keys = new_store()
    with tempfile.TemporaryDirectory(prefix="receiver-conformance-") as text:
        folder = Path(text)
        where["platform_key"] = _written(folder / "platform_key.json", keys.platform.private())
        where["receiver_key"] = _written(folder / "receiver_key.json", keys.receiver.public())
        with running_receiver(keys, folder, STORAGE_LOG_LEVEL="error", **given_store()) as running:
            where["url"] = running.url
            click.echo(f"a receiver answers at {running.url}, its store is {running.store}\n")
            yield _target(**where)


def _written(path: Path, members: Mapping[str, object]) -> Path:
    """Return ``path`` after writing the JWK ``members`` to it, for this user only."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(members))
    return path


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
    """Return the Target of the options; raises click's UsageError for invalid combinations."""
    if url is None:
        raise click.UsageError("--url is needed")
    parts = url_parts(url)
    keys = _keys(folder, platform_key, receiver_key)
    try:
        tenant = str(uuid.UUID(tenant)) if tenant else str(uuid.uuid4())
    except ValueError:
        raise click.BadParameter("must be a UUID", param_hint="--tenant") from None
    tls = None
    if parts.scheme == "https":
        tls = tls_context(ca, client_cert, client_key)
    elif ca or client_cert or client_key:
        raise click.UsageError("--ca, --client-cert and --client-key are for https URLs")
    return Target(url.rstrip("/"), keys, tenant, sign_path, tls)


def _keys(folder: Path | None, platform_key: Path | None, receiver_key: Path | None) -> StoreKeys:
    """Return the keys in ``folder``, or else in the two files; raises click's UsageError."""
    if folder:
        if platform_key or receiver_key:
            raise click.UsageError("--keys replaces --platform-key and --receiver-key")
        try:
            return keyfiles.read(folder)
        except KeyFault as cause:
            raise click.BadParameter(str(cause), param_hint="--keys") from None
    return StoreKeys(_key(platform_key, "--platform-key", private=True), _key(receiver_key, "--receiver-key"))


def _key(path: Path | None, option: str, private: bool = False) -> KeyPair:
    """Return the key in the JWK file at ``path``; raises click's UsageError, which shows nothing of the file."""
    if path is None:
        raise click.UsageError(f"{option} is needed, or --keys")
    what = "the platform's private JWK, mock-platform-<kid>.json" if private else "a JWK of the receiver"
    reason = ""
    try:
        pair = KeyPair.read(key_files.read_text(path))
        if not private or pair.jwk.has_private:
            return pair
    except ValueError as cause:  # KeyFault, or the file is not text or not a regular file
        reason = f": it {cause}"
    raise click.BadParameter(f"{path} must be {what} (EC, P-384, with a kid){reason}", param_hint=option)
