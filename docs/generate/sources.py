"""Where the generators find what they describe. The only module here that names modules of the receiver."""

from pathlib import Path

from receiver import problems
from receiver import settings as declared_settings
from receiver.commands import cli
from receiver.commands.config import markdown_table
from receiver.conformance import checks, peer, registry
from receiver.idempotency import Effect
from receiver.settings.display import shown_as
from receiver.telemetry import logs, metrics, tracing

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "receiver"
OPENAPI = PACKAGE / "openapi.yaml"
ALERTS = ROOT / "deploy/monitoring/alerts.yaml"

__all__ = [
    "ALERTS",
    "OPENAPI",
    "PACKAGE",
    "ROOT",
    "Effect",
    "checks",
    "cli",
    "declared_settings",
    "logs",
    "markdown_table",
    "metrics",
    "peer",
    "problems",
    "registry",
    "shown_as",
    "tracing",
]
