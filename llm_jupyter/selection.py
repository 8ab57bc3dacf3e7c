"""Which providers may answer a request, in what order, and why: values, without a network.

Order: whether they can, then their state, then their priority, then how fast they answered, then their name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.providers._http import without_secrets
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.types import Capability, LLMModelInfo, ProviderState

EMBEDDED = "embedded"
"""The name of the provider that answers where no server runs."""

SWITCH = f"%llm use {EMBEDDED} lets the embedded model answer."

FOUND, EMBEDDED_PRIORITY = -10, -100
"""Priorities of servers that nobody configured, and of the embedded model; a configured one has 0 unless it says."""

UNTOLD = frozenset(Capability) - {Capability.CHAT, Capability.COMPLETION, Capability.MODEL_MANAGEMENT}
"""What OpenAI's list of models does not tell of its models: where it is missing there, it is unknown and not absent."""

FORBIDDEN = "remote, and local_only is set"
"""Why a remote provider is not asked, whoever names it."""

STATES: dict[ProviderState, tuple[int, str]] = {
    ProviderState.CONNECTED: (0, "connected"),
    ProviderState.DEGRADED: (1, "answers with trouble"),
    ProviderState.DISCONNECTED: (2, "not asked yet"),
    ProviderState.CONNECTING: (2, "connecting"),
    ProviderState.LOADING: (3, "loading a model"),
    ProviderState.FAILED: (4, "failed when last asked"),
}
"""Each state's place in the order, and its words."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a provider, and what is known of it before it is made.

    `build` makes it without contacting anything; `base_url` is where it will go; `was_found` says that it stands at its
    usual place and nobody configured it. `priority`: higher is asked first. `source` says where the recipe comes from, in
    words; `reason` why it is not enabled, where that was not the person's wish. `only_named`: it answers only when named.
    `stays_off`: whoever looks after this machine has switched it off, and nobody else may switch it on. `of_host`: its server
    is to be a process that is started here, so that one of another user in its place was not named.
    """

    name: str
    kind: str
    build: Callable[[], LLMProvider]
    is_local: bool
    priority: int = 0
    enabled: bool = True
    source: str = ""
    base_url: str | None = None
    was_found: bool = False
    reason: str = ""
    only_named: bool = False
    stays_off: bool = False
    of_host: bool = False

    @property
    def address(self) -> str:
        """Where it will go, as it may be shown: without secrets, and empty where it needs no server."""
        return without_secrets(self.base_url) if self.base_url else ""

    @property
    def untold(self) -> frozenset[Capability]:
        """The capabilities that its list of models does not tell of."""
        speaks_openai = self.kind == "openai-compatible" or (self.kind == "llamacpp" and self.base_url is not None)
        return UNTOLD if speaks_openai else frozenset()


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked of a provider.

    `capabilities` must all be had by one model; `model` is its id on the provider (`None`: any). `named` holds the providers
    (`ollama`) and models (`ollama/qwen3:4b`) that the person named: what is remote or another user's and was merely found
    answers only then. `exclude` are providers that are out of the question, such as one that has just failed.
    """

    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    model: str | None = None
    local_only: bool = False
    exclude: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may be asked. `is_certain`: it is known to have what is needed. `latency` is in seconds."""

    recipe: Recipe
    is_certain: bool
    state: ProviderState
    latency: float | None = None

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.recipe.name

    @property
    def rank(self) -> tuple[bool, int, int, float, str]:
        """Candidates in this order: capability, state, priority, latency, name."""
        latency = float("inf") if self.latency is None else self.latency
        return not self.is_certain, STATES[self.state][0], -self.recipe.priority, latency, self.name

    @property
    def reason(self) -> str:
        """Why it stands where it stands, in words."""
        can = "has what is needed" if self.is_certain else "may have what is needed"
        speed = f", answers in {self.latency * 1000:.0f} ms" if self.latency is not None else ""
        return f"{can}, {STATES[self.state][1]}, priority {self.recipe.priority}{speed}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A provider that is not asked, and why."""

    recipe: Recipe
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Who may be asked, first things first, and who is left out."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def reason(self) -> str:
        """Why the first is first, or that there is none."""
        if not self.candidates:
            return "no provider has what is needed"
        return f"{self.candidates[0].name} {self.candidates[0].reason}"

    def explain(self) -> list[str]:
        """One line for each provider: the candidates by number, then those that are left out."""
        asked = [f"{number}. {one.name}: {one.reason}" for number, one in enumerate(self.candidates, 1)]
        return asked + [f"-  {one.recipe.name}: left out, {one.reason}" for one in self.left_out]


def switched_off(recipe: Recipe) -> InvalidInputError:
    """That a provider may not be asked, and what to do about it."""
    return InvalidInputError(
        f"the provider {recipe.name!r} is switched off" + (f": {recipe.reason}" if recipe.reason else ""),
        next_step="Only there can it be switched on; %llm models lists what else there is."
        if recipe.stays_off
        else f"%llm connect {recipe.name} switches it on.",
    )


def last_resort(recipes: Iterable[Recipe]) -> str:
    """What lets the embedded model answer, as a next step; empty where it is to stay off."""
    off = next((recipe for recipe in recipes if recipe.name == EMBEDDED and not recipe.enabled), None)
    if off is None:
        return SWITCH
    return "" if off.stays_off else f"%llm connect {EMBEDDED} and then {SWITCH}"


def no_remote(what: str) -> InvalidInputError:
    """That a provider or a model is remote where only local ones may answer, and what to do about it."""
    return InvalidInputError(
        f"{what} is {FORBIDDEN}",
        next_step="%llm models lists what is local; %llm config local_only says where that is set.",
    )


def is_called(model: LLMModelInfo, name: str) -> bool:
    """Whether a model has that name; `:latest` may be left out."""
    return name.removesuffix(":latest") == model.id.removesuffix(":latest")


def is_permitted(model: LLMModelInfo, recipe: Recipe, need: Need) -> bool:
    """Whether a model may be asked: one that a local server passes on to elsewhere only by its full name."""
    if model.is_local:
        return True
    return not need.local_only and (not recipe.is_local or f"{recipe.name}/{model.id}" in need.named)


def ability(model: LLMModelInfo, recipe: Recipe, need: Need) -> bool | None:
    """Whether a model has all that is needed; `None` where that is not known."""
    if need.model is not None and not is_called(model, need.model):
        return False
    missing = need.capabilities - model.capabilities
    if not missing:
        return True
    return None if not model.capabilities or missing <= recipe.untold else False
