from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_jupyter.recent import KEPT, RecentModels


class Clock:
    """A time that only moves on when it is asked."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_what_was_used_is_known_to_the_next_one_who_asks(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "recent.json"
    assert RecentModels(file).times() == {}
    clock = Clock()
    recent = RecentModels(file, clock)
    for name in ("a/m", "b/m", "a/m"):
        recent.remember(name)
    assert RecentModels(file).times() == {"a/m": 1003.0, "b/m": 1002.0}


def test_two_kernels_that_take_turns_lose_nothing(tmp_path: Path) -> None:
    file, clock = tmp_path / "recent.json", Clock()
    one, other = RecentModels(file, clock), RecentModels(file, clock)
    one.remember("a/m")
    other.remember("b/m")
    one.remember("c/m")
    assert sorted(one.times(), key=one.times().__getitem__) == ["a/m", "b/m", "c/m"]
    assert [path.name for path in tmp_path.iterdir()] == ["recent.json"]


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    recent = RecentModels(tmp_path / "recent.json", Clock())
    for number in range(KEPT + 3):
        recent.remember(f"p/{number}")
    assert set(recent.times()) == {f"p/{number}" for number in range(3, KEPT + 3)}


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[1, 2]", {}),
        (b"null", {}),
        (b"\xff\xfe\x00", {}),
        (json.dumps({"a/m": 5, "b/m": "yesterday", "c/m": None, "d/m": [1], "e/m": 2.5}).encode(), {"a/m": 5, "e/m": 2.5}),
    ],
)  # fmt: skip
def test_a_file_that_is_broken_is_read_as_far_as_it_makes_sense_and_mended(
    tmp_path: Path, content: bytes, known: dict[str, float]
) -> None:
    file = tmp_path / "recent.json"
    file.write_bytes(content)
    recent = RecentModels(file, Clock())
    assert recent.times() == known
    recent.remember("new/m")
    assert recent.times() == {**known, "new/m": 1001.0}


def test_a_place_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    recent = RecentModels(tmp_path / "file" / "recent.json")
    recent.remember("a/m")
    assert recent.times() == {}
    (tmp_path / "recent.json").mkdir()
    blocked = RecentModels(tmp_path / "recent.json")
    blocked.remember("a/m")
    assert blocked.times() == {}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []
