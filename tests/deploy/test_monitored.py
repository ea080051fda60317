"""The alert rules and the dashboard on a real receiver: they name what is exported and show what happens."""

import contextlib
import json
import re
import shutil
import sqlite3
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver import problems
from receiver.admin import readiness
from receiver.keys.keyring import ROLES
from receiver.mock_platform import keyfiles, tokens
from receiver.mock_platform.client import BASE, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.telemetry import metrics
from tests.support import certificates, servers
from tests.support.monitoring import ALERTS, FOLDER, VARIABLES, expressions, filled_in, panel_targets
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

EVERY = 2  # seconds between two looks of Prometheus
SINCE_THE_TARGET = {"job", "instance"}  # labels that a scrape adds
OF_TIME = {
    "ReceiverSlow",
    "ReceiverBusy",
    "ReceiverDiskFillsUp",
    "ReceiverDiskNearlyFull",
}  # may hold on a busy machine

STATUSES = {"200", "204", *(str(status) for status in problems._MESSAGES)}
VALUES = {
    "call": set(metrics.CALLS),
    "room": set(metrics.STAGES),
    "jti": set(metrics.JTI),
    "outcome": set(metrics.SAVED),
    "reason": set(problems.REASONS),
    "status": STATUSES,
    "check": set(readiness.NAMES),
    "state": {*metrics.CONNECTIONS, "configured", "running"},
    "role": set(ROLES),
    "waiting": set(metrics.DROPPED),
    "job": {"receiver"},
}


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield each name of a metric in ``expression`` with its matchers: (label, operator, value)."""
    for name, braces in re.findall(r"\b(receiver_\w+|up)\b(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', braces)


def labels_used(expression: str) -> set[str]:
    """Return the labels that ``expression`` groups by or joins on."""
    lists = re.findall(r"\b(?:by|on|ignoring|without|group_left)\s*\(([\w\s,]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",") if label.strip()}


class Watched:
    """A receiver with TLS, with traffic and refusals of every kind that a client can cause, and Prometheus beside it."""

    def __init__(self, running, keys, folder):
        self.running, self.keys, self.folder = running, keys, folder
        self.tenant, self.other = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
        self.client = Client(running.url, self.tenant, keys, context=certificates.trusting())
        self.prometheus = None

    @property
    def admin(self) -> str:
        return urlsplit(self.running.admin).netloc

    def exported(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of all series by the name that PromQL knows them by."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=20) as reply:
            text = reply.read().decode()
        found: dict[str, list[dict[str, str]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
        return found

    def ask(self, path: str, **query: str) -> list:
        """Return what Prometheus answers."""
        url = f"http://127.0.0.1:{self.prometheus.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as reply:
            told = json.load(reply)
        assert told["status"] == "success"
        return told["data"]

    def query(self, expression: str) -> list:
        return self.ask("query", query=expression)["result"]

    def until_scraped(self) -> None:
        """Wait until Prometheus has looked again, at what is counted by now."""
        now = datetime.now(UTC)

        def has_looked():
            targets = self.ask("targets")["activeTargets"]
            begun = [datetime.fromisoformat(one["lastScrape"]) for one in targets if one["health"] == "up"]
            return any(moment > now for moment in begun)

        until(has_looked, seconds=30, message=lambda: self.ask("targets")["activeTargets"], pause=0.2)

    def traffic(self) -> None:
        """Save, save late, repeat, load, delete."""
        flow = FlowRun(self.tenant, seed=3)
        first = flow.state()
        flow.step()
        latest = flow.state()
        assert [self.client.save(state).status for state in (first, latest, first)] == [204] * 3
        assert self.client.load(flow.id).status == 200
        assert self.client.load(str(uuid.uuid4())).status == 404
        path = f"{BASE}/states/{self.tenant}"
        body, headers = json.dumps([flow.id]).encode(), self.client.headers(path)
        assert [self.client.call("DELETE", path, body, headers).status for _ in range(2)] == [204, 204]
        assert self.client.health().status == 200
        assert self.client.save(FlowRun(self.tenant, seed=4).state()).status == 204  # stays

    def replay(self) -> None:
        """Use a signature a second time, for another change."""
        path = f"{BASE}/states/{self.tenant}"
        headers = self.client.headers(path)
        changes = [json.dumps([str(uuid.uuid4())]).encode() for _ in range(2)]
        assert [self.client.call("DELETE", path, body, headers).status for body in changes] == [204, 401]

    def refused(self, reason: str) -> None:
        """Send what is refused for ``reason``."""
        status, method, path, body, headers = self._faults()[reason]
        answer = self.client.call(method, path, body, headers)
        assert answer.status == status, (reason, answer.body)
        if answer.headers.get("connection") == "close":
            self.client.close()

    def _faults(self) -> dict[str, tuple]:
        path, foreign = f"{BASE}/states/{self.tenant}", f"{BASE}/states/{self.other}"
        load, now = f"{path}/{uuid.uuid4()}", int(time.time())
        signed = self.client.headers

        def loads(**claims):
            return 401, "GET", load, None, signed(load, **claims)

        strangers = Client(self.running.url, self.tenant, new_store(), context=certificates.trusting())
        of_another = tokens.sign(tokens.request_claims(self.other, foreign + "/x"), self.keys.platform)
        without_jti = {name: value for name, value in tokens.request_claims(self.tenant, path).items() if name != "jti"}
        state = FlowRun(self.tenant, seed=5).state() | {"flow": "not a UUID"}
        return {
            "missing": (401, "GET", load, None, {}),
            "unverified": (401, "GET", load, None, strangers.headers(load)),
            "expired": loads(exp=now - 100),
            "too_far_ahead": loads(exp=now + 1000),
            "not_yet": loads(nbf=now + 100),
            "issuer": loads(iss="somebody"),
            "audience": loads(aud=self.other),
            "path": loads(path="/flow" + load),
            "tenant": (401, "GET", foreign + "/x", None, signed(load) | {"X-ManyWho-Signature": of_another}),
            "jti": (
                401, "DELETE", path, b"[]",
                signed(path) | {"X-ManyWho-Signature": tokens.sign(without_jti, self.keys.platform)},
            ),
            "key_id": (400, "GET", load, None, signed(load) | {"X-ManyWho-Platform-Key-ID": str(uuid.uuid4())}),
            "address": (403, "GET", load, None, signed(load) | {"X-Forwarded-For": "198.51.100.1"}),
            "body": (400, "DELETE", path, b"{", signed(path)),
            "token": (400, "POST", path, b'[{"token": "x"}]', signed(path)),
            "claim": (
                400, "POST", path, json.dumps([{"token": tokens.seal_state(state, self.keys)}]).encode(), signed(path),
            ),
            "media_type": (415, "POST", path, b"[]", signed(path) | {"Content-Type": "text/plain"}),
            "too_large": (413, "DELETE", path, json.dumps([str(uuid.uuid4())] * 11).encode(), signed(path)),
            "coding": (501, "POST", path, b"0\r\n\r\n", signed(path) | {"Transfer-Encoding": "gzip, chunked"}),
            "http": (417, "GET", load, None, {"Expect": "miracles"}),
            "method": (405, "PUT", path, b"[]", signed(path)),
            "not_found": (404, "GET", "/elsewhere", None, {}),
        }  # fmt: skip

    def damage(self) -> str:
        """Change the content of a state behind the receiver's back; returns its id."""
        state = FlowRun(self.tenant, seed=6).state()
        assert self.client.save(state).status == 204
        with contextlib.closing(sqlite3.connect(self.folder / "states.db", timeout=20)) as connection, connection:
            changed = connection.execute("update states set content = 'changed' where id = ?", (state["id"],))
            assert changed.rowcount == 1
        return state["id"]


class Prometheus(servers.Server):
    """Prometheus with the configuration in its folder."""

    def check(self) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).close()


@pytest.fixture(scope="module")
def watched(keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    list(keyfiles.write(folder / "keys", new_store()))  # keys whose age is known, since they are files
    environment = {
        "STORAGE_ADMIN_BIND": "127.0.0.1:0", "STORAGE_WORKERS": "2", "STORAGE_TALLY_EVERY": "1",
        "STORAGE_MAX_ITEMS": "10", "STORAGE_TENANTS": str(uuid.UUID(int=1)), "STORAGE_TRUSTED_PROXIES": "127.0.0.1",
        "STORAGE_ALLOW_FROM": "127.0.0.1,192.0.2.0/24",
    } | certificates.write(folder, until=certificates.days(60))  # fmt: skip
    with serving(keys, folder, **environment) as running:
        found = Watched(running, keys, folder)
        with contextlib.closing(found.client):
            found.traffic()
            yield found


@pytest.fixture(scope="module")
def prometheus(watched):
    needed("prometheus")
    folder = watched.folder / "prometheus"
    folder.mkdir()
    shutil.copy(FOLDER / "alerts.yaml", folder)
    config = (FOLDER / "prometheus.yaml").read_text().replace("127.0.0.1:8081", watched.admin)
    config = config.replace("interval: 30s", f"interval: {EVERY}s").replace("timeout: 10s", f"timeout: {EVERY}s")
    (folder / "prometheus.yaml").write_text(config)
    port = servers.free_port()
    command = [
        servers.program("prometheus"), "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    watched.prometheus = Prometheus(command, folder, port)
    watched.prometheus.start()
    try:
        watched.until_scraped()
        yield watched
    finally:
        watched.prometheus.stop()


@pytest.fixture(scope="module")
def exported(watched):
    """Labels by name of metric, once states are counted and the use of keys is noted."""
    names = {"receiver_stored_states", "receiver_key_last_used_timestamp_seconds"}
    until(lambda: names <= set(watched.exported()), message=lambda: sorted(watched.exported()), pause=0.2)
    return watched.exported()


def test_every_name_in_rules_and_dashboard_is_exported(exported):
    used = {name for expression in expressions().values() for name, _ in selectors(expression)} - {"up"}
    used |= {name for one in VARIABLES.values() for name, _ in selectors(str(one.get("definition", "")))}
    assert len(used) > 30
    assert used <= set(exported), used - set(exported)
    shown = {name for _, target in panel_targets() for name, _ in selectors(target["expr"])}
    base = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    left_out = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported if name.startswith("receiver_")} - base
    assert {name for name in left_out if not name.endswith("_created")} == set(), "the dashboard shows all there is"


def test_every_label_in_rules_and_dashboard_is_exported(exported):
    labels = {name: {label for one in series for label in one} | SINCE_THE_TARGET for name, series in exported.items()}
    labels["up"] = SINCE_THE_TARGET
    legends = {f"{title} {target['refId']}": target["legendFormat"] for title, target in panel_targets()}
    for where, expression in expressions().items():
        found = list(selectors(expression))
        for name, matchers in found:
            assert {label for label, _, _ in matchers} <= labels[name], where
        known = set().union(*(labels[name] for name, _ in found))
        assert labels_used(expression) <= known, where
        text = " ".join(ALERTS[where]["annotations"].values()) if where in ALERTS else legends.get(where, "")
        named = re.findall(r"\$labels\.(\w+)" if where in ALERTS else r"\{\{\s*(\w+)\s*\}\}", text)
        assert set(named) <= known, where
        if grouped := re.match(r"(?:max|sum) by \(([^)]*)\)", expression):
            assert set(named) <= {label.strip() for label in grouped[1].split(",")}, where


def test_every_value_of_a_label_is_one_that_the_code_declares():
    seen = set()
    for where, expression in expressions().items():
        for _, matchers in selectors(expression):
            for label, _, value in matchers:
                for word in value.split("|") if value not in ("", ".*") else ():
                    assert word in VALUES[label], where
                    seen.add(label)
    assert {"reason", "status", "call", "jti", "state", "job"} <= seen


def test_what_is_rare_is_counted_from_zero(exported):
    """Else its first time would be no increase, and no alert."""
    counted = {one["reason"] for one in exported["receiver_refusals_total"]}
    rare = [rule["expr"] for rule in ALERTS.values() if re.search(r'increase\(.*reason="\w+".*> 0', rule["expr"])]
    reasons = {value for expr in rare for _, found in selectors(expr) for label, _, value in found if label == "reason"}
    assert reasons == {"damaged", "defect", "store_full", "store_unavailable"}
    assert reasons <= counted
    assert {"refused", "conflicting"} <= {one["jti"] for one in exported["receiver_changes_total"]}


def test_every_panel_shows_something_of_a_real_receiver(prometheus, exported):
    for _ in range(2):  # a rate needs two looks
        prometheus.traffic()
        prometheus.until_scraped()
    empty = [
        title
        for title, target in panel_targets()
        if not prometheus.query(filled_in(target["expr"], step=f"{20 * EVERY}s"))
    ]
    assert empty == []
    for name in ("instance", "tenant"):
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name]["definition"]).groups()
        assert prometheus.ask(f"label/{label}/values", **{"match[]": metric}), name
    for group in prometheus.ask("rules")["groups"]:
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}, group  # unknown: not yet evaluated


def test_what_a_client_can_cause_rings_the_alert_that_is_meant_for_it(prometheus):
    """The conditions alone, without the time for which they must hold."""
    quiet = {alert for alert, rule in ALERTS.items() if prometheus.query(rule["expr"])}
    assert quiet <= OF_TIME
    for reason in prometheus._faults():
        prometheus.refused(reason)
    prometheus.replay()
    damaged = prometheus.damage()
    prometheus.until_scraped()  # each counter is there from now on
    for reason in ("expired", "unverified", "path", "tenant", "body", "too_large"):
        for _ in range(25):
            prometheus.refused(reason)
    prometheus.replay()
    assert prometheus.client.load(damaged).status == 500
    prometheus.until_scraped()
    ringing = {alert for alert, rule in ALERTS.items() if prometheus.query(rule["expr"])}
    assert ringing - OF_TIME == {
        *("ReceiverClocksDiffer", "ReceiverWrongKeys", "ReceiverWrongPath", "ReceiverCallersRefused"),
        *("ReceiverBodiesRefused", "ReceiverTooLarge", "ReceiverReplay", "ReceiverDamagedState"),
    }
    counted = {one["reason"] for one in prometheus.exported()["receiver_refusals_total"]}
    assert set(prometheus._faults()) | {"replay", "damaged"} <= counted
