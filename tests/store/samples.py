"""Conversations to keep, by the names of their turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_jupyter.events import Event
from llm_jupyter.store import SessionRecord, Store, TurnRecord, TurnState
from llm_jupyter.types import LLMResponse, Message


def session(identity: str = "talk", **fields: Any) -> SessionRecord:
    return SessionRecord(**{"id": identity, "created": 1.0, "updated": 1.0, **fields})


def turn(name: str, position: float = 1.0, prompt: str = "", **fields: Any) -> TurnRecord:
    """A turn in a slot of its own, unless told otherwise."""
    values = {"session": "talk", "slot": f"slot of {name}", "prompt": Message.user(prompt or f"ask {name}")}
    return TurnRecord(**{"id": name, "position": position, "created": 1.0, **values, **fields})


def answer(text: str, **fields: Any) -> LLMResponse:
    return LLMResponse(text=text, **{"model": "m", "provider": "local", **fields})


def converse(store: Store, *names: str, name: str = "talk") -> None:
    """A conversation of turns that were answered, in this order."""
    store.save_session(session(name))
    for position, each in enumerate(names, 1):
        ask(store, each, float(position), session=name)


def ask(store: Store, name: str, position: float, **fields: Any) -> None:
    """A turn and its answer."""
    record = turn(name, position, **fields)
    store.add(record)
    store.answered(record.session, name, 1, answer(f"say {name}"), TurnState.COMPLETE)


def ids(turns: list[TurnRecord]) -> list[str]:
    return [one.id for one in turns]


@contextmanager
def storing(path: Path | None, **fields: Any) -> Iterator[tuple[Store, list[Event]]]:
    """A store, and what it publishes."""
    events: list[Event] = []
    store = Store(path, publish=events.append, **fields)
    try:
        yield store, events
    finally:
        store.close()
