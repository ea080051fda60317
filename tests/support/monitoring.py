"""The alert rules, the dashboard, and the expressions in them."""

import json
import re

import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / "deploy/monitoring"
GROUPS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def panel_targets() -> list[tuple[str, dict]]:
    return [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def filled_in(expression: str, step: str = "5m") -> str:
    """Return ``expression`` of the dashboard as Grafana sends it when all of each variable is chosen."""
    for name, value in {"__rate_interval": step, "instance": ".*", "tenant": ".*"}.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression
    return expression


def expressions() -> dict[str, str]:
    """Return every PromQL expression by where it stands."""
    found = {alert: rule["expr"] for alert, rule in ALERTS.items()}
    found |= {f"{title} {target['refId']}": filled_in(target["expr"]) for title, target in panel_targets()}
    found |= {one["name"]: filled_in(one["expr"]) for one in DASHBOARD["annotations"]["list"] if "expr" in one}
    templates = [text for rule in ALERTS.values() for text in rule["annotations"].values()]
    queries = [query for text in templates for query in re.findall(r'query \(printf "((?:[^"\\]|\\.)*)"', text)]
    return found | {f"annotation {number}": query.replace("%q", '""') for number, query in enumerate(queries)}
