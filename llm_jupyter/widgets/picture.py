"""A dashboard as text and as a table of HTML, for a saved notebook and for front ends without widgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_jupyter.tables import TEXT_ALONE, escaped, html_table, table
from llm_jupyter.wording import visible


@dataclass(frozen=True)
class Picture:
    """A title, a table with its headings, and lines below."""

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = field(default=())

    @property
    def text(self) -> str:
        """Aligned columns."""
        return "\n".join(
            [self.title, *(table(self.headings, self.rows) if self.rows else ()), *map(visible, self.lines)]
        )

    @property
    def html(self) -> str:
        """A plain table, with every word escaped and no colour of its own."""
        rows = html_table(self.headings, self.rows) if self.rows else ""
        lines = "".join(f"<div {TEXT_ALONE}>{escaped(line)}</div>" for line in self.lines)
        return f'<div class="llm-dashboard"><b>{escaped(self.title)}</b>{rows}{lines}</div>'
