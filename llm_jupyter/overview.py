"""How the providers are, and which model answers: what `%llm`, `%llm status` and the status dashboard tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_jupyter.choice import Choice, Shelf, find
from llm_jupyter.errors import ForeignServerError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.selection import FORBIDDEN, Recipe
from llm_jupyter.types import LLMModelInfo, ProviderState

OTHERS = "another user's, used because you named it"
"""What is said of a server that is not the person's own."""

NOT_ASKED = "not asked before %llm use or -m names it"
OFF = "off"
"""The state of a provider that may not answer."""

DOWN = "down"
"""What is said of a provider whose state is `failed`."""

REPLAYED = "Answers are replayed, and nobody is asked; %llm offline off ends that."

GONE = "%llm models lists what is there; %llm use MODEL takes another."


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
    """Which model is to answer now, `None` where none can; `lines` say it, and why.

    `hindrance` is what kept it from answering when the lines were written, as the function of that name tells.
    """

    choice: Choice | None
    lines: tuple[str, ...]
    hindrance: str = ""


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
        reason = recipe.reason or "switched off in the settings"
        return ProviderView(
            recipe, OFF, reason=reason if recipe.stays_off else f"{reason}; {way_back(recipe)} undoes that"
        )
    if shelf is not None and isinstance(shelf.error, ForeignServerError):
        return ProviderView(recipe, ProviderState.DISCONNECTED, reason=shelf.error.what)
    models = shelf.models if shelf is not None and shelf.error is None else None
    status = llm.providers.status(recipe.name)
    if status is None or status.state is ProviderState.DISCONNECTED:
        idle = "starts at the first question" if recipe.is_local else not_asked(llm)
        told = shelf.error.what if shelf is not None and shelf.error is not None else ""
        known = status.reason if status is not None else ""
        reason = known or ("" if _starts_by_itself(llm, recipe) else told) or idle
        return ProviderView(recipe, ProviderState.DISCONNECTED, models=models, reason=reason)
    reason = status.reason
    if llm.providers.admission.is_others(recipe.name):
        reason = f"{reason}; {OTHERS}" if reason else OTHERS
    elif status.state is ProviderState.CONNECTED and status.is_live:
        reason = "the last question was answered"
    latency = None if status.state is ProviderState.FAILED else status.latency
    return ProviderView(recipe, status.state, status.since, latency, models, reason)


def not_asked(llm: LLMFactory) -> str:
    """Why a remote provider was not asked."""
    return FORBIDDEN if llm.providers.local_only else NOT_ASKED


def trouble(llm: LLMFactory, shelf: Shelf) -> str:
    """Why a provider's models are not listed, as `Shelf.trouble`; one whose host is at rest is not down."""
    if shelf.trouble and _starts_by_itself(llm, shelf.recipe):
        return f"{shelf.recipe.name} is at rest: a question to it starts its host."
    return shelf.trouble


def hindrance(llm: LLMFactory, recipe: Recipe) -> str:
    """`off` or `down` where a provider does not answer now, as far as is known; nobody is asked. Else empty.

    One whose host starts with the question will answer.
    """
    if not recipe.enabled:
        return OFF
    status = llm.providers.status(recipe.name)
    if status is None or status.state is not ProviderState.FAILED or _starts_by_itself(llm, recipe):
        return ""
    return DOWN


def chosen_but(model: str, hindered: str) -> str:
    """That a model is chosen and does not answer."""
    return f"{model} is chosen, but {hindered}"


def way_back(recipe: Recipe) -> str:
    """What lets a provider answer again that does not; or why nothing does."""
    return recipe.reason if recipe.stays_off else f"%llm connect {recipe.name}"


def now(llm: LLMFactory, answerer: Answerer) -> tuple[str, ...]:
    """Who answers, where that was found out a while ago: what has become of the provider since is in it; nobody is asked."""
    choice = answerer.choice
    if choice is None or choice.provider.name not in llm.registry:
        return answerer.lines
    recipe = llm.registry.recipe(choice.provider.name)
    if (hindered := hindrance(llm, recipe)) == answerer.hindrance:
        return answerer.lines
    return (_despite(llm, choice, recipe, hindered) if hindered else _because(llm, choice, "answers"),)


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
            return await _answerer(llm, choice, shelves, "answers")
        choice = await providers.choose(announce=False, trusting=True)
        return await _answerer(llm, choice, shelves, "will answer")
    except LLMError as error:
        return Answerer(None, ("Nothing answers now:", *error.lines()))


async def _answerer(llm: LLMFactory, choice: Choice, shelves: Sequence[Shelf], answers: str) -> Answerer:
    recipe = llm.registry.recipe(choice.provider.name)
    choice, hindered = llm.providers.permitted(choice), hindrance(llm, recipe)
    return Answerer(choice, await _why(llm, choice, recipe, shelves, answers), hindered)


def _trouble(llm: LLMFactory, choice: Choice, shelves: Sequence[Shelf]) -> str:
    """Why a model does not answer, as its provider told when it was asked last; of one that was not asked, as far as is known."""
    name = choice.provider.name
    shelf = next((shelf for shelf in shelves if shelf.recipe.name == name), None)
    if shelf is not None and shelf.error is not None:
        return shelf.error.what
    if (refused := llm.providers.refusal(choice)) is not None:
        return refused.what
    status = llm.providers.status(name)
    is_down = status is not None and status.state is ProviderState.FAILED
    return (status.reason or "it failed") if status is not None and is_down else ""


def _is_gone(choice: Choice, shelves: Sequence[Shelf]) -> bool:
    """Whether its provider has just told of its models, and this one is none of them: a question would be refused."""
    models = next((shelf.models for shelf in shelves if shelf.recipe.name == choice.provider.name), ())
    is_file = choice.model.endswith(".gguf") and choice.provider.url is None
    return bool(models and choice.model and not is_file) and find(models, choice.model) is None


async def _why(
    llm: LLMFactory, choice: Choice, recipe: Recipe, shelves: Sequence[Shelf], answers: str
) -> tuple[str, ...]:
    if not recipe.enabled:
        return (_despite(llm, choice, recipe, OFF),)
    if _is_gone(choice, shelves):
        return f"{_who(llm, choice)} is to answer because {choice.reason}, and is not there.", GONE
    if not (trouble := _trouble(llm, choice, shelves)):
        return (_because(llm, choice, answers),)
    if _starts_by_itself(llm, recipe):
        return (f"{_who(llm, choice)} will answer because {choice.reason}; its host starts with the question.",)
    first = f"{_who(llm, choice)} is to answer because {choice.reason}, and does not now: {trouble}."
    instead = [
        other.full_name
        for other in llm.providers.others(choice, await llm.providers.fallbacks())
        if (_starts_by_itself(llm, llm.registry.recipe(other.provider.name)) or not _trouble(llm, other, shelves))
        and not _is_gone(other, shelves)
    ]
    if instead:
        return first, f"Until it does, {' or else '.join(instead)} answers."
    return tuple(filter(None, (first, llm.providers.last_resort)))


def _because(llm: LLMFactory, choice: Choice, answers: str) -> str:
    return f"{_who(llm, choice)} {answers} because {choice.reason}."


def _despite(llm: LLMFactory, choice: Choice, recipe: Recipe, hindered: str) -> str:
    return f"{chosen_but(_who(llm, choice), hindered)}: {way_back(recipe)}"


def _who(llm: LLMFactory, choice: Choice) -> str:
    whose = ", another user's" if llm.providers.admission.is_others(choice.provider.name) else ""
    return f"{choice.full_name} ({'local' if choice.is_local else 'remote'}{whose})"


def _starts_by_itself(llm: LLMFactory, recipe: Recipe) -> bool:
    return llm.serving.starts(recipe.name, recipe.base_url)
