"""Who may answer in another's place, who never may, and what the person is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from clocks import JumpingClock, ManualClock
from routes import Faulty, Routes, free_port
from servers.scripted import DONE, End, Script, event, reply, sse
from servers.scripted_ollama import ScriptedOllama, entry
from test_foreign import SERVER, STRANGER

from llm_jupyter.errors import (
    AuthenticationError,
    InvalidInputError,
    LLMConnectionError,
    LLMError,
    ModelNotFoundError,
    RateLimitedError,
    ServerError,
    UnreachableError,
)
from llm_jupyter.events import RequestFailedOver, RequestStarted
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import EMBEDDED

DOWN = reply("", 500)
REMOTE: dict[str, Any] = {"is_local": False}


class Far(OpenAICompatibleProvider):
    """A server elsewhere, as far as its provider can tell."""

    @property
    def is_local(self) -> bool:
        return False


def far_at(server: Faulty) -> Any:
    return lambda name: Far(name, server.base_url)


def ollama_at(server: ScriptedOllama) -> Any:
    return lambda name: OllamaProvider(name, server.origin)


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}/v1"


# -- local and remote


@pytest.mark.parametrize("model", ["m", "n"])
async def test_a_local_model_never_gives_way_to_a_remote_one_even_if_listed(model: str) -> None:
    async with Faulty() as near, Faulty(["m", "n"]) as far:
        servers = {"near": near, "far": far_at(far)}
        async with Routes(servers, fallback=[f"far/{model}"], recipes={"far": REMOTE}) as routes:
            near.chat = DOWN
            with pytest.raises(ServerError):
                await routes.ask()
            with pytest.raises(ServerError):
                await routes.ask()  # nor where the near one is left alone
            assert far.visits == []


@pytest.mark.parametrize(
    "remote", [entry("m", remote_host="https://ollama.com:443"), entry("big:cloud"), entry("big:7b-cloud")]
)
async def test_a_model_that_ollama_passes_on_is_remote_however_local_its_server(remote: dict[str, Any]) -> None:
    with ScriptedOllama(remote, entry("other")) as ollama:
        async with Faulty() as near:
            servers = {"near": near, "ollama": ollama_at(ollama)}
            async with Routes(servers, fallback=[f"ollama/{remote['name']}"]) as routes:
                near.chat = DOWN
                for _ in range(3):
                    with pytest.raises(ServerError, match="HTTP 500"):
                        await routes.ask()
                assert ollama.chats == []
                assert not any(request.path == "/api/generate" for request in ollama.requests)


async def test_the_next_one_listed_answers_where_one_turns_out_remote() -> None:
    with ScriptedOllama(entry("far", remote_host="https://ollama.com:443"), entry("here")) as ollama:
        async with Faulty() as near:
            servers = {"near": near, "ollama": ollama_at(ollama)}
            async with Routes(servers, fallback=["ollama/far", "ollama/here"], clock=ManualClock()) as routes:
                near.chat = DOWN
                response = await routes.ask()
                assert (response.text, response.is_local) == ("I am here", True)
                assert response.tried[1].startswith("ollama/far: it is remote")
                assert ollama.chats == ["here"]
                assert not routes.connection("ollama").breaker.is_open


async def test_a_remote_holder_of_the_same_model_is_never_asked() -> None:
    with ScriptedOllama(entry("m", remote_host="https://ollama.com:443")) as ollama:
        async with Faulty() as near, Faulty() as far:
            servers = {"near": near, "far": far_at(far), "ollama": ollama_at(ollama)}
            async with Routes(servers, recipes={"far": REMOTE}) as routes:
                near.chat = [End.RESET]
                with pytest.raises(LLMConnectionError):
                    await routes.ask()
                assert (far.visits, ollama.chats) == ([], [])


async def test_a_remote_model_gives_way_to_whatever_is_listed() -> None:
    async with Faulty() as far, Faulty(["n"]) as other, Faulty(["k"]) as near:
        servers = {"far": far_at(far), "other": far_at(other), "near": near}
        recipes = {"far": REMOTE, "other": REMOTE}
        async with Routes(servers, fallback=["other/n", "near/k"], recipes=recipes, clock=ManualClock()) as routes:
            far.chat = DOWN
            assert (await routes.ask()).provider == "other"
            other.chat = DOWN
            assert (await routes.ask()).provider == "near"


async def test_local_only_holds_for_fallbacks_too(caplog: pytest.LogCaptureFixture) -> None:
    async with Faulty() as near, Faulty() as far:
        servers = {"near": near, "far": far_at(far)}
        recipes = {"far": REMOTE}
        async with Routes(servers, fallback=["far/m"], recipes=recipes, local_only=True) as routes:
            near.chat = DOWN
            with caplog.at_level(logging.WARNING), pytest.raises(ServerError):
                await routes.ask()
            assert far.visits == []
            assert "local_only" in caplog.text
            with pytest.raises(InvalidInputError, match="local_only"):
                await routes.ask(model="far/m")


# -- which model


async def test_a_model_named_for_one_question_never_gives_way_to_another_model() -> None:
    async with Faulty(["m", "n"]) as first, Faulty(["k"]) as listed:
        servers = {"first": first, "listed": listed}
        async with Routes(servers, fallback=["listed/k", "first/n"]) as routes:
            first.chat = DOWN
            for _ in range(2):
                with pytest.raises(ServerError):
                    await routes.ask(model="first/m")
            assert listed.chats == []
            assert {chat["model"] for chat in first.chats} == {"m"}


async def test_a_model_named_for_one_question_may_come_from_another_server_of_this_machine() -> None:
    async with Faulty(["m"]) as first, Faulty(["k"]) as listed, Faulty(["m"]) as twin:
        servers = {"first": first, "listed": listed, "twin": twin}
        async with Routes(servers, fallback=["listed/k"]) as routes:
            first.chat = [End.RESET]
            response = await routes.ask(model="first/m")
            assert (response.provider, twin.chats[0]["model"], listed.chats) == ("twin", "m", [])


async def test_without_a_list_only_another_holder_of_the_same_model_answers() -> None:
    async with (
        Faulty(["m"]) as first,
        Faulty(["k"]) as other,
        Faulty(["x", "m"]) as twin,
        Routes({"first": first, "other": other, "twin": twin}, clock=ManualClock()) as routes,
    ):
        first.chat = [End.RESET]
        assert (await routes.ask()).provider == "twin"
        assert other.chats == []
        twin.models = ("x",)
        twin.chat = [End.RESET]
        with pytest.raises(LLMError):
            await routes.ask()
        assert other.chats == []


async def test_known_holders_come_before_what_is_listed_and_the_chosen_one_is_asked_once() -> None:
    async with Faulty(["m"]) as first, Faulty(["k"]) as listed, Faulty(["m"]) as twin:
        servers = {"first": first, "listed": listed, "twin": twin}
        async with Routes(servers, fallback=["first/m", "listed/k", "twin/m"], clock=ManualClock()) as routes:
            await routes.manager.catalogue()
            first.chat, twin.chat = DOWN, DOWN
            response = await routes.ask()
            assert response.provider == "listed"
            assert [name.partition(":")[0] for name in response.tried] == ["first/m", "twin/m"]
            assert (len(first.chats), len(twin.chats)) == (1, 1)


@pytest.mark.parametrize(("fallback", "answers"), [([], False), ([f"{EMBEDDED}/m"], True), ([EMBEDDED], True)])
async def test_the_embedded_model_answers_only_where_it_is_listed(fallback: list[str], answers: bool) -> None:
    async with Faulty() as first, Faulty(["m"]) as embedded:
        servers = {"first": first, EMBEDDED: embedded}
        async with Routes(servers, fallback=fallback, clock=ManualClock()) as routes:
            first.chat = DOWN
            if answers:
                assert (await routes.ask()).provider == EMBEDDED
            else:
                with pytest.raises(ServerError):
                    await routes.ask()
                assert embedded.visits == []
            embedded.forget()
            with pytest.raises(ServerError):
                await routes.ask(model="first/m")  # and never in place of a model that was named
            assert embedded.chats == []


# -- who is not there to be asked


async def test_one_that_is_switched_off_is_never_asked(caplog: pytest.LogCaptureFixture) -> None:
    async with Faulty() as first, Faulty() as off:
        recipes = {"off": {"enabled": False}}
        async with Routes({"first": first, "off": off}, fallback=["off/m"], recipes=recipes) as routes:
            first.chat = DOWN
            with caplog.at_level(logging.WARNING), pytest.raises(ServerError):
                await routes.ask()
            assert "switched off" in caplog.text
            routes.manager.fallback = ()
            with pytest.raises(ServerError):
                await routes.ask()
            assert off.visits == []


@pytest.fixture
def stranger() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of another user, where this process may become one: its URL and its process."""
    with subprocess.Popen([sys.executable, "-c", SERVER, str(STRANGER)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process
        process.kill()


async def test_another_user_s_server_is_never_asked_in_anybody_s_place(
    stranger: tuple[str, subprocess.Popen[str]],
) -> None:
    url, process = stranger
    async with Faulty(["spy:1b"]) as first:

        def found(name: str) -> LLMProvider:
            return OllamaProvider(name, url)

        recipes = {"found": {"was_found": True, "base_url": url}}
        servers = {"first": first, "found": found}
        async with Routes(servers, recipes=recipes, default_model="first/spy:1b") as routes:
            first.chat = [End.RESET]
            with pytest.raises(LLMError):
                await routes.ask()
    process.kill()
    assert process.stdout is not None
    asked = process.stdout.read().split()
    if os.getuid() == 0 and sys.platform == "linux":  # nobody else can become another user
        assert asked == []
    else:
        assert "/api/tags" in asked


@pytest.mark.parametrize("wrong", ["nobody/x", "", "no such model", "first/", "x" * 5000, "nobody"])
async def test_a_wrong_name_in_the_list_is_passed_over_with_one_warning(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Faulty() as first, Faulty(["n"]) as other:
        servers = {"first": first, "other": other}
        async with Routes(servers, fallback=[wrong, "other/n"], clock=ManualClock()) as routes:
            first.chat = DOWN
            with caplog.at_level(logging.WARNING):
                assert (await routes.ask()).provider == "other"
            if wrong != "first/":  # that its server has no such model is known once it is asked
                (warning,) = [record for record in caplog.records if "passed over" in record.getMessage()]
                assert warning.levelno == logging.WARNING


async def test_a_model_in_the_list_that_its_server_does_not_have_is_passed_over() -> None:
    async with Faulty() as first, Faulty(["n"]) as other:
        servers = {"first": first, "other": other}
        async with Routes(servers, fallback=["other/gone", "other/n"], clock=ManualClock()) as routes:
            first.chat = DOWN
            response = await routes.ask()
            assert other.chats[0]["model"] == "n"
            assert "gone" in response.tried[1]


# -- what the person is told

FAILURES = {
    "500": (DOWN, ServerError),
    "hung up": ([End.RESET], LLMConnectionError),
    "429": (reply("", 429, headers=[("Retry-After", "600")]), RateLimitedError),
    "no token": ([End.HOLD], LLMConnectionError),
}


@pytest.mark.parametrize("fault", FAILURES)
@pytest.mark.parametrize("fallback", [(), ("other/n",), ("other/gone",)])
async def test_the_error_is_the_chosen_one_s_in_one_line_with_the_command_that_switches(
    fault: str, fallback: tuple[str, ...]
) -> None:
    script, kind = FAILURES[fault]
    async with (
        Faulty() as first,
        Faulty(["n"]) as other,
        Routes({"first": first, "other": other}, fallback=fallback) as routes,
    ):
        first.chat, other.chat = script, reply({"error": {"message": "the other's own words"}}, 401)
        with pytest.raises(kind) as caught:
            await routes.ask(timeout=0.2)
        (line,) = caught.value.lines()
        assert first.base_url in line
        assert "the other's own words" not in line
        assert f"%llm use {EMBEDDED}" in line
        if fault == "429":
            assert "Ask again in 600 s." in line


async def test_a_refused_connection_says_so_in_one_line() -> None:
    async with Routes({"first": nowhere()}) as routes:
        for _ in range(2):  # also where it is left alone
            with pytest.raises(UnreachableError) as caught:
                await routes.ask()
            (line,) = caught.value.lines()
            assert "refused" in line
            assert line.endswith(f"%llm use {EMBEDDED} lets the embedded model answer.")


async def test_a_refused_key_of_the_chosen_one_is_told_although_another_could_answer() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as other,
        Routes({"first": first, "other": other}, fallback=["other/n"]) as routes,
    ):
        first.listing = reply({"error": {"message": "bad key"}}, 401)
        for _ in range(2):  # also after a look has met it
            with pytest.raises(AuthenticationError, match="bad key"):
                await routes.ask()
            await routes.connection("first").check()
        assert other.visits == []


async def test_a_model_that_is_gone_is_told_although_another_could_answer() -> None:
    async with (
        Faulty(["k"]) as first,
        Faulty(["m"]) as other,
        Routes({"first": first, "other": other}, fallback=["other/m"]) as routes,
    ):
        with pytest.raises(ModelNotFoundError):
            await routes.ask()
        assert other.chats == []


@pytest.mark.parametrize("seen", ["lost", "catalogue", "health"])
async def test_a_chosen_model_whose_server_came_back_with_others_is_an_error_that_names_them(seen: str) -> None:
    async with Faulty() as first, Routes({"first": first}) as routes:
        await routes.session.use("first/m")
        await routes.ask()
        first.models = ("mm",)
        if seen == "lost":
            routes.connection("first").failed(UnreachableError("nothing answers"))
        elif seen == "catalogue":
            await routes.manager.catalogue()
        else:
            await routes.connection("first").check()
        asked = len(first.chats)
        for name in (None, "first/m"):
            with pytest.raises(ModelNotFoundError, match=r"there is no model 'm'") as caught:
                await routes.ask(model=name)
            assert "first/mm" in str(caught.value)
        assert len(first.chats) == asked


async def test_a_server_that_names_its_model_by_a_file_is_believed_no_more_than_any_other() -> None:
    async with Faulty(["a.gguf"]) as first, Routes({"first": first}, default_model="first/a.gguf") as routes:
        await routes.ask()
        first.models, first.chat = ("b.gguf",), naming("b.gguf")
        assert (await routes.ask()).tried == ("first/a.gguf: it is not there any more",)
        with pytest.raises(ModelNotFoundError):
            await routes.ask()


def naming(model: str) -> Script:
    """An answer that says which model gave it."""
    text, end = {"delta": {"content": "hi"}}, {"delta": {}, "finish_reason": "stop"}
    return sse(*(event({"model": model, "choices": [choice]}) for choice in (text, end)), DONE)


async def test_an_answer_of_another_model_than_was_asked_says_whose_it_is_and_the_next_question_is_an_error() -> None:
    async with Faulty() as first, Routes({"first": first}) as routes:
        await routes.ask()
        first.models, first.chat = ("n",), naming("n")
        async with routes.session.ask("hi") as answering:
            while await answering.read_batch():
                pass
            assert answering.answered_by == ("first", "n", True)
        assert answering.response is not None
        assert answering.response.tried == ("first/m: it is not there any more",)
        with pytest.raises(ModelNotFoundError):
            await routes.ask()
        assert len(first.chats) == 2


@pytest.mark.parametrize(
    ("asked", "told", "looks"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", 0),
        ("gpt-3.5", "gpt-3.5-0125", 0),
        ("qwen", "qwen:latest", 0),
        ("qwen", "/models/qwen.gguf", 0),
        ("org/qwen", "qwen", 0),
        ("qwen", "qwen-72b", 1),
        ("qwen", "another", 1),
    ],
)
async def test_a_server_is_asked_for_its_list_again_only_where_the_reply_names_another_model(
    asked: str, told: str, looks: int
) -> None:
    async with Faulty([asked, told]) as first, Routes({"first": first}, default_model=f"first/{asked}") as routes:
        await routes.ask()
        before, first.chat = len(first.visits), naming(told)
        assert (await routes.ask()).tried == ()  # both are there: it is a name of its own
        assert len(first.visits) - before == 1 + looks


async def test_a_remote_server_is_never_asked_again_for_its_list() -> None:
    async with (
        Faulty() as far,
        Routes({"far": far_at(far)}, recipes={"far": REMOTE}) as routes,
    ):
        await routes.ask()
        before, far.models, far.chat = len(far.visits), ("n",), naming("n")
        assert (await routes.ask()).tried == ()
        assert len(far.visits) - before == 1


async def test_the_answer_and_the_events_say_who_was_tried() -> None:
    async with Faulty() as first, Faulty(["n"]) as second, Faulty(["k"]) as third:
        servers = {"first": first, "second": second, "third": third}
        async with Routes(servers, fallback=["second/n", "third/k"], clock=ManualClock()) as routes:
            first.chat, second.chat = DOWN, [End.RESET]
            response = await routes.ask()
            assert response.tried == (
                "first/m: the server failed (HTTP 500)", "second/n: the server hung up before it answered",
            )  # fmt: skip
            overs = routes.heard(RequestFailedOver)
            assert [(e.provider, e.to_provider, e.to_model) for e in overs] == [
                ("first", "second", "n"), ("second", "third", "k"),
            ]  # fmt: skip
            assert [e.reason for e in overs] == [text.partition(": ")[2] for text in response.tried]
            assert {e.request for e in overs} == {e.request for e in routes.heard(RequestStarted)}


async def test_an_answer_of_the_first_choice_says_of_nobody_that_he_was_tried() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as other,
        Routes({"first": first, "other": other}, fallback=["other/n"]) as routes,
    ):
        assert (await routes.ask()).tried == ()
        assert (routes.heard(RequestFailedOver), other.visits) == ([], [])


async def test_the_conversation_goes_on_across_a_failover_and_back() -> None:
    clock = JumpingClock()
    async with (
        Faulty() as first,
        Faulty(["n"]) as other,
        Routes({"first": first, "other": other}, fallback=["other/n"], clock=clock) as routes,
    ):
        await routes.ask("one")
        first.chat = DOWN
        await routes.ask("two")
        assert other.contents() == ["one", "Heard: one", "two"]
        first.chat = None
        clock.now += 2
        assert (await routes.ask("three")).provider == "first"
        assert first.contents() == ["one", "Heard: one", "two", "Heard: two", "three"]
        assert routes.session.choice is not None
        assert routes.session.choice.provider.name == "first"
