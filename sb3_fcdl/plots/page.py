"""One HTML page of text, tables and pictures, without anything that it would have to load. It needs no network."""

import base64
import io
from collections.abc import Sequence
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --ground: #ffffff; --soft: #f3f5f8; --line: #d5dae1; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --ground: #14171b; --soft: #1e232a; --line: #39414c; --accent: #6cb8e6; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 62rem; margin: 0 auto;
  padding: 1rem; }
nav a { margin-right: 1rem; } a { color: var(--accent); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; } th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
th { text-align: left; } td { font-variant-numeric: tabular-nums; vertical-align: top; }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: white; border-radius: 4px; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .85rem; border-radius: 4px; }
summary { cursor: pointer; color: var(--accent); }
"""


def paragraph(text: str) -> str:
    """:param text: plain text"""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """:param text: plain text, whose lines stay as they are"""
    return f"<pre>{escape(text)}</pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    :param head: names of the columns
    :param rows: plain text of each cell
    """
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{names}</tr>{body}</table></div>'


def folded(summary: str, body: str) -> str:
    """
    :param summary: what is shown until somebody unfolds it
    :param body: HTML
    """
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def picture(figure: Figure, description: str) -> str:
    """
    :param figure: is drawn into the page as SVG
    :param description: for those who do not see it
    """
    drawn = io.StringIO()
    # The same figure is the same text: no date, no random names inside.
    with mpl.rc_context({"svg.hashsalt": "sb3_fcdl"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    data = base64.b64encode(drawn.getvalue().encode()).decode()
    return f'<figure><img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}"></figure>'


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """
    :param title: of the page
    :param lead: HTML below it
    :param sections: title and HTML of each
    :return: the page
    """
    links = " ".join(f'<a href="#s{number}">{escape(name)}</a>' for number, (name, _) in enumerate(sections))
    bodies = "\n".join(
        f'<section id="s{number}"><h2>{escape(name)}</h2>\n{body}</section>' for number, (name, body) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{lead}\n<nav>{links}</nav>\n{bodies}\n</body></html>\n"
    )
