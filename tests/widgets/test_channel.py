"""What a page is sent: no more than is new, and in the end the same state as the kernel has."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.widgets.channel import BURST, RATE, Channel

KEYS = st.sampled_from(["a", "b"])
ROWS = st.lists(st.integers(), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("drop"), st.sampled_from(["a", "b", "text", "rows"])),
        st.tuples(st.just("append"), st.just("text"), st.text(max_size=3)),
        st.tuples(st.just("extend"), st.just("rows"), ROWS, st.just(5)),
        st.tuples(st.just("take")),
    )
)


def applied(state: dict[str, Any], message: dict[str, Any] | None) -> None:
    """As a page does it."""
    for key, (kind, *values) in (message or {"changes": {}})["changes"].items():
        if kind == "set":
            state[key] = values[0]
        elif kind == "drop":
            state.pop(key, None)
        elif kind == "append":
            state[key] = state.get(key, "") + values[0]
        else:
            state[key] = [*state.get(key, ()), *values[0]][-values[1] :]


@given(STEPS)
def test_whatever_happens_and_whenever_it_is_taken_the_page_has_the_kernels_state(steps: list[tuple[Any, ...]]) -> None:
    channel, page = Channel(), dict[str, Any]()
    for verb, *arguments in steps:
        if verb == "take":
            applied(page, json.loads(json.dumps(channel.take())))
        else:
            getattr(channel, verb)(*arguments)
    applied(page, channel.take())
    assert page == channel.state
    assert channel.take() is None


def test_what_stands_there_already_does_not_travel() -> None:
    channel = Channel()
    channel.set("a", [1])
    channel.take()
    channel.set("a", [1])
    assert not channel.is_behind


def test_of_many_changes_of_one_key_the_last_travels() -> None:
    channel = Channel()
    for number in range(1000):
        channel.set("a", number)
    message = channel.take()
    assert message is not None
    assert message["changes"] == {"a": ["set", 999]}


def test_a_long_answer_waits_for_its_bytes_and_arrives_whole() -> None:
    now = [0.0]
    channel, page, sent = Channel(lambda: now[0]), dict[str, Any](), 0
    for _ in range(100):  # ten seconds of 100 kB each tenth
        channel.append("text", "x" * 100_000)
        if (message := channel.take()) is not None:
            sent += len(json.dumps(message))
            applied(page, message)
        now[0] += 0.1
    assert sent < 2 * BURST + 10 * RATE, "it may overdraw by one message"
    while channel.is_behind:
        now[0] += 1
        message = channel.take()
        assert len(json.dumps(message)) < BURST + 100
        applied(page, message)
    assert page["text"] == "x" * 10_000_000


def test_nothing_waits_behind_long_texts() -> None:
    now = [0.0]
    channel, page = Channel(lambda: now[0]), dict[str, Any]()
    for number in range(4):
        channel.append(f"text:{number}", "x" * 540_000)
    beats = 0
    while channel.is_behind:
        channel.set("progress", beats)
        channel.extend("rows", [beats], 5)
        applied(page, channel.take())
        assert (page["progress"], page["rows"][-1]) == (beats, beats)
        now[0] += 1 / 12
        beats += 1
    assert now[0] < (4 * 540_000 - BURST) / RATE * 1.1
    assert [len(page[f"text:{number}"]) for number in range(4)] == [540_000] * 4


def test_whoever_asks_for_the_whole_misses_nothing_and_gets_nothing_twice() -> None:
    channel = Channel()
    channel.append("text", "one ")
    channel.take()
    channel.append("text", "two")
    page = dict(channel.whole()["state"])
    assert channel.take() is None
    channel.append("text", " three")
    applied(page, channel.take())
    assert page["text"] == "one two three"
