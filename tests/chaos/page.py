"""The report as one page: the table of all runs, then each run with its timeline. It needs nothing from elsewhere."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.chaos import timeline
from tests.chaos.report import HEADERS, cells, command_of

_STYLE = """
:root { --back: #ffffff; --text: #24292f; --dim: #57606a; --grid: #d0d7de; --good: #4f9d69; --bad: #cf222e; --line: #0969da;
  --most: #8c959f; --fault: #bf8700; --card: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --dim: #8b949e; --grid: #30363d;
  --good: #2f8149; --bad: #f85149; --line: #58a6ff; --most: #6e7681; --fault: #d29922; --card: #161b22 } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .2rem } p { margin: .2rem 0; color: var(--dim) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; white-space: nowrap }
th { white-space: normal; vertical-align: bottom; font-weight: 600 } th, td { padding: .3rem .6rem; text-align: right;
  border-bottom: 1px solid var(--grid) } th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
.found { color: var(--bad); font-weight: 600 } a { color: var(--line) } code { background: var(--card); padding: 0 .3em }
ul { color: var(--bad); margin: .4rem 0; padding-left: 1.2rem; overflow-wrap: anywhere }
"""


def page(found: Sequence[dict]) -> str:
    """Return the page of the runs ``found`` (report.as_json)."""
    bad = sum(len(one["findings"]) for one in found)
    states = sum(one["acknowledged states"] for one in found)
    verdict = f'<span class="found">{bad} findings</span>' if bad else "no findings"
    runs = "1 run" if len(found) == 1 else f"{len(found)} runs"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Chaos</title>',
        f"<style>{_STYLE}{timeline.STYLE}</style>\n</head>\n<body>\n<h1>Chaos: {runs}, {verdict}</h1>",
        f"<p>{states:,} states were acknowledged. Every one was looked for afterwards.</p>",
        f'<div class="scroll">{_table(found)}</div>',
        *(_section(number, one) for number, one in enumerate(found)),
        "</body>\n</html>",
    ]
    return "\n".join(parts) + "\n"


def _table(found: Sequence[dict]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADERS)
    rows = "\n".join(f"<tr>{''.join(_cells(number, one))}</tr>" for number, one in enumerate(found))
    return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _cells(number: int, one: dict) -> Iterator[str]:
    for name, text in zip(HEADERS, cells(one), strict=True):
        is_bad = name in ("lost", "stale", "other findings") and one[name]
        shown = f'<a href="#run-{number}">{escape(text)}</a>' if name == "fault" else escape(text)
        yield f'<td class="found">{shown}</td>' if is_bad else f"<td>{shown}</td>"


def _section(number: int, one: dict) -> str:
    title = f"{one['fault']} on {one['store']}"
    listed = "".join(
        f"<li>{escape(item['check'])}, at {item['at']} s: {escape(item['text'])}</li>" for item in one["findings"][:50]
    )
    return "\n".join(
        [
            f'<h2 id="run-{number}">{escape(title)}</h2>',
            f"<p>Injected: {escape(one['injects'])}. Guaranteed: {escape(one['guarantees'])}</p>",
            f"<p>Again: <code>{escape(command_of(one))}</code></p>",
            f"<p>Answers: {escape(_counted(one.get('statuses', {})))}. {escape(_failed(one))}</p>",
            f"<ul>{listed}</ul>" if listed else "",
            timeline.svg(one["timeline"], title) if "timeline" in one else "",
        ]
    )


def _counted(counts: dict) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in counts.items()) or "not counted"


def _failed(one: dict) -> str:
    """Return where requests failed, of a fault that knows which connections it ended."""
    places = one.get("failed by place", {})
    return f"Failed: {_counted(places)}; {one['faults']} faults." if places else ""
