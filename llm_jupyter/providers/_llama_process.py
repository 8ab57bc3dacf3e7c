"""One llama.cpp process: validated, started, watched until it is ready, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import psutil

from llm_jupyter.errors import HostError, InsufficientMemoryError, InvalidInputError, ModelLoadError
from llm_jupyter.events import Event, HostStarted, HostStopped
from llm_jupyter.providers._gguf import GGUFHeader, read_header
from llm_jupyter.types import ProviderState

CHILD = Path(__file__).with_name("_llama_child.py")
START_TIMEOUT = 300.0
"""Seconds for reading a model into memory: large ones come from slow disks."""

STOP_TIMEOUT = 2.0
"""Seconds between asking the process to end and ending it."""

WORKING_MEMORY = 64 * 2**20
"""Bytes that llama.cpp needs beside weights and cache, measured with a 135M model and rounded up."""

INSTALL = "Type: %pip install 'jupyter-llm[embedded]'"
ENDED = "its process ended; the next question starts it"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How to run a model; `context` is in tokens for each of `slots` requests at once."""

    context: int = 4096
    slots: int = 1
    threads: int | None = None
    prompt_log: str | None = None

    def checked(self, header: GGUFHeader) -> LaunchPlan:
        """The plan made definite. Raises `InvalidInputError` for values that crash or hang llama.cpp."""
        declared = header.context_length or self.context
        if self.context < 64:
            raise InvalidInputError(
                f"a context of {self.context} tokens is too small to hold a question; 64 is the least"
            )
        if self.context > 4 * declared and self.context > 32768:
            raise InvalidInputError(
                f"a context of {self.context} tokens is beyond this model's {declared}",
                next_step=f"Set context to {declared} or less.",
            )
        if not 1 <= self.slots <= 64:
            raise InvalidInputError(f"slots must be 1 to 64, not {self.slots}")
        cores = _usable_cores()
        threads = max(1, min(cores - 1, 8)) if self.threads is None else self.threads
        if not 1 <= threads <= 512:
            raise InvalidInputError(f"threads must be 1 to 512, not {threads}")
        return LaunchPlan(min(self.context, declared), self.slots, threads, self.prompt_log)


class Outlook(NamedTuple):
    """What becomes of a process while nobody asks it anything: connected means that it serves, loading that it will again.

    `is_anew` says that it is another start of it, with another `url` or `api_key`, since the last look.
    """

    state: ProviderState
    reason: str = ""
    is_anew: bool = False


class ModelHost(Protocol):
    """A process that has a model loaded, as its provider sees it."""

    @property
    def url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def pid(self) -> int | None:
        """Its process id, if it runs."""

    @property
    def is_running(self) -> bool:
        """Whether the process that `url` and `api_key` are of still serves; for whoever is about to use it."""

    def follow(self) -> Outlook:
        """A look at what becomes of it, for whoever does not use it now."""

    async def recover(self) -> bool:
        """It runs no more: wait until whoever watches it has started it again. False where nobody does.

        Raises `HostError` where it was given up.
        """

    async def stop(self) -> None:
        """Need it no more. Idempotent."""


class Launcher(Protocol):
    """Whoever starts llama.cpp for a provider, and publishes what happens to the process under the name `host`."""

    async def launch(
        self, model: Path, alias: str, plan: LaunchPlan, *, host: str, publish: Callable[[Event], object],
        looked: Callable[[], object],
    ) -> ModelHost:  # fmt: skip
        """Where somebody looks after the process, `looked` is called after each look, from the event loop.

        Raises `InvalidInputError`, `InsufficientMemoryError`, `ModelLoadError` (the file) or `HostError` (the process).
        """


class ChildLauncher:
    """Runs llama.cpp as a child of this process, for nobody else."""

    async def launch(
        self, model: Path, alias: str, plan: LaunchPlan, *, host: str, publish: Callable[[Event], object],
        looked: Callable[[], object],
    ) -> LlamaProcess:  # fmt: skip
        return await LlamaProcess.start(model, alias, plan, host=host, publish=publish)


class LlamaProcess:
    """llama.cpp as a child of this process, on a loopback port that only the holder of `api_key` can use.

    It runs in a process session of its own, so that a kernel's interrupt does not reach it. Start it on the thread that
    is to live as long as it does: the parent-death signal follows that thread.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        log: IO[bytes],
        host: str = "",
        publish: Callable[[Event], object] = lambda event: None,
    ) -> None:
        self._process = process
        self._log = log
        self._host = host
        self._publish = publish
        self._is_over = False
        self.api_key = secrets.token_urlsafe(32)
        self.url = ""

    @classmethod
    async def start(
        cls,
        model: Path,
        alias: str,
        plan: LaunchPlan,
        *,
        host: str = "",
        publish: Callable[[Event], object] = lambda event: None,
    ) -> LlamaProcess:
        """Start the process and wait until it serves.

        Raises `InvalidInputError`, `InsufficientMemoryError`, `ModelLoadError` (the file), or `HostError` (the process).
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise not_installed()
        header = read_header(model)
        plan = plan.checked(header)
        require_memory(header, plan)
        log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(CHILD),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        self = cls(process, log, host, publish)
        try:
            await self._launch(model, alias, plan)
        except BaseException:
            self._is_over = True  # nobody was told that it began
            await self.stop()
            raise
        publish(HostStarted(host=host, pid=process.pid))
        return self

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        return self._process.pid if self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def follow(self) -> Outlook:
        """Nobody starts it again while nobody asks."""
        return Outlook(ProviderState.CONNECTED) if self.is_running else Outlook(ProviderState.DISCONNECTED, ENDED)

    async def recover(self) -> bool:
        """Nobody starts it again but its provider."""
        return False

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs; negative for a signal."""
        return self._process.returncode

    def log_tail(self, lines: int = 8) -> list[str]:
        """The last lines that llama.cpp wrote."""
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(0, size - 8192))
        return self._log.read().decode("utf-8", "replace").splitlines()[-lines:]

    async def stop(self) -> None:
        """End the process and wait until it is gone. Idempotent."""
        process, expected = self._process, self.is_running
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._log.close()
        if not self._is_over:
            self._is_over = True
            self._publish(
                HostStopped(host=self._host, pid=process.pid, exit_code=process.returncode, expected=expected)
            )

    async def _launch(self, model: Path, alias: str, plan: LaunchPlan) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        config = {**child_config(model, alias, plan), "parent": os.getpid(), "api_key": self.api_key}
        self._process.stdin.write(json.dumps(config).encode() + b"\n")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_TIMEOUT)
        except TimeoutError:
            raise HostError(
                f"llama.cpp did not become ready within {START_TIMEOUT:g} s", log_tail=self.log_tail()
            ) from None
        if not line.startswith(b"READY "):
            code = await self._process.wait()
            raise load_error(model.name, self.log_tail(), f"exit code {code}")
        self.url = line.split()[1].decode()


def child_config(model: Path, alias: str, plan: LaunchPlan) -> dict[str, Any]:
    """What the child process reads from its standard input, except for the key and its parent's process id."""
    return {
        "model": str(model), "alias": alias, "context": plan.context * plan.slots, "slots": plan.slots,
        "threads": plan.threads, "prompt_log": plan.prompt_log,
    }  # fmt: skip


def load_error(file: str, tail: Sequence[str], otherwise: str) -> ModelLoadError:
    """A process that could not load a model, in llama.cpp's own words where it had some."""
    reason = next((text for text in reversed(tail) if " E " in text or "rror" in text), otherwise)
    return ModelLoadError(f"llama.cpp could not load {file}: {reason.strip()[-160:]}")


def not_installed() -> HostError:
    return HostError("the embedded model needs llama.cpp, which is not installed", next_step=INSTALL)


def require_memory(header: GGUFHeader, plan: LaunchPlan) -> None:
    """Raise `InsufficientMemoryError` where weights and cache exceed what the system can still give."""
    needed = header.size + header.cache_bytes(plan.context * plan.slots) + WORKING_MEMORY
    free = psutil.virtual_memory().available
    if needed > free:
        raise InsufficientMemoryError(
            f"{header.name} does not fit into memory: it needs {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free",
            needed=needed, free=free, next_step="Choose a smaller model or a smaller context, or close other programs.",
        )  # fmt: skip


def _usable_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
