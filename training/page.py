"""Self-contained HTML pages: text, tables and pictures in one file that asks for nothing else.

Everything that is :data:`Html` was made here, so whatever came from a data set is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

Html = NewType("Html", str)
"""Markup that may be put on a page as it is."""

_CSS = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --line: #c9d1d9; --soft: #f3f5f7;
  --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --back: #14171a; --line: #444c56;
  --soft: #1f2429; --link: #79b8ff; } }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.5rem 4rem; background: var(--back);
  color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { margin-top: 2.6rem; border-bottom: 1px solid
  var(--line) } h3 { margin: 1.8rem 0 .3rem } a { color: var(--link) }
p, li { max-width: 48rem } nav ul { columns: 18rem; padding-left: 1.2rem }
figure { margin: 1.2rem 0 } figcaption, caption { text-align: left; margin: .3rem 0;
  max-width: 48rem; font-size: .92rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px }
.wide { overflow-x: auto } .wide:focus-visible, a:focus-visible { outline: 2px solid var(--link) }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top } td.n { text-align: right } thead th { background: var(--soft) }
tbody th { font-weight: 600 }
@media print { nav { display: none } h2, h3 { break-after: avoid } figure { break-inside: avoid } }
"""


def text(*lines: str) -> Html:
    """A paragraph each."""
    return Html("".join(f"<p>{escape(line)}</p>\n" for line in lines))


def heading(words: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{escape(words)}</h3>\n")


def listing(items: Iterable[str]) -> Html:
    """A list."""
    points = "".join(f"<li>{escape(item)}</li>\n" for item in items)
    return Html(f"<ul>\n{points}</ul>\n")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> Html:
    """A table; the first cell of each row names it, numbers stand to the right."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f"<td>{escape(cell)}</td>"
            if isinstance(cell, str)
            else f'<td class="n">{_number(cell)}</td>'
            for cell in rest
        )
        lines.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>\n')
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption>\n<thead><tr>{columns}</tr></thead>\n"
        f"<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def picture(png: bytes, *, alt: str, caption: str) -> Html:
    """A picture within the page.

    Args:
        png: the file.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
    """
    # A PNG's size stands in its first chunk; drawn at 150 dots an inch, shown at 96.
    width, height = (round(int.from_bytes(png[at : at + 4], "big") * 96 / 150) for at in (16, 20))
    data = base64.b64encode(png).decode("ascii")
    return Html(
        f'<figure><img width="{width}" height="{height}" alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


class Page:
    """A page that grows by sections."""

    def __init__(self, title: str, lead: str) -> None:
        """Begin a page; `lead` says in a sentence or two what it is."""
        self._title, self._lead = title, lead
        self._sections: list[tuple[str, str, str]] = []

    def add(self, anchor: str, title: str, *blocks: Html) -> None:
        """Append a section; `anchor` is its name in links."""
        self._sections.append((anchor, title, "".join(blocks)))

    def render(self) -> str:
        """The whole file. Its policy forbids the browser to ask for anything."""
        contents = "".join(
            f'<li><a href="#{escape(anchor)}">{escape(title)}</a></li>\n'
            for anchor, title, _ in self._sections
        )
        sections = "".join(
            f'<section id="{escape(anchor)}" aria-labelledby="{escape(anchor)}-title">\n'
            f'<h2 id="{escape(anchor)}-title">{escape(title)}</h2>\n{body}</section>\n'
            for anchor, title, body in self._sections
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
            f"<title>{escape(self._title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self._title)}</h1>\n<p>{escape(self._lead)}</p></header>\n"
            f'<nav aria-label="Contents"><ul>\n{contents}</ul></nav>\n'
            f"<main>\n{sections}</main>\n</body>\n</html>\n"
        )
