"""The commands of `%llm` about providers: what they are, how they are, connect and disconnect."""

from __future__ import annotations

import time

from llm_jupyter.choice import Shelf
from llm_jupyter.errors import ForeignServerError, InvalidInputError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import duration, say, shortened, table
from llm_jupyter.selection import Recipe
from llm_jupyter.types import LLMProviderStatus, ProviderState

NOT_ASKED = "not asked before %llm use or -m names it"


def status(kernel: KernelServices, line: str) -> None:
    """`%llm status`."""
    if line:
        raise InvalidInputError(f"%llm status takes nothing, not {line[:40]!r}")
    factory = kernel.factory
    shelves = {shelf.recipe.name: shelf for shelf in factory.portal.run(factory.providers.catalogue())}
    recipes = factory.registry.listed()
    absent = [recipe.name for recipe in recipes if _is_absent(factory, shelves.get(recipe.name))]
    rows = [_status_row(factory, recipe, shelves.get(recipe.name)) for recipe in recipes if recipe.name not in absent]
    lines = table(("provider", "where", "state", "since", "latency", "models", "reason"), rows, right="latency")
    if absent:
        lines.append(f"Not running at their usual places: {', '.join(absent)}.")
    say(lines)


def _is_absent(factory: LLMFactory, shelf: Shelf | None) -> bool:
    """Whether it is at a place that nobody configured, and never was there."""
    if shelf is None or not shelf.is_absent:
        return False
    status = factory.providers.status(shelf.recipe.name)
    return status is None or status.state is ProviderState.DISCONNECTED


def _status_row(factory: LLMFactory, recipe: Recipe, shelf: Shelf | None) -> tuple[str, ...]:
    where = "local" if recipe.is_local else "remote"
    if not recipe.enabled:
        return recipe.name, where, "off", "", "", "", recipe.reason or "switched off in the settings"
    status = factory.providers.status(recipe.name)
    if shelf is None:
        if status is None or status.state is ProviderState.DISCONNECTED:
            return recipe.name, where, ProviderState.DISCONNECTED, "", "", "", NOT_ASKED
        return recipe.name, where, status.state, _ago(status), _latency(status), "", status.reason
    if isinstance(shelf.error, ForeignServerError):
        return recipe.name, where, ProviderState.DISCONNECTED, "", "", "", shelf.error.what
    assert status is not None
    reason = status.reason
    if not reason and status.state is ProviderState.DISCONNECTED:
        reason = "starts at the first question"
    elif status.state is ProviderState.CONNECTED and status.is_live:
        reason = "the last question was answered"
    models = str(len(shelf.models)) if shelf.error is None else ""
    return recipe.name, where, status.state, _ago(status), _latency(status), models, shortened(reason, 70)


def _ago(status: LLMProviderStatus) -> str:
    if status.state is ProviderState.DISCONNECTED:
        return ""
    return duration(max(0.0, time.time() - status.since))


def _latency(status: LLMProviderStatus) -> str:
    is_there = status.latency is not None and status.state is not ProviderState.FAILED
    return f"{(status.latency or 0.0) * 1000:.0f} ms" if is_there else ""


def providers(kernel: KernelServices, line: str) -> None:
    """`%llm providers`."""
    if line:
        raise InvalidInputError(f"%llm providers takes nothing, not {line[:40]!r}")
    registry = kernel.factory.registry
    rows = [
        (
            recipe.name,
            recipe.kind,
            "local" if recipe.is_local else "remote",
            "yes" if recipe.enabled else "no",
            str(recipe.priority),
            recipe.base_url or "",
            recipe.source if recipe.enabled or not recipe.reason else recipe.reason,
        )
        for recipe in registry.listed()
    ]
    say(table(("provider", "kind", "where", "on", "priority", "address", "from"), rows, right="priority"))


def connect(kernel: KernelServices, line: str) -> None:
    """`%llm connect NAME`."""
    factory, name = kernel.factory, _named(line, "connect")
    status = factory.portal.run(factory.providers.connect(name))
    where = "local" if status.is_local else "remote: prompts to it leave this machine"
    took = f" It answered in {_latency(status)}." if status.latency is not None else ""
    say([f"{name} ({where}) is {status.state}.{took}"])


def disconnect(kernel: KernelServices, line: str) -> None:
    """`%llm disconnect NAME`."""
    factory, name = kernel.factory, _named(line, "disconnect")
    factory.portal.run(factory.providers.disconnect(name))
    say([f"{name} is disconnected, and is not asked before %llm connect {name}."])


def _named(line: str, command: str) -> str:
    name = line.strip()
    if not name or " " in name:
        raise InvalidInputError(
            f"%llm {command}: which provider?", next_step=f"%llm providers lists them; then %llm {command} NAME."
        )
    return name
