"""What a turn is to the conversation: the messages of it that a model sees, and what it was answered under."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from llm_jupyter.context import Exchange
from llm_jupyter.store import AnswerRecord, Place, Store, TurnRecord, TurnState
from llm_jupyter.types import Message

INTERRUPTED_MARK = "\n\n[This answer was interrupted here.]"


def counting_answer(turn: TurnRecord) -> AnswerRecord | None:
    """The last answer that says anything: whole, or stopped by the person. What broke off does not count."""
    if turn.state in (TurnState.FAILED, TurnState.PENDING):
        return None
    was_stopped = turn.state is TurnState.INTERRUPTED
    answers = (one for one in reversed(turn.answers) if one.is_whole or was_stopped)
    return next((one for one in answers if one.response.text or one.response.tool_calls), None)


def messages_of(turn: TurnRecord) -> tuple[Message, ...]:
    """What a model sees of a turn; nothing of one that failed."""
    answer = counting_answer(turn)
    if answer is None:
        return ()
    response = answer.response
    if not answer.is_whole:
        return turn.prompt, Message.assistant(response.text + INTERRUPTED_MARK)
    return turn.prompt, response.message


def digest_after(before: Place | None) -> str:
    """What stands for the whole conversation up to and with a turn: two are equal if it was the same."""
    if before is None:
        return ""
    return hashlib.sha256(f"{before.under}\n{before.id}\n{before.answers}".encode()).hexdigest()[:16]


def place_of(turn: TurnRecord) -> Place:
    """Where a turn stands, without its texts."""
    return Place(
        slot=turn.slot, id=turn.id, cell=turn.cell, notebook=turn.notebook, client=turn.client, position=turn.position,
        left_out=turn.left_out, was_saved=turn.was_saved, stamp=turn.stamp, created=turn.created, under=turn.under, answers=len(turn.answers),
    )  # fmt: skip


def last_before(store: Store, session: str, position: float, hidden: Collection[str] = ()) -> TurnRecord | None:
    """The last turn before a position that a model sees anything of."""
    return first_before(store, session, position, hidden, lambda turn: bool(messages_of(turn)))


def first_before(
    store: Store, session: str, position: float, hidden: Collection[str], accepts: Callable[[TurnRecord], bool]
) -> TurnRecord | None:
    """The nearest turn before a position that is accepted; it is almost always the first one that is read."""
    for count in (1, 50):
        nearest = store.before(session, position, limit=count, skip=hidden)
        if (found := next(filter(accepts, nearest), None)) is not None:
            return found
    return None


def asked_in(notebook: Path | None, turn: TurnRecord) -> TurnRecord:
    """A turn as one of a notebook's cell; as one without a cell, where the notebook is not known."""
    if notebook is None or turn.cell is None:
        return msgspec.structs.replace(turn, cell=None, notebook=None)
    return msgspec.structs.replace(turn, notebook=str(notebook))


class EarlierTurns:
    """The turns before a position, nearest first, read from the store as far as they are asked for."""

    def __init__(self, store: Store, session: str, position: float | None, hidden: Collection[str] = ()) -> None:
        self._store = store
        self._session = session
        self._next = position
        self._hidden = hidden
        self._found: list[Exchange] = []
        self._is_all = False

    async def latest(self, skip: int, count: int) -> Sequence[Exchange]:
        """`count` exchanges after the `skip` nearest; fewer where there are no more."""
        while not self._is_all and len(self._found) < skip + count:
            await asyncio.to_thread(self._read, max(count, 16))
        return self._found[skip : skip + count]

    def _read(self, count: int) -> None:
        turns = self._store.before(self._session, self._next, limit=count, skip=self._hidden)
        self._is_all = len(turns) < count
        self._found += [Exchange(turn.id, messages) for turn in turns if (messages := messages_of(turn))]
        if turns:
            self._next = turns[-1].position
