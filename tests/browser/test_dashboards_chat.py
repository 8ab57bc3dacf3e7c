"""The panel of the conversation and the comparison in a real JupyterLab: asked, watched, stopped, judged, closed.

The tests stand in the order in which a person would do this, and go on where the one before ended.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
from dashboards import (
    SOON,
    Watched,
    by_keyboard,
    dashboard,
    eventually,
    execute,
    heard_from,
    in_a_narrow_cell,
    photographed,
    run_and_close,
    run_cell,
    start_cell,
    write_notebook,
)
from labs import Lab
from pages_of import open_notebook
from playwright.sync_api import Browser, Locator, Page, expect
from servers.paced import ModelServer, endless
from servers.scripted import answer, reply

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

EMBEDDED = "embedded/smollm2-135m"
FIRST = "%chat --max-tokens 60 In one sentence, what is a Jupyter notebook?"
LONG = "%%chat --max-tokens 400 --option ignore_eos=true\nTell me of the sea."
CODE = "Write a short Python function that returns the square of a number, in a code block."
COMPARED = f'%%compare -m "{EMBEDDED} -t 0" -m "{EMBEDDED} -t 1 --seed 2" --max-tokens 60\nWhat is a list in Python?'
STEADY = {"LLM_JUPYTER_MODELS": json.dumps({EMBEDDED: {"temperature": 0}})}
"""In the environment, it lets the embedded model answer the same each time."""
STOP = "Stop the answer (Escape)"
STOPPED = "stopped; what had arrived is kept"


@pytest.fixture(scope="module")
def desk() -> Iterator[ModelServer]:
    """A local server."""
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def far() -> Iterator[ModelServer]:
    """A remote server: the notebook reaches it by its proxy."""
    with ModelServer(["far-model"]) as server:
        yield server


@pytest.fixture(scope="module")
def room(browser: Browser, lab: Lab, desk: ModelServer, far: ModelServer) -> Iterator[Page]:
    """A notebook on the embedded model, with two servers more and a conversation of one turn."""
    environment = {
        "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": desk.base_url,
        "LLM_JUPYTER_PROVIDERS__FAR__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__FAR__BASE_URL": "http://far.invalid/v1",
        "LLM_JUPYTER_DEFAULT_MODEL": EMBEDDED,
        **STEADY,
        "HTTP_PROXY": far.origin,
    }
    prepared = f"import os\nos.environ.update({environment!r})\n%load_ext llm_jupyter"
    dashboards = [f"%llm dash {name} -o {name}_dash" for name in ("chat", "compare")]
    write_notebook(lab, "talking.ipynb", prepared, FIRST, dashboards[0], LONG, dashboards[1], COMPARED, "# free")
    page = browser.new_page(viewport={"width": 1400, "height": 2000})
    page.set_default_timeout(30_000)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    complaints = heard_from(page)
    open_notebook(page, lab, "talking.ipynb")
    run_cell(page, "%load_ext")
    run_cell(page, FIRST)
    yield page
    page.close()
    assert not complaints


@pytest.fixture(scope="module")
def chat(room: Page) -> Locator:
    run_cell(room, "%llm dash chat")
    return dashboard(room, "Chat")


@pytest.fixture(scope="module")
def compare(room: Page) -> Locator:
    run_cell(room, "%llm dash compare")
    return dashboard(room, "Compare models")


def button(part: Locator, name: str) -> Locator:
    return part.get_by_role("button", name=name, exact=True)


def field(part: Locator, name: str) -> Locator:
    """A field of any kind."""
    return part.get_by_label(name, exact=True)


def turn(chat: Locator, number: int) -> Locator:
    """A turn of the conversation, counted from 0."""
    return chat.get_by_role("log").get_by_role("listitem").filter(has=chat.page.locator(".llmj-question")).nth(number)


def ask(chat: Locator, question: str) -> Locator:
    """Type a question and press Enter; gives its turn when it is over."""
    count = chat.locator(".llmj-turn").count()
    field(chat, "Question").fill(question)
    field(chat, "Question").press("Enter")
    asked = chat.locator(".llmj-turn").nth(count)
    expect(asked).to_contain_text("tokens/s", timeout=60_000)
    return asked


def cell_below(chat: Locator) -> Locator:
    return chat.page.locator(".jp-Cell", has=chat).locator("xpath=following-sibling::*[1]")


def clipboard(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_a_question_typed_in_the_panel_streams_and_its_code_goes_into_a_new_cell_that_has_not_run(
    room: Page, chat: Locator
) -> None:
    log = chat.get_by_role("log")
    expect(log).to_contain_text("what is a Jupyter notebook?")
    watched = Watched(log)
    asked = ask(chat, CODE)
    assert len({len(text) for _, text in watched.said()}) > 4, "it came at once"
    expect(field(chat, "Question")).to_have_value("")
    expect(field(chat, "Question")).to_be_focused()

    photographed(chat, "dashboard-chat")
    in_a_narrow_cell(chat, "dashboard-chat")

    code = asked.locator("pre").inner_text().strip()
    first = code.splitlines()[0]
    button(asked, f"Copy code: {first[:40]}").click()
    expect(asked).to_contain_text("Copied")
    assert clipboard(room) == code
    button(asked, f"Copy answer: {CODE[:40]}").click()
    eventually(lambda: "This function uses" in clipboard(room), room)

    by_keyboard(asked, f"New cell with code: {first[:40]}").press("Enter")
    expect(asked).to_contain_text("In a new cell below; it has not run.")
    expect(cell_below(chat).locator(".cm-content")).to_contain_text(first)
    expect(cell_below(chat).locator(".jp-InputPrompt")).to_have_text("[ ]:")


def test_a_cell_shows_in_the_panel_within_a_second_and_is_stopped_there_within_a_second(
    room: Page, chat: Locator, report: Callable[[str], None]
) -> None:
    log = Watched(chat.get_by_role("log"))
    stop, question = button(chat, STOP), field(chat, "Question")
    for by, sign in (("a click", "Tell me of the sea"), ("Escape", "version 2")):
        question.fill("typed meanwhile")
        asked = time.time()
        cell = start_cell(room, "Tell me of the sea")
        assert log.after(asked, sign) < SOON
        expect(cell.locator(".jp-OutputArea-output").last).to_contain_text("tokens/s")
        output = Watched(cell)
        expect(stop).to_have_attribute("aria-disabled", "false")
        expect(button(chat, "Send")).to_be_disabled()
        question.focus()
        stopped = time.time()
        stop.click() if by == "a click" else room.keyboard.press("Escape")
        took = output.after(stopped, re.escape(STOPPED))
        report(f"a cell is stopped from the panel by {by} in {took:.2f} s")
        assert took < SOON
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
        expect(chat.locator(".llmj-turn").last).to_contain_text("interrupted")
        expect(question).to_have_value("typed meanwhile")
    question.fill("")


def test_a_question_is_changed_in_its_place_and_later_answers_say_that_they_are_older(
    room: Page, chat: Locator
) -> None:
    hello, square = turn(chat, 0), turn(chat, 1)
    name = "Edit question: In one sentence, what is a Jupyter noteb"
    edit, edited = button(hello, name), hello.get_by_role("textbox", name=name, exact=True)
    edit.press("Enter")
    expect(edited).to_be_focused()
    expect(hello).to_contain_text("The cell keeps the question as it was.")
    edited.press("Escape")
    expect(edit).to_be_focused()
    edit.press("Enter")
    button(hello, "Cancel").click()
    expect(edit).to_be_focused()
    edit.press("Enter")
    edited.fill("In one sentence, what is a kernel?")
    edited.press("Enter")
    expect(hello).to_contain_text("what is a kernel?")
    expect(hello).to_contain_text("version 2")
    expect(hello).to_contain_text("tokens/s")
    expect(square).to_contain_text("answered under an earlier version")
    expect(chat).to_contain_text("The cell still shows the question as it was")
    button(square, f"Ask again: {CODE[:40]}").click()
    expect(square).to_contain_text("version 2")
    expect(square).to_contain_text("tokens/s")
    expect(square).not_to_contain_text("answered under an earlier version")


def sources(page: Page) -> list[str]:
    """What the cells of the notebook hold, in their order."""
    return page.locator(".jp-Notebook .jp-Cell .jp-InputArea-editor").all_inner_texts()


def test_keys_in_a_dashboard_are_its_own_and_never_commands_for_cells_but_the_notebook_is_saved_by_them(
    room: Page, chat: Locator
) -> None:
    models, log = chat.get_by_role("combobox", name="Model", exact=True), chat.get_by_role("log")
    question, look, title = field(chat, "Question"), button(chat, "Look for models again"), chat.locator("h3")
    cells, unsaved = sources(room), room.locator(".lm-TabBar-tab.jp-mod-dirty")
    commands = (*"bxddjay00", "Control+Enter", "Shift+Enter", "Control+Shift+ArrowDown", "Control+Backspace")
    for part, keys in ((title, commands), (look, commands), (log, commands), (models, "bx00")):  # others choose there
        execute(room, "# free")  # the cursor stands elsewhere
        part.click() if part in (title, look) else part.focus()
        for key in keys:
            room.keyboard.press(key)
        expect(chat).to_be_visible()
        expect(room.locator(".jp-Dialog")).to_have_count(0)
        assert sources(room) == cells

    expect(models).to_be_focused()
    before = models.input_value()
    room.keyboard.press("ArrowUp")
    expect(models).not_to_have_value(before)
    expect(chat).to_contain_text("(local) answers from now on")
    expect(models).to_be_focused()
    log.evaluate("element => { element.style.height = '8em'; element.scrollTop = 0; }")
    log.focus()
    room.keyboard.press("ArrowDown")
    eventually(lambda: log.evaluate("element => element.scrollTop") > 0, room)
    log.evaluate("element => { element.style.height = ''; }")

    question.click()
    room.keyboard.type("abc")
    room.keyboard.press("Control+z")
    expect(question).to_have_value("")
    assert sources(room) == cells
    expect(unsaved).not_to_have_count(0)
    room.keyboard.press("Control+s")
    expect(unsaved).to_have_count(0)
    expect(question).to_be_focused()


def test_enter_ends_a_composed_word_or_a_line_before_it_sends_and_instructions_go_along(
    room: Page, chat: Locator, desk: ModelServer
) -> None:
    models, question = chat.get_by_role("combobox", name="Model", exact=True), field(chat, "Question")
    button(chat, "Look for models again").click()
    models.select_option("desk/m")
    expect(chat).to_contain_text("desk/m (local) answers from now on")
    expect(models).to_have_value("desk/m")

    chat.locator("summary", has_text="Instructions").click()
    field(chat, "Instructions").fill("Be brief.")
    question.fill("one")
    question.press("Shift+Enter")
    room.keyboard.type("two")
    expect(question).to_have_value("one\ntwo")
    compose(room, "に")
    question.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "isComposing": True})
    expect(question).to_have_value("one\ntwoに")
    assert desk.chats == []
    room.context.new_cdp_session(room).send("Input.insertText", {"text": "に"})
    expect(question).to_have_value("one\ntwoに")
    desk.next(endless("word "))
    question.press("Enter")
    expect(chat.locator(".llmj-turn").last).to_contain_text("word word")
    expect(question).to_have_value("")
    expect(question).to_be_focused()
    question.press("Escape")
    expect(chat.locator(".llmj-turn").last).to_contain_text("interrupted")
    assert desk.contents()[0] == "Be brief."
    assert desk.last_prompt == "one\ntwoに"

    execute(room, "%chat -q --system 'Be long.' three")
    expect(field(chat, "Instructions")).to_have_value("Be long.")
    field(chat, "Instructions").fill("For a conversation that is no more.")
    log = chat.get_by_role("log")
    log.evaluate("element => { element.style.height = '8em'; element.scrollTop = 0; }")
    execute(room, "%llm session new")
    expect(field(chat, "Instructions")).to_have_value("")
    for number in range(3):
        question.fill(f"number {number}" + "\n" * 40)
        expect(button(chat, "Send")).to_be_enabled()  # the answer before has ended
        question.press("Enter")
        expect(chat.locator(".llmj-turn").nth(number)).to_contain_text("Heard: number")
        expect(chat.locator(".llmj-turn").nth(number).locator(".llmj-answer")).to_be_in_viewport()
        assert desk.contents()[0].strip() == "number 0"
        log.evaluate("element => { element.scrollTop = 0; }")
    log.evaluate("element => { element.style.height = ''; }")


def test_a_page_that_is_left_is_no_viewer_any_more_and_one_that_comes_back_is(room: Page, chat: Locator) -> None:
    def viewers() -> str:
        return execute(room, "len(chat_dash._viewers)").locator(".jp-OutputArea-output").inner_text()

    eventually(lambda: viewers() == "1", room)
    room.evaluate("dispatchEvent(new Event('pagehide'))")
    eventually(lambda: viewers() == "0", room)
    room.evaluate("dispatchEvent(new Event('pageshow'))")
    eventually(lambda: viewers() == "1", room)


def compose(page: Page, text: str) -> None:
    """Begin to compose a word, as input methods for Chinese or Japanese do."""
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})


def test_a_remote_model_is_looked_for_and_chosen_only_after_a_yes(room: Page, chat: Locator, far: ModelServer) -> None:
    models = chat.get_by_role("combobox", name="Model", exact=True)
    models.select_option("?remote")
    expect(chat.get_by_role("alertdialog", name="Ask far over the network?")).to_be_visible()
    expect(button(chat, "No")).to_be_focused()
    button(chat, "No").click()
    expect(chat.get_by_role("alertdialog")).to_have_count(0)
    assert far.requests == []
    models.select_option("?remote")
    button(chat, "Yes").click()
    expect(models).to_contain_text("far/far-model (remote)")
    models.select_option("far/far-model")
    expect(chat.get_by_role("alertdialog", name="Prompts then leave this machine. Use far/far-model?")).to_be_visible()
    room.keyboard.press("Escape")
    expect(models).to_have_value("desk/m")
    models.select_option("far/far-model")
    button(chat, "Yes").click()
    expect(models).to_have_value("far/far-model")
    field(chat, "Question").fill("hello over there")
    button(chat, "Send").click()
    expect(chat.locator(".llmj-turn").last).to_contain_text("Heard: hello over there")
    expect(chat.locator(".llmj-turn").last).to_contain_text("· remote")
    run_and_close(room, "chat", "Chat")


# -- comparing


def fill_in(compare: Locator, prompt: str, *contenders: dict[str, str]) -> None:
    """Type a prompt and these settings of the contenders, by the names of their fields."""
    field(compare, "Prompt").fill(prompt)
    for number, settings in enumerate(contenders, 1):
        for name, value in settings.items():
            field(compare, f"{name} of contender {number}").fill(value)


def column(compare: Locator, name: str) -> Locator:
    return compare.get_by_role("article", name=name, exact=True)


def test_two_answers_stream_side_by_side_and_are_judged(room: Page, compare: Locator) -> None:
    expect(field(compare, "Model of contender 2")).not_to_have_value("")
    for number in (1, 2):
        compare.get_by_label(f"More settings of contender {number}").click()
    fill_in(
        compare,
        "Explain in two sentences what recursion is.",
        {"Model": EMBEDDED, "Temperature": "0", "Max tokens": "80"},
        {"Model": EMBEDDED, "Temperature": "1", "Max tokens": "80", "Seed": "5", "System prompt": "You are a poet."},
    )
    for number in (1, 2):
        compare.get_by_label(f"More settings of contender {number}").press("Enter")
    watched = Watched(compare)
    field(compare, "Prompt").focus()
    asked = time.time()
    room.keyboard.press("Control+Enter")
    assert watched.after(asked, "asking|streaming") < SOON
    watched.after(asked, "1 of 2 answers")
    watched.after(asked, "2 of 2 answers")
    expect(field(compare, "Prompt")).to_be_focused()
    one, other = (name.inner_text() for name in compare.locator("article h4").all())
    boxes = [compare.get_by_role("group", name=f"Answer of {name}", exact=True).bounding_box() for name in (one, other)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"], "they stand side by side"

    by_keyboard(compare, f"Better: {one}").press("Enter")
    expect(button(compare, f"Better: {one}")).to_have_attribute("aria-pressed", "true")
    expect(button(compare, f"Better: {one}")).to_be_focused()
    button(compare, f"Better: {other}").click()
    expect(button(compare, f"Better: {one}")).to_have_attribute("aria-pressed", "false")
    button(compare, "Tie: nobody is better").click()
    expect(button(compare, f"Better: {other}")).to_have_attribute("aria-pressed", "false")
    button(compare, f"Better: {one}").click()
    button(compare, "Show differences").click()
    differences = compare.get_by_role("region", name="Differences", exact=True)
    expect(differences.locator("ins").nth(1)).to_be_visible()
    photographed(compare, "dashboard-compare")
    in_a_narrow_cell(compare, "dashboard-compare")
    button(compare, "Show differences").click()
    expect(differences).to_have_count(0)


def test_contenders_that_stream_at_once_are_stopped_and_one_that_fails_is_a_column(
    room: Page, compare: Locator, desk: ModelServer
) -> None:
    button(compare, "Add contender").click()
    button(compare, "Remove contender 1").click()
    desk.next(endless("wave "))
    compare.get_by_label("More settings of contender 1").click()
    fill_in(
        compare, "Tell me a very long story of the sea.", {"Model": EMBEDDED, "Max tokens": "2000"}, {"Model": "desk/m"}
    )
    button(compare, "Ask").click()
    expect(compare.locator("article", has_text="streaming")).to_have_count(2)
    expect(column(compare, "desk/m")).to_contain_text("wave wave")
    watched = Watched(compare)
    stop = by_keyboard(compare, "Stop comparison")
    stopped = time.time()
    stop.press("Enter")
    assert watched.after(stopped, r"(?s)stopped.*stopped") < SOON
    expect(stop).to_be_focused()
    fill_in(compare, "Is all well?", {"Model": "desk/m"}, {"Model": "desk/other-model"})
    desk.next(reply({"error": {"message": "out of memory"}}, 400), answer("All is well."))
    button(compare, "Ask").click()
    expect(compare.get_by_role("status").first).to_have_text("1 of 2 answers, 1 failed")
    expect(compare.locator("article", has_text="out of memory")).to_contain_text("failed")
    expect(compare.locator("article", has_text="All is well.")).to_contain_text("done")
    button(compare, "Show differences").click()
    expect(compare.get_by_role("region", name="Differences", exact=True)).to_contain_text("failed.")


def test_runs_are_repeated_with_names_hidden_until_the_vote_and_kept_as_a_variable(
    room: Page, compare: Locator, desk: ModelServer
) -> None:
    field(compare, "Runs of each contender").fill("2")
    compare.get_by_role("switch", name="Blind").check()
    desk.next(*(answer(f"answer {number}") for number in range(4)))
    field(compare, "Prompt").fill("Say something.")
    button(compare, "Ask").click()
    expect(compare.get_by_role("status").first).to_have_text("4 of 4 answers")
    expect(compare.locator("article h4")).to_have_text(["A", "B"])
    before = column(compare, "A").inner_text()
    field(column(compare, "A"), "Run of A").select_option("run 2: done")
    expect(column(compare, "A")).not_to_have_text(before)
    expect(compare.get_by_role("table", name="Median of all answers, and from the least to the most")).to_be_visible()
    button(compare, "Better: B").click()
    expect(compare.locator("article h4").last).to_contain_text(re.compile("^B · desk/"))
    compare.get_by_role("switch", name="Blind").uncheck()
    expect(column(compare, "desk/m")).to_be_visible()

    variable = field(compare, "Name of the variable")
    variable.fill("not a name")
    variable.press("Enter")
    expect(compare).to_contain_text("'not a name'")
    variable.fill("best")
    button(compare, "Keep as variable").click()
    expect(compare).to_contain_text("best holds this comparison")
    expect(execute(room, "print(sum(trial.vote for trial in best))")).to_contain_text("1")
    field(compare, "Comparison").select_option(index=3)
    expect(compare).to_contain_text("Explain in two sentences what recursion is.")


def test_a_prompt_leaves_the_machine_only_after_a_yes(room: Page, compare: Locator, far: ModelServer) -> None:
    far.forget()
    field(compare, "Runs of each contender").fill("1")
    fill_in(compare, "Hello over there.", {"Model": "desk/m"}, {"Model": "far/far-model"})
    button(compare, "Ask").click()
    asked = compare.get_by_role("alertdialog", name=re.compile("leave this machine"))
    expect(asked).to_be_visible()
    expect(button(asked, "No")).to_be_focused()
    room.keyboard.press("Escape")
    expect(asked).to_have_count(0)
    assert far.requests == []
    button(compare, "Ask").click()
    button(asked, "Yes").click()
    expect(column(compare, "far/far-model")).to_contain_text("Heard: Hello over there.")
    button(compare, "List models of far").click()
    button(compare, "Yes").click()
    expect(button(compare, "List models of far")).to_have_count(0)


def test_a_comparison_of_a_cell_is_side_by_side_there_and_shows_here_within_a_second(
    room: Page, compare: Locator
) -> None:
    watched = Watched(compare)
    asked = time.time()
    cell = run_cell(room, "What is a list in Python?")
    assert watched.after(asked, "What is a list in Python?") < SOON
    expect(compare.get_by_role("status").first).to_have_text("2 of 2 answers")
    photographed(cell.locator(".jp-OutputArea-output").last, "compare-cell")
    run_and_close(room, "compare", "Compare models")
