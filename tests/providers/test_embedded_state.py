"""However the embedded model's process fares and whoever asks meanwhile: one event for each change, and none missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import HostError
from llm_jupyter.events import ConnectionStateChanged, Event, ModelLoaded, ModelLoading, ModelUnloaded
from llm_jupyter.providers._llama_process import LaunchPlan, Outlook
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import ProviderState

S = ProviderState


class Process:
    """A process, of which the test says what becomes of it; after each start it is at another URL."""

    api_key = "key"
    pid = 1

    def __init__(self, looked: Callable[[], object]) -> None:
        self.looked = looked
        self.becomes = S.CONNECTED
        self.start = self._known = 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._known}"

    @property
    def is_running(self) -> bool:
        return self.becomes is S.CONNECTED and self._known == self.start

    def follow(self) -> Outlook:
        is_anew = self.becomes is S.CONNECTED and self._known != self.start
        if is_anew:
            self._known = self.start
        return Outlook(self.becomes, "so it is", is_anew)

    async def recover(self) -> bool:
        await asyncio.sleep(0)
        if self.becomes is S.FAILED:
            raise HostError("given up")
        if not self.is_running:
            self.start += self.becomes is not S.CONNECTED
            self.becomes, self._known = S.CONNECTED, self.start
        return True

    async def stop(self) -> None:
        self.becomes = S.DISCONNECTED
        self.looked()


class Launcher:
    """Starts such processes."""

    def __init__(self) -> None:
        self.started: list[Process] = []

    async def launch(
        self, model: Path, alias: str, plan: LaunchPlan, *, host: str, publish: Callable[[Event], object],
        looked: Callable[[], object],
    ) -> Process:  # fmt: skip
        looked()
        self.started.append(Process(looked))
        return self.started[-1]


class Bench:
    """A provider whose process is such a one, and all that it published."""

    def __init__(self, folder: Path) -> None:
        self.model = str(folder / "tiny.gguf")
        Path(self.model).touch()
        self.launcher = Launcher()
        self.events: list[Event] = []
        self.provider = LlamaCppProvider(home=folder, launcher=self.launcher)
        self.provider.publish = self.events.append

    async def take(self, step: str) -> None:
        process = self.launcher.started[-1] if self.launcher.started else None
        if step == "ask":
            try:
                await self.provider.load_model(self.model)
            except HostError:
                assert self.provider.state is S.FAILED
            else:
                assert self.provider.state is S.CONNECTED
        elif step == "unload":
            await self.provider.unload_model(self.model)
        elif step == "connect":
            await self.provider.connect()
        elif process is not None and step == "look":
            process.looked()
        elif process is not None:
            state = S[step]
            process.start += process.becomes is not S.CONNECTED and state is S.CONNECTED
            process.becomes = state

    @property
    def is_in_memory(self) -> bool:
        """Whether the model is, as far as was told."""
        told = [event for event in self.events if isinstance(event, ModelLoading | ModelLoaded | ModelUnloaded)]
        return bool(told) and not isinstance(told[-1], ModelUnloaded)

    def check(self) -> None:
        """Whether what was published can be the life of a process, told without a gap."""
        states = [event for event in self.events if isinstance(event, ConnectionStateChanged)]
        assert all(before.new is after.old is not after.new for before, after in pairwise(states))
        told = [type(e) for e in self.events if isinstance(e, ModelLoading | ModelLoaded | ModelUnloaded)]
        for before, after in pairwise([ModelUnloaded, *told]):
            assert after in {
                ModelUnloaded: {ModelLoading}, ModelLoading: {ModelLoaded, ModelUnloaded}, ModelLoaded: {ModelUnloaded},
            }[before]  # fmt: skip


STEPS = st.sampled_from(["ask", "look", "connect", "unload", "CONNECTED", "LOADING", "FAILED", "DISCONNECTED"])


@given(steps=st.lists(STEPS, max_size=20))
def test_whatever_becomes_of_the_process_its_states_and_its_model_are_told_in_order(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def live() -> None:
        bench = Bench(tmp_path_factory.mktemp("home"))
        for step in ["ask", *steps]:
            await bench.take(step)
            bench.check()
        process = bench.launcher.started[-1]
        is_held = bench.provider.process_id is not None
        process.looked()
        if is_held and process.becomes is not bench.provider.state:
            assert bench.provider.state is S.CONNECTED, "only a person who connects may say so before it is"
            assert "connect" in steps
        assert bench.is_in_memory == (is_held and process.becomes in (S.LOADING, S.CONNECTED))
        await bench.provider.disconnect()
        bench.check()
        assert bench.provider.state is S.DISCONNECTED

    asyncio.run(live())


async def test_a_look_while_a_question_starts_the_process_again_says_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.take("ask")
    process = bench.launcher.started[0]
    bench.events.clear()
    process.becomes = S.LOADING
    asking = asyncio.create_task(bench.provider.load_model(bench.model))
    await asyncio.sleep(0)
    process.looked()
    await asking
    process.looked()
    kinds = [type(event) for event in bench.events]
    assert kinds == [ConnectionStateChanged, ModelUnloaded, ModelLoading, ConnectionStateChanged, ModelLoaded]


async def test_a_question_that_is_interrupted_while_the_process_comes_back_leaves_the_truth(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.take("ask")
    process = bench.launcher.started[0]
    process.becomes = S.LOADING
    asking = asyncio.create_task(bench.provider.load_model(bench.model))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    process.looked()
    assert bench.provider.state is S.LOADING
    await bench.take("CONNECTED")
    process.looked()
    assert bench.provider.state is S.CONNECTED
    bench.check()
