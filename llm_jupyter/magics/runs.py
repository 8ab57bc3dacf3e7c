"""Which cells ran in this kernel: what belongs to one run of several cells, and which of them asked nothing.

"Run All" and its like send all cells at once: a cell that was sent before the one before it had ended belongs to the same
run, and stands below it in the document. A front end that sends each one when the last is done is not seen to do so; what
it has not saved then goes to the end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_jupyter.sessions import CellPlace


@dataclass(slots=True)
class RunLog:
    """What the kernel's own hooks tell of its cells. Clocks of front ends are only compared with themselves.

    `cells` tells which cell ran under which number, `gone` which were deleted and did not run since; `number` is that of
    the cell that runs, `None` where its beginning was not seen.
    """

    number: int | None = None
    cells: dict[int, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    _run: list[str] = field(default_factory=list)
    _news: int = 0
    _silent: dict[str, int] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)
    _told_deleted: dict[str, int] = field(default_factory=dict)
    _offset: float = 0.0
    _ended: float | None = None
    _client: str | None = None
    _cell: str | None = None
    _asked: bool = False

    def begin(
        self, cell: str | None, client: str | None, sent: float | None, now: float, deleted: Collection[str] = (),
        number: int = 0,
    ) -> None:  # fmt: skip
        """A cell begins. `sent` is when the front end sent it, by a clock of its own; `now` is the time by ours."""
        moment = sent + self._offset if sent is not None else now
        is_next = self._ended is not None and client == self._client and moment <= self._ended
        if not is_next or cell in self._run:  # no run of several cells runs one twice
            self._run = []
            self._offset = now - sent if sent is not None else 0.0
        self._client, self._cell, self._asked = client, cell, False
        self._news += 1
        self._deleted.update(dict.fromkeys(deleted, self._news))
        self.gone.update(deleted)
        self.number = number
        self.cells.pop(number, None)  # what ran without a place in the history had this number before
        if cell is not None:
            self._deleted.pop(cell, None)
            self.gone.discard(cell)
            self.cells[number] = cell

    def end(self, now: float) -> None:
        """The cell has ended."""
        self._ended = now
        if self._cell is not None:
            self._run.append(self._cell)
            if not self._asked:
                self._silent[self._cell] = self._news
        self._cell = None

    def looks(self) -> None:
        """The cell looks at what it would ask: what it has asked before stays."""
        self._asked = True

    def place(self, cell: str | None, execution: str | None, session: str, *, asks: bool) -> CellPlace:
        """The place of the cell that runs now. What ran silently before is told once to each session, when one asks in it;
        what was deleted at once, as it may come back.

        Only what a notebook file may hold is taken for a cell's id; VS Code makes up addresses where a file has none.
        """
        from llm_jupyter.documents import is_cell_id
        from llm_jupyter.sessions import CellPlace

        if asks:
            self._asked = True
            self._silent.pop(cell or "", None)
        told, told_deleted = self._told.get(session, 0), self._told_deleted.get(session, 0)
        place = CellPlace(
            cell if is_cell_id(cell) else None,
            execution,
            self._client,
            tuple(one for one in self._run if is_cell_id(one) and one != cell),
            frozenset(one for one, at in self._silent.items() if at > told and is_cell_id(one)),
            frozenset(one for one, at in self._deleted.items() if at > told_deleted and is_cell_id(one)),
        )
        self._told_deleted[session] = self._news
        if asks:
            self._told[session] = self._news
        return place
