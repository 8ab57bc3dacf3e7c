"""The model-server processes as people see and command them: what `%llm host` and the hosts dashboard do."""

from __future__ import annotations

import contextlib

from llm_jupyter.errors import HostError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.selection import EMBEDDED

IDLE = f"{EMBEDDED} does not run; the first question to it starts it."


def hosts_of(llm: LLMFactory) -> list[str]:
    """The names of all hosts, the embedded model's among them: it can be started where it does not run."""
    return [*dict.fromkeys((*llm.hosts.names(), EMBEDDED))]


async def adopt_others(llm: LLMFactory) -> None:
    """Watch the local servers that other people's hands started, from now on. Asks all local servers."""
    shelves = await llm.offers()
    ours = {status.name for status in llm.hosts.status() if status.ours}
    for shelf in shelves:
        if shelf.error is None and shelf.recipe.base_url and shelf.recipe.name not in ours:
            with contextlib.suppress(HostError):  # its address names no port: there is no process to find
                await llm.hosts.adopt(shelf.recipe.name, shelf.recipe.base_url)


async def act(llm: LLMFactory, action: str, name: str) -> str:
    """Start, stop or restart a host by its name, as `action` says; what it is then, in a sentence. Raises `HostError`."""
    hosts = llm.hosts
    is_known = name in hosts.names()
    if name == EMBEDDED and (not is_known or (action == "start" and hosts.spec(name) is None)):
        return await _act_on_embedded(llm, action)
    if not is_known:
        raise _unknown(llm, name)
    if action == "stop":
        await hosts.stop(name)
        return f"{name} is stopped."
    status = await (hosts.start(name) if action == "start" else hosts.restart(name))
    where = f" at {status.url}" if status.url else ""
    whose = (
        " It was running already and is somebody else's: it is watched, and never stopped." if status.adopted else ""
    )
    return f"{name} is {status.state}{where}, process {status.pid}.{whose}"


def log(llm: LLMFactory, name: str, lines: int) -> list[str]:
    """The last lines that a host wrote, or one that says why there are none. Raises `HostError`."""
    if name in llm.hosts.names():
        return llm.hosts.log(name, lines) or ["It has written nothing yet."]
    if name != EMBEDDED:
        raise _unknown(llm, name)
    return [IDLE]


def memory_limit(llm: LLMFactory, name: str) -> int | None:
    """The bytes that the settings let a host take; `None` where they set no limit to it."""
    own = llm.settings.hosts.get(name)
    if own is not None and own.memory_limit is not None:
        return own.memory_limit
    return llm.settings.limits.host_memory if own is not None or name == EMBEDDED else None


async def _act_on_embedded(llm: LLMFactory, action: str) -> str:
    """The embedded model's process is a host only while a model is loaded; to load it here joins one that runs."""
    if action == "stop":
        return IDLE
    choice = await llm.providers.resolve(EMBEDDED)
    await choice.provider.load_model(choice.model)
    return f"{EMBEDDED} is running, with {choice.model}."


def _unknown(llm: LLMFactory, name: str) -> HostError:
    names = llm.hosts.names()
    hint = f"There are: {', '.join(names)}." if names else "A [hosts.NAME] table in the settings adds one."
    return HostError(f"there is no host {name[:40]!r}", next_step=hint)
