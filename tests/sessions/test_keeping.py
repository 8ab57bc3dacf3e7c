"""What a person sees of a conversation that is kept: killed, interrupted, failed, broken off, and what of it is cached."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kernels import Kernel, Ran
from servers.scripted import End, Script, delta, reply, sse
from sessions.conversing import Kept, WatchingServer, environment, kept, pieces_in

from llm_jupyter.sessions import INTERRUPTED_MARK
from notebooks import Notebook

BEHIND = 0.25
SLACK = 1.0
"""Seconds that a busy machine may let a process wait; what the process itself takes is asserted over many kills."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchingServer]:
    with WatchingServer(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
def one_kernel(server: WatchingServer) -> Iterator[Kernel]:
    notebook = Notebook(server.home / "talk.ipynb")
    notebook.save()
    with Kernel(server.home, environment(server.home, server.base_url), notebook=notebook.path) as kernel:
        yield kernel.load()


@pytest.fixture
def kernel(one_kernel: Kernel, server: WatchingServer) -> Kernel:
    """One kernel for all tests; each has a conversation that begins with one turn."""
    good(one_kernel, "%llm offline off\n%llm reset")
    good(one_kernel, "%chat one")
    server.forget()
    return one_kernel


def good(kernel: Kernel, code: str) -> Ran:
    ran = kernel.run(code)
    assert ran.status == "ok", ran.error
    return ran


def last(server: WatchingServer) -> Kept:
    """The turn that was asked last, as it stands on the disk."""
    return kept(server.home)[-1]


def heard_next(kernel: Kernel, server: WatchingServer) -> list[str]:
    """What the model is sent with the next question, between the first turn and that question."""
    good(kernel, "%chat next")
    first, answer, *between, question = server.contents()
    assert (first, answer, question) == ("one", "Heard: one", "next")
    return between


def under_way(kernel: Kernel, server: WatchingServer, prompt: str, pieces: int = 20) -> Ran:
    """A cell whose answer is on its way, so many pieces of it at least."""
    ran = kernel.start(f"%chat {prompt}")
    server.wait_for(prompt, pieces)
    return ran


def test_a_killed_kernel_had_the_question_on_disk_before_it_left_and_nearly_all_of_the_answer(
    kernel: Kernel, server: WatchingServer
) -> None:
    under_way(kernel, server, "dictate to be killed", pieces=30)
    killed = time.monotonic()
    kernel.kill()
    left = server.left["dictate to be killed"]
    assert server.seen["dictate to be killed"][-1] == Kept("dictate to be killed", "pending", None, False)
    turn = last(server)
    assert (turn.state, turn.is_whole) == ("pending", False)
    assert turn.answer is not None
    assert pieces_in(turn.answer) >= sum(moment < killed - BEHIND - SLACK for moment in left)
    kernel.restart()
    kernel.load()
    assert heard_next(kernel, server) == ["dictate to be killed", turn.answer + INTERRUPTED_MARK]
    assert "interrupted" in good(kernel, "%llm history").printed
    assert kept(server.home)[-2].state == "interrupted"


def test_what_is_resumed_after_a_kill_is_said_once(kernel: Kernel, server: WatchingServer) -> None:
    under_way(kernel, server, "dictate once more")
    kernel.kill()
    kernel.restart()
    kernel.load()
    first, second = good(kernel, "%chat next"), good(kernel, "%chat next")
    assert "of talk.ipynb (the kernel was restarted)" in " ".join(first.footers)
    assert "Resumed" not in " ".join(second.footers)


def test_an_interrupted_answer_is_kept_as_it_was_shown_and_the_model_sees_where_it_was_stopped(
    kernel: Kernel, server: WatchingServer
) -> None:
    ran = under_way(kernel, server, "dictate to be stopped")
    kernel.until(ran, lambda ran: any("5 " in text for _, text in ran.shown()))
    kernel.interrupt()
    assert kernel.finish(ran).status == "error"
    turn = last(server)
    assert [turn.answer] == ran.texts
    assert (turn.state, turn.is_whole) == ("interrupted", False)
    assert pieces_in(str(turn.answer)) > 5
    assert heard_next(kernel, server) == [turn.prompt, f"{turn.answer}{INTERRUPTED_MARK}"]
    kernel.restart()
    kernel.load()
    good(kernel, "%chat and on")
    assert server.contents()[2:4] == [turn.prompt, f"{turn.answer}{INTERRUPTED_MARK}"]


def test_a_question_that_is_interrupted_before_its_first_token_does_not_enter(
    kernel: Kernel, server: WatchingServer
) -> None:
    server.next(sse(End.HOLD))
    ran = kernel.start("%chat silence")
    kernel.until(ran, lambda ran: any("Waiting" in text for _, text in ran.shown()))
    kernel.interrupt()
    assert kernel.finish(ran).status == "error"
    assert last(server) == Kept("silence", "interrupted", None, False)
    assert heard_next(kernel, server) == []


HALF = (delta("Hel"), delta("lo"))
FAULTS: dict[str, Script] = {
    "a server error": reply({"error": {"message": "no"}}, 500),
    "an empty success": reply("", 200),
    "a clean end": sse(*HALF),
    "a reset": sse(*HALF, End.RESET),
    "a half-close": sse(*HALF, End.HALF_CLOSE),
}


def test_a_question_that_failed_or_whose_server_hung_up_never_enters_not_even_after_a_restart(
    kernel: Kernel, server: WatchingServer
) -> None:
    for fault, script in FAULTS.items():
        server.next(script)
        assert kernel.run(f"%chat {fault}").status == "error"
        assert (last(server).prompt, last(server).state, last(server).is_whole) == (fault, "failed", False)
    assert heard_next(kernel, server) == []
    kernel.restart()
    kernel.load()
    good(kernel, "%chat and on")
    assert server.contents() == ["one", "Heard: one", "next", "Heard: next", "and on"]


@pytest.mark.parametrize("mode", ["record", "auto"])
def test_nothing_that_failed_or_broke_off_or_was_stopped_is_cached(
    mode: str, kernel: Kernel, server: WatchingServer
) -> None:
    good(kernel, f"%llm cache clear\n%llm offline {mode}")
    recording = server.home / "talk.recording.jsonl"
    recording.unlink(missing_ok=True)
    for script in FAULTS.values():
        server.next(script)
        assert kernel.run("%chat hello").status == "error"
    ran = under_way(kernel, server, f"dictate in mode {mode}")
    kernel.until(ran, lambda ran: any("5 " in text for _, text in ran.shown()))
    kernel.interrupt()
    assert kernel.finish(ran).status == "error"
    assert "0 answers" in good(kernel, "%llm cache stats").printed
    assert not recording.exists()
    good(kernel, "%chat hello")
    assert "1 answer" in good(kernel, "%llm cache stats").printed
    assert recording.exists() == (mode == "record")
