"""The embedded model in a process that kernels share: the provider sees it start, die, come back and fail."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hosts.children import hosting, is_dead, leases_in, started_below, state_of, supervisor_of
from live import eventually, place

from llm_jupyter.errors import HostError, InvalidInputError, ModelLoadError, StreamTruncatedError
from llm_jupyter.events import ConnectionStateChanged, Event
from llm_jupyter.hosts import LLMHostManager, SharedLlama
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import GenerationOptions, ProviderState

BRIEF = GenerationOptions(max_tokens=4, temperature=0.0)
ENDLESS = GenerationOptions(max_tokens=1800, extra={"ignore_eos": True})
MARGIN = 0.5
"""Seconds that a supervisor may add to a start on a machine that is busy with other tests; measured 0.1 s on an idle one."""

pytestmark = pytest.mark.live


class Kernel:
    """What one kernel has: a manager, a provider, and the events of both on one list."""

    def __init__(self, home: Path, **options: int) -> None:
        self.events: list[Event] = []
        self.hosts = LLMHostManager(home, self.events.append)
        self.provider = LlamaCppProvider(
            home=home,
            **{"context": 2048, "threads": 1, **options},
            launcher=SharedLlama(self.hosts, restart_delay=0.05),
        )
        self.provider.publish = self.events.append

    @property
    def chain(self) -> list[str]:
        names = [type(event).__name__ for event in self.events]
        return [name for name in names if name.startswith(("Model", "Host"))]

    @property
    def states(self) -> list[ProviderState]:
        """Those that the provider went through."""
        return [event.new for event in self.events if isinstance(event, ConnectionStateChanged)]

    @property
    def models(self) -> list[str]:
        """What was told of the model."""
        return [name for name in self.chain if name.startswith("Model")]

    async def answers(self, model: str = MODEL_ID) -> bool:
        return bool((await self.provider.generate_completion("Once", model=model, options=BRIEF)).text)

    async def close(self) -> None:
        await self.provider.disconnect()
        await self.hosts.aclose()


@pytest_asyncio.fixture
async def kernel(llm_home: Path) -> AsyncIterator[Kernel]:
    kernel = Kernel(llm_home)
    yield kernel
    await kernel.close()


@pytest_asyncio.fixture
async def other(llm_home: Path) -> AsyncIterator[Kernel]:
    kernel = Kernel(llm_home)
    yield kernel
    await kernel.close()


async def test_the_first_starts_it_the_second_joins_and_each_hears_the_whole_chain(
    kernel: Kernel, other: Kernel, llm_home: Path
) -> None:
    assert await kernel.answers()
    assert await other.answers()
    assert kernel.provider.process_id == other.provider.process_id is not None
    assert len(leases_in(llm_home)) == 2
    await kernel.provider.disconnect()
    assert await other.answers()
    pid = other.provider.process_id
    await other.provider.unload_model(MODEL_ID)
    assert pid is not None
    assert is_dead(pid)
    assert kernel.chain == ["ModelLoading", "HostStarted", "HostReady", "ModelLoaded", "ModelUnloaded"]
    assert other.chain == ["ModelLoading", "HostReady", "ModelLoaded", "HostStopped", "ModelUnloaded"]
    await eventually(lambda: not started_below(llm_home), within=2)


async def test_kernels_that_want_it_otherwise_have_their_own(kernel: Kernel, llm_home: Path) -> None:
    wider = Kernel(llm_home, context=1024)
    assert await kernel.answers()
    assert await wider.answers()
    assert kernel.provider.process_id != wider.provider.process_id
    await wider.close()
    assert await kernel.answers()


async def test_a_model_process_that_dies_comes_back_for_everybody(kernel: Kernel, other: Kernel) -> None:
    assert await kernel.answers()
    assert await other.answers()
    first = kernel.provider.process_id
    assert first is not None
    kernel.events.clear()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: kernel.provider.process_id != first, within=2)
    assert await kernel.answers()
    assert await other.answers()
    assert kernel.provider.process_id == other.provider.process_id not in (None, first)
    told = [name for name in kernel.chain if name.startswith("Host")]
    assert told == ["HostStopped", "HostRestarting", "HostStarted", "HostReady"]
    assert kernel.models == ["ModelUnloaded", "ModelLoading", "ModelLoaded"]
    assert kernel.states == [ProviderState.LOADING, ProviderState.CONNECTED]


async def test_the_state_follows_a_process_that_dies_and_comes_back_though_nobody_asks(
    kernel: Kernel, report: Callable[[str], None]
) -> None:
    assert await kernel.answers()
    first = kernel.provider.process_id
    assert first is not None
    kernel.events.clear()
    os.kill(first, signal.SIGKILL)
    noticed = await eventually(lambda: kernel.states, within=2)
    assert kernel.provider.status().reason == "its process died; it is started again"
    assert (await kernel.provider.get_status()).state is ProviderState.LOADING
    await eventually(lambda: kernel.provider.process_id, within=10)
    back = await eventually(lambda: len(kernel.states) == 2, within=2)
    report(f"a death was a state after {noticed:.3f} s, a return after {back:.3f} s")
    assert kernel.states == [ProviderState.LOADING, ProviderState.CONNECTED]
    assert kernel.models == ["ModelUnloaded", "ModelLoading", "ModelLoaded"]
    assert await kernel.answers()
    assert len(kernel.states) == 2
    assert len(kernel.models) == 3


async def test_the_state_follows_a_process_that_is_restarted_or_stopped_by_name(kernel: Kernel) -> None:
    assert await kernel.answers()
    kernel.events.clear()
    await kernel.hosts.restart("embedded")
    await eventually(lambda: len(kernel.states) == 2, within=10)
    assert kernel.states == [ProviderState.LOADING, ProviderState.CONNECTED]
    kernel.events.clear()
    await kernel.hosts.stop("embedded")
    assert kernel.states == [ProviderState.DISCONNECTED]
    assert kernel.provider.status().reason == "its process ended; the next question starts it"
    assert await kernel.answers()
    assert kernel.states == [ProviderState.DISCONNECTED, ProviderState.LOADING, ProviderState.CONNECTED]
    assert kernel.models == ["ModelUnloaded", "ModelLoading", "ModelLoaded"]


async def test_a_look_at_the_process_is_no_use_of_it(kernel: Kernel, llm_home: Path) -> None:
    assert await kernel.answers()
    (lease,) = (llm_home / "hosts").glob("*/*/leases/*")
    os.utime(lease, (0, 0))
    await kernel.provider.probe()
    await kernel.provider.get_available_models()
    assert lease.stat().st_mtime == 0
    assert await kernel.answers()
    assert lease.stat().st_mtime > 0


async def test_an_answer_whose_process_dies_is_truncated_and_the_next_one_is_whole(kernel: Kernel) -> None:
    received = []
    killed: list[int] = []

    async def read() -> None:
        async with kernel.provider.stream_completion("Once", model=MODEL_ID, options=ENDLESS) as stream:
            async for chunk in stream:
                received.append(chunk.text)
                if len(received) == 3:
                    killed.append(kernel.provider.process_id or 0)
                    os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(StreamTruncatedError):
        await read()
    await eventually(
        lambda: is_dead(killed[0]), within=2
    )  # its sockets close one by one, the listening one perhaps last
    assert await kernel.answers()


async def test_a_supervisor_that_is_killed_is_replaced_at_the_next_question(kernel: Kernel, llm_home: Path) -> None:
    assert await kernel.answers()
    first = kernel.provider.process_id
    assert first is not None
    os.kill(supervisor_of(llm_home), signal.SIGKILL)
    await eventually(lambda: is_dead(first), within=2)
    assert await kernel.answers()
    assert kernel.provider.process_id not in (None, first)


async def test_a_process_that_keeps_dying_is_a_host_error_once_and_then_started_anew(
    kernel: Kernel, other: Kernel, llm_home: Path
) -> None:
    assert await kernel.answers()
    assert await other.answers()
    other.events.clear()
    (llm_home / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").rename(llm_home / "gone.gguf")
    os.kill(kernel.provider.process_id or 0, signal.SIGKILL)
    await eventually(lambda: state_of(llm_home).get("restarts") == 1, within=5)
    asking = asyncio.create_task(kernel.answers())
    with pytest.raises(HostError, match="started again too often") as caught:
        await asking
    assert 1 <= len(caught.value.lines()) <= 3
    assert kernel.provider.state is ProviderState.FAILED
    assert kernel.chain[-1] == "ModelUnloaded"
    await eventually(lambda: other.provider.state is ProviderState.FAILED, within=2)  # where nobody asked
    assert "started again too often" in other.provider.status().reason
    assert other.states == [ProviderState.LOADING, ProviderState.FAILED]
    assert other.models == ["ModelUnloaded", "ModelLoading", "ModelUnloaded"]
    (llm_home / "gone.gguf").rename(llm_home / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert await kernel.answers()


async def test_a_load_that_is_interrupted_leaves_nothing_behind(kernel: Kernel, llm_home: Path) -> None:
    loading = asyncio.create_task(kernel.provider.load_model(MODEL_ID))
    await eventually(lambda: state_of(llm_home).get("host"), within=10)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert started_below(llm_home) == []
    assert leases_in(llm_home) == []
    assert await kernel.answers()


async def test_a_load_that_one_kernel_interrupts_goes_on_for_the_other(
    kernel: Kernel, other: Kernel, llm_home: Path
) -> None:
    loading = asyncio.create_task(kernel.provider.load_model(MODEL_ID))
    await eventually(lambda: state_of(llm_home).get("host"), within=10)
    joining = asyncio.create_task(other.provider.load_model(MODEL_ID))
    await eventually(lambda: len(leases_in(llm_home)) == 2, within=10)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await joining
    assert await other.answers()


async def test_another_model_takes_the_place_of_the_first(kernel: Kernel, llm_home: Path, weights: Path) -> None:
    place(weights, llm_home, "other.gguf")
    await kernel.provider.load_model(MODEL_ID)
    first = kernel.provider.process_id
    assert first is not None
    assert await kernel.answers("other")
    assert is_dead(first)
    assert (await kernel.provider.get_model_info("other")).loaded is True
    assert (await kernel.provider.get_model_info(MODEL_ID)).loaded is False


async def test_a_model_that_llama_cpp_refuses_is_a_typed_error_with_its_reason(
    kernel: Kernel, weights: Path, llm_home: Path
) -> None:
    file = llm_home / "cut.gguf"
    with weights.open("rb") as source, file.open("wb") as target:
        target.write(source.read(3 << 20))
        target.truncate(weights.stat().st_size - 1000)
    with pytest.raises(ModelLoadError, match=r"could not load cut\.gguf") as caught:
        await kernel.provider.load_model(str(file))
    assert 1 <= len(caught.value.lines()) <= 3
    assert "ModelLoaded" not in kernel.chain
    assert leases_in(llm_home) == []
    assert started_below(llm_home) == []


async def test_a_plan_that_would_crash_llama_cpp_starts_nothing(llm_home: Path) -> None:
    kernel = Kernel(llm_home, threads=0)
    with pytest.raises(InvalidInputError):
        await kernel.provider.load_model(MODEL_ID)
    assert not (llm_home / "hosts").exists()
    await kernel.close()


async def test_the_supervisor_makes_the_first_start_hardly_slower(
    llm_home: Path, report: Callable[[str], None]
) -> None:
    took: dict[bool, list[float]] = {True: [], False: []}
    for shared in (True, False) * 4:
        async with hosting(llm_home) as (hosts, _):
            launcher = SharedLlama(hosts) if shared else None
            async with LlamaCppProvider(home=llm_home, context=2048, threads=1, launcher=launcher) as provider:
                started = time.perf_counter()
                await provider.load_model(MODEL_ID)
                took[shared].append(time.perf_counter() - started)
    alone, supervised = (statistics.median(took[shared]) for shared in (False, True))
    report(f"start of the embedded model: {alone:.2f} s alone, {supervised:.2f} s under a supervisor (medians of 4)")
    assert supervised < alone + MARGIN
