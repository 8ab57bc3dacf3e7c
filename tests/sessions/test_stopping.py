"""An answer that is stopped from elsewhere ends as an interrupt would end it, once, whenever that comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from counts import times
from routes import Faulty, Routes
from servers.scripted import DONE, Gate, Pause, Script, answer, delta, finish, reply, sse

from llm_jupyter.errors import AnswerInterrupted, LLMError
from llm_jupyter.events import Event, EventBus, RequestFailed, RequestFinished, RequestFirstToken
from llm_jupyter.sessions import Answering, LLMSession
from llm_jupyter.store import TurnState
from llm_jupyter.types import FinishReason


@pytest.fixture
async def server() -> AsyncIterator[Faulty]:
    async with Faulty() as server:
        yield server


@pytest.fixture
async def routes(server: Faulty) -> AsyncIterator[Routes]:
    async with Routes({"local": server}) as routes:
        yield routes


def states(routes: Routes) -> list[TurnState]:
    return [turn.state for turn in routes.session.turns]


def held(*pieces: str) -> tuple[Script, Gate]:
    """An answer that says so much and then nothing more before the gate is opened."""
    gate = Gate()
    return sse(*map(delta, pieces), gate, delta("too late")), gate


class Witness(EventBus):
    """Sees which answer of a session is under way whenever something is told of one."""

    def __init__(self, session: LLMSession) -> None:
        super().__init__()
        self.session = session
        self.seen: list[Answering | None] = []

    def publish(self, event: Event) -> Event:
        if isinstance(event, RequestFirstToken | RequestFinished | RequestFailed):
            self.seen.append(self.session.answering)
        return super().publish(event)


async def read_through(answering: Answering) -> None:
    async with answering:
        while await answering.read_batch():
            pass


async def until_held(gate: Gate, answering: Answering, text: str) -> None:
    """Wait until the server says no more, and all that it said has arrived."""
    assert await asyncio.to_thread(gate.reached.wait, 5)
    async with asyncio.timeout(5):
        while answering.text != text:  # noqa: ASYNC110 - it grows in another task
            await asyncio.sleep(0)


async def from_another_thread(action: Callable[[], object]) -> None:
    await asyncio.to_thread(action)


async def test_what_had_arrived_is_kept_and_the_socket_is_closed(routes: Routes, server: Faulty) -> None:
    script, gate = held("one ", "two")
    server.next(script)
    answering = routes.session.ask("count")
    reading = asyncio.create_task(read_through(answering))
    await until_held(gate, answering, "one two")
    await from_another_thread(answering.stop)
    await reading
    assert reading.cancelling() == 0
    assert answering.response is routes.session.last is not None
    assert (answering.response.text, answering.response.finish_reason) == ("one two", FinishReason.INTERRUPTED)
    assert states(routes) == [TurnState.INTERRUPTED]
    assert [event.finish_reason for event in routes.heard(RequestFinished)] == [FinishReason.INTERRUPTED]
    await next(visit for visit in server.visits if visit.request.method == "POST").until_left(1)
    assert await answering.read_batch() == []
    assert (await routes.ask("next")).text == "Heard: next"


async def test_before_the_first_token_it_is_an_interruption_and_nothing_is_left(routes: Routes, server: Faulty) -> None:
    script, gate = held()
    server.next(script)
    answering = routes.session.ask("count")
    reading = asyncio.create_task(read_through(answering))
    await until_held(gate, answering, "")
    await from_another_thread(answering.stop)
    with pytest.raises(AnswerInterrupted):
        await reading
    assert reading.cancelling() == 0
    assert answering.response is None
    assert states(routes) == [TurnState.INTERRUPTED]
    (failed,) = routes.heard(RequestFailed)
    assert (failed.error, failed.message) == ("AnswerInterrupted", "stopped before the first token")
    await next(visit for visit in server.visits if visit.request.method == "POST").until_left(1)


async def test_a_thought_is_kept_like_a_text(routes: Routes, server: Faulty) -> None:
    gate = Gate()
    server.next(sse(delta(reasoning_content="hm"), gate))
    answering = routes.session.ask("count")
    reading = asyncio.create_task(read_through(answering))
    await until_held(gate, answering, "")
    async with asyncio.timeout(5):
        while not answering.thinking:  # noqa: ASYNC110 - it grows in another task
            await asyncio.sleep(0)
    answering.stop()
    await reading
    assert answering.response is not None
    assert (answering.response.thinking, answering.response.text) == ("hm", "")


async def test_what_is_stopped_before_it_is_read_asks_nobody(routes: Routes, server: Faulty) -> None:
    answering = routes.session.ask("count")
    answering.stop()
    with pytest.raises(AnswerInterrupted):
        await read_through(answering)
    assert server.visits == []
    assert routes.session.turns == []


async def test_between_two_reads_it_counts_at_the_next(routes: Routes, server: Faulty) -> None:
    script, _ = held("one ")
    server.next(script)
    async with routes.session.ask("count") as answering:
        await answering.read_batch()
        await from_another_thread(answering.stop)
        assert await answering.read_batch() == []
        assert answering.response is not None
        assert answering.response.text == answering.text == "one "


async def test_after_the_end_nothing_happens(routes: Routes) -> None:
    answering = routes.session.ask("count")
    await read_through(answering)
    response, events = answering.response, len(routes.events.history())
    answering.stop()
    await asyncio.sleep(0)
    assert await answering.read_batch() == []
    assert answering.response is response is not None
    assert response.finish_reason is FinishReason.STOP
    assert len(routes.events.history()) == events


@pytest.mark.parametrize("order", ["stop first", "stop last", "stop twice"])
@pytest.mark.parametrize("pieces", [(), ("one ",)])
async def test_whoever_cancels_the_whole_task_has_his_way(
    routes: Routes, server: Faulty, order: str, pieces: tuple[str, ...]
) -> None:
    script, gate = held(*pieces)
    server.next(script)
    answering = routes.session.ask("count")
    reading = asyncio.create_task(read_through(answering))
    await until_held(gate, answering, "".join(pieces))
    actions: list[Callable[[], object]] = [answering.stop, reading.cancel]
    if order == "stop last":
        actions.reverse()
    for action in actions:
        action()
        if order == "stop twice":
            answering.stop()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert reading.cancelling() == 1
    assert states(routes) == [TurnState.INTERRUPTED]
    assert len(routes.heard(RequestFinished)) + len(routes.heard(RequestFailed)) == 1


async def test_a_time_limit_around_the_reader_goes_on_to_work(routes: Routes, server: Faulty) -> None:
    script, gate = held("one ")
    server.next(script)
    answering = routes.session.ask("count")

    async def read_then_wait() -> None:
        async with asyncio.timeout(None) as limit:
            await read_through(answering)
            limit.reschedule(0)
            await asyncio.Event().wait()

    reading = asyncio.create_task(read_then_wait())
    await until_held(gate, answering, "one ")
    answering.stop()
    with pytest.raises(TimeoutError):
        await reading
    assert reading.cancelling() == 0


@pytest.mark.stress
async def test_at_any_moment_it_ends_the_answer_once_and_in_one_of_three_ways(
    routes: Routes, server: Faulty, report: Callable[[str], None]
) -> None:
    server.chat = sse(delta("one "), Pause(0.004), delta("two "), Pause(0.004), delta("three"), finish(), DONE)
    ways = {"not begun": 0, "interrupted": 0, "whole": 0}
    for number in range(count := times(1000)):
        answering = routes.session.ask("count")
        timer = threading.Timer(number % 40 * 0.001, answering.stop)
        reading = asyncio.create_task(read_through(answering))
        timer.start()
        try:
            await reading
        except AnswerInterrupted:
            assert answering.response is None
            ways["not begun"] += 1
        else:
            assert answering.response is not None
            was_whole = answering.response.finish_reason is FinishReason.STOP
            assert answering.response.text == "one two three" or not was_whole
            ways["whole" if was_whole else "interrupted"] += 1
        timer.join()
        assert reading.cancelling() == 0
        assert routes.session.answering is None
        ends = [*routes.heard(RequestFinished), *routes.heard(RequestFailed)]
        assert [event.request for event in ends].count(answering.request) == 1
    report(f"{count} answers stopped at any moment: {ways}")


async def test_a_session_tells_which_answer_is_under_way_and_how_far_it_is(routes: Routes, server: Faulty) -> None:
    session = routes.session
    first_script, first_gate = held("one ")
    second_script, second_gate = held("uno ")
    server.next(first_script, second_script)
    first, second = session.ask("count"), session.ask("count in Spanish")
    assert session.answering is None
    readings = [asyncio.create_task(read_through(first))]
    await until_held(first_gate, first, "one ")
    assert session.answering is first
    readings.append(asyncio.create_task(read_through(second)))
    await until_held(second_gate, second, "uno ")
    assert session.answering is second
    session.answering.stop()
    await readings[1]
    assert session.answering is first
    first.stop()
    await readings[0]
    assert session.answering is None
    assert first.text == "one "


async def test_an_answer_that_leaves_nothing_in_the_conversation_is_none_of_it(routes: Routes, server: Faulty) -> None:
    for ask in (routes.session.ask_once, lambda prompt: routes.session.ask(prompt, private=True)):
        script, gate = held("one ")
        server.next(script)
        answering = ask("count")
        reading = asyncio.create_task(read_through(answering))
        await until_held(gate, answering, "one ")
        assert routes.session.answering is None
        answering.stop()
        await reading
        assert answering.response is not None
        assert answering.response.finish_reason is FinishReason.INTERRUPTED


@pytest.mark.parametrize("ending", ["complete", "failed", "left", "cancelled"])
async def test_however_an_answer_ends_it_is_no_longer_under_way_when_that_is_told(
    routes: Routes, server: Faulty, ending: str
) -> None:
    script, gate = held("one ")
    server.next({"complete": answer("one"), "failed": reply({"error": {"message": "no"}}, 400)}.get(ending, script))
    routes.session.events = witness = Witness(routes.session)
    answering = routes.session.ask("count")

    async def read() -> None:
        async with answering:
            while await answering.read_batch():
                if ending == "left":
                    return

    reading = asyncio.create_task(read())
    if ending == "cancelled":
        await until_held(gate, answering, "one ")
        reading.cancel()
    try:
        await reading
    except (LLMError, asyncio.CancelledError):
        assert ending in ("failed", "cancelled")
    assert witness.seen[-1] is None
    assert witness.seen[:-1] == ([] if ending == "failed" else [answering])
    assert routes.session.answering is None
