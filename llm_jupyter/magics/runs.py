"""Which cells ran in this kernel: what belongs to one run of several cells, and which of them asked nothing.

"Run All" and its like send all cells at once: a cell that was sent before the one before it had ended, or so soon after it
that nobody can have seen its end, belongs to the same run, and stands below it in the document. A front end that sends each
one when the last is done is not seen to do so; what it has not saved then goes to the end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_jupyter.sessions import CellPlace

AT_ONCE = 0.002
"""Seconds between two cells that a front end sends in one go; nobody hears from a kernel so soon that a cell has ended."""


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
    _ran: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)
    _told_deleted: dict[str, int] = field(default_factory=dict)
    _offset: float = 0.0
    _sent: float | None = None
    _ended: float | None = None
    _client: str | None = None
    _cell: str | None = None
    _asked: set[str] = field(default_factory=set)
    _looks: bool = False

    def begin(
        self, cell: str | None, client: str | None, sent: float | None, now: float, deleted: Collection[str] = (),
        number: int = 0,
    ) -> None:  # fmt: skip
        """A cell begins. `sent` is when the front end sent it, by a clock of its own; `now` is the time by ours."""
        moment = sent + self._offset if sent is not None else now
        was_at_once = sent is not None and self._sent is not None and 0 <= sent - self._sent <= AT_ONCE
        is_next = self._ended is not None and client == self._client and (moment <= self._ended or was_at_once)
        self._sent = sent
        if not is_next or cell in self._run:  # no run of several cells runs one twice
            self._run = []
            self._offset = now - sent if sent is not None else 0.0
        self._client, self._cell, self._asked, self._looks = client, cell, set(), False
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
            if not self._looks:
                self._ran[self._cell] = self._news, frozenset(self._asked)
        self._cell = None

    def looks(self) -> None:
        """The cell looks at what it would ask, and that is what it has asked before: it stays."""
        self._looks = True

    def news(self, session: str) -> CellPlace:
        """What a conversation in use has to hear when a cell has ended: which cells ran and asked nothing in it, and which
        were deleted. It is told once.
        """
        from llm_jupyter.sessions import CellPlace

        news = CellPlace(silent=self._silent(session, since=self._news), deleted=self._gone(session))
        self._told[session] = self._told_deleted[session] = self._news
        return news

    def place(
        self, cell: str | None, execution: str | None, session: str, *, asks: bool, is_beside: bool = False
    ) -> CellPlace:
        """The place of the cell that runs now. A session that was not in use hears here what has happened meanwhile: what
        ran silently when one asks in it, what was deleted at once, as it may come back. To one that is only asked beside
        the notebook's own, what has asked elsewhere was silent.

        Only what a notebook file may hold is taken for a cell's id; VS Code makes up addresses where a file has none.
        """
        from llm_jupyter.documents import is_cell_id
        from llm_jupyter.sessions import CellPlace

        if asks:
            self._asked.add(session)
        place = CellPlace(
            cell if is_cell_id(cell) else None,
            execution,
            self._client,
            tuple(one for one in self._run if is_cell_id(one) and one != cell),
            self._silent(session, since=0 if is_beside else self._news) - {cell or ""},
            self._gone(session),
        )
        self._told_deleted[session] = self._news
        if asks:
            self._told[session] = self._news
        return place

    def _silent(self, session: str, *, since: int) -> frozenset[str]:
        """What ran without asking in a session; what asked elsewhere counts from that run of a cell on."""
        told = self._told.get(session, 0)
        return frozenset(
            cell for cell, (at, asked) in self._ran.items()
            if at > told and session not in asked and (at >= since or not asked)
        )  # fmt: skip

    def _gone(self, session: str) -> frozenset[str]:
        told = self._told_deleted.get(session, 0)
        return frozenset(cell for cell, at in self._deleted.items() if at > told)
