"""What the tests of hosts share: specs of misbehaving servers, processes that hold them, and looks from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from llm_jupyter._supervisor.tree import MARK
from llm_jupyter.events import Event
from llm_jupyter.hosts import HostSpec, LLMHostManager

FOLDER = Path(__file__).parent
START = 20.0
"""Seconds that a Python program may take to start on a busy machine."""


def problem(name: str = "problem", *words: str, **fields: Any) -> HostSpec:
    """The spec of `problem_host.py`, with the words for its command line."""
    command = (sys.executable, "-S", str(FOLDER / "problem_host.py"), "{port}", *words)
    return HostSpec(name, command, **{"start_timeout": START, "restart_delay": 0.02, **fields})


@asynccontextmanager
async def hosting(home: Path, **specs: HostSpec) -> AsyncIterator[tuple[LLMHostManager, list[Event]]]:
    """A manager and what it publishes."""
    events: list[Event] = []
    hosts = LLMHostManager(home, events.append, specs)
    try:
        yield hosts, events
    finally:
        await hosts.aclose()


def names(events: list[Event]) -> list[str]:
    """The events in one word each."""
    return [type(event).__name__.removeprefix("Host") for event in events]


def ask(url: str, path: str) -> Any:
    """Tell a problem host to do something, and what it says to that."""
    with urllib.request.urlopen(f"{url}/{path}", timeout=20) as reply:
        return json.load(reply)


def tell(url: str, path: str) -> None:
    """The same, of what it does not survive."""
    with contextlib.suppress(OSError):
        ask(url, path)


def is_dead(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def folder_of(home: Path) -> Path:
    """The folder of the only host of a home."""
    (folder,) = (home / "hosts").glob("*/*")
    return folder


def state_of(home: Path) -> dict[str, Any]:
    """The state of the only host of a home; empty where it has none."""
    for file in (home / "hosts").glob("*/*/state.json"):
        with contextlib.suppress(OSError, ValueError):
            state: dict[str, Any] = json.loads(file.read_text())
            return state
    return {}


def supervisor_of(home: Path) -> int:
    pid: int = state_of(home)["supervisor"][0]
    return pid


def leases_in(home: Path) -> list[str]:
    return [lease.name for lease in (home / "hosts").glob("*/*/leases/*")]


def started_below(home: Path) -> list[psutil.Process]:
    """Every living process that was started for a host of this home, by the mark that they inherit, and the supervisors."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_ours = str(home) in process.environ().get(MARK, "") or str(home) in _working_folder(process)
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _working_folder(process: psutil.Process) -> str:
    return process.cwd() if "supervises" in " ".join(process.cmdline()) else ""


class Holder:
    """A running `holder.py`, in a process group of its own, as a kernel is."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, home: Path, spec: HostSpec, preexec: Callable[[], None] | None = None) -> Holder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(FOLDER / "holder.py"), str(home), json.dumps(asdict(spec)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
            preexec_fn=preexec,
        )  # fmt: skip
        return cls(process)

    async def says(self) -> Any:
        """The next thing that it prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START)
        assert line, "the holder ended without a word"
        return json.loads(line)

    async def told(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        return await self.says()

    async def has_heard(self, event: str) -> list[str]:
        """All events that it has heard, as soon as that one is the last."""
        async with asyncio.timeout(START):
            while (heard := await self.told("events"))[-1:] != [event]:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)
        return list(heard)

    async def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def holding(home: Path, spec: HostSpec) -> AsyncIterator[tuple[Holder, Any]]:
    """A process that holds a host, and what it says of it; killed at the end where it still runs."""
    holder = await Holder.start(home, spec)
    try:
        yield holder, await holder.says()
    finally:
        await holder.kill()
