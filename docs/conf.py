"""Sphinx builds the manual from these settings: ``make docs``."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[1]

# The table of contents: a section a heading, its pages in reading order, without their .md.
NAV = {
    "Tutorial": ["tutorial/first-round-trip"],
    "How-to": [
        "how-to/connect-a-tenant",
        "how-to/run-in-a-container",
        "how-to/run-on-kubernetes",
        "how-to/run-under-systemd",
        "how-to/use-postgresql",
        "how-to/use-mariadb",
        "how-to/put-it-behind-a-proxy",
        "how-to/get-a-public-certificate",
        "how-to/manage-keys",
        "how-to/rotate-the-receiver-key",
        "how-to/keys-from-a-secret-store",
        "how-to/seal-states-at-rest",
        "how-to/keep-tenants-apart",
        "how-to/switch-from-the-java-service",
        "how-to/monitor-it",
        "how-to/back-up-and-restore",
        "how-to/upgrade-and-downgrade",
        "how-to/simulate-the-platform",
        "how-to/check-conformance",
        "how-to/troubleshoot",
    ],
    "Reference": [
        "reference/settings",
        "reference/commands",
        "reference/metrics",
        "reference/logs",
        "reference/errors",
        "reference/api",
        "reference/protocol",
        "reference/cases",
        "reference/conformance",
        "reference/faults",
    ],
    "Explanation": [
        "explanation/architecture",
        "explanation/a-requests-journey",
        "explanation/security",
        "explanation/reliability",
        "explanation/performance",
    ],
    "Decisions": [
        "explanation/decisions/0001-own-jwe",
        "explanation/decisions/0002-own-gunicorn-worker",
        "explanation/decisions/0003-group-commit",
        "explanation/decisions/0004-filesystem-format",
        "explanation/decisions/0005-sealing-key-ledger",
    ],
}

project = "External Storage receiver"
version = re.search(r'__version__ = "(.+)"', (ROOT / "receiver/__init__.py").read_text())[1]
release = version

extensions = ["myst_parser"]
exclude_patterns = ["generate", "assets"]
myst_enable_extensions = ["alert", "html_image", "strikethrough", "tasklist"]
myst_heading_anchors = 4  # the anchors that GitHub makes
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # "…" in a sample of JSON

html_theme = "furo"
html_title = f"{project} {version}"
html_short_title = project
html_static_path = ["assets/style"]
html_css_files = ["manual.css"]
html_search_scorer = str(ROOT / "docs/assets/search-order.js")  # the page that a question is about comes first
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0a5ad1", "color-brand-content": "#0a5ad1"},
    "dark_css_variables": {"color-brand-primary": "#6cb0ff", "color-brand-content": "#6cb0ff"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"

# The address of this repository's files, such as https://git.example.com/receiver/blob/main/, where they are published.
REPOSITORY = os.environ.get("REPOSITORY_URL", "")

_log = logging.getLogger(__name__)
_FENCE = re.compile(r"^(```|~~~).*?^\1 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^]\n]+)\]\((?P<path>\.\.?/[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def _leave_the_manual(page: Path, text: str) -> str:
    """Return ``text`` of ``page`` with its links to files beside docs/ made to work on the site.

    A browser that reads the site has no repository beside it, so a link becomes its text and the path in the
    repository; or a link to REPOSITORY_URL where that is set. A path that does not exist is a warning.
    """

    def replaced(link: re.Match) -> str:
        target = (page.parent / unquote(link["path"])).resolve()
        if not target.is_relative_to(ROOT) or target.is_relative_to(ROOT / "docs"):
            return link[0]
        path = str(target.relative_to(ROOT))
        if not target.exists():
            _log.warning("links to %s, which does not exist", path, location=str(page))
        if REPOSITORY:
            return f"[{link['text']}]({REPOSITORY}{path}{link['anchor'] or ''})"
        is_named = path.removesuffix("/README.md") in link["text"]
        return link["text"] if is_named else f"{link['text']} (`{path}`)"

    return _outside_of_fences(text, lambda part: _LINK.sub(replaced, part))


def _outside_of_fences(text: str, change) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _contents(docs: Path, partial: bool) -> str:
    """Return the table of contents in Sphinx's own form; ``partial`` leaves out pages that are not written yet."""
    blocks = []
    for section, pages in NAV.items():
        there = [page for page in pages if not partial or (docs / f"{page}.md").exists()]
        blocks += ["", "```{toctree}", ":hidden:", f":caption: {section}", "", *there, "```"]
    return "\n".join(blocks)


def _on_source(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = _leave_the_manual(Path(app.env.doc2path(docname)), source[0])
    if docname == "index":
        source[0] += _contents(Path(app.srcdir), app.config.partial)


def _label_cells(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give each cell of a table the heading of its column: on a phone, manual.css shows a row as a card."""
    if "<table" not in context.get("body", ""):
        return
    page = BeautifulSoup(context["body"], "html.parser")
    for row in page.select("table.docutils > tbody > tr"):
        headings = row.find_parent("table").select("thead th")
        for cell, heading in zip(row.select("td"), headings, strict=False):
            if cell.get_text(strip=True):
                cell["data-label"] = heading.get_text(strip=True)
    context["body"] = str(page)


def setup(app: Sphinx) -> None:
    """Register what this project adds to Sphinx."""
    app.add_config_value("partial", False, "env", bool)
    app.connect("source-read", _on_source)
    app.connect("html-page-context", _label_cells)
