"""Writes the reports: JSON, JUnit XML, and one self-contained HTML page."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jinja2

from receiver.conformance import charts, peer
from receiver.conformance.run import FAIL, PASS, UNDECIDED, VERDICTS, Report, Result
from receiver.mock_platform.json_values import JSONObject

_NOT_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2


def as_json(report: Report) -> str:
    """Return ``report`` as JSON."""
    document = {
        "url": report.url,
        "tenant": report.tenant,
        "level": report.level,
        "started": report.started.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "conforms": report.conforms,
        "counts": {verdict: report.count(verdict) for verdict in VERDICTS},
        "warning": report.warning,
        "clock_ahead": None if report.clock.ahead is None else round(report.clock.ahead, 1),
        "like_the_java_service": report.like_the_peer(),
        "left": len(report.left.states),
        "left_states": [{"tenant": tenant, "id": id} for tenant, id in report.left.states],
        "left_why": report.left.why,
        "checks": [_check(result) for result in report.results],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _check(result: Result) -> JSONObject:
    check = result.check
    return {
        "id": check.id,
        "level": check.level,
        "what": check.sentence,
        "source": check.source,
        "verdict": result.verdict,
        "expected": result.expected,
        "came": result.came,
        "java_service": result.peer,
        "seconds": round(result.seconds, 4),
        "requests": result.record.count,
        "exchanges": [{"request": one.request, "answer": one.answer} for one in result.record.kept],
    }


def as_junit(report: Report) -> str:
    """Return ``report`` as JUnit XML: a failed check is a failure, an undecided one an error."""
    suites = ElementTree.Element("testsuites", name="receiver conformance", tests=str(len(report.results)))
    suites.set("failures", str(report.count(FAIL)))
    suites.set("errors", str(report.count(UNDECIDED)))
    suites.set("time", f"{report.seconds:.3f}")
    notes = [note for note in (report.warning, report.left.message()) if note]
    for group, results in report.groups().items():
        suite = ElementTree.SubElement(suites, "testsuite", name=group, tests=str(len(results)))
        suite.set("failures", str(report.count(FAIL, group)))
        suite.set("errors", str(report.count(UNDECIDED, group)))
        suite.set("time", f"{sum(result.seconds for result in results):.3f}")
        suite.set("timestamp", report.started.strftime("%Y-%m-%dT%H:%M:%S"))
        for result in results:
            _case(suite, result)
        if notes:
            ElementTree.SubElement(suite, "system-err").text = _xml("\n".join(notes))
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, "unicode") + "\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    check = result.check
    case = ElementTree.SubElement(suite, "testcase", classname=f"{check.level}.{check.group}", name=check.id)
    case.set("time", f"{result.seconds:.3f}")
    if result.verdict == PASS:
        return
    fault = ElementTree.SubElement(case, "failure" if result.verdict == FAIL else "error", type=result.verdict)
    message = f"expected {result.expected}; {result.came}" if result.expected else result.came
    fault.set("message", _xml(f"{message} ({peer.remark(result.peer)})" if result.peer else message))
    shown = "\n\n".join(f"> {one.request}\n\n< {one.answer}" for one in result.record.kept[-2:])
    fault.text = _xml(f"{check.sentence} ({check.source})\n\n{shown}")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def as_html(report: Report) -> str:
    """Return ``report`` as one HTML page without external assets."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("receiver.conformance", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report,
        failed=[result for result in report.results if result.verdict != PASS],
        groups=report.groups(),
        verdicts=VERDICTS,
        charts=charts,
        remark=peer.remark,
        longest=max((result.seconds for result in report.results), default=0) or 1,
    )


def write(report: Report, **paths: Path | None) -> None:
    """Write ``report`` to those of the ``paths`` json, junit and html that are given; raises OSError."""
    forms = {"json": as_json, "junit": as_junit, "html": as_html}
    for name, path in paths.items():
        if path:
            path.write_text(forms[name](report), encoding="utf-8", errors="replace")
