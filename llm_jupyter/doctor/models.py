"""The models that the settings name: is there such a provider, and has it such a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import NONE, Finding, Remedy, error, note, ok, warning
from llm_jupyter.doctor.servers import Seen
from llm_jupyter.types import Capability, LLMModelInfo

STEP = "model"


def look_at_models(case: Case, seen: Mapping[str, Seen]) -> Iterator[Finding]:
    """`default_model` and `fallback`."""
    if case.settings.default_model:
        yield from _named(case, "default_model", case.settings.default_model, seen)
    for name in case.settings.fallback:
        yield from _named(case, "fallback", name, seen)


def _named(case: Case, setting: str, name: str, seen: Mapping[str, Seen]) -> Iterator[Finding]:
    make = error if setting == "default_model" else warning
    prefix, slash, _ = name.partition("/")
    if name.endswith(".gguf") and not (slash and prefix in seen):
        if not Path(name).expanduser().is_file():
            yield make(
                STEP, "model-not-found", f"{setting}: there is no file {name}", _other(case, setting, name, seen)
            )
    elif slash and prefix in seen:
        yield from _of_provider(case, setting, name, seen[prefix], seen)
    elif not any(_has(shelf.models or (), name) for shelf in seen.values()):
        what = f"{setting}: no provider that answers here has a model {name!r}"
        yield make(STEP, "model-not-found", what, _other(case, setting, name, seen))
    else:
        yield ok(STEP, "model", f"{setting}: {name}")


def _of_provider(case: Case, setting: str, name: str, shelf: Seen, seen: Mapping[str, Seen]) -> Iterator[Finding]:
    make = error if setting == "default_model" else warning
    recipe, model = shelf.recipe, name.partition("/")[2]
    if not recipe.enabled:
        what = f"{setting}: {name}, but {recipe.name} is switched off"
        yield make(STEP, "provider-off", what, case.setting((f"providers.{recipe.name}.enabled", "true")))
    elif not recipe.is_local and case.settings.local_only:
        what = f"{setting}: {name} is remote, and local_only is set"
        yield make(STEP, "model-remote", what, _other(case, setting, name, seen))
    elif shelf.absent and recipe.name in case.settings.hosts:
        starts = case.settings.hosts[recipe.name].autostart
        words = "" if starts else "It starts when this is typed in a notebook"
        what = f"{setting}: {name}; the host {recipe.name} {'starts with the first question' if starts else 'does not run'}"
        remedy = NONE if starts else Remedy(words, (f"%llm host start {recipe.name}",))
        yield (note if starts else make)(STEP, "host-stopped", what, remedy)
    elif shelf.absent:
        what = f"{setting}: {name}, but no {recipe.name} runs at {recipe.base_url}"
        yield make(STEP, "no-server", what, _other(case, setting, name, seen))
    elif shelf.models and not _has(shelf.models, model) and not model.endswith(".gguf"):
        what = f"{setting}: {recipe.name} has no model {model!r}"
        yield make(STEP, "model-not-found", what, _other(case, setting, name, seen))
    elif shelf.models is not None:
        yield ok(STEP, "model", f"{setting}: {name}")


def _has(models: Iterable[LLMModelInfo], name: str) -> bool:
    return any(name in (model.id, model.id.removesuffix(":latest")) for model in models)


def _other(case: Case, setting: str, name: str, seen: Mapping[str, Seen]) -> Remedy:
    """What to name instead: the nearest name that is there, or any model that is."""
    there = [model for shelf in seen.values() for model in shelf.models or () if Capability.CHAT in model.capabilities]
    full = [
        model.full_name.removesuffix(":latest") for model in there if model.is_local or not case.settings.local_only
    ]
    prefix = name.partition("/")[0]
    same = [other for other in full if other.startswith(f"{prefix}/")]
    near = difflib.get_close_matches(name, same or full, 3, 0.4) or (same or full)[:3]
    if setting == "fallback":
        kept = [other for other in case.settings.fallback if other != name]
        return case.setting((setting, "[" + ", ".join(f'"{other}"' for other in kept) + "]"))
    words = f"Did you mean {' or '.join(near)}?" if len(near) > 1 else ""
    return case.setting((setting, near[0] if near else None), words=words.rstrip("?") if words else "")
