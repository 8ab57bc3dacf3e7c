"""The embedded model's process, shared by all kernels that want the same model in the same way."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from llm_jupyter._supervisor.state import FAILED, READY, STOPPING
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event
from llm_jupyter.hosts.manager import LLMHostManager
from llm_jupyter.hosts.spec import HostSpec, OnMemory, Running, host_key
from llm_jupyter.providers._gguf import read_header
from llm_jupyter.providers._llama_process import (
    CHILD,
    ENDED,
    START_TIMEOUT,
    LaunchPlan,
    Outlook,
    child_config,
    load_error,
    not_installed,
    require_memory,
)
from llm_jupyter.types import ProviderState

DIED, COMES_BACK = "its process died; it is started again", "its process is started again"


class SharedLlama:
    """Launches the embedded model under a supervisor: what `LlamaCppProvider` takes as its `launcher`.

    The options are those of `HostSpec`.
    """

    def __init__(
        self,
        hosts: LLMHostManager,
        *,
        memory_limit: int | None = None,
        on_memory: OnMemory = "warn",
        idle_unload: float | None = None,
        restart_delay: float = 0.5,
    ) -> None:
        self._hosts = hosts
        self._restart_delay = restart_delay
        self._memory_limit = memory_limit
        self._on_memory = on_memory
        self._idle_unload = idle_unload

    async def launch(
        self, model: Path, alias: str, plan: LaunchPlan, *, host: str, publish: Callable[[Event], object],
        looked: Callable[[], object],
    ) -> SharedHost:  # fmt: skip
        """Start the process, or join the one that runs. Raises as `LlamaProcess.start` does."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise not_installed()
        header = read_header(model)
        plan = plan.checked(header)
        spec = self._spec(model, alias, plan, host)
        if not self._hosts.is_up(spec):
            require_memory(header, plan)
        shared = SharedHost(self._hosts, spec, model.name, looked)
        await shared.ensure()
        return shared

    def _spec(self, model: Path, alias: str, plan: LaunchPlan, host: str) -> HostSpec:
        """The same for whoever means the same: this file as it is now, under this name, run in this way."""
        stat = model.stat()
        parts = [str(model.resolve()), stat.st_size, stat.st_mtime_ns, alias, child_config(model, alias, plan)]
        return HostSpec(
            host,
            (sys.executable, "-P", str(CHILD)),
            ready=None,
            stdin=child_config(model, alias, plan),
            start_timeout=START_TIMEOUT,
            restart_delay=self._restart_delay,
            memory_limit=self._memory_limit,
            on_memory=self._on_memory,
            idle_unload=self._idle_unload,
            key=host_key(host, parts),
        )


class SharedHost:
    """A provider's hold of the process."""

    def __init__(self, hosts: LLMHostManager, spec: HostSpec, file: str, looked: Callable[[], object]) -> None:
        self._hosts = hosts
        self._spec = spec
        self._file = file
        self._looked = looked
        self._user = object()
        self._known: Running | None = None

    @property
    def url(self) -> str:
        """Where it serves, as of the last `ensure` or `follow`."""
        return self._known.url if self._known is not None else ""

    @property
    def api_key(self) -> str:
        return self._known.api_key if self._known is not None else ""

    @property
    def pid(self) -> int | None:
        """Its process id, if it serves now."""
        running = self._hosts.running(self._spec)
        return running.pid if running is not None else None

    @property
    def is_running(self) -> bool:
        """Whether the process that `url` and `api_key` are of still serves; says that it is used."""
        running = self._hosts.running(self._spec, used=True)
        return running is not None and running == self._known

    def follow(self) -> Outlook:
        """What becomes of it. Only its supervisor's own starts of it are followed: of others this kernel holds nothing."""
        state, known = self._hosts.state(self._spec), self._known
        if state is None or known is None or state.run != known.generation[0] or state.phase == STOPPING:
            return Outlook(ProviderState.DISCONNECTED, ENDED)
        if state.phase == FAILED:
            return Outlook(ProviderState.FAILED, f"its process is given up: {state.reason}")
        if (running := self._hosts.running(self._spec)) is None:
            has_died = state.reason or state.phase == READY
            return Outlook(ProviderState.LOADING, DIED if has_died else COMES_BACK)
        self._known = running
        return Outlook(ProviderState.CONNECTED, is_anew=running != known)

    async def recover(self) -> bool:
        """Wait until it serves again. Raises `HostError` where it was given up."""
        await self.ensure()
        return True

    async def ensure(self) -> None:
        """Start or join it. Raises `ModelLoadError` with llama.cpp's own words, or `HostError`."""
        was_loaded = self._known is not None
        try:
            self._known = await self._hosts.ensure(self._spec, user=self._user, looked=self._looked)
        except HostError as error:
            if error.log_tail and not was_loaded:
                raise load_error(self._file, list(error.log_tail), error.what) from None
            raise

    async def stop(self) -> None:
        """Need it no more; where nobody else does, it is gone when this returns. Idempotent."""
        self._known = None
        await self._hosts.release(self._spec, user=self._user)
