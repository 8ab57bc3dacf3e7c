"""A dashboard as text and as a table of HTML, for a saved notebook and for front ends without widgets."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

CELL = 'style="text-align:left;vertical-align:top;overflow-wrap:anywhere;padding:0 1em 0 0"'


@dataclass(frozen=True)
class Picture:
    """A title, tables with their headings, and lines below."""

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = field(default=())

    @property
    def text(self) -> str:
        """Aligned columns."""
        rows = [[visible(cell) for cell in row] for row in (self.headings, *self.rows)] if self.rows else []
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.headings))] if rows else []
        aligned = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([self.title, *aligned, *map(visible, self.lines)])

    @property
    def html(self) -> str:
        """A plain table, with every word escaped and no colour of its own."""
        parts = [f"<b>{escaped(self.title)}</b>"]
        if self.rows:
            head = "".join(f'<th scope="col" {CELL}>{escaped(one)}</th>' for one in self.headings)
            body = "".join(
                f"<tr>{''.join(f'<td {CELL}>{escaped(cell)}</td>' for cell in row)}</tr>" for row in self.rows
            )
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<div>{escaped(line)}</div>" for line in self.lines]
        return f'<div class="llm-dashboard">{"".join(parts)}</div>'


def escaped(text: str) -> str:
    """Text as HTML, in which nothing is live."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """Text on one line, without characters that steer a terminal or turn the direction of writing."""
    return "".join(
        " " if c in "\n\t\r" else c for c in text if c in "\n\t\r" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )
