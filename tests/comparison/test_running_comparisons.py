"""Everybody is asked: at once on different servers, in turn on one, and whoever fails is a row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from contests import Aside, Punctual, add, contest, services
from live import eventually
from servers.paced import ModelServer, endless
from servers.scripted import DONE, End, Gate, answer, delta, event, finish, reply, sse

from llm_jupyter.comparison import Comparison, LaneState, run
from llm_jupyter.comparison.plain import LOADED_FIRST, said_of
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events import ModelLoaded
from llm_jupyter.factory import LLMFactory
from llm_jupyter.testing import ScriptedProvider

APART = 0.1
"""Seconds within which four servers have their questions."""


@pytest.fixture
async def one() -> AsyncIterator[ModelServer]:
    async with ModelServer(["m", "n"]) as server:
        yield server


@pytest.fixture
async def two() -> AsyncIterator[ModelServer]:
    async with ModelServer(["m"]) as server:
        yield server


@pytest.fixture
async def llm(tmp_path: Path, one: ModelServer, two: ModelServer) -> AsyncIterator[LLMFactory]:
    async with services(tmp_path, {"FALLBACK": '["two/m"]', "CONNECTION__RETRIES": "0"}, one=one, two=two) as llm:
        yield llm


def ends(comparison: Comparison) -> dict[str, str]:
    return {trial.contender: trial.finish for trial in comparison}


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.reached.wait, 10)


async def test_four_servers_have_their_questions_within_a_tenth_of_a_second(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    names = ("a", "b", "c", "d")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Punctual()) for name in names}
        async with services(tmp_path, **servers) as llm:
            apart = []
            for _ in range(3):  # other processes may hold up one of them for longer
                comparison = await run(contest("hi", *(f"{name}/m" for name in names)), llm)
                assert set(ends(comparison).values()) == {"stop"}
                last = [server.arrivals[-1] for server in servers.values()]
                apart.append(max(last) - min(last))
    report(f"four models started within {1000 * min(apart):.0f} ms of each other")
    assert min(apart) < APART


async def test_whoever_fails_is_a_row_with_its_error_and_the_others_are_whole(
    llm: LLMFactory, one: ModelServer, two: ModelServer
) -> None:
    two.next(sse(delta("half "), delta("an answer"), End.RESET), reply({"error": {"message": "no"}}, 400))
    comparison = contest("hi", "one/m", "two/m", {"model": "two/m", "seed": 1}, "two/none", "nowhere/m", "one/n")
    assert await run(comparison, llm) is comparison
    rows = {trial.contender: trial for trial in comparison}
    assert ends(comparison) == {
        "one/m": "stop", "two/m": "error", "two/m seed=1": "error", "two/none": "error", "nowhere/m": "error",
        "one/n": "stop",
    }  # fmt: skip
    assert rows["one/m"].answer == rows["one/n"].answer == "Heard: hi"
    assert rows["two/m"].answer == "half an answer"
    assert "broke off" in rows["two/m"].error
    assert "no model 'none'" in rows["two/none"].error
    assert "no model 'nowhere/m'" in rows["nowhere/m"].error
    assert all("\n" not in trial.error for trial in comparison)
    assert comparison.failure is None
    assert rows["nowhere/m"].total is None


async def test_a_dead_server_is_a_row_and_no_other_model_answers_in_its_place(
    llm: LLMFactory, one: ModelServer, two: ModelServer
) -> None:
    one.close()
    comparison = await run(contest("hi", "one/n", {"model": "one/n", "seed": 1}), llm)
    assert set(ends(comparison).values()) == {"error"}
    assert comparison.failure is not None
    assert two.chats == [], "a model that is named gives way to no other, though one is listed as fallback"


async def test_the_same_model_on_another_server_does_not_answer_instead(llm: LLMFactory, one: ModelServer) -> None:
    one.close()
    (trial,) = await run(contest("hi", "one/m"), llm)
    assert (trial.model, trial.finish) == ("one/m", "error")
    assert "connection was refused" in trial.error


async def test_one_local_server_is_asked_in_rounds_one_at_a_time_and_waiting_is_told_apart(
    llm: LLMFactory, one: ModelServer
) -> None:
    gate = Gate()
    one.next(sse(delta("first"), gate, finish(), DONE))
    comparison = contest(["p", "q"], "one/m", "one/n", repeats=2)
    running = asyncio.create_task(run(comparison, llm))
    await begun(gate)
    first, second = comparison.progress[:2]
    await eventually(lambda: first.text == "first", within=5)
    assert (first.state, second.state) == (LaneState.STREAMING, LaneState.QUEUED)
    assert first.first_token is not None
    assert len(one.chats) == 1
    gate.open()
    await running
    asked = [(chat["model"], chat["messages"][-1]["content"]) for chat in one.chats]
    assert asked == [("m", "p"), ("n", "p"), ("m", "q"), ("n", "q")] * 2
    assert [(trial.model, trial.prompt) for trial in comparison] == [(f"one/{model}", said) for model, said in asked]
    for before, after in zip(comparison.trials, comparison.trials[1:], strict=False):
        assert before.total is not None
        assert after.total is not None
        assert after.queued is not None
        assert after.first_token is not None
        assert after.started >= before.started + before.total - 0.001
        assert after.first_token <= after.total
    waited, held = comparison.trials[1], comparison.trials[0]
    assert held.total is not None
    assert waited.queued is not None
    assert waited.queued >= held.total - 0.001


async def test_parallel_says_how_many_are_asked_of_a_server_at_once(llm: LLMFactory, one: ModelServer) -> None:
    gates = [Gate(), Gate(), Gate()]
    one.next(*(sse(delta("x"), gate, finish(), DONE) for gate in gates))
    running = asyncio.create_task(run(contest("hi", "one/m", repeats=3), llm, parallel=2))
    await begun(gates[0])
    await begun(gates[1])
    assert len(one.chats) == 2
    gates[1].open()
    await begun(gates[2])
    gates[0].open()
    gates[2].open()
    await running
    with pytest.raises(InvalidInputError, match="from 1 on"):
        await run(contest("hi", "one/m"), llm, parallel=0)


async def test_a_remote_provider_is_asked_four_at_once_and_a_local_one_as_many_as_it_has_slots(llm: LLMFactory) -> None:
    released = asyncio.Event()
    far = ScriptedProvider([released.wait, "far"], name="far", is_local=False)
    near = ScriptedProvider([released.wait, "near"], name="near")
    near.slots = 3
    add(llm, far)
    add(llm, near)
    running = asyncio.create_task(run(contest("hi", "far/m", "near/m", repeats=6), llm))
    await eventually(lambda: (len(far.asked), len(near.asked)) == (4, 3), within=5)
    released.set()
    comparison = await running
    assert set(ends(comparison).values()) == {"stop"}
    assert (len(far.asked), len(near.asked)) == (6, 6)


async def test_what_all_questions_together_may_ask_at_once_is_queued_here_too(tmp_path: Path, one: ModelServer) -> None:
    async with services(tmp_path, {"LIMITS__PARALLEL_REQUESTS": "1"}, one=one) as llm:
        gate = Gate()
        one.next(sse(delta("x"), gate, finish(), DONE))
        comparison = contest("hi", "one/m", "one/n")
        running = asyncio.create_task(run(comparison, llm, parallel=2))
        await begun(gate)
        assert comparison.progress[1].state is LaneState.QUEUED
        gate.open()
        await running


async def test_it_is_stopped_from_any_thread_and_keeps_what_has_arrived(
    llm: LLMFactory, one: ModelServer, two: ModelServer
) -> None:
    one.next(endless("tick "))
    comparison = contest("hi", "one/m", "one/n", "two/m")
    has_text = threading.Event()
    with Aside(has_text, comparison.stop):
        running = asyncio.create_task(run(comparison, llm))
        await eventually(lambda: "tick" in comparison.progress[0].text and comparison.progress[2].is_over, within=10)
        has_text.set()
        assert await running is comparison
    first, second, third = comparison
    assert first.answer.startswith("tick")
    assert (first.finish, second.finish, third.finish) == ("interrupted", "interrupted", "stop")
    assert (second.answer, second.pieces) == ("", 0)
    assert first.pieces == first.answer.count("tick")
    assert comparison.was_stopped
    assert len(one.chats) == 1
    visit = next(visit for visit in one.visits if visit.request.method == "POST")
    assert await visit.until_left() > 0
    comparison.stop()
    assert [lane.state for lane in comparison.progress] == [LaneState.STOPPED, LaneState.STOPPED, LaneState.DONE]


async def test_what_came_is_counted_in_pieces_where_no_server_counts(llm: LLMFactory, one: ModelServer) -> None:
    pieces = delta(reasoning_content="hmm"), delta("a "), delta("b ")
    one.next(sse(*pieces, finish(), DONE), sse(*pieces, End.RESET))
    comparison = await run(contest("hi", "one/m", "one/n"), llm)
    whole, broken = comparison
    assert (whole.finish, broken.finish) == ("stop", "error")
    for trial, lane in zip(comparison, comparison.progress, strict=True):
        assert (trial.tokens, trial.pieces) == (None, 3)
        assert (trial.pieces_per_second or 0) > 0
        assert "~3 tokens" in said_of(lane)


async def test_stopped_before_it_runs_it_asks_nobody(llm: LLMFactory, one: ModelServer) -> None:
    comparison = contest("hi", "one/m")
    comparison.stop()
    await run(comparison, llm)
    assert ends(comparison) == {"one/m": "interrupted"}
    assert one.chats == []


async def test_cancelled_it_keeps_what_has_arrived(llm: LLMFactory, one: ModelServer) -> None:
    one.next(endless("tick "))
    comparison = contest("hi", "one/m", "one/n")
    running = asyncio.create_task(run(comparison, llm))
    await eventually(lambda: "tick" in comparison.progress[0].text, within=10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ends(comparison) == {"one/m": "interrupted", "one/n": "interrupted"}
    assert comparison.trials[0].answer.startswith("tick")
    assert not comparison.was_stopped


async def test_a_mistake_of_the_program_is_no_row(llm: LLMFactory, one: ModelServer) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    add(llm, ScriptedProvider(["so ", fails], name="odd"))
    one.next(endless("tick "))
    comparison = contest("hi", "one/m", "odd/m")
    with pytest.raises(ZeroDivisionError):
        await run(comparison, llm)
    assert comparison.is_over


async def test_what_a_server_counts_and_thinks_stands_in_the_row(llm: LLMFactory, two: ModelServer) -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    two.next(sse(delta(reasoning_content="hmm"), delta("a "), delta("b"), finish("length"), usage, DONE))
    (trial,) = await run(contest("hi", {"model": "two/m", "system": "Be brief.", "temperature": 0}), llm)
    assert (trial.prompt_tokens, trial.tokens, trial.finish, trial.thinking) == (5, 2, "length", "hmm")
    assert two.contents() == ["Be brief.", "hi"]
    assert two.chats[-1]["temperature"] == 0


async def test_halves_of_signs_that_no_file_can_hold_are_replaced(llm: LLMFactory, tmp_path: Path) -> None:
    add(llm, ScriptedProvider(["half \ud800"], name="odd"))
    comparison = await run(contest("hi", "odd/m"), llm)
    assert comparison.trial("odd/m").answer == "half \ufffd"
    comparison.save(tmp_path / "it.json")


async def test_repeated_answers_are_replayed_in_their_order_without_asking_anybody(
    tmp_path: Path, two: ModelServer
) -> None:
    recording = {"RECORDING": str(tmp_path / "it.recording.jsonl")}
    two.next(answer("Red."), answer("Blue."), answer("Red again."))
    models = ("two/m", "two/none")
    async with services(tmp_path / "a", {**recording, "OFFLINE": "record"}, two=two) as llm:
        first = await run(contest("Name a colour.", *models, repeats=3), llm, parallel=3)
    two.close()
    async with services(tmp_path / "b", {**recording, "OFFLINE": "replay"}, two=two) as llm:
        again = await run(contest("Name a colour.", *models, repeats=3), llm)
    told = [trial.answer for trial in again if trial.contender == "two/m"]
    assert told == [trial.answer for trial in first if trial.contender == "two/m"] == ["Red.", "Blue.", "Red again."]
    for trial in again:
        assert trial.queued is None or not trial.from_cache
        assert trial.pieces == 0, "a recording comes in other pieces than an answer"
        if trial.contender == "two/m":
            assert trial.from_cache
            assert (trial.model, trial.answered_by) == ("two/m", "")
        else:
            assert trial.error.startswith("offline, and no answer by two/none")
    assert all(lane.first_token == (lane.trial and lane.trial.first_token) for lane in again.progress)


async def test_an_answer_for_which_the_model_was_loaded_says_so(llm: LLMFactory, one: ModelServer) -> None:
    gate = Gate()
    one.next(sse(gate, delta("x"), finish(), DONE))
    comparison = contest("hi", "one/m", "two/m", {"model": "one/m", "seed": 1})
    running = asyncio.create_task(run(comparison, llm))
    await begun(gate)
    for model in ("m", "other"):
        llm.events.publish(ModelLoaded(provider="one", model=model, seconds=1.0))
    gate.open()
    await running
    assert [trial.was_loaded for trial in comparison] == [True, False, False]
    assert comparison._repr_mimebundle_()["text/html"].count(LOADED_FIRST) == 1
