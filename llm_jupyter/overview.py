"""How the providers are, and which model answers: what `%llm`, `%llm status` and the status dashboard tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_jupyter.choice import Choice, Shelf
from llm_jupyter.errors import ForeignServerError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.selection import Recipe
from llm_jupyter.types import LLMModelInfo, ProviderState

NOT_ASKED = "not asked before %llm use or -m names it"
OFF = "off"
"""The state of a provider that may not answer."""

REPLAYED = "Answers are replayed, and nobody is asked; %llm offline off ends that."

SWITCH = "%llm use embedded lets the embedded model answer."


@dataclass(frozen=True, slots=True)
class ProviderView:
    """How one provider is.

    `state` is that of its connection, or `off`; `since` is in seconds since the epoch and `latency` in seconds, both `None`
    where they would tell nothing; `reason` is in words, and empty where nothing needs one. `models` is what it offers,
    `None` where that is not known.
    """

    recipe: Recipe
    state: str
    since: float | None = None
    latency: float | None = None
    models: tuple[LLMModelInfo, ...] | None = None
    reason: str = ""

    @property
    def where(self) -> str:
        """Where it runs, in one word."""
        return "local" if self.recipe.is_local else "remote"


@dataclass(frozen=True, slots=True)
class Answerer:
    """Which model answers now, `None` where none can; `lines` say it, and why."""

    choice: Choice | None
    lines: tuple[str, ...]


def views(llm: LLMFactory, shelves: Sequence[Shelf]) -> tuple[list[ProviderView], list[str]]:
    """Every provider that is worth a row, by priority, and the names of those that do not run at their usual places.

    Nobody is asked: `shelves` is what the providers offered when they were asked last. Of servers that nobody configured, those
    that were not asked are in neither.
    """
    found, absent = [], []
    by_name = {shelf.recipe.name: shelf for shelf in shelves}
    for recipe in llm.registry.listed():
        shelf = by_name.get(recipe.name)
        if shelf is not None and _is_absent(llm, shelf):
            absent.append(recipe.name)
        elif shelf is not None or not recipe.was_found or llm.providers.status(recipe.name) is not None:
            found.append(_view(llm, recipe, shelf))
    return found, absent


def _is_absent(llm: LLMFactory, shelf: Shelf) -> bool:
    """Whether it is at a place that nobody configured, and never was there."""
    if not shelf.is_absent:
        return False
    status = llm.providers.status(shelf.recipe.name)
    return status is None or status.state is ProviderState.DISCONNECTED


def _view(llm: LLMFactory, recipe: Recipe, shelf: Shelf | None) -> ProviderView:
    if not recipe.enabled:
        return ProviderView(recipe, OFF, reason=recipe.reason or "switched off in the settings")
    if shelf is not None and isinstance(shelf.error, ForeignServerError):
        return ProviderView(recipe, ProviderState.DISCONNECTED, reason=shelf.error.what)
    models = shelf.models if shelf is not None and shelf.error is None else None
    status = llm.providers.status(recipe.name)
    if status is None or status.state is ProviderState.DISCONNECTED:
        idle = "starts at the first question" if recipe.is_local else NOT_ASKED
        told = shelf.error.what if shelf is not None and shelf.error is not None else ""
        reason = (status.reason if status is not None else told) or idle
        return ProviderView(recipe, ProviderState.DISCONNECTED, models=models, reason=reason)
    reason = status.reason
    if status.state is ProviderState.CONNECTED and status.is_live:
        reason = "the last question was answered"
    latency = None if status.state is ProviderState.FAILED else status.latency
    return ProviderView(recipe, status.state, status.since, latency, models, reason)


async def who_answers(llm: LLMFactory, shelves: Sequence[Shelf]) -> Answerer:
    """Which model answers in the current conversation and why; and who does while it cannot.

    Asks local servers where none was chosen yet. Raises nothing.
    """
    if llm.is_replaying:
        return Answerer(None, (REPLAYED,))
    session, providers = llm.sessions.current, llm.providers
    try:
        if (choice := session.choice) is None and session.model is not None:
            choice = await providers.resolve(session.model, trusting=True)
        if choice is not None:
            return Answerer(choice, await _why(llm, choice, shelves, "answers"))
        choice = await providers.choose(announce=False, trusting=True)
        return Answerer(choice, await _why(llm, choice, shelves, "will answer"))
    except LLMError as error:
        return Answerer(None, ("Nothing answers now:", *error.lines()))


async def _why(llm: LLMFactory, choice: Choice, shelves: Sequence[Shelf], answers: str) -> tuple[str, ...]:
    recipe = llm.registry.recipe(choice.provider.name)
    shelf = next((shelf for shelf in shelves if shelf.recipe.name == recipe.name), None)
    who = f"{choice.full_name} ({'local' if choice.is_local else 'remote'})"
    if not recipe.enabled:
        return f"{who} was to answer, but {recipe.name} is switched off.", f"%llm connect {recipe.name} undoes that."
    if shelf is None or shelf.error is None:
        return (f"{who} {answers} because {choice.reason}.",)
    host = llm.settings.hosts.get(recipe.name)
    if host is not None and host.autostart:
        return (f"{who} will answer because {choice.reason}; its host starts with the question.",)
    first = f"{who} is to answer because {choice.reason}, and does not now: {shelf.error.what}."
    instead = [other.full_name for other in await llm.providers.fallbacks() if other.is_local or not choice.is_local]
    return first, f"Until it does, {' or else '.join(instead)} answers." if instead else SWITCH
