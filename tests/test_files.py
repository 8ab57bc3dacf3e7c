"""A person's files: a new one stands there whole, or the old one does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from comparison.contests import filled

from llm_jupyter.errors import LLMError
from llm_jupyter.files import put
from llm_jupyter.portable import export
from llm_jupyter.store.records import SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import Message

LONG = "x" * 100_000


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond a few kilobytes, as on a disk with no more room."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def export_conversation(path: Path, text: str) -> None:
    asked = TurnRecord(
        id="t", session="s", slot="t", position=1.0, created=0.0, state=TurnState.FAILED, prompt=Message.user(text)
    )
    export(SessionRecord(id="s", created=0.0, updated=0.0), [asked], path)


def save_comparison(path: Path, text: str) -> None:
    filled("m", answer=text).save(path)


def put_text(path: Path, text: str) -> None:
    put(path, text.encode())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
@pytest.mark.parametrize("write", [export_conversation, save_comparison, put_text])
def test_on_a_full_disk_the_file_from_before_stays_whole(write: Callable[[Path, str], None], tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    write(path, "short")
    before = path.read_bytes()
    with full_disk(), pytest.raises((LLMError, OSError)):
        write(path, LONG)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write(path, LONG)
    assert LONG in path.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes, and links need a privilege")
def test_a_file_keeps_its_rights_and_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    put(target, b"one")
    target.chmod(0o640)
    link.symlink_to(target)
    put(link, b"two")
    assert link.is_symlink()
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"two", 0o640)
    put(target, b"three", mode=0o604)
    assert target.stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(pipe, b"data")
        assert os.read(reader, 10) == b"data"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
