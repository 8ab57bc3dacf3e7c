"""What the sessions dashboard shows of conversations, as plain values: every text cut to what a page can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_jupyter.choice import Choice
from llm_jupyter.context import Fitted
from llm_jupyter.sessions.history import why_left_out
from llm_jupyter.store import Hit, SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import FinishReason

QUESTION, ANSWER = 1_000, 3_000
"""Bytes of a turn that are sent before somebody asks for more."""

WHOLE_QUESTION, WHOLE_ANSWER = 50_000, 150_000
"""Bytes of a turn that are sent at all."""

LINE = 200
"""Bytes of a name, or of the words around what was found."""


def cut(text: str, limit: int) -> dict[str, Any]:
    """The beginning of a text, and how many characters are not in it. Halves of characters, which no message takes, go."""
    encoded = text.encode("utf-8", "replace")
    shown = encoded[:limit].decode("utf-8", "ignore")
    return {"text": shown, "more": len(text) - len(shown)}


def line(text: str | None) -> str:
    """A short text on one line."""
    shown = cut(" ".join((text or "").split()), LINE)
    return f"{shown['text']}…" if shown["more"] else str(shown["text"])


def conversation(record: SessionRecord, *, is_current: bool, is_elsewhere: bool, is_private: bool) -> dict[str, Any]:
    """One of the list. `elsewhere` says that another kernel goes on with it."""
    return {
        "id": record.id,
        "name": line(record.name),
        "title": line(record.title),
        "turns": record.turns,
        "updated": record.updated,
        "model": line(record.config.model),
        "current": is_current,
        "elsewhere": is_elsewhere,
        "private": is_private,
    }


def turn(
    versions: Sequence[TurnRecord], *, number: int, chosen: str | None, is_stale: bool, is_alive: bool, is_whole: bool
) -> dict[str, Any]:
    """One turn in one of its versions: the chosen one, else the one that counts.

    `number` is its place from 1, `is_alive` says that whoever asked may still be waiting for the answer.
    """
    counting = next((one for one in versions if one.is_current), versions[-1])
    shown = next((one for one in versions if one.id == chosen), counting)
    response = shown.answers[-1].response if shown.answers else None
    return {
        "id": shown.id,
        "number": number,
        "question": cut(shown.template or shown.prompt.content, WHOLE_QUESTION if is_whole else QUESTION),
        "answer": cut(response.text if response else "", WHOLE_ANSWER if is_whole else ANSWER),
        "whole": is_whole,
        "who": line(f"{response.provider}/{response.model}".strip("/")) if response else "",
        "tokens": [response.usage.prompt_tokens, response.usage.completion_tokens] if response else [None, None],
        "seconds": response.timing.total if response else None,
        "created": shown.created,
        "state": _state(shown, is_alive),
        "stale": is_stale and shown is counting,
        "remarks": _remarks(shown),
        "versions": [{"id": one.id, "created": one.created, "counts": one.is_current} for one in versions],
    }


def _state(turn: TurnRecord, is_alive: bool) -> str:
    """How the turn ended; `lost` is one whose kernel went before it was answered."""
    if turn.state is TurnState.PENDING:
        return "pending" if is_alive else "lost"
    if turn.state is TurnState.COMPLETE and turn.answers:
        return "cut" if turn.answers[-1].response.finish_reason is FinishReason.LENGTH else "complete"
    return str(turn.state)


def _remarks(turn: TurnRecord) -> list[str]:
    remarks = [f"left out: {why_left_out(turn)}"] if turn.left_out else []
    if turn.filled:
        remarks.append(line(f"with {', '.join(f'{one.name}: {one.size}' for one in turn.filled)}"))
    if images := len(turn.prompt.images):
        remarks.append(f"with {images} picture{'' if images == 1 else 's'}")
    if len(turn.answers) > 1:
        remarks.append(f"the last of {len(turn.answers)} answers")
    if turn.answers and turn.answers[-1].response.from_cache:
        remarks.append("replayed")
    return remarks


def hit(found: Hit) -> dict[str, Any]:
    """A turn in which the words stand that were looked for."""
    return {
        "session": found.session.id,
        "title": line(found.session.title),
        "turn": found.turn.id,
        "slot": found.turn.slot,
        "excerpt": line(found.excerpt),
        "earlier": not found.turn.is_current,
    }


def meter(choice: Choice | None, fitted: Fitted) -> dict[str, Any]:
    """How full the context is, in tokens: what would be sent, and what is kept for the answer."""
    return {
        "model": line(choice.full_name) if choice is not None else "",
        "tokens": fitted.tokens,
        "window": fitted.window.tokens if fitted.window is not None else None,
        "reserve": fitted.reserve,
        "turns": fitted.turns,
        "left_out": fitted.left_out,
    }
