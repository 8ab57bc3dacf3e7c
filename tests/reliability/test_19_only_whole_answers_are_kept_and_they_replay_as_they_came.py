"""A kept answer replays in the pieces that it came in; one that broke off is never kept; offline, a miss asks nobody."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from cache.offline_asking import Desk
from counts import times
from hypothesis import given
from hypothesis import strategies as st
from routes import Faulty
from servers.scripted import DONE, End, Pause, Script, delta, event, finish, reply, sse

from llm_jupyter.cache import LLMCache
from llm_jupyter.errors import LLMError, OfflineMissError, StreamTruncatedError
from llm_jupyter.events import AnswerRecorded, EventBus
from llm_jupyter.testing.scripted import Piece as Scripted
from llm_jupyter.types import Chunk, FinishReason, ToolCallDelta, Usage

LIMIT = 0.005
"""Seconds within which a miss is told."""

MISSES = times(2000)
KEEPING = pytest.mark.parametrize("mode", ["auto", "record"])

text = st.text(max_size=6)
chunks = st.builds(
    Chunk, text, text, st.lists(st.builds(ToolCallDelta, st.integers(0, 2), text, text, text), max_size=2).map(tuple)
)


# -- the same pieces


@given(pieces=st.lists(chunks, max_size=8))
async def test_a_replay_has_the_pieces_that_were_recorded_whatever_they_were(
    pieces: list[Scripted], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with Desk(tmp_path_factory.mktemp("notes"), pieces, mode="record") as desk:
        recorded = await desk.ask()
        for source in ("recording", "cache"):
            if source == "cache":
                desk.recording.unlink()
            desk.cache.mode = "replay"
            replayed = await desk.ask()
            assert (replayed.said, replayed.source) == (recorded.said, source)
            last = replayed.chunks[-1]
            assert (last.finish_reason, last.usage) == (FinishReason.STOP, recorded.chunks[-1].usage)


async def test_a_replay_of_a_real_stream_is_the_stream(tmp_path: Path) -> None:
    async with Faulty() as server, Desk(tmp_path, servers={"local": server}, mode="record") as desk:
        server.chat = sse(
            delta("Gr"), delta(reasoning_content="hm"), delta("üß\u2028e "), delta(""), delta("🙂"), finish("length"),
            event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}), DONE,
        )  # fmt: skip
        recorded = await desk.ask()
        assert [text for text, _, _ in recorded.said] == ["Gr", "", "üß\u2028e ", "🙂"]
        visits = len(server.visits)
        desk.cache.mode = "replay"
        replayed = await desk.ask()
        assert replayed.said == recorded.said
        assert replayed.chunks[-1].finish_reason is FinishReason.LENGTH
        assert replayed.chunks[-1].usage == Usage(7, 3)
        assert len(server.visits) == visits


# -- what broke off

BROKEN: dict[str, Script] = {
    "a clean end before the finish reason": sse(delta("Hel"), delta("lo")),
    "a reset": sse(delta("Hel"), Pause(0.05), End.RESET),
    "a half-close": sse(delta("Hel"), End.HALF_CLOSE),
    "a closed connection": sse(delta("Hel"), End.CLOSE),
    "an error in mid-stream": sse(delta("Hel"), event({"error": {"message": "the model died"}})),
    "a line that is no JSON": sse(delta("Hel"), b"data: {nope\n\n", finish(), DONE),
    "a reset before the first token": sse(End.RESET),
    "a server error": reply("", 500),
    "an empty success": reply("", 200),
    "another page": reply("<html>hello</html>", 200),
}


@KEEPING
@pytest.mark.parametrize("fault", BROKEN)
async def test_an_answer_that_failed_or_broke_off_is_never_kept(tmp_path: Path, mode: str, fault: str) -> None:
    async with Faulty() as server, Desk(tmp_path, servers={"local": server}, mode=mode) as desk:
        server.chat = BROKEN[fault]
        with pytest.raises(LLMError):
            await desk.ask()
        await nothing_is_kept(desk)


@KEEPING
@pytest.mark.parametrize("reason", [FinishReason.INTERRUPTED, FinishReason.OTHER])
async def test_an_answer_that_the_model_did_not_end_is_never_kept(
    tmp_path: Path, mode: str, reason: FinishReason
) -> None:
    async with Desk(tmp_path, [Chunk("Hello"), Chunk(finish_reason=reason)], mode=mode) as desk:
        assert (await desk.ask()).text == "Hello"
        await nothing_is_kept(desk)


@KEEPING
@pytest.mark.parametrize("batches", [1, 2, 3])
async def test_an_answer_that_was_left_is_never_kept_not_even_at_its_last_piece(
    tmp_path: Path, mode: str, batches: int
) -> None:
    async with Desk(tmp_path, "one two three", mode=mode) as desk:
        await desk.ask(stop_after=batches)
        await nothing_is_kept(desk)


@KEEPING
async def test_an_answer_that_was_interrupted_is_never_kept(tmp_path: Path, mode: str) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def begin() -> None:
        begun.set()

    async with Desk(tmp_path, ["one ", begin, never.wait, "two"], mode=mode) as desk:
        task = asyncio.create_task(desk.ask())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nothing_is_kept(desk)


@KEEPING
async def test_what_broke_off_takes_the_place_of_nothing_that_was_kept(tmp_path: Path, mode: str) -> None:
    async with Desk(tmp_path, "whole", ["half ", StreamTruncatedError("cut")], mode=mode) as desk:
        await desk.ask()
        with pytest.raises(StreamTruncatedError):
            await desk.ask()
        desk.cache.mode = "replay"
        assert (await desk.ask()).text == "whole"


@KEEPING
@pytest.mark.parametrize(
    "reason", [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]
)
async def test_an_answer_that_the_model_ended_is_kept_however_it_ended(
    tmp_path: Path, mode: str, reason: FinishReason
) -> None:
    async with Desk(tmp_path, [Chunk("Hello"), Chunk(finish_reason=reason)], mode=mode) as desk:
        await desk.ask()
        assert len(desk.routes.heard(AnswerRecorded)) == 1
        desk.cache.mode = "replay"
        assert (await desk.ask()).chunks[-1].finish_reason is reason


async def nothing_is_kept(desk: Desk) -> None:
    assert (await desk.cache.stats()).count == 0
    assert not desk.recording.exists()
    assert desk.routes.heard(AnswerRecorded) == []


# -- a miss


@pytest.mark.stress
async def test_a_miss_is_told_within_5_ms(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        for number in range(100):
            await desk.ask(f"question {number} " + "of many words " * 50)
        desk.cache.mode = "replay"
        seconds = []
        for number in range(MISSES):
            started = time.perf_counter()
            with pytest.raises(OfflineMissError):
                await desk.ask(f"another question {number}")
            seconds.append(time.perf_counter() - started)
    assert median(seconds) < LIMIT
    report(f"19: {MISSES} misses, median {median(seconds) * 1000:.2f} ms, worst {max(seconds) * 1000:.1f} ms")


OFFLINE = """
import asyncio, json, os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from cache.offline_asking import Desk, answer_of
from llm_jupyter.errors import OfflineMissError

WATCHED = {
    "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen",
    "os.system", "os.fork", "os.exec", "os.posix_spawn",
}
happened = []

async def main():
    async with Desk(Path(sys.argv[1]), servers={"local": "http://127.0.0.1:9/v1"}, mode="replay") as desk:
        await desk.cache.answers.put(answer_of("known", provider="local"))
        sys.addaudithook(lambda event, _: happened.append(event) if event in WATCHED else None)
        heard = await desk.ask("known", model="m")
        try:
            await desk.ask("unknown", model="m")
        except OfflineMissError:
            missed = True
        replayed = happened.copy()
        desk.cache.mode = "off"
        try:
            await desk.ask("unknown", model="m")
        except Exception as error:
            pass
    print(json.dumps({"text": heard.text, "missed": missed, "replayed": replayed, "asked": happened}))

asyncio.run(main())
"""


def test_a_replay_opens_no_socket_and_starts_no_process_whether_it_hits_or_misses(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path), str(Path(__file__).parents[1])], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert (seen["text"], seen["missed"], seen["replayed"]) == ("m on known", True, [])
    assert "socket.connect" in seen["asked"], "the hook must catch a real connection"


# -- trouble


def spoiled_database(desk: Desk) -> None:
    folder = desk.cache.answers.folder
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(b"no database" * 1000)


def folder_in_the_way(desk: Desk) -> None:
    desk.recording.mkdir()


def file_in_the_way(desk: Desk) -> None:
    desk.cache.answers.folder.write_text("no folder")


@KEEPING
@pytest.mark.parametrize("trouble", [spoiled_database, folder_in_the_way, file_in_the_way])
async def test_trouble_with_the_disk_costs_no_answer(
    tmp_path: Path, mode: str, trouble: Callable[[Desk], None]
) -> None:
    async with Desk(tmp_path, "one", "two", mode=mode) as desk:
        trouble(desk)
        assert [(await desk.ask()).text for _ in range(2)] == ["one", "two"]


def test_the_door_itself_opens_nothing_before_it_is_used(tmp_path: Path) -> None:
    for mode in ("off", "auto", "record", "replay"):
        LLMCache(tmp_path / "home", EventBus(), mode=mode).close()
    assert not (tmp_path / "home").exists()
