"""A conversation rebuilt from a notebook's file, as the store keeps it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from msgspec.structs import replace as replaced

from llm_jupyter.portable import Rebuilt, RebuiltTurn
from llm_jupyter.sessions.holding import own_holder
from llm_jupyter.sessions.naming import count_of
from llm_jupyter.sessions.turns import digest_after, place_of
from llm_jupyter.store import AnswerRecord, Filled, SessionRecord, Store, TurnRecord, TurnState
from llm_jupyter.types import FinishReason, Message
from llm_jupyter.wording import shortened

NOT_SAVED = "not saved in the notebook"

QUOTED = 3
"""Cells or questions that a line names."""


def as_session(rebuilt: Rebuilt, now: float) -> tuple[SessionRecord, list[TurnRecord]]:
    """The conversation and its turns; ids are those of the file, where it has them."""
    parent = next(iter(rebuilt.forked), None)
    record = SessionRecord(id=rebuilt.session or _new_id(), created=now, updated=now, parent=parent)
    turns: list[TurnRecord] = []
    for number, turn in enumerate(rebuilt.turns, 1):
        before = place_of(turns[-1]) if turns else None
        turns.append(_turn(record.id, turn, float(number), now, digest_after(before)))
    return record, turns


def shortcomings(rebuilt: Rebuilt) -> list[str]:
    """What the notebook's file does not tell of its conversation, in lines for people."""
    lines = []
    if lacking := rebuilt.incomplete:
        names = sorted({name for turn in lacking for name in turn.lacks})
        lack = "lacks" if len(lacking) == 1 else "lack"
        lines.append(
            f"{len(lacking)} of its turns {lack} the values that were filled in ({', '.join(names)}): the file has only the names."
        )
    if lost := rebuilt.lost:
        count = "1 answer" if len(lost) == 1 else f"{len(lost)} answers"
        lines.append(
            f"Left out: {count} whose cell does not say what was asked (edited since, or asked by code): {_quoted(lost)}. "
            "Running it asks anew."
        )
    if unanswered := [one.prompt for one in rebuilt.unanswered if not any(one.prompt in source for source in lost)]:
        lines.append(f"Without an answer in the file: {_quoted(unanswered)}.")
    return lines


def others(rebuilt: Rebuilt, command: str) -> list[str]:
    """What else the notebook's file shows, and what to type for it: the `command` that takes one up, with its name."""
    lines = [
        f"It also shows {count_of(one.turns)} of another conversation ({_quoted([one.question])}): {command} {one.name}"
        for one in rebuilt.beside[:QUOTED]
    ]
    if len(more := rebuilt.beside[QUOTED:]) > 0:
        lines.append(f"And {len(more)} more: {', '.join(one.name for one in more)}.")
    return lines


def taken_in(record: SessionRecord, store: Store, now: float) -> SessionRecord:
    """A conversation that came from elsewhere, as this process keeps it: what is taken already, its id or its name, is
    left to whoever has it, of whom it is then a copy.
    """
    if store.session(record.id) is not None:
        record = replaced(record, id=_new_id(), parent=record.id)
    if record.name is not None and store.named(record.name) is not None:
        record = replaced(record, name=None)
    return replaced(record, holder=own_holder(), kernel=None, notebook=None, updated=now)


def _quoted(texts: Iterable[str]) -> str:
    """The beginnings of the first few of them."""
    each = list(dict.fromkeys(f'"{shortened(" ".join(text.split()), 40)}"' for text in texts))
    more = f" and {len(each) - QUOTED} more" if len(each) > QUOTED else ""
    return ", ".join(each[:QUOTED]) + more


def _turn(session: str, turn: RebuiltTurn, position: float, now: float, under: str) -> TurnRecord:
    own = turn.id or _new_id()
    answers = [
        AnswerRecord(number=number, response=answer, created=now, is_whole=answer.finish_reason is not FinishReason.INTERRUPTED)
        for number, answer in enumerate(turn.answers, 1)
    ]  # fmt: skip
    was_interrupted = bool(answers) and not answers[-1].is_whole
    return TurnRecord(
        id=own, session=session, slot=own, position=position, cell=turn.cell, prompt=Message.user(turn.prompt),
        system=turn.system, state=TurnState.INTERRUPTED if was_interrupted else TurnState.COMPLETE, created=now,
        under=under, was_saved=turn.cell is not None, filled=tuple(Filled(name, NOT_SAVED) for name in turn.lacks),
        answers=tuple(answers),
    )  # fmt: skip


def _new_id() -> str:
    return uuid.uuid4().hex[:12]
