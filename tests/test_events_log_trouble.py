"""The log of events where it cannot be written: that costs one warning, and nothing else."""

import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_jupyter.events import Event, EventBus, JsonlLog, SessionCreated


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


def sessions(path: Path) -> list[str]:
    return [json.loads(line)["session"] for line in path.read_text().splitlines()]


class Warned(logging.Handler):
    """Gathers warnings, and says when there is one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages, self.came = list[str](), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.came.set()


@pytest.fixture
def warned() -> Iterator[Warned]:
    warned, logger = Warned(), logging.getLogger("llm_jupyter.events.log")
    logger.addHandler(warned)
    yield warned
    logger.removeHandler(warned)


class Speechless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd(Event, frozen=True, kw_only=True):
    """Somebody else's event, with something in it."""

    thing: Any


def test_an_event_that_cannot_be_written_costs_one_warning_and_the_others_nothing(
    tmp_path: Path, warned: Warned
) -> None:
    path, bus = tmp_path / "events.jsonl", EventBus()
    with JsonlLog(bus, path):
        for event in (session("a"), Odd(thing=Speechless()), Odd(thing=Speechless()), session("b")):
            bus.publish(event)
    assert sessions(path) == ["a", "b"]
    (warning,) = warned.messages
    assert "RuntimeError: no words" in warning


@pytest.mark.parametrize("obstacle", ["its folder is a file", "it is a folder"])
def test_a_place_that_cannot_be_written_costs_one_warning_and_later_lines_come_when_it_can(
    obstacle: str, tmp_path: Path, warned: Warned
) -> None:
    path, bus = tmp_path / "logs" / "events.jsonl", EventBus()
    if obstacle == "it is a folder":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("a file")
    feed = bus.listen()
    with JsonlLog(bus, path):
        bus.publish(session("lost"))
        assert warned.came.wait(10)
        for number in range(20):
            bus.publish(session(number))
    (warning,) = warned.messages
    assert str(path) in warning
    assert "Error" in warning
    assert len(feed.take()) == 21

    warned.came.clear()
    with JsonlLog(bus, path):
        bus.publish(session("lost too"))
        assert warned.came.wait(10)
        (path if path.is_dir() else path.parent).rename(tmp_path / "away")
        bus.publish(session("kept"))
    assert sessions(path) == ["kept"]
    assert len(warned.messages) == 2


FULL = """
import resource, sys
from llm_jupyter.events import EventBus, JsonlLog, SessionCreated

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

bus = EventBus()
limit(1000)
for part in range(3):
    with JsonlLog(bus, sys.argv[1]) as log:
        for number in range(50):
            bus.publish(SessionCreated(session=f"{part}:{number}"))
    print(len(bus.history()))
    if part == 1:
        limit(resource.RLIM_INFINITY)
"""


def test_a_disk_that_is_full_costs_a_warning_and_what_follows_is_written_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    run = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "50\n100\n150\n")
    assert len(run.stderr.splitlines()) == 2
    assert all("File too large" in line for line in run.stderr.splitlines())
    lines = path.read_text().splitlines()
    assert [json.loads(line)["session"] for line in lines[-50:]] == [f"2:{number}" for number in range(50)]
    before = [json.loads(line)["session"] for line in lines[:-51]]
    assert before == [f"0:{number}" for number in range(len(before))]
    assert len(before) >= 5


def test_a_disk_that_hangs_keeps_neither_the_publisher_nor_the_others_nor_the_end_waiting(tmp_path: Path) -> None:
    path, bus = tmp_path / "pipe", EventBus()
    os.mkfifo(path)
    keeps_it_full = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # nobody reads: what is beyond a pipe's 64 KiB waits
    feed = bus.listen()
    log = JsonlLog(bus, path)
    for number in range(5000):
        bus.publish(session(number))
    log.close(timeout=0.05)
    assert len(feed.take()) == 5000
    assert "llm_jupyter event log" in {thread.name for thread in threading.enumerate()}
    read_so_far = b""
    while b'"4999"' not in read_so_far:
        assert select.select([keeps_it_full], [], [], 10)[0]
        read_so_far += os.read(keeps_it_full, 1 << 20)
    os.close(keeps_it_full)
    log.close(timeout=10)
    assert len(read_so_far.splitlines()) == 5000
