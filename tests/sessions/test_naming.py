"""What a copy is called, whatever its original is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import SessionError
from llm_jupyter.sessions.naming import NAME, expect_name, name_of_copy
from llm_jupyter.store import SessionRecord

any_text = st.text(st.characters(exclude_categories=()), max_size=120)


def record(**fields: str | None) -> SessionRecord:
    return SessionRecord(id="4f2a", created=0.0, updated=0.0, **fields)


@given(st.none() | st.from_regex(NAME, fullmatch=True), any_text, st.integers(0, 12))
def test_a_copy_always_gets_a_name_that_nobody_has(name: str | None, question: str, count: int) -> None:
    original, taken = record(name=name, question=question), set()
    for _ in range(count):
        taken.add(name_of_copy(original, taken.__contains__))
    assert len(taken) == count
    assert all(NAME.fullmatch(one) for one in taken)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\x1b[1mb", "a\u2028b", "\x00", " a", "a/b", "", "a" * 81])
def test_a_name_is_one_line_without_tabs_or_slashes(name: str) -> None:
    expect_name("Müller's résumé, 2nd try")
    with pytest.raises(SessionError, match="cannot be a name"):
        expect_name(name)


def test_a_copy_of_a_copy_counts_on() -> None:
    assert name_of_copy(record(name="talk"), {"talk"}.__contains__) == "talk (copy)"
    assert name_of_copy(record(name="talk (copy)"), {"talk", "talk (copy)"}.__contains__) == "talk (copy 2)"
    assert name_of_copy(record(question="What is a/b?"), set().__contains__) == "What is a b? (copy)"
    assert name_of_copy(record(), set().__contains__) == "4f2a (copy)"
