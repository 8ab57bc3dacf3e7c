from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from providers.gguf_files import giant
from servers.paced import ModelServer
from servers.scripted import Gate, ScriptedServer

from llm_jupyter.errors import (
    InvalidInputError,
    LLMConnectionError,
    LLMError,
    ModelLoadError,
    ModelNotFoundError,
    ProviderNotFoundError,
)
from llm_jupyter.events import Event, EventBus, ModelChosen, ProviderRegistered
from llm_jupyter.factory import LLMFactory
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import EMBEDDED, ProviderRegistry, Recipe
from llm_jupyter.settings import load_settings


class Closing(OpenAICompatibleProvider):
    """Writes down that it was closed; the one named `stubborn` cannot be."""

    def __init__(self, name: str, url: str, order: list[str]) -> None:
        super().__init__(name, url)
        self._order = order

    async def disconnect(self) -> None:
        await super().disconnect()
        self._order.append(self.name)
        if self.name == "stubborn":
            raise RuntimeError("no")


class House:
    """A registry and a manager over servers, and what happens in them."""

    def __init__(self, home: Path) -> None:
        self.events, self.closed, self.made = EventBus(), list[str](), list[str]()
        self.registry = ProviderRegistry(self.events)
        self.registry.register(
            Recipe(EMBEDDED, "llamacpp", lambda: LlamaCppProvider(EMBEDDED, home=home), True, priority=-100)
        )
        self.manager = self.managed()

    @property
    def heard(self) -> list[Event]:
        return self.events.history()

    def managed(self, **settings: Any) -> LLMProviderManager:
        self.manager = LLMProviderManager(self.registry, self.events, **settings)
        return self.manager

    def add(self, name: str, url: str, *, priority: int = 0, local: bool = True, enabled: bool = True) -> None:
        def build() -> LLMProvider:
            self.made.append(name)
            return Closing(name, url, self.closed)

        self.registry.register(Recipe(name, "openai-compatible", build, local, priority, enabled))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.manager.aclose()


def nowhere() -> str:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


async def test_a_provider_is_made_at_first_use_and_kept(house: House) -> None:
    house.add("local", nowhere())
    assert house.made == []
    assert house.manager.get("local") is house.manager.get("local")
    assert (house.made, house.manager.is_active("local"), house.manager.is_active(EMBEDDED)) == (["local"], True, False)


async def test_providers_close_in_reverse_and_one_that_fails_stops_nobody(house: House) -> None:
    for name in ("first", "stubborn", "third"):
        house.add(name, nowhere())
        house.manager.get(name)
    await house.manager.aclose()
    await house.manager.aclose()
    assert house.closed == ["third", "stubborn", "first"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("local/lama-3", ["local/llama-3"]),
        ("lama-3", ["local/llama-3"]),
        ("locl/llama-3", ["local/llama-3"]),
        ("embedded/smolm2", ["embedded/smollm2-135m"]),
        ("zzzzzzzz", []),
    ],
)
async def test_an_unknown_model_is_answered_with_the_nearest_names(house: House, name: str, nearest: list[str]) -> None:
    async with ModelServer(["llama-3", "vendor/deep-7b"]) as server:
        house.add("local", server.base_url)
        with pytest.raises(ModelNotFoundError) as caught:
            await house.manager.resolve(name)
        assert list(caught.value.nearest)[: len(nearest) or None] == nearest
        assert all(near in caught.value.next_step for near in nearest)
        for near in caught.value.nearest:
            assert (await house.manager.resolve(near)).full_name == near


async def test_a_bare_name_is_looked_up_by_priority(house: House) -> None:
    async with ModelServer(["m", "only-low"]) as low, ModelServer(["m"]) as high:
        house.add("low", low.base_url, priority=1)
        house.add("high", high.base_url, priority=2)
        assert (await house.manager.resolve("m")).full_name == "high/m"
        assert (await house.manager.resolve(" only-low ")).full_name == "low/only-low"
        assert (await house.manager.resolve("low/m")).full_name == "low/m"


async def test_a_name_with_a_slash_belongs_to_whoever_has_it(house: House) -> None:
    async with ModelServer(["vendor/deep-7b"]) as server:
        house.add("local", server.base_url)
        for name in ("vendor/deep-7b", "local/vendor/deep-7b"):
            assert (await house.manager.resolve(name)).full_name == "local/vendor/deep-7b"


async def test_a_gguf_file_is_named_by_its_path(house: House, tmp_path: Path) -> None:
    file = tmp_path / "mine and yours.gguf"
    file.write_bytes(giant())
    choice = await house.manager.resolve(str(file))
    assert (choice.provider.name, choice.model, choice.full_name) == (EMBEDDED, str(file), str(file))
    file.write_bytes(b"no model at all")
    with pytest.raises(ModelLoadError, match="not a GGUF file"):
        await house.manager.resolve(str(file))
    with pytest.raises(ModelNotFoundError):
        await house.manager.resolve(str(tmp_path / "not there.gguf"))


async def test_a_disabled_provider_is_neither_listed_nor_asked(house: House) -> None:
    async with ModelServer() as server:
        house.add("local", server.base_url, enabled=False)
        with pytest.raises(InvalidInputError, match="switched off") as caught:
            await house.manager.resolve("local/m")
        assert "%llm connect local" in caught.value.next_step
        assert (await house.manager.choose()).provider.name == EMBEDDED
        assert [shelf.recipe.name for shelf in await house.manager.catalogue()] == [EMBEDDED]
        assert server.visits == []
        house.registry.enable("local")
        assert (await house.manager.choose()).full_name == "local/m"


async def test_connecting_switches_nothing_on_that_the_settings_keep_off(tmp_path: Path) -> None:
    system = tmp_path / "etc.toml"
    async with ModelServer() as server:
        system.write_text(
            f'[providers.s]\nkind = "openai-compatible"\nbase_url = "{server.base_url}"\n[locked.providers.s]\nenabled = false\n'
        )
        settings = load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path)}, system=[system])
        async with LLMFactory(settings, environment={}) as llm:
            for asking in (llm.providers.connect, llm.providers.resolve, llm.providers.connect):
                with pytest.raises(InvalidInputError, match=f"'s' is switched off: locked by {system}") as caught:
                    await asking("s")
                assert "connect" not in caught.value.next_step
                await llm.providers.disconnect("s")
        assert server.visits == []


async def test_remote_providers_are_asked_only_when_they_are_named(house: House) -> None:
    async with ModelServer() as server:
        house.add("far", server.base_url, local=False, priority=99)
        assert (await house.manager.choose()).provider.name == EMBEDDED
        with pytest.raises(ModelNotFoundError):
            await house.manager.resolve("m")
        await house.manager.catalogue()
        assert (server.visits, house.made) == ([], [])
        assert (await house.manager.resolve("far/m")).full_name == "far/m"
        names = [shelf.recipe.name for shelf in await house.manager.catalogue(remote=True)]
        assert names == ["far", EMBEDDED]


async def test_local_only_never_makes_a_remote_provider(house: House) -> None:
    house.add("far", nowhere(), local=False)
    manager = house.managed(local_only=True)
    with pytest.raises(InvalidInputError, match="local_only"):
        await manager.use("far/m")
    assert [shelf.recipe.name for shelf in await manager.catalogue(remote=True)] == [EMBEDDED]
    assert house.made == []


async def test_servers_that_are_down_or_silent_are_passed_over_when_nobody_named_one(house: House) -> None:
    async with ScriptedServer([Gate()]) as silent, ModelServer() as server:
        house.add("down", nowhere(), priority=30)
        house.add("silent", silent.base_url, priority=20)
        house.add("local", server.base_url, priority=10)
        choice = await house.manager.choose()
        assert choice.full_name == "local/m"
        assert "local" in choice.reason


async def test_a_default_that_is_gone_is_an_error_and_nothing_else_is_chosen(house: House) -> None:
    async with ModelServer() as server:
        house.add("local", server.base_url)
        house.add("down", nowhere())
        for default, kind in (("local/gone", ModelNotFoundError), ("down/m", LLMConnectionError)):
            with pytest.raises(kind):
                await house.managed(default_model=default).choose()
        choice = await house.managed(default_model="local/other-model").choose()
        assert (choice.model, choice.reason) == ("other-model", "it is default_model")


async def test_a_choice_is_announced_unless_it_is_only_looked_at(house: House) -> None:
    await house.manager.choose(announce=False)
    assert not [event for event in house.heard if isinstance(event, ModelChosen)]
    await house.manager.use("embedded/smollm2-135m")
    (chosen,) = [event for event in house.heard if isinstance(event, ModelChosen)]
    assert (chosen.provider, chosen.model, chosen.is_local) == (EMBEDDED, "smollm2-135m", True)


async def test_the_catalogue_holds_the_error_of_who_is_down(house: House) -> None:
    async with ModelServer() as server:
        house.add("down", nowhere(), priority=2)
        house.add("local", server.base_url, priority=1)
        down, local, _ = await house.manager.catalogue()
        assert isinstance(down.error, LLMConnectionError)
        assert (local.error, [model.id for model in local.models]) == (None, ["m", "other-model"])


def test_the_registry_keeps_recipes_by_priority_and_knows_near_names(tmp_path: Path) -> None:
    house = House(tmp_path)
    for name, priority in (("b", 1), ("a", 1), ("lmstudio", 5)):
        house.add(name, nowhere(), priority=priority)
    assert [recipe.name for recipe in house.registry.recipes()] == ["lmstudio", "a", "b", EMBEDDED]
    with pytest.raises(ProviderNotFoundError) as caught:
        house.registry.recipe("lmstdio")
    assert caught.value.next_step == "Did you mean lmstudio?"
    house.registry.unregister("a")
    assert "a" not in house.registry
    with pytest.raises(ProviderNotFoundError):
        house.registry.unregister("a")
    with pytest.raises(ProviderNotFoundError):
        house.registry.enable("nobody")
    registered = [event.provider for event in house.heard if isinstance(event, ProviderRegistered)]
    assert registered == [EMBEDDED, "b", "a", "lmstudio"]


async def test_every_error_of_the_manager_is_an_llm_error(house: House) -> None:
    for name in ("", "/", "//", "embedded/", "\x00.gguf", "~nobody/x.gguf", "x" * 5000 + ".gguf"):
        with pytest.raises(LLMError):
            await house.manager.resolve(name)
