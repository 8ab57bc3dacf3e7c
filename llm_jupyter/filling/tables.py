"""A data frame as a Markdown table: small, and readable for people and models alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llm_jupyter.filling.nested import CONTAINERS, as_python
from llm_jupyter.filling.shown import Shown, count, is_a, sides
from llm_jupyter.filling.steady import steady

WHOLE_ROWS = 20
"""A table of so many rows is shown whole; of a longer one, the first `FIRST_ROWS`."""

FIRST_ROWS = 10
MOST_COLUMNS = 20
LONGEST_CELL = 60


def table(value: Any) -> Shown | None:
    """The data frames and series of pandas and polars; nothing for other values."""
    if is_a(value, "pandas", "DataFrame", "Series"):
        return _from_pandas(value if value.ndim == 2 else value.to_frame())
    if is_a(value, "polars", "DataFrame"):
        return _from_polars(value)
    if is_a(value, "polars", "Series"):
        return _from_polars(value.to_frame())
    return None


def _from_pandas(frame: Any) -> Shown:
    """With the index as its first column, unless that only counts the rows."""
    part = frame.iloc[: _rows_shown(len(frame)), :MOST_COLUMNS]
    has_index = not _only_counts(frame.index)
    index = [" / ".join(str(name) for name in frame.index.names if name is not None)] if has_index else []
    return _shown(frame.shape, [*index, *part.columns], part.itertuples(index=has_index, name=None))


def _only_counts(index: Any) -> bool:
    """Whether it says nothing but which row it is, from 0 on; the last rows of a table keep the numbers they had in it."""
    if not is_a(index, "pandas", "RangeIndex"):
        return False
    return range(index.start, index.stop, index.step) == range(len(index))


def _from_polars(frame: Any) -> Shown:
    part = frame[: _rows_shown(len(frame)), :MOST_COLUMNS]
    return _shown(frame.shape, part.columns, part.iter_rows())


def _rows_shown(rows: int) -> int:
    return rows if rows <= WHOLE_ROWS else FIRST_ROWS


def _shown(shape: tuple[int, int], head: Sequence[Any], body: Iterable[Sequence[Any]]) -> Shown:
    rows, columns = shape
    kept = [f"{FIRST_ROWS} rows"] if rows > WHOLE_ROWS else []
    kept += [f"{MOST_COLUMNS} columns"] if columns > MOST_COLUMNS else []
    part = f"first {' and '.join(kept)}" if kept else ""
    title = f"{count(rows, 'row')} x {count(columns, 'column')}{f'; the {part}' if part else ''}:"
    lines = [_line(head), "|" + "---|" * len(head), *(_line(row) for row in body)] if columns else []
    size = f"table {sides(shape)}{f', {part}' if part else ''}"
    return Shown("\n".join([title, *lines]), size, is_partial=bool(part), is_block=True)


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: Any) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else _text(value)
    if len(text) > LONGEST_CELL:
        text = text[: LONGEST_CELL - 1] + "…"
    return text.replace("|", "\\|").replace("\r", "\\r").replace("\n", "\\n")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    return as_python(value) if isinstance(value, CONTAINERS) else steady(str(value))
