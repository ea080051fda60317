"""What a conformance run writes and shows: the page in a real browser, the files, the table on a terminal."""

import html
import io
import json
import re
import struct
from contextlib import redirect_stdout
from datetime import UTC, datetime
from xml.etree import ElementTree

import click
import pytest

import receiver.conformance.checks  # noqa: F401
from receiver.conformance import files, registry, screen
from receiver.conformance.cleaning import Left
from receiver.conformance.clock import Clock
from receiver.conformance.exchanges import Exchange, Record, exchange_of, masked
from receiver.conformance.run import FAIL, PASS, UNDECIDED, Report, Result
from receiver.mock_platform import tokens
from receiver.mock_platform.client import Answer
from tests.support.browsers import dom_of, screenshot
from tests.support.servers import needed

pytestmark = pytest.mark.slow

PADDING = "accepts base64 padding"
LEFT = Left([("t", "1"), ("t", "2"), ("t", "3")], ["a DELETE was answered 500"])
HOSTILE = "<script>document.title='run'</script>\" & \x01 ' " + "long" * 80


@pytest.fixture
def report():
    """A run in which two checks fail, one with an answer that attacks the page, and one is not decided."""
    results = []
    for number, check in enumerate(registry.CHECKS.values()):
        record = Record()
        for call in range(1 + number % 12):
            record.add(
                ("GET", "POST", "DELETE")[call % 3], Exchange("GET /x\nA: b", f"200\n\n{call}", 200, 0.001 * call)
            )
        results.append(Result(check, PASS, seconds=0.002 * number, record=record))
    attack = Record()
    attack.add("GET", Exchange(f"GET /{HOSTILE}", f"200\n\n{HOSTILE}", 200, 0.1))
    results[5] = Result(results[5].check, FAIL, "401", f"204 came: {HOSTILE}", 0.1, attack)
    results[40] = Result(results[40].check, FAIL, "401 (GET, alg none)", "200 came", 0.1, results[40].record, PADDING)
    results[41] = Result(results[41].check, UNDECIDED, "", "no answer came: TimeoutError: timed out", 0.1)
    return Report("https://store.example/flow", "0" * 8, "all", datetime.now(UTC), results, 12.5, LEFT, Clock(-95.0))


@pytest.fixture
def passed(report):
    good = [
        Result(one.check, PASS, seconds=one.seconds, record=one.record) for one in report.results if one.expected == ""
    ]
    return Report(report.url, report.tenant, "must", report.started, good, 9.0)


@pytest.fixture
def page(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(files.as_html(report))
    return path


def test_the_page_tells_the_verdict_first_then_the_failures_and_runs_nothing(page, report, tmp_path):
    needed("chromium")
    dom = dom_of(tmp_path, page)
    assert "<title>Does not conform: https://store.example/flow</title>" in dom  # so the script did not run
    assert "<script" not in dom
    assert not re.search(r"(?:src|href)=|url\(|@import", dom)
    assert dom.index("✗ Does not conform") < dom.index("Checks that did not pass") < dom.index("All checks")
    shown = re.findall(r'<article class="failure \w+" id="([\w.-]+)"', dom)
    assert shown == [report.results[number].check.id for number in (5, 40, 41)]
    assert len(re.findall(r'<td class="id">', dom)) == len(report.results) + 8  # the slowest once more
    assert dom.count('<details class="group" open') == len({report.results[n].check.group for n in (5, 40, 41)})
    assert "3 states may be left in the store (a DELETE was answered 500)" in dom
    assert dom.index("clock is 95 s behind this") < dom.index("✗ Does not conform")
    assert dom.count("The Java service does this too: it accepts base64 padding.") == 1


def test_the_page_of_a_receiver_that_conforms_says_so(passed, tmp_path):
    needed("chromium")
    (tmp_path / "good.html").write_text(files.as_html(passed))
    dom = dom_of(tmp_path, tmp_path / "good.html")
    assert "✓ Conforms" in dom and "Checks that did not pass" not in dom and "<article" not in dom
    assert f"All {len(passed.results)} checks of level must pass." in dom


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [340, 480, 760, 1280])
def test_the_page_fits_its_window_and_can_be_read(page, tmp_path, width, dark):
    needed("chromium")
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page.read_text())}"></iframe>'
        "<output></output><script>onload = () => { const w = frames[0], d = w.document; "
        "d.querySelectorAll('details').forEach(one => one.open = true); "
        "const seen = name => w.getComputedStyle(d.querySelector(name)); "
        "document.querySelector('output').textContent = JSON.stringify({wide: d.documentElement.scrollWidth, "
        "page: seen('body').backgroundColor, text: seen('body').color, soft: seen('.soft').color, "
        "fail: seen('.badge.fail').color, card: seen('.failure').backgroundColor, undecided: seen('.badge.undecided').color, "
        "pass: seen('.badge.pass').color, verdict: seen('.verdict').backgroundColor}) }</script>"
    )
    told = json.loads(html.unescape(re.search(r"<output>(.*?)</output>", dom_of(tmp_path, outer, dark))[1]))
    assert told["wide"] <= width
    assert (luminance(told["page"]) < 0.2) == dark
    for text, behind in (("text", "page"), ("text", "verdict"), ("soft", "verdict"), ("soft", "card")):
        assert contrast(told[text], told[behind]) >= 4.5, (text, behind, told)
    for badge in ("fail", "undecided", "pass"):
        assert contrast(told[badge], told["card"]) >= 4.5, (badge, told)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(500, 2400), (1280, 1600)], ids=["narrow", "wide"])
def test_pictures_of_the_page_are_taken(page, tmp_path, width, height, dark):
    needed("chromium")
    name = f"conformance-{'narrow' if width < 800 else 'wide'}-{'dark' if dark else 'light'}"
    data = screenshot(tmp_path, page, name, width, height, dark).read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, height)
    assert len(data) > 40_000  # a blank page compresses to a few kilobytes


def test_what_the_files_hold_is_the_same(report):
    document = json.loads(files.as_json(report))
    suites = ElementTree.fromstring(files.as_junit(report))
    assert document["counts"] == {"pass": len(report.results) - 3, "fail": 2, "not decided": 1}
    assert (suites.get("failures"), suites.get("errors")) == ("2", "1")
    cases = {case.get("name"): case for case in suites.iter("testcase")}
    for check in document["checks"]:
        kind = {"pass": None, "fail": "failure", "not decided": "error"}[check["verdict"]]
        assert [child.tag for child in cases[check["id"]]] == ([kind] if kind else []), check["id"]
    assert not document["conforms"]
    assert (document["left"], document["left_states"][0]) == (3, {"tenant": "t", "id": "1"})
    assert [check["java_service"] for check in document["checks"] if check["java_service"]] == [PADDING]
    assert (
        cases[document["checks"][40]["id"]][0]
        .get("message")
        .endswith(f"(the Java service does this too: it {PADDING})")
    )


def test_no_whole_token_and_no_key_gets_into_a_report(keys, state, tenant):
    sealed = tokens.seal_state(state, keys)
    signature = tokens.sign(tokens.request_claims(tenant, "/x"), keys.platform)
    answer = Answer(200, {"x-a": signature}, json.dumps({"token": sealed}).encode(), 0.1)
    body = json.dumps([{"token": sealed}, keys.platform.private()]).encode()
    shown = exchange_of(
        "POST", f"/x?{signature}", {"X-ManyWho-Signature": signature, "Kid": keys.platform.kid}, body, answer
    )
    assert not re.search(r"[\w-]{48,}", shown.request + shown.answer)
    assert keys.platform.kid in shown.request
    assert masked(signature).endswith(f"({len(signature)} characters)")


def test_the_first_and_the_last_exchanges_of_a_check_are_kept():
    record = Record()
    for number in range(100):
        record.add("GET", Exchange(str(number), "", 200, 0))
    assert [one.request for one in record.kept] == ["0", "1", "94", "95", "96", "97", "98", "99"]
    assert record.count == 100


def test_the_table_on_a_terminal_is_drawn_in_place(report):
    told = io.StringIO()
    with redirect_stdout(told), click.Context(click.Command("x"), color=True).scope():
        table = screen.Table([result.check for result in report.results])
        for result in report.results[:50]:
            table(result.check, None)
            table(result.check, result)
        table.close()
    text = re.sub(r"\x1b\[[\d;]*m", "", told.getvalue())
    last = text.split("\x1b[")[-40:]
    groups = len({check.group for check in registry.CHECKS.values()})
    assert told.getvalue().count(f"\x1b[{groups + 2}A") == 100  # each drawing but the first begins where the last began
    assert any(re.search(r"http +█+.* 18 +1 +19", line) for line in last), last
    assert max(len(line) for line in text.replace("\x1b[2K", "").splitlines()) <= 80


def test_the_summary_tells_each_failure_with_what_was_expected_and_what_came(report):
    text = screen.summary(report)
    assert "expected 401 (GET, alg none)\n  but 200 came" in text
    assert "because no answer came: TimeoutError" in text
    assert "3 states may be left in the store (a DELETE was answered 500), tenant/id: t/1, t/2, t/3" in text
    assert "  but 200 came\n  (the Java service does this too: it accepts base64 padding)" in text
    assert "1 of the 2 failures also occur with the Java service." in text
    assert "https://store.example/flow does not conform (both levels)." in text
