"""What a person sees of a conversation: its turns, and what has become of them since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_jupyter.errors import SessionError
from llm_jupyter.sessions.order import SILENT
from llm_jupyter.sessions.turns import digest_after
from llm_jupyter.store import Place, SessionRecord, Store, TurnRecord

SHORT_ID = 4
"""Signs of a turn's id that are enough, where they are enough to tell it from others."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A turn as the history shows it: how many versions it has, and whether it was answered under an earlier version of
    what stands before it.
    """

    turn: TurnRecord
    versions: int
    is_stale: bool


def remembered(store: Store, session: str, count: int) -> list[Remembered]:
    """The last `count` turns of a conversation, in order."""
    places = store.places(session)
    stale = stale_turns(places)
    last = [store.turn(session, place.id) for place in places[-count:]]
    return [
        Remembered(turn, len(store.versions(session, turn.slot)), turn.id in stale)
        for turn in last if turn is not None
    ]  # fmt: skip


def found_turn(store: Store, session: str, name: str) -> TurnRecord:
    """The turn of that id, or the only one whose id begins so. Raises `SessionError`."""
    turn = store.turn(session, name)
    if turn is None and len(name) >= SHORT_ID:
        near = [place.id for place in store.places(session) if place.id.startswith(name)]
        turn = store.turn(session, near[0]) if len(near) == 1 else None
    if turn is None:
        raise SessionError(f"there is no turn {name[:40]!r} in this conversation", next_step="%llm history lists them.")
    return turn


def bring_back(store: Store, session: str, turn: TurnRecord) -> str:
    """Let a version of a turn count again, and that turn be in the context; why it was not, empty where it was.

    One whose cell is gone stands there without a cell from now on.
    """
    store.restore(session, turn.id)
    now = store.turn(session, turn.id) or turn
    if now.left_out == SILENT:
        store.mark(session, [now.slot], left_out="")
    elif now.left_out:
        store.detach(session, now.slot)
    return why_left_out(now)


def forked_from(store: Store, record: SessionRecord) -> tuple[str, ...]:
    """The ids of the conversations that one is a copy of, the nearest first, as far as they are kept."""
    ids: list[str] = []
    parent = record.parent
    while parent is not None and parent not in ids:
        ids.append(parent)
        kept = store.session(parent)
        parent = kept.parent if kept is not None else None
    return tuple(ids)


def why_left_out(turn: TurnRecord) -> str:
    """Why a turn is not in the context, without the state of the file that is kept with it; empty where it is."""
    return turn.left_out.partition(" since the notebook")[0]


def stale_turns(places: Sequence[Place]) -> set[str]:
    """The turns, of a whole conversation, that were answered under another version of what stands before them: one that is
    older than something before it, or did not follow what it follows now.
    """
    stale: set[str] = set()
    before: Place | None = None
    latest = 0.0
    for place in places:
        if place.left_out or not place.answers:
            continue
        if latest > place.created or place.under != digest_after(before):
            stale.add(place.id)
        before, latest = place, max(latest, place.created)
    return stale
