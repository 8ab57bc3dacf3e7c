"""The events dashboard: a live log that keeps up with a flood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import JumpingClock
from hypothesis import given
from hypothesis import strategies as st
from watching import Page, shown

from llm_jupyter.events import (
    ErrorOccurred,
    Event,
    HealthChecked,
    HostStopped,
    ModelLoaded,
    RequestFailed,
    RequestFinished,
    RequestRetried,
    SessionCreated,
    StoreDegraded,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import LLMSettings
from llm_jupyter.widgets import EventsDashboard
from llm_jupyter.widgets.channel import BURST
from llm_jupyter.widgets.events import HELD, RATE, Pace, tone_of


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[LLMFactory]:
    with LLMFactory(LLMSettings(home=tmp_path), environment={}) as llm:
        yield llm


@pytest.fixture
def page(llm: LLMFactory) -> Iterator[Page]:
    with shown(EventsDashboard(llm)) as page:
        yield page


def kinds(page: Page) -> list[str]:
    return [row["kind"] for row in page.state["rows"]]


def abouts(page: Page) -> list[str]:
    return [row["about"] for row in page.state["rows"]]


def sessions(llm: LLMFactory, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        llm.events.publish(SessionCreated(session=f"s{number}"))


def test_it_begins_with_what_has_happened_and_goes_on_with_what_happens(llm: LLMFactory, page: Page) -> None:
    assert kinds(page)[0] == "FactoryOpened"
    assert kinds(page).count("ProviderRegistered") == len(llm.registry.recipes())
    llm.events.publish(ModelLoaded(provider="ollama", model="qwen", seconds=1.5))
    page.until(lambda: kinds(page)[-1] == "ModelLoaded")
    row = page.state["rows"][-1]
    assert (row["tone"], row["about"], row["text"]) == ("good", "ollama/qwen", "seconds=1.5")
    assert row["at"] == llm.events.history(ModelLoaded)[0].timestamp


def test_nothing_stands_there_twice_and_all_in_order(llm: LLMFactory) -> None:
    sessions(llm, 50)
    with shown(EventsDashboard(llm)) as page:
        sessions(llm, 50, 50)
        page.act("filter", groups=["session"], text="", frequent=False)
        sessions(llm, 50, 100)
        page.until(lambda: len(page.state["rows"]) == 150)
        assert abouts(page) == [f"s{number}" for number in range(150)]


def test_another_filter_during_a_pause_shows_nothing_that_came_since(llm: LLMFactory, page: Page) -> None:
    sessions(llm, 2)
    page.until(lambda: abouts(page)[-1] == "s1")
    page.act("pause")
    sessions(llm, 3, 2)
    llm.events.publish(RequestFinished(request="r", finish_reason="stop", seconds=1.0))
    page.until(lambda: page.state["waiting"] == 4)
    page.act("filter", groups=["session"], text="", frequent=False)
    page.until(lambda: page.state["waiting"] == 3)
    assert abouts(page) == ["s0", "s1"]
    sessions(llm, 1, 5)
    page.until(lambda: page.state["waiting"] == 4)
    page.act("resume")
    page.until(lambda: abouts(page) == [f"s{number}" for number in range(6)])


STOPPED = RequestFailed(request="r", error="AnswerInterrupted", message="stopped before the first token")


@pytest.mark.parametrize(
    ("event", "tone"),
    [
        (ErrorOccurred(source="store", error="StoreError", message="full"), "bad"),
        (HostStopped(host="embedded", pid=1, exit_code=-9, expected=False), "bad"),
        (HostStopped(host="embedded", pid=1, exit_code=0, expected=True), "idle"),
        (HealthChecked(provider="ollama", healthy=False), "warn"),
        (RequestRetried(request="r", provider="p", model="m", attempt=1, delay=1.0, reason="busy"), "warn"),
        (ModelLoaded(provider="p", model="m", seconds=1.0), "good"),
        (SessionCreated(session="s"), "idle"),
        (RequestFailed(request="r", error="ServerError", message="500"), "bad"),
        (STOPPED, "idle"),
    ],
)
def test_what_went_wrong_stands_out(event: Event, tone: str) -> None:
    assert tone_of(event) == tone


def test_what_the_person_stopped_is_called_so_and_is_no_error(llm: LLMFactory, page: Page) -> None:
    llm.events.publish(STOPPED)
    page.until(lambda: kinds(page)[-1] == "stopped")
    row = page.state["rows"][-1]
    assert (row["tone"], row["about"], row["text"]) == ("idle", "r", 'message="stopped before the first token"')
    page.act("filter", groups=["error"], text="", frequent=False)
    page.until(lambda: page.state["rows"] == [])
    page.act("filter", groups=["request"], text="", frequent=False)
    page.until(lambda: kinds(page) == ["stopped"])


def test_the_filter_shows_the_groups_that_are_wanted_and_failures_of_all_under_error(
    llm: LLMFactory, page: Page
) -> None:
    llm.events.publish(RequestFailed(request="r1", error="ServerError", message="500"))
    llm.events.publish(RequestFinished(request="r2", finish_reason="stop", seconds=1.0))
    llm.events.publish(StoreDegraded(path="/tmp", reason="full"))
    sessions(llm, 1)

    def only(*groups: str, text: str = "") -> list[str]:
        page.act("filter", groups=list(groups), text=text, frequent=False)
        page.until(lambda: (page.state["groups"], page.state["text"]) == (list(groups), text))
        return kinds(page)

    assert only("error") == ["RequestFailed", "StoreDegraded"]
    assert only("request", "session") == ["RequestFailed", "RequestFinished", "StoreDegraded", "SessionCreated"]
    assert only("request", text="R2 FINISH") == ["RequestFinished"]
    assert only(text="no such text") == []
    llm.events.publish(RequestFinished(request="no such text", finish_reason="stop", seconds=1.0))
    page.until(lambda: abouts(page) == ["no such text"])
    page.act("filter", groups=["weather"], text="", frequent=False)
    page.until(lambda: page.state.get("notice", {}).get("text") == "there is no group of events 'weather'")
    assert abouts(page) == ["no such text"]


def test_measurements_are_shown_on_request_and_push_nothing_out(llm: LLMFactory, page: Page) -> None:
    sessions(llm, 1)
    for _ in range(3000):
        llm.events.publish(HealthChecked(provider="ollama", healthy=True, latency=0.01))
    page.until(lambda: kinds(page)[-1] == "SessionCreated")
    page.act("filter", groups=["provider"], text="ollama", frequent=True)
    page.until(lambda: kinds(page)[-1] == "HealthChecked")
    assert len(kinds(page)) == HELD
    page.act("filter", groups=[], text="", frequent=False)
    page.until(lambda: kinds(page)[-1] == "SessionCreated")


def test_a_pause_counts_what_comes_and_its_end_shows_it(llm: LLMFactory, page: Page) -> None:
    page.act("pause")
    page.until(lambda: page.state["paused"])
    before = kinds(page)
    sessions(llm, 3)
    page.until(lambda: page.state["waiting"] == 3)
    assert kinds(page) == before
    page.act("resume")
    page.until(lambda: not page.state["paused"] and abouts(page)[-3:] == ["s0", "s1", "s2"])
    assert page.state["waiting"] == 0


def test_what_was_cleared_comes_back_by_no_filter(llm: LLMFactory, page: Page) -> None:
    sessions(llm, 3)
    page.act("clear")
    page.until(lambda: page.state["rows"] == [])
    sessions(llm, 1, 9)
    page.until(lambda: abouts(page) == ["s9"])
    page.act("filter", groups=["session"], text="", frequent=False)
    page.until(lambda: page.state["groups"] == ["session"])
    assert abouts(page) == ["s9"]


def test_of_a_flood_the_last_are_shown_and_the_number_of_the_others(llm: LLMFactory, page: Page) -> None:
    before = len(page.state["rows"])
    sessions(llm, 10_000)
    page.until(lambda: abouts(page)[-1] == "s9999")
    assert len(page.state["rows"]) <= HELD
    added = sum(len(one["changes"].get("rows", [0, []])[1]) for _, one in page.messages)
    assert page.state["skipped"] + added == 10_000
    assert added <= HELD + RATE * (page.messages[-1][0] - page.messages[0][0] + 10) + before


def test_a_thousand_events_a_second_are_less_than_a_fifth_of_a_megabyte_a_second() -> None:
    """In simulated time: what the page is sent in ten seconds, with a beat of a twelfth of a second."""
    clock = JumpingClock()
    pace, beat = Pace(clock.monotonic), 1 / 12
    largest = {
        "n": 10**6, "at": 1764e6 + 0.123456, "kind": "RequestFailedOver", "tone": "idle", "about": "a" * 60, "text": "t" * 120,
    }  # fmt: skip
    sent = 0
    for _ in range(120):
        rows = max(1, pace.take(round(1000 * beat)))
        sent += len(
            json.dumps({"n": 1, "changes": {"rows": ["extend", [largest] * rows, HELD], "skipped": ["set", 9999]}})
        )
        sent += 700  # of headers
        clock.now += beat
    assert sent / 10 < 200_000
    assert len(json.dumps([largest] * HELD)) < BURST


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 2000)), max_size=50))
def test_the_pace_never_allows_more_than_it_promises(steps: list[tuple[float, int]]) -> None:
    clock = JumpingClock()
    pace, taken, began = Pace(clock.monotonic), 0, clock.now
    for pause, wanted in steps:
        clock.now += pause
        count = pace.take(wanted)
        assert 0 <= count <= min(wanted, HELD)
        taken += count
    assert taken <= HELD + RATE * (clock.now - began) + 1e-6


HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil"


def test_a_saved_file_has_the_last_ones_as_a_table_in_which_nothing_is_live(llm: LLMFactory, page: Page) -> None:
    sessions(llm, 30)
    llm.events.publish(ErrorOccurred(source=HOSTILE, error="Error", message=HOSTILE))
    page.until(lambda: kinds(page)[-1] == "ErrorOccurred")
    data: dict[str, Any] = page.dashboard._repr_mimebundle_()[0]
    lines = data["text/plain"].splitlines()
    assert lines[0] == "Events"
    assert lines[1].split() == ["time", "event", "about", "what"]
    assert lines[-2].split()[1] == "ErrorOccurred"
    assert lines[-1].endswith(f"%llm events -n {len(kinds(page))}")
    assert data["text/html"].count("<tr>") == 21
    assert "<script>" not in data["text/html"]
    assert all(mark not in data["text/plain"] + data["text/html"] for mark in ("\x1b", "\u202e"))


class Unspeakable(Event, frozen=True, kw_only=True):
    """An event of somebody else's, with something in it that has no text."""

    what: Any


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_event_that_has_no_text_is_shown_without_and_ends_nothing(llm: LLMFactory, page: Page) -> None:
    llm.events.publish(Unspeakable(what=Mute()))
    page.until(lambda: kinds(page)[-1] == "Unspeakable")
    assert page.state["rows"][-1]["text"] == "what=<Mute>"
