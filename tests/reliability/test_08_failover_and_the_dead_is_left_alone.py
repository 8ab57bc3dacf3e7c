"""Another server answers at once, and the next question does not touch the one that failed.

How long that takes is measured by the benchmarks; here it is counted who was asked how often.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from clocks import JumpingClock, ManualClock
from routes import Faulty, Routes, free_port
from servers.scripted import End, Script, ScriptedServer, head, reply, sse

from llm_jupyter.errors import FirstTokenTimeoutError, LLMError
from llm_jupyter.events import RequestFailedOver, RequestStarted
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import ProviderState

BUSY = reply({"error": {"message": "slow down"}}, 429, headers=[("Retry-After", "20")])
HEADERS = head(200, "text/event-stream", headers=[("Transfer-Encoding", "chunked")])

FAULTS: dict[str, Script] = {
    "500": reply({"error": {"message": "no"}}, 500),
    "502": reply("<html>bad gateway</html>", 502, "text/html"),
    "503": reply("", 503),
    "504": reply("", 504),
    "a long 429": BUSY,
    "hang": [End.HOLD],
    "hang after the headers": [HEADERS, End.HOLD],
    "hung up": [End.RESET],
    "closed after the headers": [HEADERS, End.CLOSE],
    "reset after the headers": [HEADERS, End.RESET],
    "half-closed after the headers": [HEADERS, End.HALF_CLOSE],
    "an error in place of a token": sse(b'data: {"error": {"message": "no", "code": 500}}\n\n'),
    "no stream": reply("<html>hello</html>", content_type="text/html"),
    "nonsense in place of a token": sse(b"data: {nope\n\n"),
    "an empty reply": reply("", content_type="text/event-stream"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_another_answers_and_the_next_question_does_not_touch_the_dead_one(fault: str) -> None:
    async with Faulty() as dead, Faulty(["n"]) as alive:
        servers = {"dead": dead, "alive": alive}
        async with Routes(servers, fallback=["alive/n"], clock=ManualClock()) as routes:
            dead.chat = FAULTS[fault]
            response = await routes.ask("one", timeout=0.2)
            assert (response.text, response.provider, response.model) == ("Heard: one", "alive", "m")
            assert [name.partition(":")[0] for name in response.tried] == ["dead/m"]
            assert len(dead.chats) == 1
            touched = len(dead.visits)
            again = await routes.ask("two", timeout=0.2)
            assert (again.text, again.provider) == ("Heard: two", "alive")
            assert len(again.tried) == 1
            assert len(dead.visits) == touched
            announced = [(e.provider, e.model, e.to_provider, e.to_model) for e in routes.heard(RequestFailedOver)]
            assert announced == [("dead", "m", "alive", "n")] * 2
            assert all(event.reason for event in routes.heard(RequestFailedOver))


async def test_another_answers_for_one_that_refuses_and_the_next_question_does_not_touch_it() -> None:
    port = free_port()
    async with Faulty(["n"]) as alive:
        servers = {"dead": f"http://127.0.0.1:{port}/v1", "alive": alive}
        async with Routes(servers, fallback=["alive/n"], clock=ManualClock()) as routes:
            response = await routes.ask("one")
            assert (response.provider, len(response.tried)) == ("alive", 1)
            assert "refused" in response.tried[0]
            async with Faulty(port=port) as watching:  # whoever is touched now sees it
                assert (await routes.ask("two")).provider == "alive"
                assert watching.visits == []
            assert [event.provider for event in routes.heard(RequestStarted)] == ["alive"] * 2


async def test_a_server_that_hangs_in_everything_costs_the_first_token_limit_and_no_more() -> None:
    async with (
        Faulty() as dead,
        Faulty(["n"]) as alive,
        Routes({"dead": dead, "alive": alive}, fallback=["alive/n"], clock=ManualClock()) as routes,
    ):
        dead.chat = dead.listing = [End.HOLD]
        async with asyncio.timeout(5):  # the list of models alone would be waited for twice as long
            assert (await routes.ask(timeout=0.2)).provider == "alive"
        assert len(dead.visits) == 1


async def test_a_server_that_hangs_in_everything_is_a_typed_error_where_nobody_else_may_answer() -> None:
    async with Faulty() as dead, Routes({"dead": dead}) as routes:
        dead.chat = dead.listing = [End.HOLD]
        async with asyncio.timeout(5):
            with pytest.raises(FirstTokenTimeoutError):
                await routes.ask(timeout=0.2)
        assert len(dead.visits) == 1


async def test_an_ollama_that_dies_before_the_first_token_gives_way() -> None:
    listed = {"name": "m", "model": "m", "digest": "d", "size": 1, "expires_at": "2999-01-01T00:00:00Z"}
    died = {"error": "model runner has unexpectedly stopped, this may be due to resource limitations"}

    def script(path: str) -> Script:
        if path in ("/api/tags", "/api/ps"):
            return reply({"models": [listed]})
        if path == "/api/chat":
            return sse(json.dumps(died).encode() + b"\n", content_type="application/x-ndjson")
        return reply({"version": "0.33.0", "details": {}, "model_info": {}, "capabilities": ["completion"]})

    async with ScriptedServer(lambda request: script(request.path)) as dead, Faulty(["n"]) as alive:

        def made(name: str) -> OllamaProvider:
            return OllamaProvider(name, dead.origin)

        async with Routes({"dead": made, "alive": alive}, fallback=["alive/n"], clock=ManualClock()) as routes:
            assert (await routes.ask()).provider == "alive"
            touched = len(dead.visits)
            assert (await routes.ask()).provider == "alive"
            assert len(dead.visits) == touched


async def test_once_the_pause_is_over_the_first_choice_is_asked_again_and_answers() -> None:
    async with Faulty() as first, Faulty(["n"]) as second:
        clock = JumpingClock()
        async with Routes({"first": first, "second": second}, fallback=["second/n"], clock=clock) as routes:
            first.chat = FAULTS["500"]
            assert (await routes.ask()).provider == "second"
            first.chat = None
            assert (await routes.ask()).provider == "second"
            clock.now += 1.3
            response = await routes.ask()
            assert (response.provider, response.tried) == ("first", ())
            assert (await routes.ask()).provider == "first"
            assert routes.state("first") is ProviderState.CONNECTED


async def test_all_that_fail_are_passed_over_in_order() -> None:
    async with Faulty(["a"]) as a, Faulty(["b"]) as b, Faulty(["c"]) as c, Faulty(["m"]) as first:
        servers = {"first": first, "a": a, "b": b, "c": c}
        async with Routes(servers, fallback=["a/a", "b/b", "c/c"], clock=ManualClock()) as routes:
            first.chat, a.chat, b.chat = FAULTS["hung up"], FAULTS["500"], FAULTS["a long 429"]
            response = await routes.ask()
            assert response.provider == "c"
            assert [name.partition(":")[0] for name in response.tried] == ["first/m", "a/a", "b/b"]
            chain = [(e.provider, e.to_provider) for e in routes.heard(RequestFailedOver)]
            assert chain == [("first", "a"), ("a", "b"), ("b", "c")]
            seen = [len(server.visits) for server in (first, a, b)]
            assert (await routes.ask()).provider == "c"
            assert [len(server.visits) for server in (first, a, b)] == seen


async def test_where_all_fail_each_was_asked_and_the_chosen_one_s_error_is_raised() -> None:
    async with Faulty() as first, Faulty(["n"]) as second:
        servers = {"first": first, "second": second}
        async with Routes(servers, fallback=["second/n"], clock=JumpingClock()) as routes:
            first.chat, second.chat = FAULTS["500"], FAULTS["hung up"]
            with pytest.raises(LLMError, match="HTTP 500") as caught:
                await routes.ask()
            assert first.base_url in str(caught.value)
