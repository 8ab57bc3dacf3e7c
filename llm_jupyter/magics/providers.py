"""The commands of `%llm` about providers: what they are, how they are, connect and disconnect."""

from __future__ import annotations

import time

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, table
from llm_jupyter.overview import OFF, ProviderView, chosen_but, hindrance, views, way_back
from llm_jupyter.wording import duration, shortened


def status(kernel: KernelServices, line: str) -> None:
    """`%llm status`."""
    if line:
        raise InvalidInputError(f"%llm status takes nothing, not {line[:40]!r}")
    factory = kernel.factory
    found, absent = views(factory, factory.portal.run(factory.providers.catalogue()))
    lines = table(
        ("provider", "where", "state", "since", "latency", "models", "reason"),
        [_row(one, _reason(kernel, one)) for one in found],
        right="latency",
    )
    if absent:
        lines.append(f"Not running at their usual places: {', '.join(absent)}.")
    say(lines)


def _reason(kernel: KernelServices, view: ProviderView) -> str:
    """Why a provider is as it is, and what that means for the conversation where it holds the chosen model."""
    choice, name = kernel.factory.sessions.current.choice, view.recipe.name
    hindered = hindrance(kernel.factory, view.recipe)
    if choice is None or choice.provider.name != name or hindered != OFF:
        return view.reason  # of one that is down it says more than that, and a row is to stay one line
    return f"{chosen_but(choice.model, hindered)}: {way_back(view.recipe)}"


def _row(view: ProviderView, reason: str) -> tuple[str, ...]:
    since = duration(max(0.0, time.time() - view.since)) if view.since is not None else ""
    models = str(len(view.models)) if view.models is not None else ""
    latency = "" if view.latency is None else _milliseconds(view.latency)
    return view.recipe.name, view.where, view.state, since, latency, models, shortened(reason, 70)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


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
            recipe.address,
            recipe.source if recipe.enabled or not recipe.reason else recipe.reason,
        )
        for recipe in registry.listed()
    ]
    say(table(("provider", "kind", "where", "on", "priority", "address", "from"), rows, right="priority"))


def connect(kernel: KernelServices, line: str) -> None:
    """`%llm connect NAME`."""
    factory, name = kernel.factory, _named(kernel, line, "connect")
    status = factory.portal.run(factory.providers.connect(name))
    where = "local" if status.is_local else "remote: prompts to it leave this machine"
    took = f" It answered in {_milliseconds(status.latency)}." if status.latency is not None else ""
    say([f"{name} ({where}) is {status.state}.{took}"])


def disconnect(kernel: KernelServices, line: str) -> None:
    """`%llm disconnect NAME`."""
    factory, name = kernel.factory, _named(kernel, line, "disconnect")
    factory.portal.run(factory.providers.disconnect(name))
    say([f"{name} is disconnected, and is not asked before %llm connect {name}."])


def _named(kernel: KernelServices, line: str, command: str) -> str:
    name = line.strip()
    if not name or (" " in name and name not in kernel.factory.registry):
        raise InvalidInputError(
            f"%llm {command}: which provider?", next_step=f"%llm providers lists them; then %llm {command} NAME."
        )
    return name
