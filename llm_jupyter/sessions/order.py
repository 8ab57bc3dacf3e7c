"""In which order the turns of a conversation stand.

The order is the document's wherever the saved notebook lists a turn's cell. What it does not list yet stands behind the
turn before it in the same run, else last; what it listed once and lists no more is out of the conversation. All this follows
from the document, from what is stored of the turns, and from the run: whichever kernel works it out, it comes to the same.

A place is a number, so that a turn goes between two others without moving any. Turns without a cell (a console's, a
program's) keep theirs, and so do those of another notebook, where a conversation was taken from one to the next: what that
notebook's cells are called and whether they are still there says nothing here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from llm_jupyter.documents import Document
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.lineup import Lineup
from llm_jupyter.store import Place, Store

GONE, SILENT = "its cell is gone", "its cell last ran without asking"
DELETED = "its cell was deleted since the notebook was saved as "
"""Why a turn is left out. The last is followed by the state of the file, in which its cell still stands."""

NARROW = 1e-9
"""Two places closer than this are set apart before anything goes between them."""

MANY = 100
"""More places than this are sorted anew at once, and not put in one by one."""

NO_IDS = (
    "This notebook's file keeps no ids of cells (its nbformat is older than 4.5), so cells that run after the page was loaded "
    "anew add their questions at the end. With the notebook closed, this gives it ids: import nbformat; "
    "nbformat.write(nbformat.v4.upgrade(nbformat.read('NAME.ipynb', 4)), 'NAME.ipynb')"
)
SAME_ID = "Two cells of this notebook have the same id, so this question was added at the end of the conversation."


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a question goes: its position, the slots that it is not to see, and the turn that it replaces with its slot."""

    position: float
    slot: str | None = None
    replaces: str | None = None
    hidden: frozenset[str] = frozenset()
    cell: str | None = None
    note: str = ""


class Order:
    """The places of the turns that have a cell in a notebook, kept in step with the store. Used by one thread at a time.

    What cells of other notebooks have asked stays where it is, as what was asked without a cell.
    A question costs the same however many turns there are; only a document that was saved anew is gone through.
    """

    def __init__(self, store: Store, session: str, notebook: str | None = None) -> None:
        self.notebook = notebook
        self._store = store
        self._session = session
        self._document: Document | None = None
        self._numbers: dict[str, int] = {}
        self._executions: dict[str, tuple[str | None, int]] = {}
        self._has_told_of_ids = False
        self.places: Lineup
        self._load()

    # -- what the document says

    def read(self, document: Document | None) -> None:
        """Take in the document as it was saved last; costs nothing where that is known."""
        if document is None or (self._document is not None and document.stamp == self._document.stamp):
            return
        self._document = document
        self._numbers = {cell: number for number, cell in reversed(list(enumerate(document.cells))) if cell}
        self._mark_by(document)
        self._arrange()

    def lists(self, cell: str | None) -> bool:
        """Whether the document has that cell."""
        return cell in self._numbers

    def _mark_by(self, document: Document) -> None:
        clients = {place.client for place in self.places if place.cell in self._numbers}
        reasons: dict[str, list[str]] = {}
        for place in self.places:
            if (reason := self._reason(place, document, clients)) != place.left_out:
                reasons.setdefault(reason, []).append(place.slot)
        for reason, slots in reasons.items():
            self._mark(slots, left_out=reason)
        self._mark([one.slot for one in self.places if one.cell in self._numbers and not one.was_saved], was_saved=True)

    def _reason(self, place: Place, document: Document, clients: Collection[str | None]) -> str:
        """Why a turn is left out now; empty where it is not."""
        if place.left_out in (SILENT, DELETED + document.stamp):
            return place.left_out
        if place.cell in self._numbers:
            return ""
        was_saved_since = place.stamp not in ("", document.stamp) and place.client in clients
        is_gone = place.was_saved or place.cell in document.others or was_saved_since
        return GONE if is_gone else place.left_out

    def _arrange(self) -> None:
        """Put the listed turns into the document's order, each with those behind it that are not listed."""
        groups: list[tuple[int, list[Place]]] = [(-1, [])]
        for place in self.places:
            number = self._numbers.get(place.cell or "")
            if number is None:
                groups[-1][1].append(place)
            else:
                groups.append((number, [place]))
        ordered = [place for _, group in sorted(groups, key=lambda group: group[0]) for place in group]
        there = [place.position for place in self.places]
        self._move(
            {one.slot: position for one, position in zip(ordered, there, strict=True) if one.position != position}
        )

    # -- what ran meanwhile

    def hear(self, place: CellPlace) -> None:
        """Leave out what cells had asked that ran without asking since, or were deleted."""
        if place.silent:
            self._mark([one.slot for one in self._turns_of(place.silent) if not one.left_out], left_out=SILENT)
        if place.deleted:
            stamp = self._document.stamp if self._document is not None else ""
            gone = [one.slot for one in self._turns_of(place.deleted) if one.cell != place.cell_id]
            self._mark(gone, left_out=DELETED + stamp)

    # -- where a question goes

    def spot(self, place: CellPlace, *, append: bool = False) -> Spot:
        """Where the question of a cell goes. What it replaces is settled by this: a spot is to be used."""
        spot = self._spot(place, append)
        if self._document is None or not self._document.cells or self._numbers or self._has_told_of_ids:
            return spot
        self._has_told_of_ids = True
        return dataclasses.replace(spot, note=NO_IDS)

    def _spot(self, place: CellPlace, append: bool) -> Spot:
        cell = place.cell_id
        if cell is None or append:
            return Spot(self._end())
        if self._document is not None and cell in self._document.repeated:
            return Spot(self._end(), note=SAME_ID)
        asked = self._asked_before(place)
        mine = self.places.of_cell.get(cell, [])
        if not asked:
            self._mark([one.slot for one in mine if not one.left_out], left_out=SILENT)
            self._go_with_the_run(place)
        if asked < len(mine := self.places.of_cell.get(cell, [])):
            return self._again(place, mine[asked].slot)
        position = self._behind(mine[-1].position) if mine else self._new(place)
        return Spot(position, hidden=self._hidden(place, position), cell=cell)

    def look(self, place: CellPlace, *, append: bool = False) -> Spot:
        """Where the question of a cell would go; nothing is changed by looking."""
        cell = place.cell_id
        gone = {one.slot for one in self._turns_of(place.silent | place.deleted) if one.cell != cell}
        if cell is None or append or (self._document is not None and cell in self._document.repeated):
            return Spot(self._end(), hidden=frozenset(gone))
        mine, asked = self.places.of_cell.get(cell, []), self._count(place)
        if not asked and (low := self._moved(place)) is not None:
            position = self._behind(low)
        elif asked < len(mine):
            position = mine[asked].position
        else:
            position = self._behind(mine[-1].position) if mine else self._new(place)
        gone |= {one.slot for one in mine[asked:]}
        return Spot(position, hidden=self._hidden(place, position) | gone)

    def _asked_before(self, place: CellPlace) -> int:
        """How many questions this run of the cell has asked already."""
        assert place.cell_id is not None
        count = self._count(place)
        self._executions[place.cell_id] = place.execution, count + 1
        return count

    def _count(self, place: CellPlace) -> int:
        execution, count = self._executions.get(place.cell_id or "", (None, 0))
        return count if execution == place.execution and place.execution is not None else 0

    def _again(self, place: CellPlace, slot: str) -> Spot:
        """A question that takes the place of its earlier version."""
        self._mark([slot], left_out="")
        one = self.places.slots[slot]
        return Spot(one.position, slot, one.id, self._hidden(place, one.position), cell=one.cell)

    def _new(self, place: CellPlace) -> float:
        """The position of a cell that has not asked before."""
        number = self._numbers.get(place.cell_id or "")
        if number is None:
            low = self._reached(place)
            return self._behind(low) if low is not None else self._end()
        assert self._document is not None
        later = self._nearest(self._document.cells[number + 1 :])
        return self._ahead_of(later[0].position) if later else self._end()

    # -- what the run tells of cells that the file does not list

    def _go_with_the_run(self, place: CellPlace) -> None:
        """Move what a cell has asked, all of it together, to where the run says that the cell stands by now."""
        if (low := self._moved(place)) is not None:
            for slot in [one.slot for one in self._turns_of([place.cell_id or ""])]:
                self._move({slot: self._behind(low)})
                low = self.places.slots[slot].position

    def _moved(self, place: CellPlace) -> float | None:
        """The position behind which the run says that a cell's turns stand by now, if that is elsewhere."""
        mine = self.places.of_cell.get(place.cell_id or "")
        if not mine or place.cell_id in self._numbers or (low := self._reached(place)) is None:
            return None
        follower = self.places.after(low)
        return low if follower is None or follower.slot != mine[0].slot else None

    def _reached(self, place: CellPlace) -> float | None:
        """The position behind which a run has come when a cell's turn is there; `None` where that cannot be known."""
        reached: float | None = None
        for cell in reversed(place.run):
            if (extent := self._extent(cell)) is not None:
                reached = extent[1] if reached is None else max(reached, extent[1])
                if cell in self.places.of_cell:
                    break
        return reached

    def _extent(self, cell: str) -> tuple[float, float] | None:
        """The positions of a cell's first and last turn; where the file lists it and it has none, twice that of the turn
        above it. `None` for a cell that stands nobody knows where.
        """
        mine, number = self.places.of_cell.get(cell, ()), self._numbers.get(cell)
        if mine and (number is not None or not all(one.left_out for one in mine)):
            return mine[0].position, mine[-1].position
        if number is None or self._document is None:
            return None
        above = self._nearest(reversed(self._document.cells[:number]))
        position = above[-1].position if above else float("-inf")
        return position, position

    def _nearest(self, cells: Iterable[str]) -> list[Place]:
        """The turns of the first of these cells that has any."""
        return next((self.places.of_cell[cell] for cell in cells if cell in self.places.of_cell), [])

    def _hidden(self, place: CellPlace, position: float) -> frozenset[str]:
        """Turns of cells that the file does not list and that the run has passed by: they stand elsewhere by now."""
        begun = next((extent[0] for cell in place.run if (extent := self._extent(cell)) is not None), None)
        if begun is None:
            return frozenset()
        ran = {*place.run, place.cell_id}
        return frozenset(
            one.slot for one in self.places.between(begun, position)
            if one.cell not in self._numbers and one.client == place.client and one.cell not in ran
        )  # fmt: skip

    # -- positions, among all turns

    def _end(self) -> float:
        return self._store.last_position(self._session) + 1

    def _behind(self, position: float) -> float:
        return self._between(position, self._store.position_after(self._session, position))

    def _ahead_of(self, position: float) -> float:
        return self._between(self._store.position_before(self._session, position), position)

    def _between(self, low: float | None, high: float | None) -> float:
        if high is None:
            return self._end()
        if low is None or low == float("-inf"):
            return high - 1
        if high - low > NARROW:
            return (low + high) / 2
        rank = self._store.set_apart(self._session, high)
        self._load()
        return rank - 0.5

    # -- in step with the store

    def note(self, place: Place) -> None:
        """A turn was written down."""
        if place.cell is not None and place.notebook == self.notebook:
            self.places.put(place)
        else:
            self.places.take_out(place.slot)

    def _turns_of(self, cells: Iterable[str]) -> list[Place]:
        return [one for cell in cells for one in self.places.of_cell.get(cell, ())]

    def _mark(self, slots: Collection[str], *, left_out: str | None = None, was_saved: bool | None = None) -> None:
        news = {"left_out": left_out, "was_saved": was_saved}
        given = {name: value for name, value in news.items() if value is not None}
        marked = [replace(one, **given) for slot in slots if (one := self.places.slots.get(slot)) is not None]
        changed = [one for one in marked if one != self.places.slots[one.slot]]
        if changed:
            self._store.mark(self._session, [one.slot for one in changed], left_out=left_out, was_saved=was_saved)
            for one in changed:
                self.places.put(one)

    def _move(self, positions: dict[str, float]) -> None:
        if positions:
            self._store.move(self._session, positions)
            moved = {slot: replace(self.places.slots[slot], position=position) for slot, position in positions.items()}
            if len(moved) > MANY:
                self.places = Lineup((self.places.slots | moved).values())
            else:
                for one in moved.values():
                    self.places.put(one)

    def _load(self) -> None:
        places = self._store.places(self._session, of_cells=True)
        self.places = Lineup(one for one in places if one.notebook == self.notebook)
