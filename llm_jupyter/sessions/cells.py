"""Where a question stands in a notebook, as its kernel can know: which cell asks, and what ran before it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CellPlace:
    """The cell that asks.

    `cell_id` is its id in the document, `execution` the run of it, `client` the front end that sent it. `run` are the cells
    that ran before it in the same run of several cells, `silent` those that ran without asking since the last question,
    `deleted` those that the front end says are gone.
    """

    cell_id: str | None = None
    execution: str | None = None
    client: str | None = None
    run: tuple[str, ...] = ()
    silent: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()
