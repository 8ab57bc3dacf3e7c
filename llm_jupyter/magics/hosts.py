"""The commands of `%llm` about hosts: the processes that serve models."""

from __future__ import annotations

import asyncio

from llm_jupyter.errors import HostError, InvalidInputError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.hosts import HostStatus
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import duration, say, shortened, size, table
from llm_jupyter.selection import EMBEDDED

LOG_LINES = 40
"""Lines of a host's output that are shown."""

ACTIONS = ("start", "stop", "restart", "logs")


def hosts(kernel: KernelServices, line: str) -> None:
    """`%llm hosts`."""
    if line:
        raise InvalidInputError(f"%llm hosts takes nothing, not {line[:40]!r}", next_step="%llm host start NAME acts.")
    factory = kernel.factory
    rows = [_row(status) for status in factory.portal.run(_looked(factory))]
    if not rows:
        say(["No model server runs here that llm_jupyter could watch.", "", *_how_to_add()])
        return
    say(table(("host", "state", "whose", "pid", "memory", "cpu", "up for", "restarts", "reason"), rows, right="memory"))


async def _looked(factory: LLMFactory) -> list[HostStatus]:
    """How all hosts are; local servers that other people's hands started are watched from now on."""
    for shelf in await factory.providers.catalogue():
        if shelf.error is None and shelf.recipe.base_url and shelf.recipe.name not in _ours(factory):
            await factory.hosts.adopt(shelf.recipe.name, shelf.recipe.base_url)
    factory.hosts.status()  # the first look begins the measurement of CPU, the second ends it
    await asyncio.sleep(0.1)
    return factory.hosts.status()


def _ours(factory: LLMFactory) -> set[str]:
    return {status.name for status in factory.hosts.status() if status.ours}


def _row(status: HostStatus) -> tuple[str, ...]:
    whose = "ours" if status.ours else "somebody else's" if status.adopted else ""
    return (
        status.name,
        status.state,
        whose,
        str(status.pid or ""),
        size(status.rss),
        f"{status.cpu:.0%}" if status.cpu is not None else "",
        duration(status.uptime) if status.uptime is not None else "",
        str(status.restarts or ""),
        shortened(status.reason, 70),
    )


def host(kernel: KernelServices, line: str) -> None:
    """`%llm host start|stop|restart|logs NAME`."""
    action, _, name = line.partition(" ")
    name = name.strip()
    if action not in ACTIONS or not name:
        raise InvalidInputError(
            f"%llm host takes {', '.join(ACTIONS)} and a name, not {line[:40]!r}",
            next_step="%llm hosts lists the names.",
        )
    factory = kernel.factory
    if name == EMBEDDED and name not in factory.hosts.names():
        if action in ("start", "restart"):
            choice = factory.portal.run(factory.providers.resolve(EMBEDDED))
            factory.portal.run(choice.provider.load_model(choice.model))
            say([f"{name} is running, with {choice.model}."])
        else:
            say([f"{name} does not run; the first question to it starts it."])
        return
    if name not in factory.hosts.names():
        raise HostError(f"there is no host {name!r}", next_step=_next_step(factory.hosts.names()))
    if action == "logs":
        say(factory.hosts.log(name, LOG_LINES) or ["It has written nothing yet."])
    elif action == "stop":
        factory.portal.run(factory.hosts.stop(name))
        say([f"{name} is stopped."])
    else:
        acts = factory.hosts.start if action == "start" else factory.hosts.restart
        status = factory.portal.run(acts(name))
        where = f" at {status.url}" if status.url else ""
        whose = (
            " It was running already and is somebody else's: it is watched, and never stopped."
            if status.adopted
            else ""
        )
        say([f"{name} is {status.state}{where}, process {status.pid}.{whose}"])


def _next_step(names: list[str]) -> str:
    return f"There are: {', '.join(names)}." if names else "A [hosts.NAME] table in the settings adds one."


def _how_to_add() -> list[str]:
    return [
        "A [hosts.NAME] table in the settings adds one:",
        "",
        "[hosts.mine]",
        'command = ["llama-server", "--model", "/path/to/model.gguf", "--port", "{port}"]',
        "port = 8080",
    ]
