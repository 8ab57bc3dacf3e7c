"""A conversation rebuilt from a notebook's file, as the store keeps it."""

from __future__ import annotations

import uuid

from llm_jupyter.portable import Rebuilt, RebuiltTurn
from llm_jupyter.sessions.turns import digest_after, place_of
from llm_jupyter.store import AnswerRecord, Filled, SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import FinishReason, Message

NOT_SAVED = "not saved in the notebook"


def as_session(rebuilt: Rebuilt, now: float) -> tuple[SessionRecord, list[TurnRecord]]:
    """The conversation and its turns; ids are those of the file, where it has them."""
    known = next((turn.session for turn in rebuilt.turns if turn.session), None)
    record = SessionRecord(id=known or _new_id(), created=now, updated=now)
    turns: list[TurnRecord] = []
    for number, turn in enumerate(rebuilt.turns, 1):
        before = place_of(turns[-1]) if turns else None
        turns.append(_turn(record.id, turn, float(number), now, digest_after(before)))
    return record, turns


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
