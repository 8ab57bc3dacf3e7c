from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import kernel_environment
from servers.paced import ModelServer, endless
from servers.scripted import answer, reply

from llm_jupyter.errors import ConfigurationError, ModelNotFoundError, ServerError
from llm_jupyter.events import (
    Event,
    FactoryClosed,
    FactoryOpened,
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
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import Recipe
from llm_jupyter.settings import LLMSettings, ProviderSettings


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
