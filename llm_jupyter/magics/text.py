"""How the commands of `%llm` write: lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_jupyter.wording import counts as counts
from llm_jupyter.wording import duration as duration
from llm_jupyter.wording import shortened as shortened
from llm_jupyter.wording import size as size
from llm_jupyter.wording import visible
from llm_jupyter.wording import window as window


def say(lines: Sequence[str]) -> None:
    """Write lines below the cell. What a server wrote in them steers no terminal."""
    sys.stdout.write("\n".join(map(visible, lines)) + "\n")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: str = "") -> list[str]:
    """Columns as wide as their longest entry; columns in which nothing stands are left out. `right` is the head of a
    column of numbers, which end below one another.
    """
    head, *rows = [tuple(visible(cell).replace("\n", " ") for cell in row) for row in (head, *rows)]
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    widths = {n: max(len(row[n]) for row in [head, *rows]) for n in kept}
    return [
        "  ".join(f"{row[n]:{'>' if head[n] == right else '<'}{widths[n]}}" for n in kept).rstrip()
        for row in [head, *rows]
    ]
