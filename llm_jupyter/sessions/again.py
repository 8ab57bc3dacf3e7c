"""The last question once more: which it is, and how it was asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llm_jupyter.choice import Choice
from llm_jupyter.sessions.turns import first_before
from llm_jupyter.store import Store, TurnRecord, TurnState
from llm_jupyter.types import GenerationOptions

UNKNOWN = (
    "Asked with what holds for the whole conversation: which model and options the question had of its own is known only "
    "until the kernel restarts."
)


@dataclass(frozen=True, slots=True)
class OwnOptions:
    """What held for one question alone: its options, and the model that was named for it."""

    options: GenerationOptions
    choice: Choice | None
    wanted: str | None


def last_asked(store: Store, session: str, position: float, hidden: Collection[str] = ()) -> TurnRecord | None:
    """The last question before a position, whatever became of it; one that is under way is not asked twice."""
    return first_before(store, session, position, hidden, lambda turn: turn.state is not TurnState.PENDING)
