"""
Check that links and pictures of the built manual lead to files and anchors that exist. ``make docs`` runs it:

``python docs/check_links.py docs/_build/html``. It needs no network, so links to other sites are left out; for these there is
``nox -s linkcheck``.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {"", "top"}  # browsers go to the top of every page
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.targets.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")


def broken_links(root: Path) -> list[str]:
    """
    :param root: folder of the built pages
    :return: one line for each link of a page to nowhere; empty: all is well
    :raises FileNotFoundError: if there are no pages
    """
    pages = {path.resolve(): Page(path) for path in sorted(root.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"there are no pages in {root}: run `make docs`")
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_there = file.exists() and (file not in pages or unquote(parts.fragment) in pages[file].anchors)
            if not is_there:
                broken.append(f"{path.relative_to(root.resolve())}: {target}")
    return broken


if __name__ == "__main__":
    found = broken_links(Path(sys.argv[1]))
    print("\n".join(found) or "every link inside the manual leads somewhere")
    sys.exit(bool(found))
