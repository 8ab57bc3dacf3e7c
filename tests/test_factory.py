from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import kernel_environment
from routes import free_port
from servers.paced import ModelServer, endless
from servers.scripted import answer, reply

from llm_jupyter.errors import (
    ConfigurationError,
    InvalidInputError,
    LLMConnectionError,
    ModelNotFoundError,
    ServerError,
    SessionError,
)
from llm_jupyter.events import (
    Event,
    FactoryClosed,
    FactoryOpened,
    HostAdopted,
    HostStarted,
    HostStopped,
    ModelChosen,
    ModelLoaded,
    ModelLoading,
    ProviderConnected,
    ProviderRegistered,
    RequestFinished,
    RequestFirstToken,
    RequestStarted,
    SessionCreated,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.processes import adopt_others
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import Recipe
from llm_jupyter.settings import LLMSettings, ProviderSettings, load_settings


def settings(home: Path, server: ModelServer | None = None, **more: Any) -> LLMSettings:
    provider = {"local": ProviderSettings(kind="openai-compatible", base_url=server.base_url)} if server else {}
    return LLMSettings(home=home, providers=provider, **more)


def test_a_program_without_a_loop_asks_and_listens(tmp_path: Path) -> None:
    with ModelServer() as server:
        server.next(answer("Hel", "lo"), answer("It ", "goes ", "on"))
        with LLMFactory(settings(tmp_path, server), environment={}) as llm:
            assert str(llm.chat("hi", temperature=0.0)) == "Hello"
            assert "".join(llm.stream("more", max_tokens=5)) == "It goes on"
            llm.use("local/other-model")
            llm.chat("and?", system="Be brief.")
        assert server.contents() == ["Be brief.", "hi", "Hello", "more", "It goes on", "and?"]
        assert [chat["model"] for chat in server.chats] == ["m", "m", "other-model"]
        assert (server.chats[0]["temperature"], server.chats[1]["max_tokens"]) == (0.0, 5)


async def test_one_that_was_not_opened_says_what_to_write_and_starts_nothing(tmp_path: Path) -> None:
    async with ModelServer() as server:
        llm = LLMFactory(settings(tmp_path, server), environment={})
        for ask in (lambda: llm.chat("hi"), lambda: next(iter(llm.stream("hi"))), lambda: llm.use("local/m")):
            with pytest.raises(SessionError, match=r"not open yet\nWrite: with LLMFactory\(\) as llm"):
                ask()
        for asked in (llm.sessions.current.chat("hi"), llm.sessions.current.use("local/m")):
            with pytest.raises(SessionError, match="not open yet"):
                await asked
        assert not llm.portal.started
        assert server.visits == []


async def test_a_program_with_a_loop_awaits(tmp_path: Path) -> None:
    async with ModelServer() as server, LLMFactory(settings(tmp_path, server), environment={}) as llm:
        assert (await llm.sessions.current.chat("hi")).text == "Heard: hi"
        asked = [llm.sessions.new().chat(text) for text in ("a", "b")]
        assert [r.text for r in await asyncio.gather(*asked)] == ["Heard: a", "Heard: b"]
        assert not llm.portal.started


def test_leaving_a_stream_early_stops_the_server(tmp_path: Path) -> None:
    with ModelServer() as server:
        server.next(endless("tick "))
        with LLMFactory(settings(tmp_path, server), environment={}) as llm:
            stream = llm.stream("hi")
            assert next(stream).startswith("tick")
            stream.close()  # type: ignore[attr-defined]
            visit = next(v for v in server.visits if v.request.method == "POST")
            assert visit.wait_until_left(1)


def test_the_steps_are_events_in_order_each_when_first_needed(tmp_path: Path) -> None:
    with ModelServer() as server:
        factory = LLMFactory(settings(tmp_path, server), environment={})
        assert factory.events.history() == []
        with factory:
            heard = factory.events.history()
            registered = [event.provider for event in heard[1:] if isinstance(event, ProviderRegistered)]
            assert isinstance(heard[0], FactoryOpened)
            assert registered == ["embedded", "local", "ollama", "lmstudio", "llama-server", "vllm", "sglang"]
            assert len(heard) == 1 + len(registered)
            assert server.visits == []
            factory.chat("hi")
        factory.close()
    order = [
        FactoryOpened, ProviderRegistered, ProviderConnected, ModelChosen, SessionCreated, RequestStarted, RequestFirstToken,
        RequestFinished, FactoryClosed,
    ]  # fmt: skip
    heard = factory.events.history()
    kinds = list(dict.fromkeys(type(event) for event in heard))
    assert [kind for kind in kinds if kind in order] == order
    assert sum(isinstance(event, FactoryClosed) for event in heard) == 1


@pytest.mark.live
def test_the_embedded_model_is_started_at_the_first_question_and_gone_after_the_last(llm_home: Path) -> None:
    with LLMFactory(settings(llm_home), environment={}) as llm:
        assert llm.chat("Say hello.", max_tokens=5, temperature=0.0).text
        (started,) = llm.events.history(HostStarted)
        assert psutil.pid_exists(started.pid)
    order = [
        ModelChosen,
        ModelLoading,
        HostStarted,
        ModelLoaded,
        SessionCreated,
        RequestStarted,
        RequestFinished,
        HostStopped,
    ]
    kinds = list(dict.fromkeys(type(event) for event in llm.events.history()))
    assert [kind for kind in kinds if kind in order] == order
    assert not psutil.pid_exists(started.pid)


class Left(Event, frozen=True, kw_only=True):
    """A provider is closed."""

    provider: str


class Noted(OpenAICompatibleProvider):
    """Says when it is closed."""

    async def disconnect(self) -> None:
        await super().disconnect()
        self.publish(Left(provider=self.name))


def test_closing_is_idempotent_and_goes_in_reverse(tmp_path: Path) -> None:
    with ModelServer() as server:
        llm = LLMFactory(settings(tmp_path), environment={}).open()
        for name in ("first", "second"):
            llm.registry.register(Recipe(name, "noted", lambda name=name: Noted(name, server.base_url), True))
            llm.use(f"{name}/m")
        llm.chat("hi")
        portal = next(thread for thread in threading.enumerate() if "portal" in thread.name)
        for _ in range(3):
            llm.close()
        left = llm.events.history(Left, FactoryClosed)
        assert [getattr(event, "provider", "factory") for event in left] == ["second", "first", "factory"]
        assert not portal.is_alive()


def test_a_factory_that_was_closed_can_be_opened_again(tmp_path: Path) -> None:
    with ModelServer() as server:
        llm = LLMFactory(settings(tmp_path, server), environment={})
        for _ in range(2):
            with llm:
                assert llm.chat("hi").text == "Heard: hi"


def test_a_question_after_the_end_says_how_it_begins_anew(tmp_path: Path) -> None:
    with ModelServer() as server:
        with LLMFactory(settings(tmp_path, server), environment={}) as llm:
            llm.chat("hi")
        with pytest.raises(SessionError, match=r"was closed\n.*llm\.open\(\)"):
            llm.chat("hi")
        llm.open()
        assert llm.chat("hi").text == "Heard: hi"
        llm.close()


def test_a_program_that_asks_with_and_without_a_loop_leaves_nothing_open(tmp_path: Path) -> None:
    with ModelServer() as server, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with LLMFactory(settings(tmp_path, server), environment={}) as llm:
            for _ in range(2):
                assert llm.chat("hi").text == "Heard: hi"
                assert asyncio.run(llm.sessions.current.chat("hi")).text == "Heard: hi"
                gc.collect()
        gc.collect()
    assert [
        str(one.message) for one in said if issubclass(one.category, ResourceWarning) and "client" in str(one.message)
    ] == []


def test_closing_what_was_never_opened_or_never_used_is_fine(tmp_path: Path) -> None:
    LLMFactory(settings(tmp_path), environment={}).close()
    with LLMFactory(settings(tmp_path), environment={}) as llm:
        assert not llm.portal.started


def test_errors_arrive_as_themselves(tmp_path: Path) -> None:
    with ModelServer() as server, LLMFactory(settings(tmp_path, server), environment={}) as llm:
        server.next(reply({"error": {"message": "no"}}, 500))
        with pytest.raises(ServerError):
            llm.chat("hi")
        with pytest.raises(ModelNotFoundError):
            llm.use("local/none")
        assert llm.chat("hi").text == "Heard: hi"


def test_an_unknown_kind_or_field_is_said_in_words(tmp_path: Path) -> None:
    odd = LLMSettings(home=tmp_path, providers={"x": ProviderSettings(kind="olama")})
    with pytest.raises(ConfigurationError, match="no kind of provider 'olama'"):
        LLMFactory(odd, environment={}).open()
    field = {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "colour": "red"}
    odd = LLMSettings(home=tmp_path, providers={"x": ProviderSettings.model_validate(field)})
    with LLMFactory(odd, environment={}) as llm, pytest.raises(ConfigurationError, match=r"\[providers\.x\].*colour"):
        llm.use("x/m")
    with LLMFactory(odd, environment={}) as llm, pytest.raises(ConfigurationError, match="colour"):
        llm.chat("hi")  # passing over it would let another model answer without a word


@pytest.mark.parametrize(
    ("environment", "local", "source"),
    [
        ({"OPENAI_API_KEY": "sk"}, False, "the environment (OPENAI_API_KEY)"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, True, "the environment (OPENAI_BASE_URL)"),
        (
            {"OPENAI_BASE_URL": "https://x.invalid/v1", "OPENAI_API_KEY": "sk"},
            False,
            "the environment (OPENAI_BASE_URL)",
        ),
    ],
)
def test_the_environment_names_a_provider(
    tmp_path: Path, environment: dict[str, str], local: bool, source: str
) -> None:
    with LLMFactory(settings(tmp_path), environment=environment) as llm:
        recipe = llm.registry.recipe("openai")
        assert (recipe.is_local, recipe.source) == (local, source)
        assert "sk" not in repr(recipe).replace("_API_KEY", "").replace("asks", "")


PLUGIN = "from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider as Echo"


def locked(home: Path, text: str) -> LLMSettings:
    """The settings of somebody whose system's file says this."""
    (home / "system.toml").write_text(text)
    return load_settings(None, {"LLM_JUPYTER_HOME": str(home)}, system=[home / "system.toml"])


@pytest.mark.parametrize("name", ["openai", "ollama", "embedded", "mine", "echoing"])
def test_a_provider_that_is_locked_off_stays_off_wherever_it_comes_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = tmp_path / "llmplug_echoing-1.0.dist-info"
    brought.mkdir()
    (brought / "entry_points.txt").write_text("[llm_jupyter.providers]\nechoing = llmplug_echoing:Echo")
    (tmp_path / "llmplug_echoing.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    text = f"[hosts.mine]\ncommand = ['x']\nport = {free_port()}\n[locked.providers.{name}]\nenabled = false"
    with LLMFactory(locked(tmp_path, text), environment={"OPENAI_API_KEY": "sk"}) as llm:
        listed = {recipe.name: recipe for recipe in llm.registry.listed()}
        assert {other for other, recipe in listed.items() if recipe.stays_off} == {name}
        assert listed[name].reason == f"locked by {tmp_path / 'system.toml'}"
        for refused in (llm.providers.connect(name), llm.providers.use(f"{name}/m"), llm.providers.use(name)):
            with pytest.raises(InvalidInputError, match="switched off: locked by"):
                llm.portal.run(refused)
        assert not llm.providers.is_active(name)


def test_a_kind_of_a_package_counts_as_remote_until_the_package_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = tmp_path / "llmplug_cloudy-1.0.dist-info"
    brought.mkdir()
    (brought / "entry_points.txt").write_text("[llm_jupyter.providers]\ncloudy = llmplug_cloudy:Cloudy")
    (tmp_path / "llmplug_cloudy.py").write_text(CLOUDY)
    monkeypatch.syspath_prepend(tmp_path)
    configured = {
        "far": ProviderSettings(kind="cloudy"),
        "near": ProviderSettings(kind="cloudy", base_url="http://127.0.0.1:9/v1"),
    }
    with LLMFactory(LLMSettings(home=tmp_path, providers=configured), environment={}) as llm:
        before = {recipe.name: recipe.is_local for recipe in llm.registry.recipes() if recipe.kind == "cloudy"}
        assert before == {"far": False, "near": True}
        assert not llm.registry.recipe("far").is_local


CLOUDY = """
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
class Cloudy(OpenAICompatibleProvider):
    def __init__(self, name, base_url="https://api.example.com/v1", api_key=None):
        super().__init__(name, base_url, api_key)
"""


def test_a_locked_address_is_the_one_that_is_asked_and_looked_for(tmp_path: Path) -> None:
    with ModelServer() as theirs, ModelServer() as mine:
        text = f'[locked.providers.openai]\nbase_url = "{theirs.base_url}"'
        with LLMFactory(locked(tmp_path, text), environment={"OPENAI_BASE_URL": mine.base_url}) as llm:
            llm.portal.run(llm.offers())
            assert theirs.visits
            llm.use("openai/m")
            assert llm.chat("hi").text == "Heard: hi"
        assert len(theirs.chats) == 1
        assert mine.visits == []


def test_no_event_and_no_host_tells_the_password_of_an_address(tmp_path: Path) -> None:
    with ModelServer() as server:
        url = server.base_url.replace("http://", "http://me:hunter2@")
        mine = {"mine": ProviderSettings(kind="openai-compatible", base_url=url)}
        made = LLMSettings(home=tmp_path, providers=mine, event_log=True, connection={"retries": 0})
        with LLMFactory(made, environment={"OPENAI_BASE_URL": url.replace("/v1", "/v2")}) as llm:
            llm.chat("hi")
            llm.portal.run(adopt_others(llm))
            (adopted,) = llm.events.history(HostAdopted)
            assert (adopted.host, adopted.url) == ("mine", server.base_url)
            server.close()
            with pytest.raises(LLMConnectionError):
                llm.chat("hi")
            llm.portal.run(llm.offers())
            assert "hunter2" not in repr((llm.events.history(), llm.hosts.status(), llm.connections.statuses()))
            assert [recipe.name for recipe in llm.registry.listed() if "hunter2" in recipe.address] == []
    assert "hunter2" not in (tmp_path / "events.jsonl").read_text()


def test_the_event_log_may_lie_in_the_persons_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with LLMFactory(settings(tmp_path / "home", event_log="~/events.jsonl"), environment={}):
        pass
    assert "FactoryOpened" in (tmp_path / "events.jsonl").read_text()


PROGRAM = """
import sys
from llm_jupyter import LLMFactory

with LLMFactory() as llm:
    for text in llm.stream("hi"):
        print(text, end="")
    print("|", llm.chat("again").text)
assert "IPython" not in sys.modules and "ipywidgets" not in sys.modules
"""


def test_a_plain_program_needs_nothing_of_a_notebook(tmp_path: Path) -> None:
    with ModelServer() as server:
        local = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
        }
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=kernel_environment(tmp_path, local), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "Heard: hi| Heard: again\n"
