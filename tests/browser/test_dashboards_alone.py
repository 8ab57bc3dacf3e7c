"""The page's half of the dashboards, without Jupyter: time, a kernel that is silent, the focus, and what is seen of a state."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from alone import draw, say, told
from playwright.sync_api import Page, expect
from servers.paced import ModelServer
from widgets.watching import shown

from llm_jupyter.comparison import compare
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from llm_jupyter.widgets import ChatDashboard, CompareDashboard, SessionsDashboard

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

DIMMED = re.compile("llmj-past")
EVENTS = {"kind": "events", "title": "Events", "all_groups": ["host", "model"], "groups": ["host"], "rows": []}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMFactory]:
    """Services with one answer in their conversation."""
    with ModelServer() as server:
        environment = {
            "LLM_JUPYTER_HOME": str(tmp_path_factory.mktemp("home")),
            "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": server.base_url,
            "LLM_JUPYTER_DEFAULT_MODEL": "desk/m",
        }
        with LLMFactory(load_settings(environment=environment), environment=environment) as llm:
            llm.chat("hello")
            yield llm


@pytest.fixture
def conversations(llm: LLMFactory) -> dict[str, Any]:
    """What the dashboard `sessions` shows."""
    with shown(SessionsDashboard(llm)) as page:
        return page.state


def test_one_that_hears_no_word_of_its_kernel_says_so_until_it_does(page: Page) -> None:
    page.clock.install()
    draw(page, EVENTS)
    frame = page.get_by_role("region", name="Events", exact=True)
    page.clock.run_for(4_000)
    expect(frame).not_to_have_class(DIMMED)
    page.clock.run_for(2_000)
    expect(frame.locator(".llmj-notice")).to_contain_text("The kernel does not answer.")
    expect(frame).to_have_class(DIMMED)
    say(page, n=0, state=EVENTS)
    page.clock.run_for(10_000)
    expect(frame).not_to_have_class(DIMMED)


@pytest.mark.parametrize("hours", [3, -3])
def test_ages_are_those_by_the_kernels_clock(page: Page, conversations: dict[str, Any], hours: int) -> None:
    page.clock.install(time=time.time() + hours * 3600)
    draw(page, conversations)
    long_ago = [{**one, "updated": time.time() - 600} for one in conversations["conversations"]]
    say(page, n=0, state={**conversations, "conversations": long_ago})
    expect(page.get_by_label("Conversations").locator("time").first).to_have_text("10 min ago")


def test_a_button_that_was_pressed_keeps_the_focus_though_it_cannot_be_pressed_again(
    page: Page, llm: LLMFactory
) -> None:
    with shown(ChatDashboard(llm)) as panel:
        draw(page, panel.state)
        say(page, n=0, state=panel.state)
    send = page.get_by_role("button", name="Send")
    page.get_by_label("Question", exact=True).fill("a question")
    send.press("Enter")
    say(page, n=1, changes={"answering": ["set", True]})
    say(page, done=told(page)[-1]["ticket"])
    expect(page.get_by_label("Question", exact=True)).to_have_value("")
    expect(send).to_be_disabled()
    expect(send).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert [one["do"] for one in told(page) if "ticket" in one] == ["ask", "stop"]

    draw(page, {"kind": "compare", "title": "Compare models", "suggested": [{"model": "a/b"}]})
    add, ask = page.get_by_role("button", name="Add contender"), page.get_by_role("button", name="Ask", exact=True)
    for _ in range(9):
        add.press("Enter", timeout=1_000) if add.is_enabled() else page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Contender")).to_have_count(8)
    expect(add).to_be_disabled()
    expect(add).to_be_focused()
    page.get_by_label("Prompt", exact=True).fill("a question")
    ask.press("Enter")
    expect(ask).to_be_disabled()
    expect(ask).to_be_focused()
    page.keyboard.press("Enter")
    assert [one["do"] for one in told(page) if "ticket" in one] == ["ask"]


def test_a_turn_under_way_counts_and_what_another_kernel_uses_is_not_offered_to_be_deleted(
    page: Page, conversations: dict[str, Any]
) -> None:
    (slot,) = conversations["slots"]
    asked = {
        **conversations[f"turn {slot}"], "state": "pending", "answer": {"text": "so far", "more": 0}, "who": "",
        "tokens": [None, None], "seconds": None, "remarks": [],
    }  # fmt: skip
    (listed,) = conversations["conversations"]
    opened = {**conversations["opened"], "turns": 0}
    state = {**conversations, f"turn {slot}": asked, "opened": opened, "conversations": [{**listed, "turns": 0}]}
    draw(page, state)
    expect(page.get_by_role("listitem", name="Turn 1")).to_contain_text(re.compile(r"being answered\s*\d+ s ago"))
    expect(page.get_by_label("Conversations").get_by_role("navigation")).to_contain_text("nothing answered yet, used")
    delete = page.get_by_role("button", name=re.compile("^Delete"))
    delete.click()
    expect(page.get_by_role("alertdialog", name=re.compile(r"with its 1 turn\?$"))).to_be_visible()
    draw(page, {**state, "opened": {**opened, "elsewhere": True}})
    expect(delete).to_be_disabled()


def test_headings_of_an_answer_stand_below_those_of_the_dashboard(page: Page, llm: LLMFactory) -> None:
    with shown(CompareDashboard(llm, compare("hello", ["desk/m"], llm=llm))) as panel:
        panel.until(lambda: panel.state.get("view"))
        draw(page, {**panel.state, "text:0": "# First\n\n## Second\n\n<h1>Third</h1>\n\n### Fourth"})
    for name, level in (("First", 5), ("Second", 6), ("Third", 5), ("Fourth", 6)):
        expect(page.get_by_role("heading", name=name)).to_have_attribute("aria-level", f"{level}")


def test_the_model_that_is_chosen_is_read_whole_where_there_is_room(page: Page, llm: LLMFactory) -> None:
    with shown(ChatDashboard(llm)) as panel:
        state = {**panel.state, "model": None, "models": []}
    for width in (400, 700):
        draw(page, state, width)
        shrunk, free = page.get_by_role("combobox", name="Model").evaluate(
            """element => {
              const width = () => element.getBoundingClientRect().width, before = width();
              element.style.flexShrink = 0;
              return [before, width()];
            }"""
        )
        assert shrunk == free


def test_a_hosts_figures_stand_in_one_line_and_its_curves_at_one_height(page: Page) -> None:
    host = {
        "state": "running", "whose": "ours", "pid": 1, "url": "", "began": time.time(), "restarts": 0, "holders": 1,
        "held": True, "reason": "", "limit": None, "end": None,
        "can": {"start": False, "stop": True, "restart": True, "log": True},
    }  # fmt: skip
    taken = {"rss": 28e6, "cpu": 0.02, "threads": 3, "gpu": None}
    state = {
        "kind": "hosts", "title": "Hosts", "names": ["a"], "host a": host, "taken a": taken,
        "memory a": [1, 2, 3], "cpu a": [0, 0.1, 0.2],
    }  # fmt: skip
    for width in (440, 480, 700, 1200):
        draw(page, state, width)
        tops = "all => all.map(element => element.getBoundingClientRect().top)"
        assert len(set(page.locator("svg").evaluate_all(tops))) == 1, width
        for figure in ("28 MB", "0.02 cores"):
            assert (
                page.locator(".llmj-line", has_text=figure).evaluate("element => element.getClientRects().length") == 1
            )


def test_a_pressed_button_is_told_from_others_also_in_the_systems_own_colours(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    draw(page, EVENTS)
    marked = """element => {
      const mark = element.parentElement.appendChild(document.createElement('i'));
      mark.style.backgroundColor = 'Highlight';
      return getComputedStyle(element).backgroundColor === getComputedStyle(mark).backgroundColor;
    }"""
    found = [page.get_by_role("button", name=f"Only {name} events").evaluate(marked) for name in ("host", "model")]
    assert found == [True, False]
