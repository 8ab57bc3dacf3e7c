from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.paced import ModelServer
from servers.scripted import Gate, answer, delta, finish, reply, sse

from llm_jupyter.errors import ServerError, SessionError, StreamTruncatedError
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
from llm_jupyter.sessions import INTERRUPTED_MARK, CellPlace, LLMSession, LLMSessionManager, Turn, TurnState
from llm_jupyter.types import FinishReason, GenerationOptions, Message, Role


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
        self.sessions = LLMSessionManager(self.manager, self.events)

    @property
    def session(self) -> LLMSession:
        return self.sessions.current

    @property
    def heard(self) -> list[Event]:
        return self.events.history()

    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.heard]

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
    assert [m.role for m in bench.session.context()] == [Role.SYSTEM, *[Role.USER, Role.ASSISTANT] * 2]


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
    assert [turn.prompt.content for turn in bench.session.turns] == ["d", "c"]
    assert [turn.prompt.content for turn in bench.session.replaced] == ["b", "a"]
    assert bench.kinds().count(TurnReplaced) == 2
    assert bench.server.contents() == ["d"]


async def test_a_failed_turn_never_enters_the_context(bench: Bench) -> None:
    bench.server.next(reply({"error": {"message": "no"}}, 500), sse(delta("half"))[:-1])
    with pytest.raises(ServerError):
        await bench.ask("one")
    with pytest.raises(StreamTruncatedError) as caught:
        await bench.ask("two")
    assert caught.value.partial_text == "half"
    assert bench.session.context() == []
    assert [turn.state for turn in bench.session.turns] == [TurnState.FAILED] * 2
    assert bench.kinds().count(RequestFailed) == 2
    assert bench.session.last is None


async def test_leaving_early_keeps_what_had_arrived_marked_as_interrupted(bench: Bench) -> None:
    bench.server.next(sse(delta("half"), Gate()))
    async with bench.session.ask("one") as answering:
        await answering.__anext__()
    assert answering.response is not None
    assert (answering.response.text, answering.response.finish_reason) == ("half", FinishReason.INTERRUPTED)
    assert [m.content for m in bench.session.context()] == ["one", "half" + INTERRUPTED_MARK]
    visit = next(v for v in bench.server.visits if v.request.method == "POST")
    await visit.until_left(1)


async def test_leaving_before_anything_arrived_leaves_nothing_behind(bench: Bench) -> None:
    async with bench.session.ask("one") as answering:
        pass
    assert answering.response is None
    assert bench.session.context() == []
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
    assert (bench.session.context(), bench.session.last) == ([], None)


async def test_asking_again_keeps_both_answers_and_only_one_that_says_something_counts(bench: Bench) -> None:
    bench.server.next(answer("first"), answer("second"), sse(delta(reasoning_content="hm"), Gate()))
    await bench.ask("one")
    async with bench.session.ask_again() as again:
        while await again.read_batch():
            pass
    async with bench.session.ask_again() as broken_off:
        await broken_off.read_batch()
    (turn,) = bench.session.turns
    assert [a.text for a in turn.answers] == ["first", "second", ""]
    assert [m.content for m in bench.session.context()] == ["one", "second"]


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


def test_a_turn_without_an_answer_shows_the_model_nothing() -> None:
    assert Turn(Message.user("one")).messages() == []


async def test_a_tool_call_alone_is_an_answer(bench: Bench) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    bench.server.next(sse(delta(tool_calls=[call]), finish("tool_calls")))
    await bench.ask("one")
    assert [m.role for m in bench.session.context()] == [Role.USER, Role.ASSISTANT]


runs = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=12)


@given(runs)
async def test_turns_always_stand_in_the_order_of_their_cells_first_run(cells: list[tuple[str, int]]) -> None:
    """A model of the document: every cell has the turns of its last run, at the place of its first."""
    session = LLMSession(LLMProviderManager(ProviderRegistry(EventBus()), EventBus()), EventBus())
    expected: dict[str, list[str]] = {}
    for number, (cell, count) in enumerate(cells):
        expected[cell] = [f"{number}.{n}" for n in range(count)]
        for prompt in expected[cell]:
            session.ask(prompt, place=CellPlace(cell, str(number)))
    assert [turn.prompt.content for turn in session.turns] == [p for prompts in expected.values() for p in prompts]
