"""In which order the turns of a conversation stand.

The order is the document's wherever the saved notebook lists a turn's cell. What it does not list yet stands behind the
turn before it in the same run, else last; what it listed once and lists no more is out of the conversation. All this follows
from the document, from what is stored of the turns, and from the run: whichever kernel works it out, it comes to the same.

A place is a number, so that a turn goes between two others without moving any. Turns without a cell (a console's, a
program's) keep theirs.
"""

from __future__ import annotations

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
    """The places of the turns that have a cell, kept in step with the store. Used by one thread at a time.

    A question costs the same however many turns there are; only a document that was saved anew is gone through.
    """

    def __init__(self, store: Store, session: str) -> None:
        self._store = store
        self._session = session
        self._document: Document | None = None
        self._numbers: dict[str, int] = {}
        self._executions: dict[str, tuple[str | None, int]] = {}
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
        cell = place.cell_id
        if cell is None or append:
            return Spot(self._end())
        if self._document is not None and cell in self._document.repeated:
            return Spot(self._end(), note=SAME_ID)
        asked = self._asked_before(place)
        mine = self.places.of_cell.get(cell, [])
        if not asked:
            self._mark([one.slot for one in mine if not one.left_out], left_out=SILENT)
        if asked < len(mine):
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
        if asked < len(mine):
            moved = self._moved(place, mine[asked])
            position = mine[asked].position if moved is None else moved
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
        """A question that takes the place of its earlier version; the run may say that its cell has moved."""
        self._mark([slot], left_out="")
        one = self.places.slots[slot]
        if (moved := self._moved(place, one)) is not None:
            self._move({slot: moved})
            one = self.places.slots[slot]
        return Spot(one.position, slot, one.id, self._hidden(place, one.position), cell=one.cell)

    def _moved(self, place: CellPlace, one: Place) -> float | None:
        """Where the run says that a turn stands by now, if that is elsewhere."""
        before = self._last_of_run(place) if one.cell not in self._numbers else None
        is_elsewhere = before is not None and self._follower(before) != one.slot
        return self._behind(before.position) if before is not None and is_elsewhere else None

    def _new(self, place: CellPlace) -> float:
        """The position of a cell that has not asked before."""
        number = self._numbers.get(place.cell_id or "")
        if number is None:
            before = self._last_of_run(place)
            return self._behind(before.position) if before is not None else self._end()
        assert self._document is not None
        cells = self._document.cells
        later = next((cells[n] for n in range(number + 1, len(cells)) if cells[n] in self.places.of_cell), None)
        return self._ahead_of(self.places.of_cell[later][0].position) if later is not None else self._end()

    def _last_of_run(self, place: CellPlace) -> Place | None:
        """The turn before this one in the same run."""
        for cell in reversed(place.run):
            if there := [one for one in self.places.of_cell.get(cell, ()) if not one.left_out]:
                return there[-1]
        return None

    def _follower(self, place: Place) -> str | None:
        """The turn right behind another, of those that have a cell."""
        after = self.places.after(place)
        return after.slot if after is not None else None

    def _hidden(self, place: CellPlace, position: float) -> frozenset[str]:
        """Turns of cells that the file does not list and that the run has passed by: they stand elsewhere by now."""
        if not place.run:
            return frozenset()
        between = self.places.between(self._start_of(place.run[0]), position)
        ran = {*place.run, place.cell_id}
        return frozenset(
            one.slot for one in between
            if one.cell not in self._numbers and one.client == place.client and one.cell not in ran
        )  # fmt: skip

    def _start_of(self, cell: str) -> float:
        """The position behind which a run that began with this cell has passed."""
        if cell in self.places.of_cell:
            return self.places.of_cell[cell][0].position
        if (number := self._numbers.get(cell)) is None or self._document is None:
            return float("inf")
        cells = self._document.cells
        earlier = (cells[n] for n in range(number - 1, -1, -1) if cells[n] in self.places.of_cell)
        before = next(earlier, None)
        return self.places.of_cell[before][-1].position if before is not None else float("-inf")

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
        if low is None:
            return high - 1
        if high - low > NARROW:
            return (low + high) / 2
        rank = self._store.set_apart(self._session, high)
        self._load()
        return rank - 0.5

    # -- in step with the store

    def note(self, place: Place) -> None:
        """A turn was written down."""
        if place.cell is not None:
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
        self.places = Lineup(self._store.places(self._session, of_cells=True))
