"""The models that the settings name: is there such a provider, and has it such a model. All of it from what was seen."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_jupyter.choice import best_of, find
from llm_jupyter.doctor.asking import FOREIGN
from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import NONE, Finding, Remedy, error, note, ok, warning
from llm_jupyter.doctor.servers import Seen
from llm_jupyter.types import Capability

STEP = "model"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one name in the settings; `remedy` is `None` where another has to stand there.

    `answers`: a question to it is answered, after its host has started where `waits` is set. `is_local`: it stays here.
    """

    code: str
    what: str
    remedy: Remedy | None = NONE
    answers: bool = False
    waits: bool = False
    is_local: bool = True

    def finding(self, setting: str, instead: Remedy) -> Finding:
        """The verdict on a name of `default_model` or `fallback`; `instead` is how another comes to stand there."""
        said, remedy = f"{setting}: {self.what}", instead if self.remedy is None else self.remedy
        if self.answers:
            return note(STEP, self.code, said, remedy) if self.waits else ok(STEP, self.code, said)
        return (error if setting == "default_model" else warning)(STEP, self.code, said, remedy)


def look_at_models(case: Case, seen: Mapping[str, Seen]) -> Iterator[Finding]:
    """`default_model` and `fallback`. Each remedy for the latter takes off every name that leads nowhere."""
    name = case.settings.default_model
    if name and (verdict := judged(case, name, seen)) is not None:
        yield verdict.finding("default_model", _another(case, name, seen))
    verdicts = {name: judged(case, name, seen) for name in case.settings.fallback}
    kept = [name for name, verdict in verdicts.items() if verdict is None or verdict.remedy is not None]
    shorter = case.setting(("fallback", "[" + ", ".join(f'"{name}"' for name in kept) + "]"))
    yield from (verdict.finding("fallback", shorter) for verdict in verdicts.values() if verdict is not None)


def judged(case: Case, name: str, seen: Mapping[str, Seen]) -> Verdict | None:
    """What a name in the settings leads to; `None` where its server has told nothing, which is said of the server."""
    prefix, _, model = name.partition("/")
    if prefix in seen:
        return _of_provider(case, name, seen[prefix], model)
    if name.endswith(".gguf"):
        is_there = Path(name).expanduser().is_file()
        return _there(name) if is_there else Verdict("model-not-found", f"there is no file {name}", None)
    shelves = [shelf.models or () for shelf in seen.values() if shelf.recipe.is_local]
    found = next((one for models in shelves if (one := find(models, name)) is not None), None)
    if found is None:
        return Verdict("model-not-found", f"no provider that answers here has a model {name!r}", None)
    return _there(name, is_local=found.is_local)


def _of_provider(case: Case, name: str, shelf: Seen, model: str) -> Verdict | None:
    """The verdict on a provider's model, or (`model` is empty) on its best one."""
    recipe = shelf.recipe
    if not recipe.enabled:
        remedy = case.setting((f"providers.{recipe.name}.enabled", "true"))
        return Verdict("provider-off", f"{name}, but {recipe.name} is switched off", remedy)
    if any(finding.code == FOREIGN for finding in shelf.findings):
        return Verdict(FOREIGN, f"{name}, but {recipe.name} is another user's server", None)
    if shelf.absent and (host := case.host_of(recipe)):
        return _of_host(case, name, host)
    if shelf.absent:
        return Verdict("no-server", f"{name}, but no {recipe.name} runs at {recipe.address}", None)
    models = shelf.models
    found = find(models or (), model) if model else best_of(models or (), is_local=recipe.is_local)
    is_local = recipe.is_local if found is None else found.is_local
    if not is_local and case.settings.local_only:
        return Verdict("model-remote", f"{name} is remote, and local_only is set", None)
    if models is None:
        return None
    if not model and found is None:
        return Verdict("model-not-found", f"{name} has no model for chat that fits into memory", None)
    if found is None and models and not model.endswith(".gguf"):
        return Verdict("model-not-found", f"{recipe.name} has no model {model!r}", None)
    return _there(name, is_local=is_local)


def _of_host(case: Case, name: str, host: str) -> Verdict:
    if case.settings.hosts[host].autostart:
        what = f"{name}; the host {host} starts with the first question"
        return Verdict("host-stopped", what, answers=True, waits=True)
    remedy = Remedy("It starts when this is typed in a notebook", (f"%llm host start {host}",))
    return Verdict("host-stopped", f"{name}; the host {host} does not run", remedy)


def _there(name: str, *, is_local: bool = True) -> Verdict:
    return Verdict("model", name, answers=True, is_local=is_local)


def _another(case: Case, name: str, seen: Mapping[str, Seen]) -> Remedy:
    """What to name instead: the nearest name that is there, or any model that is."""
    there = [model for shelf in seen.values() for model in shelf.models or () if Capability.CHAT in model.capabilities]
    full = [
        model.full_name.removesuffix(":latest") for model in there if model.is_local or not case.settings.local_only
    ]
    prefix = name.partition("/")[0]
    same = [other for other in full if other.startswith(f"{prefix}/")]
    near = difflib.get_close_matches(name, same or full, 3, 0.4) or (same or full)[:3]
    words = f"Did you mean {' or '.join(near)}" if len(near) > 1 else ""
    return case.setting(("default_model", near[0] if near else None), words=words)
