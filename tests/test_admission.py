"""Who may be spoken to: another user's server gets nothing unless the person names it while it is there, whoever had its port
before; and what leaves the machine is called remote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from clocks import ManualClock
from routes import Faulty, Routes, free_port
from servers.scripted import Request, Script, reply
from servers.scripted_ollama import ScriptedOllama, entry
from test_failover import far_at, nowhere, ollama_at

from llm_jupyter.errors import ForeignServerError, InvalidInputError, ModelNotFoundError
from llm_jupyter.events import ModelChosen
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import ProviderState

MODEL = "ollama/qwen:1b"


class Port(ScriptedOllama):
    """An Ollama at its usual port, and whose it is: `stolen` says that another user's process listens there now.

    `stolen_at` is the path of the request with whose answer that happens.
    """

    def __init__(self) -> None:
        self.stolen = False
        self.stolen_at = ""
        super().__init__(entry("qwen:1b"))

    def foreign(self, urls: Collection[str]) -> Collection[str]:
        return [url for url in urls if self.stolen and url == self.origin]

    def routes(self, others: dict[str, Any] | None = None, **settings: Any) -> Routes:
        def found(name: str) -> LLMProvider:
            return OllamaProvider(name, self.origin)

        recipes = {"ollama": {"was_found": True, "base_url": self.origin}}
        return Routes({"ollama": found, **(others or {})}, recipes=recipes, foreign=self.foreign, **settings)

    def _script(self, request: Request) -> Script:
        script = super()._script(request)
        self.stolen = self.stolen or request.path == self.stolen_at
        return script


@pytest.fixture
def port() -> Iterator[Port]:
    with Port() as port:
        yield port


@pytest.mark.parametrize("default", [MODEL, "ollama", None])
async def test_one_who_takes_the_port_between_two_looks_gets_nothing_and_the_owner_is_asked_again(
    port: Port, default: str | None
) -> None:
    async with port.routes(default_model=default, retries=0) as routes:
        await routes.ask("mine")
        assert routes.state("ollama") is ProviderState.CONNECTED
        before, port.stolen = len(port.requests), True
        for _ in range(2):
            with pytest.raises(ForeignServerError) as caught:
                await routes.ask("secret")
            (line,) = caught.value.lines()
            assert f"another user's; asked only when it is named [ollama at {port.origin}]" in line
            assert f"%llm use {MODEL} names it" in line
            assert "%llm use embedded" in line
        assert routes.state("ollama") is ProviderState.FAILED
        assert (await routes.connection("ollama").check()).state is ProviderState.FAILED
        assert "another user's" in routes.connection("ollama").status().reason
        assert len(port.requests) == before
        port.stolen = False
        assert (await routes.ask("mine again")).text == "I am qwen:1b"
        assert routes.state("ollama") is ProviderState.CONNECTED


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/api/generate", "/api/show"])
@pytest.mark.parametrize("named", [None, MODEL])
async def test_one_who_takes_the_port_while_the_owner_tells_or_loads_gets_no_prompt(
    port: Port, path: str, named: str | None
) -> None:
    port.stolen_at = path
    async with port.routes(default_model=MODEL, retries=0) as routes:
        with pytest.raises(ForeignServerError):
            await routes.ask("secret", model=named)
        assert port.stolen
        assert port.chats == []


async def test_a_name_means_another_users_server_only_where_it_stands_there_when_the_name_is_given(port: Port) -> None:
    async with port.routes(default_model=MODEL, retries=0) as routes:
        own = await routes.manager.use(MODEL)
        port.stolen = True
        before = len(port.requests)
        with pytest.raises(ForeignServerError):
            await routes.manager.verified(own)
        assert len(port.requests) == before
        assert (await routes.ask(model=MODEL)).provider == "ollama"  # named with this question
        with pytest.raises(ForeignServerError):
            await routes.ask()  # and not with the next one
        await routes.session.use(MODEL)
        assert (await routes.ask()).provider == "ollama"
        assert (await routes.connection("ollama").check()).state is ProviderState.CONNECTED
        await routes.manager.disconnect("ollama")
        routes.registry.enable("ollama")
        with pytest.raises(ForeignServerError):
            await routes.ask()


async def test_another_users_server_that_was_named_is_listed_and_found_and_never_chosen_unnamed(port: Port) -> None:
    port.stolen = True
    async with Faulty(["k"]) as own, port.routes({"own": own}, default_model=None, retries=0) as routes:
        manager = routes.manager
        assert isinstance((await manager.catalogue())[0].error, ForeignServerError)
        with pytest.raises(ModelNotFoundError):
            await manager.resolve("qwen:1b", named=True)
        assert port.requests == []
        await manager.connect("ollama")
        assert manager.admission.is_others("ollama")
        assert [model.full_name for model in (await manager.catalogue())[0].models] == [MODEL]
        named = await manager.resolve("qwen:1b", named=True)
        assert (await manager.verified(named)).full_name == MODEL
        with pytest.raises(ForeignServerError):  # a name of the settings
            await manager.verified(await manager.resolve("qwen:1b"))
        own.models = ("k", "qwen:1b")
        assert (await manager.resolve("qwen:1b", named=True)).full_name == "own/qwen:1b"
        asked = len(port.requests)
        assert (await manager.choose()).provider.name == "own"
        assert len(port.requests) == asked
        port.stolen = False
        assert not manager.admission.is_others("ollama")


async def test_a_name_that_a_conversation_was_given_another_day_names_nobody_new(port: Port) -> None:
    async with port.routes(retries=0) as routes:
        routes.session.wish(MODEL)
        port.stolen = True
        with pytest.raises(ForeignServerError):
            await routes.ask("secret")
        with pytest.raises(ForeignServerError):
            await routes.session.preview(routes.session.ask("secret").asked)
        assert port.requests == []


@pytest.mark.parametrize("fallback", [MODEL, "ollama"])
async def test_a_list_of_fallbacks_names_no_server_of_another_user(port: Port, fallback: str) -> None:
    port.stolen = True
    async with Faulty(["n"]) as other:
        servers = {"down": f"http://127.0.0.1:{free_port()}/v1", "other": other}
        settings = {"default_model": "down/m", "clock": ManualClock()}
        async with port.routes(servers, fallback=[fallback, "other/n"], **settings) as routes:
            assert [choice.full_name for choice in await routes.manager.fallbacks()] == ["other/n"]
            assert (await routes.ask("secret")).provider == "other"
            assert port.requests == []


@pytest.mark.parametrize("default", [MODEL, "ollama"])
async def test_a_default_at_a_server_of_another_user_gives_way_to_what_is_listed(port: Port, default: str) -> None:
    port.stolen = True
    async with (
        Faulty(["n"]) as other,
        port.routes({"other": other}, default_model=default, fallback=["other/n"]) as routes,
    ):
        response = await routes.ask("secret")
        assert response.provider == "other"
        assert response.tried == (f"{default}: it is another user's; asked only when it is named",)
        port.stolen = False
        assert (await routes.ask()).provider == "ollama"


async def test_a_bare_name_in_the_list_asks_nobody_before_its_turn() -> None:
    async with Faulty() as first, Faulty(["n"]) as far, Faulty(["k"]) as other:
        servers = {"first": first, "far": far_at(far), "other": other}
        recipes = {"far": {"is_local": False}}
        async with Routes(servers, fallback=["far", "other"], recipes=recipes, clock=ManualClock()) as routes:
            assert [choice.full_name for choice in await routes.manager.fallbacks()] == ["far", "other"]
            assert (far.visits, other.visits) == ([], [])
            first.chat = reply("", 500)
            assert (await routes.ask()).provider == "other"
            assert (other.chats[0]["model"], far.visits) == ("k", [])


# -- models that their server passes on

CLOUD = "ollama/mycopy"
"""A model that is remote, as only its server can tell."""


def passing_on() -> ScriptedOllama:
    return ScriptedOllama(entry("mycopy", remote_host="https://ollama.com:443"), entry("here"))


async def test_what_a_server_has_told_of_a_model_counts_for_more_than_its_name() -> None:
    with passing_on() as ollama:
        async with Routes({"ollama": ollama_at(ollama)}, default_model=CLOUD, fallback=[CLOUD, "ollama"]) as routes:
            manager = routes.manager
            chosen = await manager.choose(trusting=True)
            assert ollama.requests == []
            await manager.catalogue()
            asked = len(ollama.requests)
            assert not manager.informed(chosen).is_local
            assert not (await manager.choose(trusting=True)).is_local
            assert [(one.full_name, one.is_local) for one in await manager.fallbacks()] == [
                (CLOUD, False), ("ollama/here", True),
            ]  # fmt: skip
            assert len(ollama.requests) == asked
            manager.local_only = True
            with pytest.raises(InvalidInputError, match="remote, and local_only is set"):
                await manager.choose(trusting=True)
            with pytest.raises(
                InvalidInputError, match=r"remote, and local_only is set\n%llm models lists what is local"
            ):
                manager.permitted(chosen)


@pytest.mark.parametrize("default", [CLOUD, "ollama/here", "ollama"])
async def test_a_dry_run_says_where_the_model_runs_and_so_does_the_conversation_after_a_question(default: str) -> None:
    with passing_on() as ollama:
        async with Routes({"ollama": ollama_at(ollama)}, default_model=default) as routes:
            choice, _ = await routes.session.preview(routes.session.ask("hi").asked)
            assert choice is not None
            answerer = "ollama/here" if default == "ollama" else default
            assert (choice.full_name, choice.is_local) == (answerer, default != CLOUD)
            assert not any(request.path in ("/api/generate", "/api/chat") for request in ollama.requests)
            await routes.ask()
            choice = routes.session.choice
            assert choice is not None
            assert (choice.full_name, choice.is_local) == (answerer, default != CLOUD)


async def test_a_dry_run_needs_no_server() -> None:
    async with Routes({"down": nowhere()}) as routes:
        choice, _ = await routes.session.preview(routes.session.ask("hi").asked)
        assert choice is not None
        assert (choice.full_name, choice.is_local) == ("down/m", True)


async def test_a_default_that_names_a_provider_alone_is_chosen_and_said_once_its_server_has_told() -> None:
    async with Faulty(["m"]) as first, Faulty(["n"]) as other:
        servers = {"first": first, "other": other}
        async with Routes(servers, default_model="first", fallback=["other"], clock=ManualClock()) as routes:
            assert (await routes.manager.choose(trusting=True)).full_name == "first"
            assert first.visits == []
            for _ in range(2):
                assert (await routes.ask()).provider == "first"
            assert [(event.model, event.reason) for event in routes.heard(ModelChosen)] == [
                ("m", "it is default_model")
            ]
            first.chat = reply("", 500)
            assert (await routes.ask()).provider == "other"
