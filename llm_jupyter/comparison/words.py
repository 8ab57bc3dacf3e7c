"""Text for people: figures as one says them, and what a model wrote with nothing live in it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from llm_jupyter.wording import visible as visible


def escaped(text: str) -> str:
    """Text that may be anything, as HTML in which nothing is live."""
    return html.escape(visible(text))


def one_line(text: str, width: int = 60) -> str:
    """A text on one line of a table."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def seconds(value: float | None) -> str:
    """A time as people read it; empty where it is not known."""
    return "" if value is None else f"{value:.2f} s" if value < 9.95 else f"{value:.0f} s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest entry, one string for each line; columns in which nothing stands are left out."""
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    widths = {n: max(len(row[n]) for row in (head, *rows)) for n in kept}
    return ["  ".join(f"{row[n]:<{widths[n]}}" for n in kept).rstrip() for row in (head, *rows)]


TEXT_ALONE = 'class="mathjax_ignore tex2jax_ignore"'
"""Of a part of a page in which two dollar signs do not make a formula."""

CELL = 'style="text-align:left;vertical-align:top;overflow-wrap:break-word;padding:0.1em 1em 0.1em 0"'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as HTML; every cell is escaped."""
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    heading = "".join(f'<th scope="col" {CELL}>{escaped(head[n])}</th>' for n in kept)
    body = "".join(f"<tr>{''.join(f'<td {CELL}>{escaped(row[n])}</td>' for n in kept)}</tr>" for row in rows)
    table = f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div {TEXT_ALONE} style="overflow-x:auto">{table}</div>'
