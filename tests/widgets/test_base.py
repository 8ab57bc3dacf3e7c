"""What all dashboards have in common: how they follow, fail, are seen and end; with real services and a page for tests."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import comm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ipywidgets.widgets import widget
from watching import Page, shown

from llm_jupyter.errors import InvalidInputError, StoreError
from llm_jupyter.events import Event, HealthChecked
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import LLMSettings
from llm_jupyter.widgets import Dashboard
from llm_jupyter.widgets.base import GRACE, OVER


class Numbered(Event, frozen=True, kw_only=True):
    """Something that happens in these tests."""

    number: int


class Unwell(Event, frozen=True, kw_only=True):
    """What makes the next look fail."""

    error: Any


class Counting(Dashboard):
    """Shows how many it has heard of, and the last."""

    name = "counting"
    title = "Counting"
    hears = (Numbered, Unwell)

    def __init__(self, llm: LLMFactory | None = None) -> None:
        self.looks = 0
        self.batches: list[int] = []
        self.is_let_go = threading.Event()
        self.is_held, self.is_cancelled = threading.Event(), threading.Event()
        super().__init__(llm)

    async def refresh(self, events: Sequence[Event]) -> None:
        self.looks += 1
        for event in events:
            if isinstance(event, Unwell):
                raise event.error
        if numbers := [event.number for event in events if isinstance(event, Numbered)]:
            self.batches.append(len(numbers))
            self.show("last", numbers[-1])
            self.show("count", sum(self.batches))

    def ended(self) -> None:
        self.is_let_go.set()

    async def do_fail(self, how: str) -> None:
        if how == "known":
            raise StoreError("the disk is full", next_step="Make room.")
        raise ValueError(how)

    async def do_greet(self, name: str) -> None:
        self.say(f"hello {name}")

    async def do_write(self, text: str) -> None:
        self.show("text", text)

    async def do_hold(self) -> None:
        self.is_held.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.is_cancelled.set()


class Hasty(Counting):
    """The same, faster than people see."""

    beat: ClassVar[float] = 0.002
    echo: ClassVar[float] = 0.03


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[LLMFactory]:
    with LLMFactory(LLMSettings(home=tmp_path), environment={}) as llm:
        yield llm


def publish(llm: LLMFactory, *numbers: int) -> None:
    for number in numbers:
        llm.events.publish(Numbered(number=number))


def turns(llm: LLMFactory) -> None:
    """Let a few beats of a hasty dashboard go by."""
    llm.portal.run(asyncio.sleep(10 * Hasty.beat))


def notice(page: Page) -> Any:
    return page.state.get("notice", {}).get("text", "")


# -- following


def test_what_happens_while_it_is_open_is_shown(llm: LLMFactory) -> None:
    with shown(Counting(llm)) as page:
        assert page.state == {"kind": "counting", "title": "Counting"}
        publish(llm, 7)
        page.until(lambda: page.state.get("last") == 7)


def test_two_messages_are_never_nearer_than_a_fifteenth_of_a_second(llm: LLMFactory) -> None:
    with shown(Counting(llm)) as page:
        for number in range(5000):
            publish(llm, number)
            if number % 500 == 0:
                page.until(lambda at=number: page.state.get("last", -1) >= at)
        page.until(lambda: page.state.get("count") == 5000)
    moments = [at for at, _ in page.messages]
    assert len(moments) > 5
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 1 / 15


BURSTS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=8)


@given(BURSTS, st.lists(st.booleans(), max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_it_comes_and_whatever_is_lost_the_page_ends_with_the_last_state(
    llm: LLMFactory, bursts: list[tuple[int, bool]], losses: list[bool]
) -> None:
    with shown(Hasty(llm)) as page:
        fates = iter(losses)
        page.loses = lambda content: "n" in content and next(fates, False)
        sent = 0
        for size, is_waited_for in bursts:
            publish(llm, *range(sent, sent + size))
            sent += size
            if is_waited_for and size:
                page.until(lambda so_far=sent: page.state.get("count") == so_far)
        page.until(lambda: page.state.get("count", 0) == sent and page.state.get("last", -1) == sent - 1)


def test_a_page_that_missed_the_very_last_message_learns_of_it(llm: LLMFactory) -> None:
    with shown(Hasty(llm)) as page:
        page.loses = lambda content: "changes" in content and not page.lost
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1)
        assert (page.lost, page.messages) == (1, [])


def test_half_a_surrogate_pair_of_a_model_does_not_end_it(llm: LLMFactory) -> None:
    with shown(Counting(llm)) as page:
        page.act("write", text="cut \ud83d off")
        page.until(lambda: page.state.get("text") == "cut ? off")
        assert page.dashboard.get_state()["state"]["text"] == "cut ? off"


def test_every_message_says_when_it_was_sent(llm: LLMFactory) -> None:
    before = time.time()
    with shown(Counting(llm)) as page:
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1)
        page.act("greet", name="you")
    assert page.moments == sorted(page.moments)
    assert before - 0.001 < page.moments[0] <= page.moments[-1] < time.time() + 0.001


# -- failing


def test_a_look_that_fails_is_said_until_one_succeeds(llm: LLMFactory) -> None:
    with shown(Counting(llm)) as page:
        llm.events.publish(Unwell(error=StoreError("the disk is full", next_step="Make room.")))
        page.until(lambda: notice(page) == "the disk is full\nMake room.")
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1 and "notice" not in page.state)


def test_a_look_that_fails_unexpectedly_ends_nothing_and_is_logged_once(
    llm: LLMFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with shown(Hasty(llm)) as page:
        for _ in range(3):
            llm.events.publish(Unwell(error=ZeroDivisionError("by zero")))
            turns(llm)
        page.until(lambda: "ZeroDivisionError: by zero" in notice(page))
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1)
    assert [record.message for record in caplog.records] == ["the dashboard counting could not look"]


def test_a_state_that_cannot_be_sent_costs_that_message_only(llm: LLMFactory, caplog: pytest.LogCaptureFixture) -> None:
    with shown(Hasty(llm)) as page:
        page.act("write", text=object())
        turns(llm)
        page.act("write", text="whole again")
        page.until(lambda: page.state.get("text") == "whole again")
    assert {record.message for record in caplog.records} == {"the dashboard counting could not be sent"}


@pytest.mark.parametrize(
    ("verb", "values", "said"),
    [
        ("fail", {"how": "known"}, "the disk is full\nMake room."),
        ("fail", {"how": "oddly"}, "fail failed: ValueError: oddly"),
        ("greet", {"nobody": 1}, "greet failed: TypeError: "),
        ("burn", {}, "this dashboard cannot 'burn'"),
        (None, {}, "this dashboard cannot 'None'"),
    ],
)
def test_an_action_that_fails_is_said_and_done(llm: LLMFactory, verb: Any, values: dict[str, Any], said: str) -> None:
    with shown(Counting(llm)) as page:
        page.act(verb, **values)
        page.until(lambda: notice(page).startswith(said) and page.state["notice"]["error"])
        page.act("greet", name="you")
        page.until(lambda: page.state["notice"] == {"text": "hello you", "error": False})


def test_the_error_of_an_action_stands_until_the_next_one_succeeds_and_what_was_said_well_longer(
    llm: LLMFactory,
) -> None:
    with shown(Counting(llm)) as page:
        page.act("fail", how="known")
        page.until(lambda: notice(page) == "the disk is full\nMake room.")
        page.act("fail", how="oddly")
        page.until(lambda: notice(page) == "fail failed: ValueError: oddly")
        page.act("write", text="well")
        page.until(lambda: page.state.get("text") == "well" and "notice" not in page.state)
        page.act("greet", name="you")
        page.act("write", text="again")
        page.until(lambda: page.state.get("text") == "again")
        assert notice(page) == "hello you"


@pytest.mark.parametrize("content", [None, "hello", ["do"], {}, {"do": "seen"}, {"do": ["x"], "ticket": {}}])
def test_a_message_that_no_page_of_ours_sends_harms_nothing(llm: LLMFactory, content: Any) -> None:
    with shown(Counting(llm)) as page:
        page.dashboard.comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
        page.look()
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1)


# -- being seen


def test_what_nobody_sees_is_not_looked_at_and_comes_whole_when_it_is_seen(llm: LLMFactory) -> None:
    dashboard = Hasty(llm)
    with shown(dashboard) as page:
        page.look(False)
        turns(llm)
        for number in range(20):
            publish(llm, number)
            turns(llm)
        assert dashboard.batches == []
        page.look()
        page.until(lambda: page.state.get("count") == 20)
        assert dashboard.batches == [20]


def test_it_is_seen_until_the_last_of_several_pages_shows_it_no_more(llm: LLMFactory) -> None:
    dashboard = Hasty(llm)
    with shown(dashboard) as page:
        page.look(page="another tab")
        page.look(False, page="another tab")
        publish(llm, 1)
        page.until(lambda: page.state.get("last") == 1)
        page.look(False)
        turns(llm)
        publish(llm, 2)
        turns(llm)
        assert dashboard.batches == [1]


class Forgetful(Hasty):
    """Forgets pages that say nothing for a tenth of a second."""

    lease: ClassVar[float] = 0.1

    def seen(self, is_seen: bool) -> None:
        self.show("seen", is_seen)


def test_a_page_that_is_gone_without_a_word_is_forgotten_and_one_that_speaks_again_is_shown_all(
    llm: LLMFactory,
) -> None:
    dashboard = Forgetful(llm)
    with shown(dashboard) as page:
        page.until(lambda: page.state.get("seen") is False)
        publish(llm, 1)
        turns(llm)
        assert dashboard.batches == []
        for _ in range(8):  # others that say that they are there go on for longer than any may be silent
            page.look(page="a tab that lives")
            llm.portal.run(asyncio.sleep(Forgetful.lease / 4))
        page.until(lambda: page.state.get("count") == 1)
        assert page.state["seen"] is True


# -- ending


def test_closing_ends_everything_that_was_opened_and_twice_is_fine(llm: LLMFactory) -> None:
    Counting(llm).close()  # what is made once for all

    def opened() -> list[int]:
        llm.portal.run(asyncio.sleep(0))
        kinds = (comm.get_comm_manager().comms, widget._instances, llm.events._feeds, llm.portal._jobs)
        return [*map(len, kinds), threading.active_count()]

    before = opened()
    dashboard = Counting(llm)
    assert [now - then for now, then in zip(opened(), before, strict=True)] == [2, 2, 1, 1, 0]
    dashboard.close()
    assert dashboard.is_let_go.wait(10)
    dashboard.close()
    assert opened() == before
    assert repr(dashboard) == "Counting (closed)"
    llm.portal.run(asyncio.sleep(GRACE))
    assert vars(dashboard) == {}
    dashboard.close()
    assert dashboard._repr_mimebundle_() == ({"text/plain": "Counting (closed)"}, {})


def test_a_page_that_closes_its_end_closes_it(llm: LLMFactory) -> None:
    dashboard = Counting(llm)
    manager, identity = comm.get_comm_manager(), dashboard.model_id
    manager.comm_close(None, "", {"content": {"comm_id": identity, "data": {}}})
    assert dashboard.is_let_go.wait(10)
    assert repr(dashboard) == "Counting (closed)"


def test_closing_ends_an_action_that_is_under_way(llm: LLMFactory, caplog: pytest.LogCaptureFixture) -> None:
    dashboard = Counting(llm)
    with shown(dashboard) as page:
        page.send(do="hold", ticket=1)
        assert dashboard.is_held.wait(10)
    assert page.is_closed
    assert dashboard.is_cancelled.wait(10)
    assert dashboard.is_let_go.wait(10)
    llm.portal.run(asyncio.sleep(0))
    assert (llm.portal._jobs, caplog.records) == (set(), [])


def test_nothing_is_sent_to_a_page_that_is_being_closed(llm: LLMFactory, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        dashboard = Hasty(llm)
        page = Page(dashboard)
        flood = threading.Thread(target=publish, args=(llm, *range(300)))
        flood.start()
        page.until(lambda page=page: page.messages)
        dashboard.close()
        sent = len(page.messages)
        flood.join()
        turns(llm)
        assert len(page.messages) == sent
    assert caplog.records == []


def test_services_that_are_closed_under_it_leave_the_last_picture_and_say_so(tmp_path: Path) -> None:
    llm = LLMFactory(LLMSettings(home=tmp_path), environment={}).open()
    dashboard = Counting(llm)
    with shown(dashboard) as page:
        publish(llm, 3)
        page.until(lambda: page.state.get("last") == 3)
        llm.close()
        page.until(lambda: notice(page) == OVER)
        assert dashboard.is_let_go.wait(10)
        page.act("greet", name="you")
        assert (page.state["last"], page.state["over"], notice(page)) == (3, True, OVER)
        assert not llm.portal.started
    assert page.is_closed
    assert not llm.portal.started


async def test_services_that_a_program_with_a_loop_closes_end_it_too(tmp_path: Path) -> None:
    llm = LLMFactory(LLMSettings(home=tmp_path), environment={})
    async with llm:
        dashboard = Counting(llm)
        page = Page(dashboard)
    await asyncio.to_thread(page.until, lambda: notice(page) == OVER)
    dashboard.close()
    llm.portal.close()


class Unable(Counting):
    """Cannot begin."""

    async def begin(self) -> None:
        raise StoreError("the disk is full")


def test_one_that_cannot_begin_raises_and_leaves_nothing_behind(llm: LLMFactory) -> None:
    with pytest.raises(StoreError):
        Unable(llm)
    llm.portal.run(asyncio.sleep(0.01))
    assert (llm.portal._jobs, [ref for ref in llm.events._feeds if (feed := ref()) and not feed.closed]) == (set(), [])


def test_without_services_and_without_the_extension_it_says_what_to_type() -> None:
    with pytest.raises(InvalidInputError, match="needs services") as caught:
        Counting()
    assert "%load_ext llm_jupyter" in "\n".join(caught.value.lines())


# -- what is saved


def test_in_a_file_it_is_a_widget_a_table_and_text(llm: LLMFactory) -> None:
    with Counting(llm) as dashboard:
        data, _ = dashboard._repr_mimebundle_()
        assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
        assert data["text/plain"] == repr(dashboard) == "Counting"


def test_what_it_does_not_hear_of_is_no_reason_to_look(llm: LLMFactory) -> None:
    dashboard = Hasty(llm)
    with shown(dashboard):
        turns(llm)
        looks = dashboard.looks
        for _ in range(5):
            llm.events.publish(HealthChecked(provider="embedded", healthy=True))
            turns(llm)
        assert dashboard.looks == looks
