"""How every provider is, and which model answers."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from llm_jupyter.choice import Shelf
from llm_jupyter.errors import ForeignServerError, LLMError
from llm_jupyter.events import (
    ConnectionStateChanged,
    Event,
    HealthChecked,
    HostStopped,
    ModelChosen,
    ModelDeleted,
    ModelLoaded,
    ModelPulled,
    ModelUnloaded,
    ProviderRegistered,
    ProviderUnregistered,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.overview import Answerer, ProviderView, chosen_but, hindrance, now, views, who_answers
from llm_jupyter.selection import Recipe
from llm_jupyter.sessions import LLMSession
from llm_jupyter.types import ProviderState
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.widgets.rounds import PATIENCE, Rounds
from llm_jupyter.wording import duration, shortened

LATENCIES = 60
"""Round trips that the sparkline shows."""

AGAIN = 2.0
"""Seconds between two rounds of questions to the servers, where what they told does not fit how they are."""

DISCOVERY = 15.0
"""Seconds after which is looked anew for servers that nobody configured, while some of them are absent."""

IN_TROUBLE = (ProviderState.FAILED, ProviderState.DEGRADED)


class StatusDashboard(Dashboard):
    """A row for each provider: state, latency, models, the last error with its remedy; connect, disconnect, use.

    The local providers that are there are watched as after `%llm connect`. Remote ones are listed, and asked nothing.
    """

    name: ClassVar[str] = "status"
    title: ClassVar[str] = "Status"
    every: ClassVar[float | None] = 1.0
    hears: ClassVar[tuple[type[Event], ...]] = (
        ConnectionStateChanged,
        HealthChecked,
        HostStopped,
        ModelChosen,
        ModelDeleted,
        ModelLoaded,
        ModelPulled,
        ModelUnloaded,
        ProviderRegistered,
        ProviderUnregistered,
    )

    def __init__(self, llm: LLMFactory | None = None) -> None:
        self._rounds = Rounds(self._ask)
        self._shelves: list[Shelf] = []
        self._answerer = Answerer(None, ())
        self._loaded: dict[str, set[str]] = defaultdict(set)
        self._troubles: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []
        self._session: LLMSession | None = None
        super().__init__(llm)

    async def begin(self) -> None:
        self._rounds.wish()
        self._take(self.llm.events.history(*self.hears))
        await self._rounds.over(PATIENCE)

    async def refresh(self, events: Sequence[Event]) -> None:
        self._take(events)
        await self._notice_choice()
        found, absent = views(self.llm, self._shelves)
        for view in found:
            self.show(f"row {view.recipe.name}", self._row(view))
        names = [view.recipe.name for view in found]
        for gone in set(self._names) - set(names):
            self.channel.drop(f"row {gone}")
            self.channel.drop(f"latency {gone}")
        self._names = names
        self.show("names", names)
        self.show("absent", absent)
        self.show("answers", list(now(self.llm, self._answerer)))
        self._ask_again_if_due(bool(absent))

    def ended(self) -> None:
        self._rounds.cancel()

    # -- what the page may ask for

    async def do_connect(self, name: str) -> None:
        """As `%llm connect NAME`."""
        try:
            await self.llm.providers.connect(name)
        except LLMError as error:
            self._note_trouble(name, time.time(), error.what, error.next_step)
            raise
        finally:
            self._rounds.wish()
        self.say(f"{name} is connected.")

    async def do_disconnect(self, name: str) -> None:
        """As `%llm disconnect NAME`."""
        await self.llm.providers.disconnect(name)
        self._rounds.wish()
        self.say(f"{name} is disconnected, and is not asked before it is connected again.")

    async def do_use(self, name: str) -> None:
        """Let the best model of a provider answer in this conversation."""
        choice = await self.llm.sessions.current.use(name)
        self.say(f"{choice.full_name} ({'local' if choice.is_local else 'remote'}) answers from now on.")

    async def do_look(self) -> None:
        """Ask the local servers anew, now."""
        self._rounds.wish()
        await self._rounds.over()

    # -- asking, in the background

    async def _notice_choice(self) -> None:
        """Let another choice or another conversation show; whom to ask for a model is found out in the background."""
        session = self.llm.sessions.current
        if session.choice is not None and session.choice != self._answerer.choice:
            self._answerer = await who_answers(self.llm, self._shelves)
        elif session is not self._session:
            self._rounds.wish()
        self._session = session

    async def _ask(self) -> None:
        """Ask the local servers what they offer, and who answers; those that are there are watched from now on."""
        for recipe in self.llm.registry.recipes() if not self.llm.is_replaying else ():
            if not (recipe.was_found or recipe.only_named):  # what nobody configured has to show itself first
                self._watch(recipe)
        self._shelves = await self.llm.offers()
        self._answerer = await who_answers(self.llm, self._shelves)
        for shelf in self._shelves:
            self._learn(shelf)
        self.poke()

    def _learn(self, shelf: Shelf) -> None:
        """What a server has told, or its error."""
        name, error = shelf.recipe.name, shelf.error
        if error is None:
            self._loaded[name] = {model.id for model in shelf.models if model.loaded}
            self._watch(shelf.recipe)
        elif not (shelf.is_absent or isinstance(error, ForeignServerError)):
            self._note_trouble(name, time.time(), error.what, error.next_step)

    def _watch(self, recipe: Recipe) -> None:
        if recipe.is_local:
            with contextlib.suppress(LLMError):  # it was switched off meanwhile, or cannot be made
                self.llm.connections.of(self.llm.providers.get(recipe.name)).watch()

    def _ask_again_if_due(self, is_somebody_absent: bool) -> None:
        limit = AGAIN if any(map(self._is_outdated, self._shelves)) else DISCOVERY if is_somebody_absent else math.inf
        if self._rounds.idle_for > limit:
            self._rounds.wish()

    def _is_outdated(self, shelf: Shelf) -> bool:
        """Whether a server is now as it was not when it was asked."""
        status = self.llm.providers.status(shelf.recipe.name)
        if status is None:
            return False
        is_there = shelf.error is None
        return status.state is (ProviderState.FAILED if is_there else ProviderState.CONNECTED)

    # -- what has happened

    def _take(self, events: Sequence[Event]) -> None:
        for event in self.unheard(events):
            self._hear_of(event)

    def _hear_of(self, event: Event) -> None:
        match event:
            case HealthChecked(provider=name, healthy=False):
                self.add_rows(f"latency {name}", [None], LATENCIES)
            case HealthChecked(provider=name) if event.latency is not None:
                self.add_rows(f"latency {name}", [_milliseconds(event.latency)], LATENCIES)
            case ConnectionStateChanged(provider=name) if event.new in IN_TROUBLE and event.reason:
                self._note_trouble(name, event.timestamp, event.reason)
            case HostStopped(host=name) if not event.expected:
                self._note_trouble(name, event.timestamp, f"its process died: {event.reason}")
            case ModelLoaded(provider=name):
                self._loaded[name].add(event.model)
            case ModelUnloaded(provider=name):
                self._loaded[name].discard(event.model)
            case (
                ModelPulled()
                | ModelDeleted()
                | ProviderRegistered()
                | ConnectionStateChanged(new=ProviderState.DISCONNECTED)
            ):
                self._rounds.wish()

    def _note_trouble(self, name: str, at: float, text: str, remedy: str = "") -> None:
        known = self._troubles.get(name)
        if not remedy and known is not None and known["text"] == text:
            remedy = known["remedy"]
        self._troubles[name] = {"text": text, "remedy": remedy, "at": round(at, 1)}

    def _row(self, view: ProviderView) -> dict[str, Any]:
        recipe = view.recipe
        is_bad = view.state in IN_TROUBLE
        if is_bad and view.reason:  # which may have changed without the state
            self._note_trouble(recipe.name, view.since or time.time(), view.reason)
        trouble = self._troubles.get(recipe.name) if recipe.enabled else None
        is_forbidden = self.llm.providers.local_only and not recipe.is_local
        return {
            "kind": recipe.kind,
            "where": view.where,
            "state": str(view.state),
            "since": None if view.since is None else round(view.since, 1),
            "latency": _milliseconds(view.latency),
            "models": None if view.models is None else len(view.models),
            "loaded": sorted(self._loaded[recipe.name]),
            "answers": self._answers(recipe),
            "note": "" if is_bad and trouble else view.reason,
            "trouble": {**trouble, "past": not is_bad} if trouble else None,
            "can": {
                "connect": view.state != ProviderState.CONNECTED and not is_forbidden,
                "disconnect": recipe.enabled,
                "use": recipe.enabled and not is_forbidden,
            },
        }

    def _answers(self, recipe: Recipe) -> dict[str, Any] | None:
        """What is said of the model of a provider that is chosen, and whether that answers; `None` where it has none."""
        choice = self._answerer.choice
        if choice is None or choice.provider.name != recipe.name:
            return None
        hindered = hindrance(self.llm, recipe)
        words = chosen_but(choice.model, hindered) if hindered else f"{choice.model} answers"
        return {"words": words, "now": not hindered}

    def picture(self) -> Picture:
        state = self.channel.state
        rows = [_line(name, state[f"row {name}"]) for name in state.get("names", ())]
        lines = list(state.get("answers", ()))
        if absent := state.get("absent"):
            lines.append(f"Not running at their usual places: {', '.join(absent)}.")
        return Picture(
            self.title, ("provider", "where", "state", "since", "latency", "models", "about it"), rows, lines
        )


def _line(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """A row as words, for the picture."""
    since = "" if row["since"] is None else duration(max(0.0, time.time() - row["since"]))
    latency = "" if row["latency"] is None else f"{row['latency']:.0f} ms"
    models = "" if row["models"] is None else str(row["models"])
    trouble = row["trouble"]
    about = row["note"] if trouble is None or trouble["past"] else f"{trouble['text']}. {trouble['remedy']}"
    mark = row["answers"]["words"] if row["answers"] else ""
    return (
        name,
        row["where"],
        row["state"],
        since,
        latency,
        models,
        shortened("; ".join(filter(None, (mark, about))), 160),
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
