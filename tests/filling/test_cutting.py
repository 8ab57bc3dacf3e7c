"""How long values are cut."""

from __future__ import annotations

import re

import pytest
from counts import times
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jupyter.filling import FilledValue, fill
from llm_jupyter.filling.cutting import BYTES_PER_TOKEN, DEFAULT_BUDGET, cut, fair_share, size_of

NOTE = re.compile(r"\[… ([\d,]+) of ([\d,]+) characters left out …\]")


def test_a_long_value_keeps_its_beginning_and_its_end() -> None:
    value = "\n".join(f"line {number}" for number in range(5000))
    filled = fill("Log: {log}!", {"log": value})
    text = filled.text.removeprefix("Log: ").removesuffix("!")
    head, tail = NOTE.split(text)[0], NOTE.split(text)[-1]
    assert value.startswith(head.removesuffix("\n"))
    assert head.endswith("\n")
    assert value.endswith(tail.removeprefix("\n"))
    assert tail.startswith("\nline ")
    assert 2.5 < len(head) / len(tail) < 3.5
    assert size_of(text) <= DEFAULT_BUDGET * BYTES_PER_TOKEN
    assert filled.filled == (FilledValue("log", f"{len(value):,} characters, cut to {len(text):,} characters", True),)


def test_a_value_within_the_budget_is_whole() -> None:
    value = "x" * DEFAULT_BUDGET * BYTES_PER_TOKEN
    assert fill("{v}", {"v": value}).text == value
    assert fill("{v}", {"v": value + "x"}).text != value + "x"


def test_values_share_a_budget_the_small_ones_whole() -> None:
    names = {"small": "s" * 100, "large": "l" * 9000, "larger": "r" * 90_000}
    small, large, larger = fill("{small}|{large}|{larger}", names, budget=1000).text.split("|")
    assert small == names["small"]
    assert 1400 < size_of(large) <= 1450
    assert 1400 < size_of(larger) <= 1450


def test_a_value_that_stands_twice_counts_twice() -> None:
    once, twice = fill("{v}|{v}", {"v": "v" * 9000}, budget=1000).text.split("|")
    assert once == twice
    assert 1400 < size_of(once) <= 1500


def test_no_budget_at_all_leaves_notes_and_what_is_shorter() -> None:
    filled = fill("{short} {long}", {"short": "short", "long": "l" * 9000}, budget=0)
    assert filled.text == "short [… 9,000 of 9,000 characters left out …]"


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20), st.integers(0, 5000))
@settings(max_examples=times(1000))
def test_shares_fit_together_and_use_what_there_is(sizes: list[int], total: int) -> None:
    share = fair_share(sizes, total)
    taken = [min(size, share) for size in sizes]
    assert sum(taken) <= total
    if share < max(sizes):
        assert sum(taken) > total - len(sizes), "what is cut is cut for want of room"


@given(st.text(alphabet=st.sampled_from("abc \né漢😀"), max_size=2000), st.integers(0, 3000))
@settings(max_examples=times(3000))
def test_a_cut_text_fits_and_its_note_says_how_much_is_missing(text: str, limit: int) -> None:
    shorter = cut(text, limit)
    found = NOTE.search(shorter)
    if found is None:
        assert shorter == text
        return
    assert size_of(text) > limit
    assert size_of(shorter) <= max(limit, size_of(found[0]) + 2)
    head, tail = shorter[: found.start()].rstrip(" \n"), shorter[found.end() :].lstrip(" \n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert int(found[2].replace(",", "")) == len(text)
    assert int(found[1].replace(",", "")) <= len(text) - len(head) - len(tail)


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "é" * 10_000, "😀" * 10_000, "x\n" * 10_000, "x" * 5000 + "\n" + "y" * 5000]
)
def test_a_cut_uses_the_room_that_it_has(text: str) -> None:
    assert 2800 < size_of(cut(text, 3000)) <= 3000
