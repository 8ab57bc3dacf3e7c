"""Turns of a conversation as a dashboard shows them: what stands on the disk, and what of an answer comes now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_jupyter.events import Event
from llm_jupyter.sessions import Answering, LLMSession
from llm_jupyter.sessions.history import stale_turns
from llm_jupyter.sessions.progress import Progress
from llm_jupyter.sessions.turns import counting_answer
from llm_jupyter.store import TurnRecord, TurnState

SHOWN = 30
"""Turns that are shown at once."""

LONGEST_QUESTION, LONGEST_ANSWER, MOST = 20_000, 200_000, 500_000
"""Characters of a question, of an answer, and of all together: a message much larger than a million bytes gets lost."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A turn as it is drawn: what is known of it, and its texts, which travel by themselves."""

    facts: dict[str, Any]
    texts: dict[str, str]
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The turns that are shown, by id and in their order; `earlier` and `later` are how many stand before and behind them,
    `before` is the slot of the one just before, `system` are the instructions that hold after all turns.
    """

    turns: dict[str, Shown] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    earlier: int = 0
    later: int = 0
    before: str = ""
    system: str = ""


def look_up(session: LLMSession, known: Mapping[str, Shown], end: str | None, asked: Collection[str]) -> Window:
    """The last turns that stand in the conversation up to the slot `end`, if one is given and stands there. Reads from the
    disk what is not known.

    `asked` are the turns that are being answered.
    """
    places = [place for place in session.store.places(session.id) if not place.left_out]
    last = next((count for count, place in enumerate(places, 1) if place.slot == end), len(places))
    first, room, found = last, MOST, dict[str, Shown]()
    for place in reversed(places[max(0, first - SHOWN) : first]):
        shown = known.get(place.id)
        if shown is None or not shown.is_settled or place.id in asked:
            turn = session.store.turn(session.id, place.id)
            shown = shown_turn(turn, is_asked=place.id in asked) if turn is not None else None
        if shown is not None:
            room -= sum(map(len, shown.texts.values()))
            if room < 0 and found:
                break
            found[place.id] = shown
        first -= 1
    system = session.store.system_before(session.id, float("inf")) or session.system or ""
    return Window(
        dict(reversed(found.items())), frozenset(stale_turns(places) & found.keys()), earlier=first,
        later=len(places) - last, before=places[first - 1].slot if first else "", system=system,
    )  # fmt: skip


def shown_turn(turn: TurnRecord, *, is_asked: bool = False) -> Shown:
    """A turn as it is drawn, with no more of its texts than can be shown."""
    answer = counting_answer(turn) or (turn.answers[-1] if turn.answers else None)
    question = turn.template or turn.prompt.content
    facts: dict[str, Any] = {
        "id": turn.id, "slot": turn.slot, "state": str(turn.state), "cell": turn.cell is not None,
        "version": turn.version, "filled": [f"{one.name}: {one.size}" for one in turn.filled],
        "images": len(turn.prompt.images), "editable": not turn.filled and len(question) <= LONGEST_QUESTION,
    }  # fmt: skip
    texts = {"question": question[:LONGEST_QUESTION], "text": "", "thinking": ""}
    if answer is not None:
        response = answer.response
        texts |= {"text": response.text[:LONGEST_ANSWER], "thinking": response.thinking[:LONGEST_ANSWER]}
        facts |= {
            "model": f"{response.provider}/{response.model}" if response.model else "", "local": response.is_local,
            "finish": str(response.finish_reason), "tokens": response.usage.completion_tokens,
            "rate": response.timing.tokens_per_second, "cached": response.from_cache,
            "more": max(0, len(response.text) - LONGEST_ANSWER),
        }  # fmt: skip
    return Shown(facts, texts, turn.state is not TurnState.PENDING and not is_asked)


class Watched:
    """An answer under way, and how much of it was handed on."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self._progress = Progress(answering)
        self._sent = {"text": 0, "thinking": 0}
        self._words = ""
        self._since: float | None = None
        self._thinks_since: float | None = None
        self._thought: float | None = None

    def news(self, events: Sequence[Event]) -> dict[str, str]:
        """What has arrived since the last look, by `text` and `thinking`; `events` are what happened since."""
        self._progress.hear(events)
        found = {}
        for kind, whole in (("text", self.answering.text), ("thinking", self.answering.thinking)):
            found[kind] = whole[self._sent[kind] : LONGEST_ANSWER]
            self._sent[kind] += len(found[kind])
        return found

    def stage(self, now: float) -> dict[str, Any]:
        """How far it is: `waits` names what it waits for, if it does. Times are in seconds since the epoch."""
        text, thinking = self._sent["text"], self._sent["thinking"]
        words = "" if text or thinking else self._progress.wait()
        if words != self._words or self._since is None:
            self._words, self._since = words, now
        if thinking and self._thinks_since is None:
            self._thinks_since = now
        thought = self.thought(now) if text else None
        return {
            "waits": words, "since": self._since, "thought": thought, "who": self._progress.label(),
            "thinks_since": self._thinks_since if thought is None else None,
        }  # fmt: skip

    def thought(self, now: float) -> float | None:
        """How many seconds the model thought, now that it does no more; `None` where it was not seen thinking."""
        if self._thought is None and self._thinks_since is not None:
            self._thought = now - self._thinks_since
        return self._thought
