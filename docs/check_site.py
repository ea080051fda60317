"""Check the built manual: every link and anchor leads somewhere, and no page loads anything from elsewhere.

``python docs/check_site.py build/site`` prints what is wrong, and ends with 1 if anything is.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "object": "data", "embed": "src"}
_LOADED |= {"video": "src", "audio": "src", "image": "href", "use": "href", "input": "src"}
_IN_STYLE = re.compile(r"""@import\s+(?:url\()?\s*["']?([^"')\s;]+)|url\(\s*["']?([^"')]+)""")
_IN_SVG = re.compile(r"""(?:xlink:)?href=["']([^"'#][^"']*)["']""")
_EXTERNAL = re.compile(r"([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


class _Page(HTMLParser):
    """The links, ids and assets of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.assets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what ``tag`` names, links to and loads."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and not {"canonical", "next", "prev", "index", "search"} & set(found.get("rel", "").split()):
            self.assets.append(found.get("href", ""))
        if found.get(_LOADED.get(tag, "")):
            self.assets.append(found[_LOADED[tag]].split()[0])
        self.assets += in_style(found.get("style", ""))


def in_style(text: str) -> list[str]:
    """Return the addresses that the style sheet ``text`` loads."""
    return [first or second for first, second in _IN_STYLE.findall(text)]


def faults(site: Path) -> Iterator[str]:
    """Yield a line for each asset from elsewhere, and each link and anchor that leads nowhere, in ``site``."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page"
    for path, page in pages.items():
        for asset in page.assets:
            yield from _asset(site, path, asset)
        for link in page.links:
            yield from _link(site, path, link, pages)
    for path in sorted(site.rglob("*.css")):
        for asset in in_style(path.read_text()):
            yield from _asset(site, path, asset)
    for path in sorted(site.rglob("*.svg")):
        for asset in [*_IN_SVG.findall(path.read_text()), *in_style(path.read_text())]:
            yield from _asset(site, path, asset)


def _asset(site: Path, page: Path, address: str) -> Iterator[str]:
    if _EXTERNAL.match(address):
        yield f"{page.relative_to(site)}: loads {address} from elsewhere"
    elif not address.startswith(("data:", "#")) and not _target(page, address).exists():
        yield f"{page.relative_to(site)}: loads {address}, which is missing"


def _link(site: Path, page: Path, address: str, pages: dict[Path, _Page]) -> Iterator[str]:
    if urlsplit(address).scheme or address.startswith("//") or address in ("", "#"):
        return
    target = _target(page, address)
    anchor = unquote(urlsplit(address).fragment)
    if not target.exists():
        yield f"{page.relative_to(site)}: links to {address}, which is missing"
    elif anchor and target in pages and anchor not in pages[target].ids:
        yield f"{page.relative_to(site)}: links to {address}, which has no such anchor"


def _target(page: Path, address: str) -> Path:
    path = unquote(urlsplit(address).path)
    return (page.parent / path).resolve() if path else page.resolve()


def main() -> int:
    """Check the site named on the command line; return the exit status."""
    found = list(faults(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
