"""The panel shows the notebook's own conversation while it is answered, asks in it, and changes what was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.paced import ModelServer
from servers.scripted import DONE, Gate, Script, answer, delta, event, finish, reply, sse
from watching import Page, shown

from llm_jupyter.factory import LLMFactory
from llm_jupyter.portal import Job
from llm_jupyter.sessions import Answering, CellPlace
from llm_jupyter.settings import LLMSettings, ProviderSettings
from llm_jupyter.store import Filled, TurnRecord
from llm_jupyter.types import Message
from llm_jupyter.widgets import ChatDashboard
from llm_jupyter.widgets.chat_turns import LONGEST_ANSWER, MOST, SHOWN, shown_turn


@pytest.fixture(scope="module")
def module_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def far_server() -> Iterator[ModelServer]:
    with ModelServer(["far-model"]) as server:
        yield server


@pytest.fixture(scope="module")
def module_llm(
    tmp_path_factory: pytest.TempPathFactory, module_server: ModelServer, far_server: ModelServer
) -> Iterator[LLMFactory]:
    """Services with a local server, and one that is remote by its name alone."""
    far = far_server.base_url.replace("127.0.0.1", "localtest.invalid")
    settings = LLMSettings(
        home=tmp_path_factory.mktemp("home"), default_model="local/m",
        providers={
            "local": ProviderSettings(kind="openai-compatible", base_url=module_server.base_url),
            "far": ProviderSettings(kind="openai-compatible", base_url=far),
        },
    )  # fmt: skip
    with LLMFactory(settings, environment={}) as llm:
        yield llm


@pytest.fixture
def server(module_server: ModelServer) -> ModelServer:
    module_server.forget()
    return module_server


@pytest.fixture
def llm(module_llm: LLMFactory, server: ModelServer) -> LLMFactory:
    """The services, with a fresh conversation."""
    module_llm.sessions.private(on=False)
    module_llm.sessions.reset()
    module_llm.use("local/m")
    return module_llm


@pytest.fixture
def page(llm: LLMFactory) -> Iterator[Page]:
    with shown(ChatDashboard(llm)) as page:
        yield page


def turns(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.state["turns"]
    return found


def said(page: Page) -> list[tuple[str, str]]:
    """The conversation as the page has it."""
    return [(page.state[f"question:{turn['id']}"], page.state[f"text:{turn['id']}"]) for turn in turns(page)]


def is_over(page: Page, count: int) -> bool:
    """Whether so many turns are shown, none of them under way."""
    states = [turn["state"] for turn in turns(page)]
    return len(states) == count and "pending" not in states and not page.state["answering"]


def ask(page: Page, prompt: str, **values: Any) -> None:
    """Ask in the panel, and wait for the end of the answer."""
    count = len(turns(page)) + 1
    page.act("ask", prompt=prompt, **values)
    page.until(lambda: is_over(page, count))


async def read(answering: Answering) -> None:
    async with answering:
        while await answering.read_batch():
            pass


def ask_in_cell(llm: LLMFactory, prompt: str, cell: str = "c1", execution: str = "e1") -> Job:
    """Ask as a cell would."""
    place = CellPlace(cell, execution, "a front end")
    return llm.portal.start(read(llm.sessions.current.ask(prompt, place=place)))


def held(*pieces: bytes) -> tuple[Script, Gate]:
    gate = Gate()
    return sse(*pieces, gate, delta(" the end"), finish("stop"), DONE), gate


def live(page: Page) -> dict[str, Any]:
    """What is known of the answer under way; empty where there is none."""
    return next((value for key, value in page.state.items() if key.startswith("live:")), {})


def test_what_is_asked_in_the_panel_is_part_of_the_conversation_that_cells_go_on_with(
    page: Page, llm: LLMFactory, server: ModelServer
) -> None:
    llm.chat("one")
    page.until(lambda: is_over(page, 1))
    ask(page, "two")
    assert server.contents() == ["one", "Heard: one", "two"]
    llm.chat("three")
    assert server.contents() == ["one", "Heard: one", "two", "Heard: two", "three"]
    page.until(lambda: is_over(page, 3))
    assert said(page) == [(text, f"Heard: {text}") for text in ("one", "two", "three")]


def test_an_answer_to_a_cell_grows_here_piece_by_piece_and_then_says_how_it_was(
    page: Page, llm: LLMFactory, server: ModelServer
) -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}})
    gates = [Gate(), Gate()]
    server.next(sse(delta("one "), gates[0], delta("two "), gates[1], delta("three"), finish("length"), usage, DONE))
    ask_in_cell(llm, "count")
    page.until(lambda: turns(page) and said(page)[0][1] == "one ")
    assert page.state["answering"]
    gates[0].open()
    page.until(lambda: said(page)[0][1] == "one two ")
    gates[1].open()
    page.until(lambda: is_over(page, 1))
    (turn,) = turns(page)
    assert said(page) == [("count", "one two three")]
    assert (turn["cell"], turn["model"], turn["local"], turn["tokens"]) == (True, "local/m", True, 7)
    assert (turn["finish"], turn["state"]) == ("length", "complete")
    changes = [message["changes"].get(f"text:{turn['id']}") for _, message in page.messages]
    assert ["append", "two "] in changes, "only what is new travels"


def test_it_says_what_an_answer_waits_for_and_how_long_the_model_thinks(page: Page, server: ModelServer) -> None:
    before, script_end = Gate(), Gate()
    server.next(sse(before, delta(reasoning_content="hm"), script_end, delta("yes"), finish("stop"), DONE))
    page.act("ask", prompt="really?")
    page.until(lambda: live(page).get("waits") == "Waiting for local/m…")
    before.open()
    page.until(lambda: live(page).get("thinks_since"))
    (turn,) = turns(page)
    assert (live(page)["waits"], page.state[f"thinking:{turn['id']}"]) == ("", "hm")
    script_end.open()
    page.until(lambda: turns(page)[0].get("thought") is not None)
    assert said(page) == [("really?", "yes")]
    assert live(page) == {}


@pytest.mark.parametrize("asker", ["panel", "cell"])
def test_stop_ends_the_answer_whoever_asked_and_keeps_what_had_come(
    page: Page, llm: LLMFactory, server: ModelServer, asker: str
) -> None:
    script, _ = held(delta("one"))
    server.next(script)
    if asker == "panel":
        page.act("ask", prompt="count")
    else:
        ask_in_cell(llm, "count")
    page.until(lambda: turns(page) and said(page)[0][1] == "one")
    page.act("stop")
    page.until(lambda: is_over(page, 1))
    assert (said(page), turns(page)[0]["state"]) == ([("count", "one")], "interrupted")


def test_an_answer_that_is_stopped_before_its_first_token_leaves_the_question(page: Page, server: ModelServer) -> None:
    script, gate = held()
    server.next(script)
    page.act("ask", prompt="count")
    assert gate.reached.wait(5)
    page.act("stop")
    page.until(lambda: is_over(page, 1))
    assert (said(page), turns(page)[0]["state"], turns(page)[0].get("error")) == ([("count", "")], "interrupted", None)


def test_an_edited_question_takes_its_place_and_what_came_after_it_is_marked(
    page: Page, llm: LLMFactory, server: ModelServer
) -> None:
    for text in ("one", "two", "three"):
        ask(page, text)
    second = turns(page)[1]
    page.act("again", turn=second["id"], prompt="zwei")
    page.until(lambda: is_over(page, 3) and turns(page)[1]["version"] == 2)
    assert server.contents() == ["one", "Heard: one", "zwei"], "it sees what stands before it"
    assert [question for question, _ in said(page)] == ["one", "zwei", "three"]
    assert turns(page)[1]["slot"] == second["slot"]
    assert [turn["stale"] for turn in turns(page)] == [False, False, True]
    session = llm.sessions.current
    assert [one.prompt.content for one in session.store.versions(session.id, second["slot"])] == ["two", "zwei"]
    page.act("again", turn=turns(page)[2]["id"])
    page.until(lambda: is_over(page, 3) and turns(page)[2]["version"] == 2)
    assert [turn["stale"] for turn in turns(page)] == [False, False, False]
    assert server.contents()[-3:] == ["zwei", "Heard: zwei", "three"]


def test_a_question_of_a_cell_that_is_edited_here_stays_the_cells(
    page: Page, llm: LLMFactory, server: ModelServer
) -> None:
    for count, cell in enumerate(("c1", "c2"), 1):
        ask_in_cell(llm, f"by {cell}", cell)
        page.until(lambda: is_over(page, count))  # noqa: B023
    page.act("again", turn=turns(page)[0]["id"], prompt="edited")
    page.until(lambda: is_over(page, 2) and said(page)[0] == ("edited", "Heard: edited"))
    assert "The cell still shows the question as it was" in page.state["notice"]["text"]
    assert turns(page)[0]["cell"]
    ask_in_cell(llm, "by c1 again", "c1", "e2")
    page.until(lambda: is_over(page, 2) and said(page)[0] == ("by c1 again", "Heard: by c1 again"))
    assert server.contents() == ["by c1 again"]
    assert turns(page)[0]["version"] == 3
    assert said(page)[1][0] == "by c2"


def test_asking_again_sends_the_same_pictures_values_and_instructions(
    page: Page, llm: LLMFactory, server: ModelServer
) -> None:
    session = llm.sessions.current
    asked = session.ask("the value 42", system="Be brief.", filled=[Filled("x", "1 word")], template="the value {x}")
    llm.portal.run(read(asked))
    page.until(lambda: is_over(page, 1))
    (turn,) = turns(page)
    assert (said(page)[0][0], turn["filled"], turn["editable"]) == ("the value {x}", ["x: 1 word"], False)
    page.act("again", turn=turn["id"])
    page.until(lambda: is_over(page, 1) and turns(page)[0]["version"] == 2)
    assert server.contents() == ["Be brief.", "the value 42"]
    assert (turns(page)[0]["filled"], page.state["system"]) == (["x: 1 word"], "Be brief.")


@pytest.mark.parametrize("asker", ["panel", "cell"])
def test_why_there_is_no_answer_stands_at_the_question_which_can_be_asked_again(
    page: Page, llm: LLMFactory, server: ModelServer, asker: str
) -> None:
    gate = Gate()
    server.next([gate, *reply({"error": {"message": "out of memory"}}, 400)])
    if asker == "panel":
        page.act("ask", prompt="one")
    else:
        ask_in_cell(llm, "one")
    page.until(lambda: live(page))
    gate.open()
    page.until(lambda: turns(page)[0].get("error"))
    assert "out of memory" in turns(page)[0]["error"]
    assert len(turns(page)[0]["error"].splitlines()) <= 3
    assert turns(page)[0]["state"] == "failed"
    page.act("again", turn=turns(page)[0]["id"])
    page.until(lambda: is_over(page, 1) and said(page) == [("one", "Heard: one")])
    assert "error" not in turns(page)[0]


def test_closing_stops_what_was_asked_here_and_nothing_of_a_cell(llm: LLMFactory, server: ModelServer) -> None:
    for asker in ("panel", "cell"):
        script, gate = held(delta("one"))
        server.next(script)
        with shown(ChatDashboard(llm)) as page:
            if asker == "panel":
                page.act("ask", prompt="by the panel")
            else:
                job = ask_in_cell(llm, "by a cell")
            page.until(lambda: turns(page) and said(page)[-1][1] == "one")
        if asker == "panel":
            next(visit for visit in server.visits if visit.request.method == "POST").wait_until_left(5)
        else:
            assert not job.done
            gate.open()
    with shown(ChatDashboard(llm)) as page:
        page.until(lambda: is_over(page, 2))
        assert [turn["state"] for turn in turns(page)] == ["interrupted", "complete"]
        assert said(page)[1] == ("by a cell", "one the end")


def test_it_follows_when_another_conversation_becomes_the_notebooks(page: Page, llm: LLMFactory) -> None:
    ask(page, "one")
    first = llm.sessions.current.id
    llm.sessions.rename("the first")
    page.until(lambda: page.state["session"]["name"] == "the first")
    llm.sessions.reset()
    page.until(lambda: turns(page) == [] and page.state["session"]["id"] == llm.sessions.current.id)
    assert not any(":" in key for key in page.state), "nothing of the other is left"
    llm.sessions.use(first)
    page.until(lambda: turns(page) and said(page) == [("one", "Heard: one")])
    llm.sessions.fork("a copy")
    page.until(lambda: page.state["session"]["name"] == "a copy")
    llm.sessions.private(on=True)
    page.until(lambda: page.state["session"]["private"])
    assert said(page) == [("one", "Heard: one")]


def test_an_older_version_that_counts_again_is_shown(page: Page, llm: LLMFactory) -> None:
    ask(page, "one")
    older = turns(page)[0]["id"]
    page.act("again", turn=older, prompt="eins")
    page.until(lambda: is_over(page, 1) and said(page) == [("eins", "Heard: eins")])
    llm.sessions.current.restore(older)
    page.until(lambda: said(page) == [("one", "Heard: one")])


def test_another_model_answers_from_the_moment_it_is_chosen(page: Page, server: ModelServer) -> None:
    page.until(lambda: page.state.get("models"))
    assert {"name": "local/other-model", "local": True} in page.state["models"]
    page.act("use", model="local/other-model")
    page.until(lambda: page.state["model"] == {"name": "local/other-model", "local": True})
    ask(page, "hi")
    assert server.chats[-1]["model"] == "other-model"
    page.act("use", model="local/no-such-model")
    page.until(lambda: page.state["notice"]["error"])
    assert "no-such-model" in page.state["notice"]["text"]
    assert page.state["model"]["name"] == "local/other-model"


def test_a_remote_provider_is_asked_for_its_models_only_when_the_person_says_so(
    page: Page, far_server: ModelServer, llm: LLMFactory
) -> None:
    page.until(lambda: page.state.get("models"))
    assert page.state["remote"] == ["far"]
    assert all(model["local"] for model in page.state["models"])
    assert not llm.providers.is_active("far")
    page.act("models", remote=True)
    page.until(lambda: page.state["remote"] == [])
    assert llm.providers.is_active("far")
    page.act("models")
    assert page.state["remote"] == [], "what they told stays known"


def test_instructions_hold_from_the_next_question_on(page: Page, server: ModelServer) -> None:
    ask(page, "one", system="Be brief.")
    assert server.contents() == ["Be brief.", "one"]
    page.until(lambda: page.state["system"] == "Be brief.")
    ask(page, "two", system=None)
    assert server.contents()[0] == "Be brief."
    ask(page, "three", system="Speak German.")
    assert server.contents()[0] == "Speak German."


@pytest.mark.parametrize(
    ("verb", "values", "why"),
    [
        ("ask", {"prompt": " \n"}, "there is nothing to ask"),
        ("ask", {"prompt": None}, "there is nothing to ask"),
        ("again", {"turn": "nosuchturn"}, "there is no turn 'nosuchturn'"),
        ("use", {"model": "nosuch/model"}, "nosuch/model"),
        ("answer", {}, "cannot 'answer'"),
    ],
)
def test_what_cannot_be_done_is_said(page: Page, verb: str, values: dict[str, Any], why: str) -> None:
    page.act(verb, **values)
    page.until(lambda: page.state.get("notice"))
    assert why in page.state["notice"]["text"]
    assert page.state["notice"]["error"]
    assert turns(page) == []


def test_a_long_conversation_is_shown_a_window_at_a_time(page: Page, llm: LLMFactory) -> None:
    for number in range(SHOWN + 3):
        llm.chat(str(number))
    page.until(lambda: is_over(page, SHOWN) and page.state["window"] == {"earlier": 3, "later": 0})
    assert said(page)[0][0] == "3"
    page.act("earlier")
    page.until(lambda: page.state["window"] == {"earlier": 0, "later": SHOWN})
    assert [question for question, _ in said(page)] == ["0", "1", "2"]
    llm.chat("another")
    page.until(lambda: page.state["window"] == {"earlier": 0, "later": SHOWN + 1})
    assert [question for question, _ in said(page)] == ["0", "1", "2"], "what is read stays"
    page.act("latest")
    page.until(lambda: len(turns(page)) == SHOWN)
    page.act("earlier")
    page.until(lambda: len(turns(page)) == 4)
    page.act("ask", prompt="next")
    page.until(lambda: is_over(page, SHOWN) and said(page)[-1] == ("next", "Heard: next"))


def test_whoever_went_back_in_steps_returns_in_the_same(page: Page, llm: LLMFactory) -> None:
    for number in range(2 * SHOWN + 3):
        llm.chat(str(number))
    steps: list[list[str]] = []
    for verb in ("latest", "earlier", "earlier", "later", "later"):
        page.act(verb)
        page.until(
            lambda: page.state.get("moved", {}).get("count") == len(steps) + 1 and is_over(page, len(turns(page)))
        )
        steps.append([question for question, _ in said(page)])
    assert [int(question) for step in steps[2::-1] for question in step] == list(range(2 * SHOWN + 3))
    assert steps[3:] == [steps[1], steps[0]]
    assert page.state["moved"]["to"] == "beginning"


def test_of_answers_that_are_huge_no_more_is_shown_than_a_page_can_be_sent(
    llm: LLMFactory, server: ModelServer
) -> None:
    fit = MOST // LONGEST_ANSWER
    for number in range(fit + 1):
        server.next(answer("x" * 1_000_000))
        llm.chat(str(number))
    with shown(ChatDashboard(llm)) as page:
        assert [len(text) for _, text in said(page)] == [LONGEST_ANSWER] * fit
        assert turns(page)[-1]["more"] == 1_000_000 - LONGEST_ANSWER
        assert page.state["window"] == {"earlier": 1, "later": 0}
        page.act("earlier")
        page.until(lambda: page.state["window"] == {"earlier": 0, "later": fit})
        page.until(lambda: [question for question, _ in said(page)] == ["0"])


def test_of_an_answer_that_grows_huge_no_more_travels_than_is_shown(page: Page, server: ModelServer) -> None:
    server.next(sse(*[delta("x" * 50_000)] * 6, finish("stop"), DONE))
    ask(page, "one")
    page.until(lambda: len(said(page)[0][1]) == LONGEST_ANSWER)
    assert turns(page)[0]["more"] == 300_000 - LONGEST_ANSWER


def test_its_picture_in_a_saved_file_is_plain_text_and_escapes_what_a_model_says(
    llm: LLMFactory, server: ModelServer
) -> None:
    server.next(answer("<script>alert(1)</script>\x1b[31m"))
    with ChatDashboard(llm) as dashboard, shown(dashboard) as page:
        assert "Nothing was asked yet." in repr(dashboard)
        ask(page, "<img src=x onerror=alert(1)>")
        data, _ = dashboard._repr_mimebundle_()
        assert "<script>" not in data["text/html"]
        assert "<img" not in data["text/html"]
        assert "&lt;script&gt;" in data["text/html"]
        assert "\x1b" not in data["text/plain"]
        assert "local/m" in data["text/plain"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_turn_has_a_form_that_can_be_sent(question: str, template: str) -> None:
    turn = TurnRecord(
        id="t", session="s", slot="t", position=1.0, prompt=Message.user(question), created=0.0,
        template=template or None,
    )  # fmt: skip
    drawn = shown_turn(turn)
    assert json.loads(json.dumps(drawn.facts)) == drawn.facts
    assert drawn.texts["question"] == template or question
    assert not drawn.is_settled
