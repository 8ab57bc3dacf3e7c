"""Models that can answer: what each provider offers, which of them fit, and the one that was chosen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from llm_jupyter.errors import ForeignServerError, LLMConnectionError, LLMError, ModelNotFoundError
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.selection import Recipe
from llm_jupyter.types import Capability, LLMModelInfo

NAMED = "you named it"
"""Why a model answers, in the commonest case."""

TAG = re.compile(r"(?:[:@].+|-\d{4}(?:-?\d\d-?\d\d)?)?")
"""What a server may put behind the name of a model: a tag, or a date such as `-0125` and `-2024-08-06`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that answers, and why. `model` is empty for the provider's best, as long as its server has told of none."""

    provider: LLMProvider
    model: str
    reason: str
    is_local: bool
    is_verified: bool = True
    """Whether its server has said that it holds this model; until then where it runs is only what its name says."""
    admits_foreign: bool = False
    """Whether the person named it when its server was another user's: only then may that one be asked."""

    @property
    def full_name(self) -> str:
        """`provider/model`, the provider alone for its best, or the path of a model that is named by one."""
        if not self.model:
            return self.provider.name
        return self.model if Path(self.model).is_absolute() else f"{self.provider.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one provider offers: its models, or the error that it answered with."""

    recipe: Recipe
    models: tuple[LLMModelInfo, ...] = ()
    error: LLMError | None = None
    was_asked: bool = False
    """Whether its server was asked for them, and not only looked for."""

    @property
    def is_absent(self) -> bool:
        """Whether nothing runs at a place that nobody configured: no fault, and not worth a word."""
        return self.recipe.was_found and not self.was_asked and isinstance(self.error, LLMConnectionError)

    @property
    def trouble(self) -> str:
        """Why its models are not listed, in a sentence; empty where they are, or where nothing is missed."""
        if isinstance(self.error, ForeignServerError):
            return f"{self.recipe.name} was not asked: {self.error.what}"
        if self.error is None or self.is_absent:
            return ""
        return f"{self.recipe.name} is down: {self.error.what}"


def free_memory() -> int:
    """Bytes that the system can still give."""
    return int(psutil.virtual_memory().available)


def fits(model: LLMModelInfo) -> bool | None:
    """Whether a model fits into the memory that is free now; `None` where its size is not known.

    A fifth is added to the size of the weights, for the window and the server itself.
    """
    if model.loaded:
        return True
    return None if model.size is None else model.size * 1.2 <= free_memory()


def answers(model: LLMModelInfo) -> bool:
    """Whether a model may answer without being named."""
    return model.is_local and Capability.CHAT in model.capabilities and fits(model) is not False


def best_of(
    models: Iterable[LLMModelInfo], used: Mapping[str, float] | None = None, *, is_local: bool = True
) -> LLMModelInfo | None:
    """The model that answers where none is named: a loaded one, the one `used` last, the newest.

    None that is larger than the free memory or runs elsewhere, unless they are a remote provider's.
    """
    able = [model for model in models if answers(model) or (not is_local and Capability.CHAT in model.capabilities)]
    times = used or {}
    return max(
        able, key=lambda one: (one.loaded is True, times.get(one.full_name, 0.0), moment(one.modified)), default=None
    )


def why(model: LLMModelInfo, used: Mapping[str, float]) -> str:
    if model.loaded:
        return f"it is loaded in {model.provider}"
    if model.full_name in used:
        return f"it was used last of what {model.provider} has"
    return (
        f"it is the newest model in {model.provider}"
        if model.modified
        else f"{model.provider} is a local server that answers"
    )


def moment(text: str | None) -> float:
    """A date of a server, in seconds; 0 where there is none."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def why_no_server(shelves: Sequence[Shelf]) -> str:
    """Why the embedded model answers, though there are these providers."""
    if there := [shelf.recipe.name for shelf in shelves if shelf.error is None]:
        return f"{' and '.join(there)} offered no local model for chat that fits into memory"
    if others := [shelf.recipe.name for shelf in shelves if isinstance(shelf.error, ForeignServerError)]:
        return f"{' and '.join(others)} belong{'s' if len(others) == 1 else ''} to another user of this machine"
    if down := [shelf.recipe.name for shelf in shelves if not shelf.recipe.was_found]:
        return f"{' and '.join(down)} did not answer"
    return "no local model server runs"


def find(models: Sequence[LLMModelInfo], name: str) -> LLMModelInfo | None:
    """The model of that name; `:latest` may be left out."""
    return next((m for m in models if name in (m.id, m.id.removesuffix(":latest"))), None)


def is_form_of(told: str, asked: str) -> bool:
    """Whether the name that a reply gives its model is the one asked for: dated, tagged, or as the path of its file."""
    told, asked = told.removesuffix(".gguf"), asked.removesuffix(".gguf")
    if told.endswith(f"/{asked}") or asked.endswith(f"/{told}"):
        return True
    return told.startswith(asked) and TAG.fullmatch(told, len(asked)) is not None


def held(provider: LLMProvider, name: str) -> Choice | None:
    """That model of a provider, where its server has told that it holds it and was there since.

    One that tells of no model at all may hold any.
    """
    if (model := find(provider.held or (), name)) is not None:
        return Choice(provider, model.id, NAMED, model.is_local)
    tells_of_none = provider.held is not None and not provider.held
    return Choice(provider, name, NAMED, provider.keeps(name)) if tells_of_none else None


def existing_file(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, nobody's home folder, a zero byte
        return None


def not_found(name: str, names: list[str], provider: LLMProvider | None = None) -> ModelNotFoundError:
    bare = {full.rsplit("/", 1)[-1]: full for full in names}
    near = difflib.get_close_matches(name, names, 3, 0.5)
    near += [
        bare[match]
        for match in difflib.get_close_matches(name.rsplit("/", 1)[-1], bare, 3, 0.5)
        if bare[match] not in near
    ]
    if name.endswith(".gguf"):
        return ModelNotFoundError(f"there is no file {name!r}", next_step="Give the path of a GGUF file that is there.")
    nearest = [f"{provider.name}/{match}" if provider else match for match in near[:3]]
    hint = f"Did you mean {' or '.join(nearest)}?" if near else "%llm models lists what is there."
    return ModelNotFoundError(
        f"there is no model {name!r}", where=provider.where if provider else "", next_step=hint, nearest=nearest
    )
