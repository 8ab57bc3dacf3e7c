"""Which model answers when none is named, with Ollamas that have whatever the case needs."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import Kernel
from servers.paced import ModelServer
from servers.scripted_ollama import ScriptedOllama, entry

from llm_jupyter.choice import fits
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import LLMSettings, ProviderSettings
from llm_jupyter.types import LLMModelInfo

HUGE = 10**15
EMBEDDED = "embedded/smollm2-135m"
NOWHERE = {"lmstudio": ProviderSettings(kind="lmstudio", base_url="http://127.0.0.1:9", enabled=False)}


class House:
    """Factories over one home folder, as one kernel after another would make them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._open: list[LLMFactory] = []

    def factory(self, ollama: ScriptedOllama, **more: Any) -> LLMFactory:
        providers = {**NOWHERE, **more.pop("providers", {})}
        settings = LLMSettings(home=self.home, providers=providers, **more)
        self._open.append(LLMFactory(settings, environment={"OLLAMA_HOST": ollama.origin}).open())
        return self._open[-1]

    async def choice(self, ollama: ScriptedOllama, **more: Any) -> tuple[str, str]:
        """The model that a new kernel would choose, and why."""
        chosen = await self.factory(ollama, **more).providers.choose(announce=False)
        return chosen.full_name, chosen.reason

    async def close(self) -> None:
        for factory in self._open:
            await factory.aclose()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


OLD = entry("old:1b", modified_at="2026-01-01T12:00:00.123456789Z")
MIDDLE = entry("middle:1b", modified_at="2026-03-01T12:00:00Z")
NEW = entry("new:1b", modified_at="2026-05-01T23:30:00-07:00")
"""The newest by the clock, not by the letters of its date: in UTC it is a day later."""
NEARLY = entry("nearly:1b", modified_at="2026-05-02T01:00:00Z")
EVERY = (OLD, NEW, NEARLY, MIDDLE)


async def test_each_reason_gives_way_to_the_one_above_it(house: House) -> None:
    """Newest, then the one used last, then a loaded one, then default_model, then the session's own."""
    with ScriptedOllama(*EVERY) as server:
        assert await house.choice(server) == ("ollama/new:1b", "it is the newest model in ollama")

        for used in ("ollama/middle:1b", "ollama/old:1b"):
            await house.factory(server).providers.use(used)
        assert await house.choice(server) == ("ollama/old:1b", "it was used last of what ollama has")

        server.loaded = {"nearly:1b": {}, "middle:1b": {}}
        assert await house.choice(server) == ("ollama/middle:1b", "it is loaded in ollama")
        server.loaded = {"nearly:1b": {}}
        assert await house.choice(server) == ("ollama/nearly:1b", "it is loaded in ollama")

        by_default = {"default_model": "ollama/new:1b"}
        assert await house.choice(server, **by_default) == ("ollama/new:1b", "it is default_model")

        session = house.factory(server, **by_default).sessions.current
        await session.use("ollama/old:1b")
        assert (await session.chat("hi")).model == "old:1b"
        assert server.chats == ["old:1b"]


@pytest.mark.parametrize(
    "unfit",
    [
        entry("embed:1b", capabilities=["embedding"]),
        entry("far:latest", remote_host="https://ollama.com:443", remote_model="far"),
        entry("far:120b-cloud", size=384),
        entry("far:cloud", size=384),
        entry("big:70b", size=HUGE),
    ],
    ids=lambda model: model["name"],
)
async def test_only_what_can_answer_here_is_chosen_unasked(house: House, unfit: dict[str, Any]) -> None:
    """Nor if it was used last, or is the newest and the only one."""
    recent = {f"ollama/{unfit['name']}": time.time()}
    (house.home / "recent.json").write_text(json.dumps(recent))
    newest = {**unfit, "modified_at": "2026-11-01T00:00:00Z"}
    with ScriptedOllama(newest, OLD) as server:
        assert (await house.choice(server))[0] == "ollama/old:1b"
        server.models = [newest]
        name, reason = await house.choice(server)
        assert (name, reason) == (
            "embedded/smollm2-135m",
            "ollama offered no local model for chat that fits into memory",
        )
        named = await house.factory(server).providers.resolve(f"ollama/{unfit['name']}")
        assert named.model == unfit["name"]


@pytest.mark.parametrize("unfit", [entry("embed:1b", capabilities=["embedding"]), entry("far:cloud")])
async def test_a_loaded_one_that_cannot_answer_here_is_not_chosen_either(house: House, unfit: dict[str, Any]) -> None:
    with ScriptedOllama(unfit, OLD) as server:
        server.loaded = {unfit["name"]: {}}
        assert (await house.choice(server))[0] == "ollama/old:1b"


async def test_where_no_server_answers_the_embedded_model_says_so(house: House) -> None:
    with ScriptedOllama(OLD) as server:
        pass
    assert await house.choice(server) == (EMBEDDED, "no local model server runs")
    down = ProviderSettings(kind="openai-compatible", base_url="http://127.0.0.1:9/v1")
    assert await house.choice(server, providers={"mine": down}) == (EMBEDDED, "mine did not answer")


async def test_what_is_loaded_fits_however_large_it_is(house: House) -> None:
    with ScriptedOllama(entry("big:70b", size=HUGE)) as server:
        server.loaded = {"big:70b": {}}
        assert await house.choice(server) == ("ollama/big:70b", "it is loaded in ollama")


@pytest.mark.parametrize("priority", [0, 7])
async def test_a_configured_server_comes_before_one_that_was_found(house: House, priority: int) -> None:
    """Even if on the found one a model is loaded and was used last."""
    used = {"ollama/old:1b": time.time()}
    (house.home / "recent.json").write_text(json.dumps(used))
    with ScriptedOllama(OLD) as found, ModelServer() as mine:
        found.loaded = {"old:1b": {}}
        local = ProviderSettings(kind="openai-compatible", base_url=mine.base_url, priority=priority)
        providers = {"mine": local}
        assert (await house.choice(found, providers=providers))[0] == "mine/m"
        mine.models = ()
        assert (await house.choice(found, providers=providers))[0] == "ollama/old:1b"


async def test_a_model_used_on_a_server_that_is_gone_leaves_the_choice_to_the_others(house: House) -> None:
    with ScriptedOllama(OLD) as server:
        (house.home / "recent.json").write_text(json.dumps({"lmstudio/x": time.time(), "ollama/gone": time.time()}))
        assert await house.choice(server) == ("ollama/old:1b", "it is the newest model in ollama")


async def test_a_server_that_needs_long_to_tell_of_its_models_is_not_taken_for_absent(house: House) -> None:
    """It says at once that it is there; the rest of its list may take longer than a silent server would be given."""
    without = {**OLD, "capabilities": None, "details": {}}
    with ScriptedOllama(without, slow_show=1.3) as server:
        assert (await house.choice(server))[0] == "ollama/old:1b"


async def test_local_only_refuses_the_remote_models_of_a_local_server(house: House) -> None:
    with ScriptedOllama(OLD, entry("far:cloud")) as server:
        manager = house.factory(server, local_only=True).providers
        assert (await manager.use("ollama/old:1b")).is_local
        for name in ("ollama/far:cloud", "far:cloud"):
            with pytest.raises(InvalidInputError, match="local_only"):
                await manager.use(name)
        assert not (await house.factory(server).providers.use("far:cloud")).is_local


def sized(size: int | None, *, loaded: bool | None = None) -> LLMModelInfo:
    return LLMModelInfo(id="m", name="m", provider="p", is_local=True, size=size, loaded=loaded)


def test_a_model_fits_with_a_fifth_to_spare() -> None:
    free = psutil.virtual_memory().available
    assert fits(sized(free // 2)) is True
    assert fits(sized(int(free * 0.95))) is False
    assert fits(sized(HUGE)) is False
    assert fits(sized(None)) is None
    assert fits(sized(HUGE, loaded=True)) is True
    assert fits(sized(None, loaded=True)) is True


# -- in a kernel


def test_what_was_used_in_one_kernel_answers_in_the_next(tmp_path: Path) -> None:
    with ScriptedOllama(OLD, NEW) as server:
        environment = {"OLLAMA_HOST": f"127.0.0.1:{server.port}"}
        with Kernel(tmp_path, environment) as kernel:
            kernel.load()
            first = kernel.run("%chat hi")
            kernel.run("%llm use ollama/old:1b")
            kernel.restart()
            kernel.load()
            will = kernel.run("%llm").printed
            again = kernel.run("%chat hi")
    assert first.texts == ["I am new:1b"]
    assert "It answers because it is the newest model in ollama" in first.footers[0]
    assert will.startswith("ollama/old:1b (local) will answer because it was used last")
    assert again.texts == ["I am old:1b"]
    assert "It answers because it was used last of what ollama has" in again.footers[0]
    assert server.chats == ["new:1b", "old:1b"]


def test_a_remote_model_of_a_local_server_says_so_before_and_after(tmp_path: Path) -> None:
    far = entry("far:cloud", remote_host="https://ollama.com:443")
    with ScriptedOllama(OLD, far) as server, Kernel(tmp_path, {"OLLAMA_HOST": server.origin}) as kernel:
        kernel.load()
        used = kernel.run("%llm use ollama/far:cloud").printed
        look = kernel.run("%llm").printed
        ran = kernel.run("%chat hi")
    assert "remote: prompts leave this machine" in used
    assert look.startswith("ollama/far:cloud (remote) answers because you named it")
    assert ran.footers[0].startswith("ollama/far:cloud · remote")
