"""A killed process has lost nothing that was acknowledged; what was under way is there as far as it was, and marked.

First the store's half, then that of whoever asks a model: nothing leaves before the turn was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counts import times
from sessions.conversing import Kept, WatchingServer, dictate, environment, kept, pieces_in
from store.processes import Child
from store.samples import storing
from store.talking import PICTURE, PIECE, TEXT, Fact, talk

from llm_jupyter.factory import LLMFactory
from llm_jupyter.sessions import INTERRUPTED_MARK
from llm_jupyter.store import TurnRecord, TurnState

PER_FILE = 20
"""Kills that one file takes: each finds what the ones before have left."""


def killed(path: Path, run: int, is_remote: bool, dice: random.Random) -> list[Fact]:
    """Let a process talk, kill it at a random moment, and return all that it had been told."""
    child = Child(talk, path, run, is_remote, dice.random())
    facts = [child.hears() for _ in range(dice.randrange(1, 30))]
    end = time.perf_counter() + dice.random() * 0.003
    while time.perf_counter() < end:  # it may be killed anywhere within a transaction
        pass
    child.kill()
    return facts + child.hears_all()


def must_be_there(found: TurnRecord | None, fact: Fact) -> None:
    assert found is not None, f"{fact.turn} is lost"
    assert all(image == PICTURE for image in found.prompt.images)
    text = found.answers[0].response.text if found.answers else ""
    assert TEXT.startswith(text)
    assert len(text) >= fact.characters, f"{fact.turn} has lost what had arrived of its answer"
    if fact.is_whole:
        assert (found.state, found.answers[0].is_whole) == (TurnState.COMPLETE, True)
    elif text != TEXT:  # else it died between the end of its answer and saying so
        assert found.state is (TurnState.INTERRUPTED if text else TurnState.FAILED)
        assert len(text) <= fact.characters + PIECE
        assert not any(part.is_whole for part in found.answers)


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("is_remote", "promised"), [(False, 1000), (True, 100)], ids=["local", "network"])
def test_a_process_killed_at_any_moment_has_lost_nothing_that_was_acknowledged(
    tmp_path: Path, is_remote: bool, promised: int, report: Callable[[str], None]
) -> None:
    dice = random.Random(16)
    whole = half = 0
    for run in range(times(promised)):
        path = tmp_path / str(run // PER_FILE) / "store.db"
        facts = killed(path, run, is_remote, dice)
        with storing(path, is_remote=lambda _: is_remote) as (store, events):
            assert store.settle("talk") <= 1
            last = {fact.turn: fact for fact in facts}  # what was said last of each turn
            for fact in last.values():
                must_be_there(store.turn("talk", fact.turn), fact)
            assert store.examine().problem == ""
            assert events == []
        whole += sum(fact.is_whole for fact in last.values())
        half += sum(not fact.is_whole for fact in last.values())
    assert whole > 0
    assert half > 0
    report(f"16 kill -9 at {times(promised)} random points: {whole} whole turns and {half} under way, none lost")


# -- whoever asks a model

BEHIND = 0.25
"""Seconds that the disk may be behind what has arrived."""

SLACK = 1.0
"""Seconds more that a busy machine may let one process wait; half of all have to do without."""

AT_ONCE = 5
QUESTIONS = times(1000)


@pytest.mark.stress
async def test_a_question_is_on_disk_when_its_request_arrives(tmp_path: Path, report: Callable[[str], None]) -> None:
    with WatchingServer(tmp_path) as server:
        async with LLMFactory(environment=environment(tmp_path, server.base_url)) as llm:
            for first in range(0, QUESTIONS, AT_ONCE):
                if first % 20 == 0:
                    llm.sessions.reset()
                await asyncio.gather(*(llm.sessions.current.chat(f"ask {first + n}") for n in range(AT_ONCE)))
            assert llm.store.trouble == ""
        assert len(server.seen) == QUESTIONS
        for prompt, turns in server.seen.items():
            assert Kept(prompt, "pending", None, False) in turns, f"{prompt} left before it was on the disk"
    report(f"16 {QUESTIONS} requests arrived, each after its question was on disk")


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_a_program_killed_at_any_moment_has_its_talk_on_disk_a_quarter_of_a_second_late_and_goes_on_with_it(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    dice, late = random.Random(16), []
    with WatchingServer(tmp_path) as server, LLMFactory(environment=environment(tmp_path, server.base_url)) as llm:
        for first in range(0, times(100), AT_ONCE):
            for name, session, killed in killed_together(server, range(first, first + AT_ONCE), dice):
                turns = kept(tmp_path, session)
                reached = {visit.json()["messages"][-1]["content"] for visit in server.requests if visit.body}
                asked = [prompt for prompt in (f"whole {name}", f"dictate {name}") if prompt in reached]
                assert [turn.prompt for turn in turns][: len(asked)] == asked
                late.append(lateness(server, turns, killed))
                if turns:
                    llm.sessions.use(session)
                    llm.chat("go on")
                    assert server.contents() == [*seen_of(turns), "go on"]
        assert llm.store.examine().problem == ""
    assert statistics.median(late) <= BEHIND
    assert max(late) <= BEHIND + SLACK
    report(f"16 {len(late)} programs killed, late by {statistics.median(late):.3f} s, {max(late):.3f} s at most")


def killed_together(server: WatchingServer, numbers: range, dice: random.Random) -> list[tuple[str, str, float]]:
    """Let programs talk at the same time, and kill each at a random moment: its name, its conversation, and when."""
    children = [(str(number), Child(dictate, server.home, server.base_url, str(number))) for number in numbers]
    killed = []
    for name, child in children:
        session = child.hears()
        if dice.random() < 0.8:
            server.wait_for(f"dictate {name}", dice.randrange(10, 60))
        else:
            end = time.monotonic() + dice.random() * 0.03
            while time.monotonic() < end:  # anywhere in its first two turns
                pass
        moment = time.monotonic()
        child.kill()
        child.hears_all()
        killed.append((name, session, moment))
    return killed


def lateness(server: WatchingServer, turns: list[Kept], killed: float) -> float:
    """Seconds before its death in which the first piece was sent that is not on the disk; 0 where nothing is missing."""
    left = server.left[turns[1].prompt] if len(turns) > 1 else []
    there = pieces_in(turns[1].answer or "") if len(turns) > 1 else 0
    return max(0.0, killed - left[there]) if there < len(left) else 0.0


def seen_of(turns: list[Kept]) -> list[str]:
    """What the model is to see of turns that a killed program has left."""
    seen: list[str] = []
    for turn in turns:
        if turn.answer:
            seen += [turn.prompt, turn.answer + ("" if turn.is_whole else INTERRUPTED_MARK)]
    return seen


@pytest.mark.stress
async def test_whenever_an_answer_is_left_its_turn_is_over_and_holds_what_was_heard(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    dice = random.Random(5)
    with WatchingServer(tmp_path) as server:
        async with LLMFactory(environment=environment(tmp_path, server.base_url)) as llm:
            prompts = [("quick", "dictate")[number % 2] + f" {number}" for number in range(times(1000))]
            states = [await left_at(llm, prompt, dice) for prompt in prompts]
            assert llm.store.trouble == ""
            await llm.sessions.current.chat("go on")
            assert server.contents() == [*seen_of(kept(tmp_path)[:-1]), "go on"]
    assert {"complete", "interrupted"} <= set(states) <= {"complete", "interrupted", "not asked"}
    report(f"16 left at {len(states)} random moments: {states.count('interrupted')} turns interrupted, none open")


async def left_at(llm: LLMFactory, prompt: str, dice: random.Random) -> str:
    """Ask, and cancel at any moment, sometimes twice; the state in which the turn then is."""
    answering = llm.sessions.current.ask(prompt)

    async def hear() -> None:
        async with answering:
            async for _ in answering:
                pass

    task = asyncio.create_task(hear())
    await asyncio.wait([task], timeout=dice.choice((0.0, 0.002, 0.02, 0.2)) * dice.random())
    for _ in range(dice.choice((1, 2))):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    turn = next((turn for turn in kept(llm.settings.home) if turn.prompt == prompt), None)
    if turn is None:
        return "not asked"
    heard = answering.response.text if answering.response is not None else None
    assert turn.answer == heard
    assert turn.is_whole == (turn.state == "complete")
    return turn.state
