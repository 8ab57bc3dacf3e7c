"""The llama.cpp process: it never outlives its kernel, survives an interrupt, keeps to itself, and comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio
from counts import times
from holders import ENDINGS, HOLDER, INTERRUPTED, Holder, is_dead, no_new_child
from live import eventually, place

from llm_jupyter.errors import StreamTruncatedError
from llm_jupyter.events import (
    ConnectionStateChanged,
    Event,
    HostStarted,
    HostStopped,
    ModelLoaded,
    ModelLoading,
    ModelUnloaded,
)
from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import Chunk, GenerationOptions, ProviderState

KILLS = times(20)
BRIEF = GenerationOptions(max_tokens=4, temperature=0.0)
ENDLESS = GenerationOptions(max_tokens=1800, extra={"ignore_eos": True})
CHAIN = (ModelLoading, HostStarted, ModelLoaded, HostStopped, ModelUnloaded)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest_asyncio.fixture
async def provider(llm_home: Path, events: list[Event]) -> AsyncIterator[LlamaCppProvider]:
    async with LlamaCppProvider(home=llm_home, context=2048, threads=1) as provider:
        provider.publish = events.append
        yield provider


async def all_of(stream: ChunkStream) -> list[Chunk]:
    return [chunk async for chunk in stream]


def chain(events: list[Event]) -> list[str]:
    """The names of the events about models and processes, in order."""
    return [type(event).__name__ for event in events if isinstance(event, CHAIN)]


# -- it never outlives its kernel


@pytest.mark.stress
@pytest.mark.timeout(300)
async def test_a_killed_kernel_leaves_no_model_process(llm_home: Path, report: Callable[[str], None]) -> None:
    took = []
    for _ in range(KILLS):
        holder = await Holder.start(HOLDER.replace("END", ENDINGS["generating on"]), llm_home)
        child = await holder.model_process()
        assert not is_dead(child)
        holder.kill()
        took.append(await eventually(lambda child=child: is_dead(child), within=2.0))
        assert await holder.process.wait() == -signal.SIGKILL
    report(f"{len(took)} of {KILLS} model processes died with their kernel, the slowest after {max(took):.3f} s")
    assert len(took) == KILLS


@pytest.mark.parametrize("ending", ["returning", "sys.exit", "an exception"])
async def test_a_kernel_that_ends_without_closing_leaves_no_model_process(llm_home: Path, ending: str) -> None:
    holder = await Holder.start(HOLDER.replace("END", ENDINGS[ending]), llm_home)
    child = await holder.model_process()
    assert await holder.process.wait() == {"returning": 0, "sys.exit": 3, "an exception": 1}[ending]
    await eventually(lambda: is_dead(child), within=2.0)


async def test_an_interrupt_of_the_kernels_group_leaves_the_model_process_to_answer_next(llm_home: Path) -> None:
    holder = await Holder.start(INTERRUPTED, llm_home)
    child = await holder.model_process()
    assert os.getpgid(child.pid) != os.getpgid(holder.process.pid)
    holder.interrupt_group()
    while (line := await holder.line()) != "interrupted":
        assert line == str(child.pid)
    assert await holder.line() == f"answered {child.pid} True"
    assert await holder.process.wait() == 0
    assert is_dead(child)


# -- it keeps to itself


async def test_only_the_holder_of_the_key_can_use_it_and_nobody_can_read_the_key(weights: Path) -> None:
    process = await LlamaProcess.start(weights, MODEL_ID, LaunchPlan(256, 1, 1))
    try:
        child = psutil.Process(process.pid)
        assert len(process.api_key) >= 32
        assert process.api_key not in " ".join(child.cmdline())
        assert process.api_key not in " ".join(f"{name}={value}" for name, value in child.environ().items())
        sockets = child.net_connections("inet")
        assert {(socket.laddr.ip, socket.status) for socket in sockets} == {("127.0.0.1", psutil.CONN_LISTEN)}
        assert [socket.laddr.port for socket in sockets] == [int(process.url.rpartition(":")[2])]
        body = {"prompt": "a", "max_tokens": 1}
        async with aiohttp.ClientSession() as session:
            for key, status in (("", 401), ("wrong", 401), (process.api_key, 200)):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                async with session.post(f"{process.url}/v1/completions", json=body, headers=headers) as reply:
                    assert reply.status == status
    finally:
        await process.stop()
    assert is_dead(child)
    await process.stop()


# -- it comes back


async def test_events_tell_the_life_of_a_process_in_order(provider: LlamaCppProvider, events: list[Event]) -> None:
    await provider.generate_completion("Once", model=MODEL_ID, options=BRIEF)
    pid = provider.process_id
    await provider.disconnect()
    assert chain(events) == ["ModelLoading", "HostStarted", "ModelLoaded", "HostStopped", "ModelUnloaded"]
    stopped = next(event for event in events if isinstance(event, HostStopped))
    assert (stopped.pid, stopped.expected) == (pid, True)
    assert provider.process_id is None


async def test_a_process_killed_between_answers_is_replaced_at_the_next(
    provider: LlamaCppProvider, events: list[Event]
) -> None:
    await provider.generate_completion("Once", model=MODEL_ID, options=BRIEF)
    first = provider.process_id
    assert first is not None
    events.clear()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: provider.process_id is None, within=2.0)
    response = await provider.generate_completion("Once", model=MODEL_ID, options=BRIEF)
    assert response.text
    assert provider.process_id not in (None, first)
    assert chain(events) == ["HostStopped", "ModelUnloaded", "ModelLoading", "HostStarted", "ModelLoaded"]
    stopped = next(event for event in events if isinstance(event, HostStopped))
    assert (stopped.pid, stopped.exit_code, stopped.expected) == (first, -signal.SIGKILL, False)


async def test_a_process_killed_in_mid_stream_is_a_truncated_answer(provider: LlamaCppProvider) -> None:
    received = []

    async def read() -> None:
        async with provider.stream_completion("Once", model=MODEL_ID, options=ENDLESS) as stream:
            async for chunk in stream:
                received.append(chunk.text)
                if len(received) == 3:
                    assert provider.process_id is not None
                    os.kill(provider.process_id, signal.SIGKILL)

    with pytest.raises(StreamTruncatedError):
        await read()
    assert len(received) >= 3
    await eventually(lambda: provider.process_id is None, within=2.0)


async def test_two_questions_at_once_share_one_process_and_one_slot(
    provider: LlamaCppProvider, events: list[Event]
) -> None:
    both = [provider.generate_chat_completion(word, model=MODEL_ID, options=BRIEF) for word in ("one", "two")]
    responses = await asyncio.gather(*both)
    assert all(response.text for response in responses)
    assert chain(events) == ["ModelLoading", "HostStarted", "ModelLoaded"]


async def test_another_model_takes_the_place_of_the_first(
    provider: LlamaCppProvider, events: list[Event], llm_home: Path, weights: Path
) -> None:
    place(weights, llm_home, "other.gguf")
    await provider.load_model(MODEL_ID)
    assert provider.process_id is not None
    first = psutil.Process(provider.process_id)
    response = await provider.generate_completion("Once", model="other", options=BRIEF)
    assert response.model == "other"
    assert provider.process_id not in (None, first.pid)
    assert is_dead(first)
    assert [event.expected for event in events if isinstance(event, HostStopped)] == [True]
    assert (await provider.get_model_info("other")).loaded is True
    assert (await provider.get_model_info(MODEL_ID)).loaded is False


@pytest.mark.parametrize("way", ["another model", "unload", "disconnect"])
async def test_an_answer_whose_model_is_stopped_breaks_off_at_once(
    provider: LlamaCppProvider, llm_home: Path, weights: Path, way: str
) -> None:
    place(weights, llm_home, "other.gguf")
    async with provider.stream_completion("Once", model=MODEL_ID, options=ENDLESS) as stream:
        assert await anext(stream)  # it answers; half a character is an empty piece
        ways = {
            "another model": lambda: provider.load_model("other"),
            "unload": lambda: provider.unload_model(MODEL_ID),
            "disconnect": provider.disconnect,
        }
        await ways[way]()
        with pytest.raises(StreamTruncatedError):
            await asyncio.wait_for(all_of(stream), 2)


async def test_a_load_that_is_interrupted_leaves_nothing_behind(
    provider: LlamaCppProvider, events: list[Event]
) -> None:
    before = set(psutil.Process().children())
    loading = asyncio.create_task(provider.load_model(MODEL_ID))
    await eventually(lambda: set(psutil.Process().children()) > before, within=10)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert no_new_child(before)
    states = [event.new for event in events if isinstance(event, ConnectionStateChanged)]
    assert states == [ProviderState.LOADING, ProviderState.CONNECTED]
    assert (await provider.generate_completion("Once", model=MODEL_ID, options=BRIEF)).text
