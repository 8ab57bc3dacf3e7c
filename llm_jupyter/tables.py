"""Tables for people, as aligned text and as HTML, in which whatever a server or a model wrote is text and no more."""

from __future__ import annotations

import html
from collections.abc import Sequence

from llm_jupyter.wording import visible

TEXT_ALONE = 'class="mathjax_ignore tex2jax_ignore"'
"""Of a part of a page in which two dollar signs do not make a formula."""

CELL = 'style="text-align:left;vertical-align:top;overflow-wrap:break-word;padding:0.1em 1em 0.1em 0"'


def one_line(text: str, width: int = 60) -> str:
    """A text on one line of a table, `width` characters at most."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def escaped(text: str) -> str:
    """Text that may be anything, as HTML in which nothing is live."""
    return html.escape(visible(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
    """Columns as wide as their longest entry, one string for each line; columns in which nothing stands are left out.

    `right` is the head of a column of numbers, which end below one another.
    """
    head, *rows = [[visible(cell).replace("\n", " ") for cell in row] for row in (head, *rows)]
    kept = _kept(head, rows)
    widths = {n: max(len(row[n]) for row in (head, *rows)) for n in kept}
    return [
        "  ".join(f"{row[n]:{'>' if head[n] == right else '<'}{widths[n]}}" for n in kept).rstrip()
        for row in (head, *rows)
    ]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as HTML; every cell is escaped."""
    kept = _kept(head, rows)
    heading = "".join(f'<th scope="col" {CELL}>{escaped(head[n])}</th>' for n in kept)
    body = "".join(f"<tr>{''.join(f'<td {CELL}>{escaped(row[n])}</td>' for n in kept)}</tr>" for row in rows)
    table = f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div {TEXT_ALONE} style="overflow-x:auto">{table}</div>'


def _kept(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [n for n in range(len(head)) if any(row[n] for row in rows)]
