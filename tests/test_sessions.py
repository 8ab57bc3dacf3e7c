from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servers.paced import ModelServer
from servers.scripted import Gate, Script, answer, delta, finish, reply, sse

from llm_jupyter.cache import LLMCache
from llm_jupyter.errors import ContextExceededError, ServerError, SessionError, StreamTruncatedError
from llm_jupyter.events import (
    Event,
    EventBus,
    RequestFailed,
    RequestFinished,
    RequestFirstToken,
    RequestStarted,
    SessionCreated,
    TurnReplaced,
)
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import ProviderRegistry, Recipe
from llm_jupyter.sessions import INTERRUPTED_MARK, Asked, CellPlace, LLMSession, LLMSessionManager, Services
from llm_jupyter.store import Store, TurnState
from llm_jupyter.types import FinishReason, GenerationOptions, Message


class Bench:
    """A session over a scripted server, with every event that was published."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.events = EventBus()
        registry = ProviderRegistry(self.events)
        registry.register(
            Recipe("local", "openai-compatible", lambda: OpenAICompatibleProvider("local", server.base_url), True)
        )
        self.manager = LLMProviderManager(registry, self.events)
        services = Services(self.manager, self.events, LLMCache(Path(os.devnull), self.events))
        self.sessions = LLMSessionManager(services, Store(None))

    @property
    def session(self) -> LLMSession:
        return self.sessions.current

    @property
    def heard(self) -> list[Event]:
        return self.events.history()

    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.heard]

    async def context(self) -> list[str]:
        """What the model sees before the next question."""
        _, fitted = await self.session.preview(Asked(prompt=Message.user("next")))
        return [message.content for message in fitted.messages][:-1]

    def turns(self) -> list[str]:
        return [turn.prompt.content for turn in self.session.turns]

    async def ask(self, prompt: str, cell: str | None = None, execution: str | None = None) -> str:
        async with self.session.ask(prompt, place=CellPlace(cell, execution)) as answering:
            async for _ in answering:
                pass
        assert answering.response is not None
        return answering.response.text


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with ModelServer() as server:
        bench = Bench(server)
        yield bench
        await bench.manager.aclose()


async def test_a_conversation_goes_on(bench: Bench) -> None:
    assert (await bench.session.chat("one")).text == "Heard: one"
    await bench.session.chat("two", system="Be brief.", options=GenerationOptions(max_tokens=3))
    assert bench.server.contents() == ["Be brief.", "one", "Heard: one", "two"]
    assert bench.server.chats[-1]["max_tokens"] == 3
    assert await bench.context() == ["Be brief.", "one", "Heard: one", "two", "Heard: two"]


async def test_the_steps_of_a_request_are_events_in_order(bench: Bench) -> None:
    await bench.ask("one")
    order = [SessionCreated, RequestStarted, RequestFirstToken, RequestFinished]
    assert [kind for kind in bench.kinds() if kind in order] == order
    await bench.ask("two")
    assert bench.kinds().count(SessionCreated) == 1
    numbers = [event.sequence for event in bench.heard]
    assert numbers == sorted(set(numbers))


async def test_a_new_run_of_a_cell_takes_out_all_its_old_turns(bench: Bench) -> None:
    for prompt, cell, run in (("a", "1", "r1"), ("b", "1", "r1"), ("c", "2", "r2"), ("d", "1", "r3")):
        await bench.ask(prompt, cell, run)
    assert bench.turns() == ["d", "c"]
    kept = bench.session.store.all_turns(bench.session.id)
    assert {(turn.prompt.content, turn.is_current, bool(turn.left_out)) for turn in kept} == {
        ("a", False, False), ("d", True, False), ("b", True, True), ("c", True, False)
    }  # fmt: skip
    assert bench.kinds().count(TurnReplaced) == 1
    assert bench.server.contents() == ["d"]


async def test_a_failed_turn_never_enters_the_context(bench: Bench) -> None:
    bench.server.next(reply({"error": {"message": "no"}}, 500), sse(delta("half"))[:-1])
    with pytest.raises(ServerError):
        await bench.ask("one")
    with pytest.raises(StreamTruncatedError) as caught:
        await bench.ask("two")
    assert caught.value.partial_text == "half"
    assert await bench.context() == []
    assert [turn.state for turn in bench.session.turns] == [TurnState.FAILED] * 2
    assert bench.kinds().count(RequestFailed) == 2
    assert bench.session.last is None


async def test_leaving_early_keeps_what_had_arrived_marked_as_interrupted(bench: Bench) -> None:
    bench.server.next(sse(delta("half"), Gate()))
    async with bench.session.ask("one") as answering:
        await answering.__anext__()
    assert answering.response is not None
    assert (answering.response.text, answering.response.finish_reason) == ("half", FinishReason.INTERRUPTED)
    assert await bench.context() == ["one", "half" + INTERRUPTED_MARK]
    visit = next(v for v in bench.server.visits if v.request.method == "POST")
    await visit.until_left(1)


async def test_leaving_before_anything_arrived_leaves_nothing_behind(bench: Bench) -> None:
    async with bench.session.ask("one") as answering:
        pass
    assert answering.response is None
    assert await bench.context() == []
    assert bench.server.chats == []
    (failed,) = [event for event in bench.heard if isinstance(event, RequestFailed)]
    assert (failed.error, failed.message) == ("AnswerInterrupted", "stopped before the first token")


async def test_a_task_that_is_cancelled_before_the_first_token_leaves_nothing_behind(bench: Bench) -> None:
    gate = Gate()
    bench.server.next([gate])
    task = asyncio.create_task(bench.session.chat("one"))
    await asyncio.to_thread(gate.reached.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [turn.state for turn in bench.session.turns] == [TurnState.INTERRUPTED]
    assert (await bench.context(), bench.session.last) == ([], None)


async def test_asking_again_keeps_both_answers_and_only_one_that_says_something_counts(bench: Bench) -> None:
    bench.server.next(answer("first"), answer("second"), sse(delta(reasoning_content="hm"), Gate()))
    await bench.ask("one")
    async with bench.session.ask_again() as again:
        while await again.read_batch():
            pass
    async with bench.session.ask_again() as broken_off:
        await broken_off.read_batch()
    (turn,) = bench.session.turns
    assert [a.response.text for a in turn.answers] == ["first", "second", ""]
    assert await bench.context() == ["one", "second"]


async def test_a_question_whose_options_are_not_known_any_more_says_so_when_it_is_asked_again(bench: Bench) -> None:
    async with bench.session.ask("one", options=GenerationOptions(temperature=0.5)) as answering:
        await answering.__anext__()
    bench.session.services.asked_with.clear()  # as a restart does
    async with bench.session.ask_again() as again:
        await again.__anext__()
    assert "known only until the kernel restarts" in again.notes[0]
    assert "temperature" not in bench.server.chats[-1]


async def test_a_turn_that_was_left_out_is_brought_back(bench: Bench) -> None:
    for prompt, cell in (("a", "1"), ("b", "2"), ("c", "3")):
        await bench.ask(prompt, cell, prompt)
    first, second, _ = bench.session.turns
    bench.session.hear(CellPlace(silent=frozenset({"1"}), deleted=frozenset({"2"})))
    assert bench.turns() == ["c"]
    assert bench.session.restore(first.id) == "its cell last ran without asking"
    assert bench.session.restore(second.id) == "its cell was deleted"
    assert [message for message in await bench.context() if len(message) == 1] == ["a", "b", "c"]
    bench.session.hear(CellPlace(deleted=frozenset({"2"})))
    await bench.ask("A", "1", "again")
    assert bench.turns() == ["A", "b", "c"]


def too_long(tokens: int, window: int) -> Script:
    words = f"request ({tokens} tokens) exceeds the available context size ({window} tokens)"
    told = {"type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": window}
    return reply({"error": {"code": 400, "message": words, **told}}, 400)


async def test_a_conversation_that_a_server_finds_too_long_goes_on_without_its_oldest_turns(bench: Bench) -> None:
    for number in range(6):
        await bench.ask(f"{number} " + "word " * 100)
    bench.server.next(too_long(1400, 800))
    await bench.ask("and now?")
    sent = [len(bench.server.contents(number)) for number in range(len(bench.server.chats))][-2:]
    assert sent == [13, 3]
    assert bench.server.contents()[-3].startswith("5 word")
    assert [turn.prompt.content[0] for turn in bench.session.turns] == [*"012345", "a"]


async def test_what_a_server_refuses_without_telling_its_window_is_not_sent_again(bench: Bench) -> None:
    await bench.ask("one")
    bench.server.next(reply({"error": {"message": "context length exceeded", "code": "context_length_exceeded"}}, 400))
    with pytest.raises(ContextExceededError):
        await bench.ask("two")
    assert len(bench.server.chats) == 2


async def test_there_must_be_something_to_ask_again(bench: Bench) -> None:
    with pytest.raises(SessionError):
        bench.session.ask_again()


async def test_a_question_with_no_memory_is_the_last_answer_and_no_turn(bench: Bench) -> None:
    await bench.ask("one")
    async with bench.session.ask_once("aside", system="S") as answering:
        while await answering.read_batch():
            pass
    assert bench.server.contents() == ["S", "aside"]
    assert len(bench.session.turns) == 1
    assert bench.session.last is not None
    assert bench.session.last.text == "Heard: aside"


async def test_a_fresh_conversation_keeps_the_model(bench: Bench) -> None:
    await bench.session.use("local/other-model")
    await bench.ask("one")
    old = bench.session
    fresh = bench.sessions.reset()
    assert fresh is bench.session is not old
    await bench.ask("two")
    assert (bench.server.chats[-1]["model"], bench.server.contents()) == ("other-model", ["two"])


async def test_options_of_the_session_hold_where_a_question_says_nothing(bench: Bench) -> None:
    bench.session.options = GenerationOptions(temperature=0.5, max_tokens=9)
    await bench.session.chat("one", options=GenerationOptions(temperature=0.0))
    assert (bench.server.chats[0]["temperature"], bench.server.chats[0]["max_tokens"]) == (0.0, 9)


async def test_a_tool_call_alone_is_an_answer(bench: Bench) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    bench.server.next(sse(delta(tool_calls=[call]), finish("tool_calls")))
    await bench.ask("one")
    assert await bench.context() == ["", "one"][::-1]
