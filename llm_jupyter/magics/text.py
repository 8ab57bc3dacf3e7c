"""How the commands of `%llm` write: lines, tables, sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_jupyter.types import LLMModelInfo


def say(lines: Sequence[str]) -> None:
    """Write lines below the cell."""
    sys.stdout.write("\n".join(lines) + "\n")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: str = "") -> list[str]:
    """Columns as wide as their longest entry; columns in which nothing stands are left out. `right` is the head of a
    column of numbers, which end below one another.
    """
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    widths = {n: max(len(row[n]) for row in [head, *rows]) for n in kept}
    return [
        "  ".join(f"{row[n]:{'>' if head[n] == right else '<'}{widths[n]}}" for n in kept).rstrip()
        for row in [head, *rows]
    ]


def shortened(text: str, width: int = 60) -> str:
    """A text that fits into a column of a table."""
    return text if len(text) <= width else text[: width - 1] + "…"


def size(count: int | None) -> str:
    """A number of bytes as people read it."""
    if count is None:
        return ""
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def window(model: LLMModelInfo, *, short: bool = False) -> str:
    """A model's window in tokens: what it is asked with, of what it declares; `short` writes 8192 as 8k."""
    declared, effective = model.context_length, model.effective_context

    def written(count: int) -> str:
        return f"{count // 1024:,}k" if short and count % 1024 == 0 else f"{count:,}"

    if effective and declared and effective != declared:
        return f"{written(effective)} of {written(declared)}"
    either = declared or effective
    return written(either) if either else ""


def counts(first: int | None, first_name: str, second: int | None, second_name: str) -> str:
    """Two numbers with their names, as far as they are known."""
    return ", ".join(f"{n:,} {name}" for n, name in ((first, first_name), (second, second_name)) if n is not None)


def duration(seconds: float) -> str:
    """A time span as people say it, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
