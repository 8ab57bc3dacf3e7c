"""The dashboards `models` and `sessions` in a real JupyterLab: watched while things happen, and used control by control."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dashboards import (
    SOON,
    Watched,
    by_keyboard,
    execute,
    heard_from,
    in_a_narrow_cell,
    photographed,
    run_and_close,
    run_cell,
    start_cell,
    write_notebook,
)
from furniture import MODEL, NOTEBOOK, ON_OLLAMA, Desk, Room, environment, keep_talks, said, stories
from labs import Lab
from live import place
from pages_of import open_notebook
from playwright.sync_api import Browser, Locator, expect
from servers.scripted import Gate
from servers.scripted_ollama import ScriptedOllama, entry
from store.samples import converse, storing

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(240)]

EMBEDDED = "embedded/smollm2-135m"
FETCHED = "stories15m-q4_0"
QUESTIONS = ("Which test fits paired samples?", "And if they are not normal?")
SHORT = "A paired t-test."
LONG = (
    "Use a **paired t-test**: it looks at the differences, one for each pair.\n\n",
    "```python\nfrom scipy import stats\n\nstats.ttest_rel(before, after)\n```",
)
RANKS = "Then take the *Wilcoxon signed-rank test*: it ranks the differences instead of averaging them."


@pytest.fixture(scope="module")
def room(browser: Browser, lab: Lab, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A notebook whose kernel has a home of its own, with conversations of other days in it, and four providers."""
    home = tmp_path_factory.mktemp("home")
    place(weights, home)
    keep_talks(home)
    with ExitStack() as stack:
        ollama, desk, files = (stack.enter_context(one) for one in (ScriptedOllama(*ON_OLLAMA), Desk(), stories()))
        ollama.loaded = {"qwen3:8b": {"context_length": 16_384}}
        load = f"import os\nos.environ.update({environment(home, ollama, desk)!r})\n%load_ext llm_jupyter"
        cells = [f"%llm dash {name} -o {name}_dash" for name in ("models", "sessions")]
        write_notebook(lab, NOTEBOOK, load, *(f"%%chat\n{question}" for question in QUESTIONS), *cells, "# free")
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(30_000)
        complaints = heard_from(page)
        open_notebook(page, lab, NOTEBOOK)
        run_cell(page, "%load_ext")
        yield Room(page, lab.root, home, ollama, desk, files)
        page.close()
    assert not complaints


# -- sessions


def one_turn(frame: Locator, number: int) -> Locator:
    return frame.get_by_role("listitem", name=f"Turn {number}", exact=True)


def test_a_turn_is_shown_while_it_is_answered_and_its_versions_can_be_chosen(room: Room) -> None:
    frame, page = room.opened("sessions", "Conversations"), room.page
    expect(frame).to_contain_text("Nothing was asked yet.")
    gate, watched, asked = Gate(), Watched(frame), time.time()
    room.desk.next(said(SHORT[:8], gate, SHORT[8:]), said(RANKS), said(*LONG))
    start_cell(page, QUESTIONS[0])
    assert watched.after(room.happened("RequestStarted", asked), "being answered") < SOON
    gate.open()
    assert watched.after(room.happened("RequestFinished", asked), "● complete") < SOON
    run_cell(page, QUESTIONS[1])
    expect(one_turn(frame, 2)).to_contain_text("Wilcoxon")
    meter = frame.get_by_role("meter", name=f"Context of {NOTEBOOK}")
    expect(meter).to_have_attribute("aria-valuemax", "8192")
    expect(meter).to_have_attribute("aria-valuetext", re.compile(r"about \d+ of 8,192 tokens"))

    asked = time.time()
    run_cell(page, QUESTIONS[0])
    assert watched.after(room.happened("TurnReplaced", asked), "answered under an earlier version") < SOON
    expect(one_turn(frame, 1)).to_contain_text("ttest_rel")
    photographed(frame, "dashboard-sessions")
    in_a_narrow_cell(frame, "dashboard-sessions")
    frame.get_by_role("combobox", name="Versions of turn 1").select_option(index=0)
    expect(one_turn(frame, 1)).to_contain_text(SHORT)
    expect(one_turn(frame, 1)).to_contain_text("does not count")
    by_keyboard(frame, "Let this version of turn 1 count")
    page.keyboard.press("Enter")
    expect(one_turn(frame, 1)).not_to_contain_text("does not count")
    expect(one_turn(frame, 2)).not_to_contain_text("answered under an earlier version")
    assert page.evaluate("document.activeElement.closest('li').getAttribute('aria-label')") == "Turn 1"


def test_conversations_are_found_by_their_names_and_by_what_was_said(room: Room) -> None:
    frame = room.opened("sessions", "Conversations")
    search = frame.get_by_label("Search conversations")
    search.press_sequentially("reading")
    expect(
        frame.get_by_role("navigation", name="Conversations").get_by_role("button", name=re.compile("^Open "))
    ).to_have_count(1)
    search.fill("chapter 3")
    found = frame.get_by_role("region", name="Turns that were found")
    expect(found.get_by_role("status")).to_contain_text("with “chapter 3”")
    found.get_by_role("button", name=re.compile("^Open Reading log at: .*chapter 3 ")).click()
    expect(one_turn(frame, 3)).to_be_focused()
    expect(one_turn(frame, 3)).to_be_in_viewport()
    expect(one_turn(frame, 60)).to_have_count(0)
    frame.get_by_role("button", name="Show later turns of Reading log").click()
    expect(one_turn(frame, 60)).to_have_count(1)
    search.fill("nobody said this")
    expect(found.get_by_role("status")).to_have_text("No turn with “nobody said this”")
    expect(search).to_be_focused()


def test_a_conversation_is_opened_and_all_of_it_read(room: Room) -> None:
    frame = room.opened("sessions", "Conversations")
    frame.get_by_role("button", name="Open Reading log").click()
    expect(one_turn(frame, 60)).to_be_in_viewport()
    expect(one_turn(frame, 1)).to_have_count(0)
    by_keyboard(frame, "Show earlier turns of Reading log")
    room.page.keyboard.press("Enter")
    expect(one_turn(frame, 1)).to_contain_text("What does chapter 1 say?")
    expect(frame.get_by_role("region", name="Turns of Reading log")).to_be_focused()
    frame.get_by_role("button", name="Show all of the answer of turn 60").click()
    expect(frame.get_by_role("button", name="Show less of the answer of turn 60")).to_be_focused()


def test_a_conversation_is_continued_exported_and_copied(room: Room) -> None:
    frame, page = room.opened("sessions", "Conversations"), room.page
    by_keyboard(frame, "Open Survey cleaning")
    page.keyboard.press("Enter")
    frame.get_by_role("button", name="Continue Survey cleaning here").click()
    expect(frame).to_contain_text("Resumed 2 turns of Survey cleaning")
    for suffix, kind in ((".md", "Markdown"), (".json", "JSON")):
        frame.get_by_role("button", name=f"Export Survey cleaning as {kind}").click()
        expect(frame).to_contain_text(f"Written to {room.folder / 'Survey cleaning'}{suffix}.")
        assert "How do I drop empty rows?" in (room.folder / f"Survey cleaning{suffix}").read_text()
    frame.get_by_role("button", name="Fork Survey cleaning").click()
    expect(frame).to_contain_text("a copy of Survey cleaning.")
    expect(frame.get_by_role("region", name="Conversation Survey cleaning (copy)")).to_contain_text(
        "How do I drop empty rows?"
    )


def test_a_conversation_is_renamed_and_deleted(room: Room) -> None:
    frame, page = room.opened("sessions", "Conversations"), room.page
    frame.get_by_role("button", name="New conversation").click()
    expect(frame).to_contain_text("A fresh conversation. The model stays the same.")
    frame.get_by_role("button", name=f"Rename {NOTEBOOK}").click()
    field = frame.get_by_label(f"New name of {NOTEBOOK}")
    expect(field).to_be_focused()
    page.keyboard.type("Not this")
    frame.get_by_role("button", name="Cancel").click()
    expect(frame.get_by_role("button", name=f"Rename {NOTEBOOK}")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Paired samples")
    with storing(room.home / "sessions.db") as (store, _):
        converse(store, "one", name="elsewhere")
    frame.get_by_role("button", name="Refresh conversations").click()
    expect(frame.get_by_role("button", name="Open “ask one”")).to_be_visible()
    expect(field).to_have_value("Paired samples")
    frame.get_by_role("button", name="Save").click()
    expect(frame).to_contain_text("It is called Paired samples.")
    expect(frame.get_by_role("button", name="Rename Paired samples")).to_be_focused()

    delete = frame.get_by_role("button", name="Delete Paired samples")
    delete.click()
    question = frame.get_by_role("alertdialog", name="Delete Paired samples?")
    question.get_by_role("button", name="No").click()
    expect(delete).to_be_focused()
    delete.click()
    question.get_by_role("button", name="Yes").click()
    expect(frame).to_contain_text("Deleted Paired samples. A fresh conversation begins here.")
    expect(frame.get_by_role("button", name="Open Paired samples")).to_have_count(0)
    run_and_close(page, "sessions", "Conversations")


# -- models


def row(frame: Locator, name: str) -> Locator:
    return frame.get_by_role("row").filter(
        has=frame.page.locator("strong", has_text=re.compile(f"^{re.escape(name)}$"))
    )


def names(frame: Locator) -> list[str]:
    return frame.locator("tbody tr td:first-child strong").all_inner_texts()


def test_models_are_searched_and_sorted(room: Room) -> None:
    frame = room.opened("models", "Models")
    expect(frame.get_by_role("table", name="Models")).to_be_visible()
    search = frame.get_by_label("Search models")
    search.fill("local q4_k_m vision")
    expect(frame.get_by_role("status").first).to_have_text("1 of 6 models")
    assert names(frame) == ["gemma3:4b"]
    search.fill("nothing is called so")
    expect(frame.get_by_text("No model matches.")).to_be_visible()
    search.fill("")
    usual = names(frame)[0]
    heading = frame.get_by_role("columnheader", name="Size")
    expect(heading).to_have_attribute("aria-sort", "none")
    by_keyboard(frame, "Size")
    for order, first in (("ascending", "smollm2-135m"), ("descending", "llama3.3:70b"), ("none", usual)):
        room.page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", order)
        assert names(frame)[0] == first
        expect(heading.get_by_role("button")).to_be_focused()


def test_a_download_is_watched_stopped_and_goes_on_where_it_was(room: Room) -> None:
    frame, page = room.opened("models", "Models"), room.page
    name = f"embedded/127.0.0.1:{room.files.port}/{room.files.name}"
    field, downloads = frame.get_by_label("Fetch a model"), frame.get_by_role("list", name="Downloads")
    watched, asked = Watched(frame), time.time()
    field.fill(room.files.model)
    field.press("Enter")
    assert watched.after(room.happened("ModelPulling", asked), "fetching") < SOON
    expect(field).to_have_value("")
    bar = downloads.get_by_role("progressbar", name=name)
    expect(bar).to_have_attribute("aria-valuenow", re.compile("[2-9]|[1-9][0-9]"))
    field.blur()
    photographed(frame, "dashboard-models")
    in_a_narrow_cell(frame, "dashboard-models")

    search, amount = frame.get_by_label("Search models"), str(bar.get_attribute("aria-valuetext"))
    search.press_sequentially("q4")
    expect(bar).not_to_have_attribute("aria-valuetext", amount)
    search.press_sequentially("_k")
    expect(search).to_have_value("q4_k")
    search.fill("")

    by_keyboard(frame, f"Cancel {name}")
    page.keyboard.press("Enter")
    expect(downloads).to_contain_text("stopped")
    room.files.pause = 0.01
    page.keyboard.press("Tab")
    expect(frame.get_by_role("button", name=f"Resume {name}")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row(frame, FETCHED)).to_contain_text("Q4_0")
    assert room.files.starts[0] == 0 < room.files.starts[1]
    expect(downloads).to_have_count(0)
    expect(frame).to_contain_text(f"{name} is here: 19 MB")


def test_a_download_that_failed_stays_until_it_is_dismissed(room: Room) -> None:
    frame, page = room.opened("models", "Models"), room.page
    frame.get_by_label("Fetch a model").fill("embedded/http://127.0.0.1:9/x.gguf")
    frame.get_by_role("button", name="Fetch").click()
    downloads = frame.get_by_role("list", name="Downloads")
    expect(downloads).to_contain_text("failed")
    expect(downloads).to_contain_text("needs its checksum")
    by_keyboard(frame, "Dismiss embedded/127.0.0.1:9/x.gguf")
    page.keyboard.press("Enter")
    expect(downloads).to_have_count(0)
    assert page.evaluate("document.activeElement.closest('.llmj-models') !== null")


def test_deleting_asks_first(room: Room) -> None:
    """Deletes what was fetched before."""
    frame, page, name = room.opened("models", "Models"), room.page, f"embedded/{FETCHED}"
    delete = by_keyboard(frame, f"Delete {name}")
    page.keyboard.press("Enter")
    question = frame.get_by_role("alertdialog", name=f"Delete {name} (19 MB) from disk?")
    expect(question.get_by_role("button", name="No")).to_be_focused()
    page.keyboard.press("Escape")
    expect(delete).to_be_focused()
    delete.click()
    question.get_by_role("button", name="No").click()
    expect(row(frame, FETCHED)).to_be_visible()
    delete.click()
    question.get_by_role("button", name="Yes").click()
    expect(row(frame, FETCHED)).to_have_count(0)
    expect(frame).to_contain_text(f"{name} is deleted.")
    assert not [*(room.home / "models").glob(f"{FETCHED}*")]


def test_a_download_that_a_cell_began_is_shown_as_such(room: Room) -> None:
    frame = room.opened("models", "Models")
    room.files.pause = 0.01
    watched, began = Watched(frame), time.time()
    execute(room.page, f"%llm pull {room.files.model}")
    assert watched.after(room.happened("ModelPulling", began), "fetched by a cell") < SOON
    assert watched.after(room.happened("ModelPulled", began), rf"{FETCHED}\s+embedded") < SOON
    expect(frame.get_by_role("list", name="Downloads")).to_have_count(0)


def test_a_model_is_loaded_and_freed_from_its_row_and_by_a_question(room: Room) -> None:
    frame, page = room.opened("models", "Models"), room.page
    by_keyboard(frame, f"Load {EMBEDDED}")
    page.keyboard.press("Enter")
    expect(row(frame, "smollm2-135m")).to_contain_text("● loaded")
    expect(frame).to_contain_text(f"{EMBEDDED} is loaded, after")
    expect(frame.get_by_role("button", name=f"Unload {EMBEDDED}")).to_be_focused()
    page.keyboard.press("Enter")
    expect(frame.get_by_role("button", name=f"Load {EMBEDDED}")).to_be_focused()
    expect(frame).to_contain_text(f"{EMBEDDED} is unloaded; its memory is free.")
    watched, asked = Watched(row(frame, "smollm2-135m")), time.time()
    execute(page, f"%chat -m {EMBEDDED} -t 0 --max-tokens 4 Say hello.")
    assert watched.after(room.happened("ModelLoading", asked), "loading") < SOON
    assert watched.after(room.happened("ModelLoaded", asked), "● loaded") < SOON


def test_a_model_is_used_and_remote_providers_are_asked_only_when_the_person_says_so(room: Room) -> None:
    frame = room.opened("models", "Models")
    use = frame.get_by_role("button", name="Use ollama/qwen3:8b")
    use.click()
    expect(row(frame, "qwen3:8b")).to_contain_text("answers now")
    expect(use).to_have_attribute("aria-disabled", "true")
    expect(execute(room.page, "%chat Who are you?")).to_contain_text("I am qwen3:8b")
    watched, asked = Watched(row(frame, MODEL)), time.time()
    execute(room.page, f"%llm use desk/{MODEL}")
    assert watched.after(room.happened("ModelChosen", asked), "answers now") < SOON
    room.ollama.models.append(entry("phi4:14b"))
    frame.get_by_role("button", name="Ask the local providers again").click()
    expect(row(frame, "phi4:14b")).to_be_visible()
    expect(frame).to_contain_text("Not asked, since remote: cloud.")
    frame.get_by_role("button", name="Ask remote providers too").click()
    expect(frame).to_contain_text("cloud is down")
    expect(frame.get_by_role("button", name="Ask remote providers again")).to_be_visible()
    run_and_close(room.page, "models", "Models")
