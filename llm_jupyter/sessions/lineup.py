"""Places in their order: any of them is found, put in and taken out without going through all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from llm_jupyter.store import Place


class Lineup:
    """The places of a conversation's turns. `slots` are they by slot, `of_cell` by cell in their order."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = sorted(places, key=_position)
        self.slots = {one.slot: one for one in self._places}
        self.of_cell: dict[str, list[Place]] = {}
        for one in self._places:
            self.of_cell.setdefault(one.cell or "", []).append(one)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def between(self, low: float, high: float) -> list[Place]:
        """The places behind one position and before another."""
        return self._places[
            bisect_right(self._places, low, key=_position) : bisect_left(self._places, high, key=_position)
        ]

    def after(self, position: float) -> Place | None:
        """The one right behind a position."""
        at = bisect_right(self._places, position, key=_position)
        return self._places[at] if at < len(self._places) else None

    def put(self, place: Place) -> None:
        """Take a place in, instead of the one that its slot has."""
        known = self.slots.get(place.slot)
        if known is not None and (known.position, known.cell) == (place.position, place.cell):
            self._places[self._index(known)] = place
            mine = self.of_cell[place.cell or ""]
            mine[:] = [place if one.slot == place.slot else one for one in mine]
        else:
            self.take_out(place.slot)
            insort(self._places, place, key=_position)
            insort(self.of_cell.setdefault(place.cell or "", []), place, key=_position)
        self.slots[place.slot] = place

    def take_out(self, slot: str) -> None:
        """Forget the place of a slot, if it has one."""
        if (known := self.slots.pop(slot, None)) is None:
            return
        del self._places[self._index(known)]
        left = [one for one in self.of_cell.pop(known.cell or "") if one.slot != slot]
        if left:
            self.of_cell[known.cell or ""] = left

    def _index(self, place: Place) -> int:
        at = bisect_left(self._places, place.position, key=_position)
        while self._places[at].slot != place.slot:
            at += 1
        return at


def _position(place: Place) -> float:
    return place.position
