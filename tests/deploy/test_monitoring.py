"""The alert rules and the dashboard by themselves: they hold together and name what exists."""

import json
import re
import shutil
import subprocess

import click
import pytest
import yaml

from receiver import problems
from receiver.commands import cli
from receiver.settings import declared
from tests.support.monitoring import ALERTS, DASHBOARD, FOLDER, GROUPS, PANELS, VARIABLES, expressions
from tests.support.servers import needed

pytestmark = pytest.mark.slow

README = (FOLDER / "README.md").read_text()
TESTS = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(alert):
    rule = ALERTS[alert]
    assert alert.startswith("Receiver")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert len(rule["annotations"]["summary"]) > 20
    assert rule["annotations"]["runbook_url"] == f"deploy/monitoring/README.md#{alert.lower()}"
    entry = re.search(rf"^### {alert}\n\n(.*?)(?=^#|\Z)", README, re.MULTILINE | re.DOTALL).group(1)
    assert re.findall(r"^- \*\*(\w+)\*\*: \S", entry, re.MULTILINE) == ["Means", "Look", "Fix"]
    assert len(entry) < 1000  # two minutes
    fires = [
        sample["labels"] for test in TESTS for one in test.get("promql_expr_test", []) for sample in one["exp_samples"]
    ]
    assert f'{{alertname="{alert}", severity="{rule["labels"]["severity"]}"}}' in fires


def test_no_alert_stands_twice_and_no_entry_of_the_runbook_is_left_over():
    assert len(ALERTS) == sum(len(group["rules"]) for group in GROUPS)
    assert sorted(re.findall(r"^### (\w+)$", README, re.MULTILINE)) == sorted(ALERTS)
    for link in re.findall(r"\]\(#([\w-]+)\)", README):
        assert link in {alert.lower() for alert in ALERTS}


def test_what_the_runbook_names_exists():
    for words in re.findall(r"`receiver ((?:[a-z]+ ?)+)(?:--|\$|`)", README):
        command = cli
        for word in words.split():
            assert isinstance(command, click.Group), words
            command = command.get_command(click.Context(command), word)
            assert command, words
    settings = {field.metadata["name"] for field in declared()}
    named = set(re.findall(r"\bSTORAGE_[A-Z_]+\b", README + (FOLDER / "alerts.yaml").read_text()))
    named |= set(re.findall(r"\bSTORAGE_[A-Z_]+\b", json.dumps(DASHBOARD)))
    assert named
    assert named <= settings
    for title in re.findall(r"panel \"([^\"]+)\"|\"([A-Z][^\"]+)\"", README):
        assert "".join(title) in {panel["title"] for panel in PANELS + ROWS}, title
    for reason in re.findall(
        r"\*(\w+)\*(?=[:,])", README[README.index("### ReceiverCallersRefused") :].split("###")[1]
    ):
        assert reason in problems.REASONS
    for name in re.findall(r"^\| `([\w.]+)` \|", README, re.MULTILINE):
        assert (FOLDER / name).exists(), name


def test_the_rules_fire_on_what_they_are_for_and_on_nothing_else():
    needed("promtool")
    ran = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yaml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_the_configurations_and_the_rules(tmp_path):
    needed("promtool")
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    # Debian builds it without Kubernetes; how targets are found is replaced, what is made of their labels stays.
    without = block.replace("kubernetes_sd_configs:\n      - role: pod\n", "static_configs: [{targets: [one]}]\n")
    assert without != block
    (tmp_path / "kubernetes.yaml").write_text(without)
    for path in (FOLDER / "prometheus.yaml", tmp_path / "kubernetes.yaml"):
        ran = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs = [yaml.safe_load(text)["scrape_configs"] for text in (block, (FOLDER / "prometheus.yaml").read_text())]
    assert [[job["job_name"] for job in one] for one in jobs] == [["receiver"]] * 2


def test_the_links_of_alerts_are_completed_as_the_page_says(tmp_path):
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    (command,) = re.findall(r"^sed .*alerts\.yaml$", README, re.MULTILINE)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    groups = yaml.safe_load((tmp_path / "alerts.yaml").read_text())["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    assert len(links) == len(ALERTS)
    assert all(
        link.startswith("https://git.example.com/receiver/blob/main/deploy/monitoring/README.md#") for link in links
    )


def test_the_dashboard_has_panels_that_do_not_overlap():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_the_dashboard_can_be_imported_anywhere():
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["id"] is None
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert {"datasource", "instance", "tenant"} == set(VARIABLES)
    sources = re.findall(r'"datasource": \{[^}]*"uid": "([^"]*)"', json.dumps(DASHBOARD))
    assert set(sources) == {"${datasource}", "-- Grafana --"}  # the second is Grafana's own, of its annotations
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_can_be_read(panel):
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    unit = panel["fieldConfig"]["defaults"]["unit"]
    assert unit in {"none", "short", "s", "bytes", "Bps", "reqps", "ops", "percentunit"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert "$instance" in target["expr"], "the choice of receivers must count"
        assert target["legendFormat"] or panel["type"] == "table"
        if "_seconds" in target["expr"] and "_count" not in target["expr"] and panel["type"] != "table":
            assert unit in ("s", "none")
        if "_bytes" in target["expr"]:
            assert unit in ("bytes", "Bps", "percentunit")


def test_every_expression_is_promql(tmp_path):
    needed("promtool")
    rules = [
        {"record": f"trial:expression:{number}", "expr": expression}
        for number, expression in enumerate(expressions().values())
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "trial", "rules": rules}]}))
    ran = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules)} rules found" in ran.stdout
