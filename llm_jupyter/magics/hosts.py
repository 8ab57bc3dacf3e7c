"""The commands of `%llm` about hosts: the processes that serve models."""

from __future__ import annotations

import asyncio

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.hosts import HostStatus
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, table
from llm_jupyter.processes import act, adopt_others, hosts_of, log
from llm_jupyter.wording import duration, shortened, size

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
    await adopt_others(factory)
    factory.hosts.status()  # the first look begins the measurement of CPU, the second ends it
    await asyncio.sleep(0.1)
    return factory.hosts.status()


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
    name, factory = name.strip(), kernel.factory
    if action not in ACTIONS:
        surplus = f", not {line[:40]!r}" if line else ""
        raise InvalidInputError(
            f"%llm host takes {', '.join(ACTIONS)} and a name{surplus}", next_step="%llm hosts lists the names."
        )
    if not name:
        names = ", ".join(hosts_of(factory))
        raise InvalidInputError(f"%llm host {action}: which host?", next_step=f"There are: {names}.")
    if action == "logs":
        say(log(factory, name, LOG_LINES))
    else:
        say([factory.portal.run(act(factory, action, name))])


def _how_to_add() -> list[str]:
    return [
        "A [hosts.NAME] table in the settings adds one:",
        "",
        "[hosts.mine]",
        'command = ["llama-server", "--model", "/path/to/model.gguf", "--port", "{port}"]',
        "port = 8080",
    ]
