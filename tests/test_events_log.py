"""The log of events: lines of JSON in a file, that cost nobody anything."""

import gc
import json
import os
import stat
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.events import (
    Event,
    EventBus,
    HostFailed,
    HostMeasured,
    JsonlLog,
    ProviderLost,
    RequestFailed,
    SessionCreated,
)
from llm_jupyter.events.log import line_of
from llm_jupyter.types import ProviderState


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, each of which must be whole."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text[:-1].split(b"\n")]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_event_is_one_line_with_its_class_and_its_fields(tmp_path: Path) -> None:
    path, bus = tmp_path / "deep" / "er" / "events.jsonl", EventBus(clock=lambda: 12.5)
    bus.publish(session("before"))
    with JsonlLog(bus, path):
        bus.publish(ProviderLost(provider="p", old=ProviderState.CONNECTED, new=ProviderState.FAILED, reason="gone"))
        bus.publish(HostFailed(host="h", reason="died", log_tail=("one", "two")))
    bus.publish(session("after"))
    stamp = {"timestamp": 12.5}
    assert read(path) == [
        {"event": "ProviderLost", **stamp, "sequence": 2, "provider": "p", "old": "connected", "new": "failed", "reason": "gone"},
        {
            "event": "HostFailed", **stamp, "sequence": 3, "host": "h", "reason": "died", "exit_code": None, "log_tail": ["one", "two"]
        },
    ]  # fmt: skip


def test_replay_writes_what_went_before_too(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    bus.publish(session("before"))
    with JsonlLog(bus, path, replay=True):
        bus.publish(session("after"))
    assert [line["session"] for line in read(path)] == ["before", "after"]


def test_a_burst_is_written_whole_and_in_order(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    with JsonlLog(bus, path) as log:
        for number in range(5000):
            bus.publish(session(number))
        log.close(timeout=60)
    assert [line["sequence"] for line in read(path)] == list(range(1, 5001))


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_only_the_person_may_read_it(tmp_path: Path, before: int | None) -> None:
    path, bus = tmp_path / "logs" / "events.jsonl", EventBus()
    if before is not None:
        path.parent.mkdir()
        path.write_text('{"event": "Earlier"}\n')
        path.chmod(before)
    mask = os.umask(0)
    try:
        with JsonlLog(bus, path):
            bus.publish(session("a"))
    finally:
        os.umask(mask)
    assert mode(path) == 0o600
    assert before is not None or mode(path.parent) == 0o700
    assert [line["event"] for line in read(path)] == ["Earlier"] * (before is not None) + ["SessionCreated"]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=30), st.integers(0, 900))
def test_a_log_gives_way_to_a_new_one_at_its_size_and_one_old_one_is_kept(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], limit: int
) -> None:
    path, bus = tmp_path_factory.mktemp("log") / "events.jsonl", EventBus()
    with JsonlLog(bus, path, max_bytes=limit) as log:
        published = [bus.publish(session(text)) for text in texts]
    old = read(log.old_path) if log.old_path.exists() else []
    for file in (path, log.old_path):
        assert not file.exists() or file.stat().st_size <= limit or len(read(file)) == 1
        assert not file.exists() or mode(file) == 0o600
    kept = [line["session"] for line in old + read(path)]
    assert kept == texts[len(texts) - len(kept) :]
    assert len(kept) == len(texts) or sum(map(len, map(line_of, published))) > limit
    assert {file.name for file in path.parent.iterdir()} <= {"events.jsonl", "events.jsonl.old", "events.jsonl.lock"}


def test_kernels_that_share_a_file_lose_no_line_and_cut_none(tmp_path: Path) -> None:
    path, buses, each = tmp_path / "events.jsonl", [EventBus() for _ in range(4)], 500
    size = len(line_of(buses[0].publish(session("0:000"))))
    logs = [JsonlLog(bus, path, max_bytes=3 * each * (size + 10)) for bus in buses]
    for number in range(each):
        for who, bus in enumerate(buses):
            bus.publish(session(f"{who}:{number}"))
    for log in logs:
        log.close(timeout=60)
    lines = [line["session"] for file in (logs[0].old_path, path) for line in read(file)]
    assert len(lines) == 4 * each
    for who in range(4):
        mine = [int(line.split(":")[1]) for line in lines if line.startswith(f"{who}:")]
        assert mine == list(range(each))


def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    path.write_text('{"event": "Whole"}\n{"event": "Cut sho')
    with JsonlLog(bus, path):
        bus.publish(session("a"))
    whole, cut, next_one, end = path.read_text().split("\n")
    assert (whole, cut, end) == ('{"event": "Whole"}', '{"event": "Cut sho', "")
    assert json.loads(next_one)["session"] == "a"


@pytest.mark.parametrize(
    "text", ["half a pair \udc80", "two\nlines\r\n", "\u2028\u0085\x00\x1b", "\U0001f600 日本語", ""]
)
def test_whatever_text_a_server_made_up_stays_on_its_line(text: str, tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    with JsonlLog(bus, path):
        bus.publish(RequestFailed(request="r", error="ServerError", message=text))
        bus.publish(session("next"))
    failed, following = read(path)
    assert failed["message"] == text
    assert following["session"] == "next"


def test_numbers_that_json_does_not_know_are_written_as_none() -> None:
    event = HostMeasured(host="h", pid=1, rss=2**70, cpu=float("nan"), threads=1, uptime=float("inf"))
    line = json.loads(line_of(event))
    assert (line["rss"], line["cpu"], line["uptime"]) == (2**70, None, None)


class Odd(Event, frozen=True, kw_only=True):
    """Somebody else's event, with something in it."""

    thing: Any


def test_what_has_no_form_in_json_is_written_as_its_text(tmp_path: Path) -> None:
    class Colour(Enum):
        RED = "red"

    for thing, written in ((Path("/a"), "/a"), (Colour.RED, "red"), (ValueError("v"), "v")):
        assert json.loads(line_of(Odd(thing=thing)))["thing"] == written


def test_a_log_ends_with_its_bus_and_may_be_closed_again(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    log = JsonlLog(bus, path)
    bus.publish(session("a"))
    del bus
    gc.collect()
    log.close(timeout=10)
    log.close()
    assert [line["session"] for line in read(path)] == ["a"]
