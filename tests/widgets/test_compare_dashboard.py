"""The dashboard `compare`: it asks real servers, shows their answers as they come, and lets a person judge them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison.contests import add, configured, contest, filled, services
from hypothesis import given
from hypothesis import strategies as st
from kernels import Kernel
from servers.paced import ModelServer, endless
from servers.scripted import DONE, Gate, answer, delta, finish, reply, sse
from watching import Page, shown

import llm_jupyter
from llm_jupyter.comparison import Comparison
from llm_jupyter.factory import LLMFactory
from llm_jupyter.testing import ScriptedProvider
from llm_jupyter.widgets import CompareDashboard
from llm_jupyter.widgets.base import GRACE
from llm_jupyter.widgets.compare_view import HIDDEN_ERROR, SHOWN, View, letters

BOTH = [{"model": "one/m"}, {"model": "two/m"}]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ModelServer, ModelServer]]:
    with ModelServer() as one, ModelServer(["m"]) as two:
        yield one, two


@pytest.fixture
def one(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[0].forget()
    return servers[0]


@pytest.fixture
def two(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[1].forget()
    return servers[1]


@pytest.fixture
def llm(tmp_path: Path, one: ModelServer, two: ModelServer) -> Iterator[LLMFactory]:
    with services(tmp_path, {"CONNECTION__RETRIES": "0"}, one=one, two=two) as llm:
        yield llm


@pytest.fixture
def page(llm: LLMFactory) -> Iterator[Page]:
    with shown(CompareDashboard(llm)) as page:
        yield page


def column(page: Page, number: int) -> dict[str, Any]:
    """A contender as it is shown; empty where it is not."""
    shown: dict[str, Any] = page.state.get(f"column:{number}", {})
    return shown


def states(page: Page) -> list[str]:
    return [column(page, number).get("state", "") for number in range(len(page.state.get("order", ())))]


def notice(page: Page) -> str:
    return str(page.state.get("notice", {}).get("text", ""))


def words(page: Page, verb: str, **values: Any) -> str:
    """What is said when that is asked for."""
    before = notice(page)
    page.act(verb, **values)
    page.until(lambda: notice(page) != before)
    return notice(page)


def ask(page: Page, contenders: list[dict[str, Any]], prompt: str = "hi", **values: Any) -> None:
    """Ask, and wait until all is over."""
    before = page.state.get("view", {}).get("number")
    page.act("ask", prompt=prompt, contenders=contenders, **values)
    page.until(lambda: page.state.get("view", {"number": before})["number"] != before)
    page.until(lambda: not page.state["view"]["running"])


def result(page: Page) -> Comparison:
    dashboard = page.dashboard
    assert isinstance(dashboard, CompareDashboard)
    assert dashboard.result is not None
    return dashboard.result


# -- asking


def test_its_result_is_there_also_when_it_is_closed(llm: LLMFactory) -> None:
    with shown(CompareDashboard(llm)) as page:
        ask(page, BOTH)
        asked = result(page)
    llm.portal.run(asyncio.sleep(GRACE * 1.2))
    assert result(page) is asked


def test_answers_stream_side_by_side_and_one_server_takes_its_questions_in_turn(
    page: Page, one: ModelServer, two: ModelServer
) -> None:
    first, second = Gate(), Gate()
    one.next(sse(delta("Hel"), first, delta("lo"), finish(), DONE))
    two.next(sse(delta("Good "), second, delta("day"), finish(), DONE))
    contenders = [
        {"model": "one/m", "temperature": 0, "seed": None, "system": ""},
        {"model": "one/other-model"},
        BOTH[1],
    ]
    page.act("ask", prompt="hi", contenders=contenders, repeats=1)
    page.until(lambda: (page.state.get("text:0"), page.state.get("text:2")) == ("Hel", "Good "))
    page.until(lambda: states(page) == ["streaming", "queued", "streaming"])
    assert (column(page, 1)["ahead"], page.state["view"]["running"]) == (1, True)
    assert page.state["figures:0"]["first_token"] is not None
    first.open()
    page.until(lambda: states(page) == ["done", "done", "streaming"])
    second.open()
    page.until(lambda: not page.state["view"]["running"])
    assert [page.state[f"text:{number}"] for number in range(3)] == ["Hello", "Heard: hi", "Good day"]
    assert [column(page, number)["name"] for number in range(3)] == ["one/m", "one/other-model", "two/m"]
    assert page.state["view"] | {"over": 3, "progress": "3 of 3 answers"} == page.state["view"]
    assert page.state["figures:1"]["queued"] > 0
    assert (one.chats[0]["temperature"], "seed" in one.chats[0], len(one.chats[0]["messages"])) == (0, False, 1)
    assert [trial.answer for trial in result(page)] == ["Hello", "Heard: hi", "Good day"]


def test_a_stop_keeps_what_has_arrived_and_asks_nobody_else(page: Page, one: ModelServer) -> None:
    one.next(endless("tick "))
    page.act("ask", prompt="hi", contenders=[{"model": "one/m"}, {"model": "one/other-model"}])
    page.until(lambda: "tick" in page.state.get("text:0", ""))
    assert "under way" in words(page, "ask", prompt="more", contenders=BOTH)
    page.act("stop")
    page.until(lambda: states(page) == ["stopped", "stopped"])
    assert page.state["text:0"].startswith("tick ")
    assert len(one.chats) == 1
    stopped, unasked = page.state["figures:0"], page.state["figures:1"]
    assert (stopped["tokens"], stopped["about"]) == (page.state["text:0"].count("tick"), True), "no server counted them"
    assert (unasked["tokens"], unasked["rate"]) == (None, None)
    assert f"~{stopped['tokens']:,}" in page.dashboard.picture().text


def test_a_dead_server_is_a_column_with_its_error_and_the_others_are_whole(tmp_path: Path, one: ModelServer) -> None:
    with ModelServer(["m"]) as dead:
        dead.close()
        with (
            services(tmp_path, {"CONNECTION__RETRIES": "0"}, one=one, dead=dead) as llm,
            shown(CompareDashboard(llm)) as page,
        ):
            one.next(answer("whole"), reply({"error": {"message": "no <b>luck</b>"}}, 400))
            ask(page, [{"model": "one/m"}, {"model": "one/m", "seed": 1}, {"model": "dead/m"}, {"model": "nowhere/m"}])
            assert states(page) == ["done", "failed", "failed", "failed"]
            assert page.state["text:0"] == "whole"
            errors = [column(page, number)["error"] for number in (1, 2, 3)]
            for wanted, error in zip(("no <b>luck</b>", "dead", "no model 'nowhere/m'"), errors, strict=True):
                assert wanted in error
                assert len(error.splitlines()) <= 3
                assert "%llm use" not in error, "whoever answers other questions is not asked these"
            picture = page.dashboard.picture()
            assert "no &lt;b&gt;luck" in picture.html
            assert "<b>luck" not in picture.html


@pytest.mark.parametrize(
    ("verb", "values", "said"),
    [
        ("ask", {"prompt": " \n", "contenders": BOTH}, "nothing to ask"),
        ("ask", {"prompt": "hi", "contenders": []}, "no model to compare"),
        ("ask", {"prompt": "hi", "contenders": [{"model": " "}]}, "has no name"),
        ("ask", {"prompt": "hi", "contenders": [{"model": "one/m", "max_tokens": "many"}]}, "setting cannot be so"),
        ("ask", {"prompt": "hi", "contenders": BOTH, "repeats": 11}, "1 to 10 times"),
        ("vote", {"column": 0}, "nothing was compared"),
        ("stop", {}, "nothing was compared"),
        ("open", {"number": 9}, "no longer kept"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_asks_nobody(
    page: Page, one: ModelServer, verb: str, values: dict[str, Any], said: str
) -> None:
    assert said in words(page, verb, **values)
    assert one.chats == []
    assert "view" not in page.state


# -- whom to ask


def test_it_suggests_two_local_models_or_the_only_one_under_two_settings(llm: LLMFactory) -> None:
    with shown(CompareDashboard(llm)) as page:
        page.until(lambda: "suggested" in page.state)
        names = [model["name"] for model in page.state["models"]]
        assert {"one/m", "one/other-model", "two/m"} <= set(names)
        assert [one["model"] for one in page.state["suggested"]] == names[:2]
    llm.use("two/m")
    with shown(CompareDashboard(llm)) as page:
        page.until(lambda: "suggested" in page.state)
        assert page.state["suggested"][0] == {"model": "two/m"}
    for name in ("one", "embedded"):
        llm.registry.disable(name)
    with shown(CompareDashboard(llm)) as page:
        page.until(lambda: "suggested" in page.state)
        assert page.state["suggested"] == [{"model": "two/m", "temperature": temperature} for temperature in (0, 1)]


def test_a_remote_model_is_asked_only_after_a_yes_and_listed_only_on_demand(llm: LLMFactory, one: ModelServer) -> None:
    far = ScriptedProvider("From afar.", name="far", is_local=False)
    add(llm, far)
    contenders = [{"model": "one/m"}, {"model": "far/m"}]
    with shown(CompareDashboard(llm)) as page:
        page.until(lambda: page.state.get("remote") == ["far"])
        assert all(model["local"] for model in page.state["models"])
        page.act("ask", prompt="hi", contenders=contenders, asked="me")
        page.until(lambda: page.state.get("leaves") == {"asked": "me", "models": ["far/m"]})
        assert (far.asked, one.chats, "view" in page.state) == ([], [], False)
        ask(page, contenders, confirmed=True)
        assert page.state["text:1"] == "From afar."
        assert "leaves" not in page.state
        page.act("models", remote=True)
        page.until(lambda: page.state["remote"] == [])
        assert {"name": "far/m", "local": False} in page.state["models"]
        assert all(one["model"] != "far/m" for one in page.state["suggested"])


# -- judging


def test_a_vote_goes_to_one_answer_of_a_prompt_and_a_tie_clears_it(page: Page) -> None:
    ask(page, BOTH)

    def votes() -> list[int]:
        return [trial.vote for trial in result(page)]

    page.act("vote", column=0)
    page.until(lambda: column(page, 0)["better"])
    assert votes() == [1, 0]
    page.act("vote", column=1)
    page.until(lambda: column(page, 1)["better"] and not column(page, 0)["better"])
    assert votes() == [0, 1]
    assert "better" in page.dashboard.picture().text
    page.act("vote")
    page.until(lambda: not column(page, 1)["better"])
    assert (votes(), page.state["view"]["judged"]) == ([0, 0], True)
    assert "no column 7" in words(page, "vote", column=7)


def test_blind_names_are_shown_with_the_vote(page: Page, two: ModelServer) -> None:
    two.next(reply({"error": {"message": "two is not well"}}, 400))
    page.act("blind", on=True)
    ask(page, [*BOTH, {"model": "one/other-model"}])
    assert sorted(column(page, number)["name"] for number in range(3)) == ["A", "B", "C"]
    assert [column(page, number)["name"] for number in page.state["order"]] == ["A", "B", "C"]
    said = [str(value) for key, value in page.state.items() if key not in ("models", "suggested", "remote")]
    assert not any("one/" in text or "two" in text for text in said)
    assert "two" not in page.dashboard.picture().text
    order = page.state["order"]
    other = next(number for number, one in enumerate(result(page).contenders) if one.model == "one/other-model")
    page.act("vote", column=other)
    page.until(lambda: column(page, other)["better"])
    assert column(page, other)["name"] == f"{letters(order.index(other))} · one/other-model"
    assert any("two is not well" in column(page, number)["error"] for number in range(3))
    assert page.state["order"] == order
    page.act("blind", on=False)
    asked = [one.label for one in result(page).contenders]
    page.until(lambda: [column(page, number)["name"] for number in range(3)] == asked)
    assert page.state["order"] == [0, 1, 2]


def test_blind_contenders_of_one_server_are_asked_in_any_order(page: Page, one: ModelServer) -> None:
    contenders = [{"model": "one/m"}, {"model": "one/other-model"}]
    page.act("blind", on=True)
    firsts: set[str] = set()
    for asked in range(24):  # one of the two is never first once in eight million times
        ask(page, contenders)
        firsts.add(one.chats[2 * asked]["model"])
        if len(firsts) == 2:
            break
    assert firsts == {"m", "other-model"}


def test_why_all_of_a_blind_contender_failed_is_told_with_the_names(page: Page, two: ModelServer) -> None:
    refused = reply({"error": {"message": "two is not well"}}, 400)
    two.next(refused, refused)
    page.act("blind", on=True)
    ask(page, BOTH, repeats=2)

    def told() -> list[tuple[int, int, str]]:
        return sorted((row["count"], row["failures"], row["error"]) for row in page.state["spread"])

    assert told() == [(0, 2, HIDDEN_ERROR), (2, 0, "")]
    page.act("vote")
    page.until(lambda: "two is not well" in told()[0][2])


@given(st.integers(1, 40), st.integers(1, 3))
def test_blind_contenders_keep_their_letters_and_have_one_each(count: int, prompts: int) -> None:
    view = View(contest(["p"] * prompts, *("m" for _ in range(count))))
    view.is_blind = True
    for prompt in range(prompts):
        view.prompt = prompt
        order = view.order
        assert sorted(order) == list(range(count))
        assert [view.name(column) for column in order] == [letters(place) for place in range(count)]
        assert len({view.name(column) for column in order}) == count
        assert view.order == order


def test_runs_are_looked_at_one_by_one_and_their_spread_stands_below(page: Page, one: ModelServer) -> None:
    one.next(answer("first"), answer("second one"), answer("first"))
    ask(page, [{"model": "one/m"}, {"model": "two/m"}], repeats=3)
    assert column(page, 0)["runs"] == ["done"] * 3
    assert page.state["text:0"] == "first"
    page.act("run", column=0, run=1)
    page.until(lambda: page.state["text:0"] == "second one")
    assert column(page, 1)["run"] == 0
    assert [(row["count"], row["distinct"]) for row in page.state["spread"]] == [(3, 2), (3, 1)]
    middle, least, most = page.state["spread"][0]["first_token"]
    assert least <= middle <= most
    page.act("vote", column=0)
    page.until(lambda: column(page, 0)["better"])
    assert result(page).trial("one/m", repeat=1).vote == 1
    assert "no run 3" in words(page, "run", column=0, run=3)


def test_differences_are_told_word_by_word_and_follow_the_runs_that_are_shown(page: Page, one: ModelServer) -> None:
    gate = Gate()
    one.next(answer("the quick cat"), sse(delta("the slow cat"), gate, finish(), DONE))
    page.act("ask", prompt="hi", contenders=[{"model": "one/m"}, {"model": "two/m"}], repeats=2)
    page.until(lambda: states(page) == ["done", "done"])
    page.act("differences", one=0, other=1)
    page.until(lambda: page.state.get("difference", {}).get("columns") == [0, 1])
    kinds = {kind for kind, _ in page.state["difference"]["pieces"]}
    assert kinds == {"-", "+"}
    page.until(lambda: gate.reached.is_set() and column(page, 0)["runs"][1] == "streaming")
    page.act("run", column=0, run=1)
    page.until(lambda: "difference" not in page.state)
    assert "not over yet" in words(page, "differences", one=0, other=1)
    gate.open()
    page.until(lambda: not page.state["view"]["running"])
    page.act("differences", one=0, other=0)
    page.until(lambda: page.state.get("difference", {}).get("same"))
    assert page.state["difference"]["pieces"] == [["=", "the slow cat"]]
    page.act("differences")
    page.until(lambda: "difference" not in page.state)


# -- what others asked


def test_a_comparison_of_several_prompts_is_looked_at_prompt_by_prompt(llm: LLMFactory) -> None:
    comparison = filled("a", "b", prompts=["p", "q"], answer=["a of p", "b of p", "a of q", "b of q"])
    with shown(CompareDashboard(llm, comparison)) as page:
        assert (page.state["prompt"], page.state["text:0"], page.state["text:1"]) == ("p", "a of p", "b of p")
        assert page.state["prompts"] == ["p", "q"]
        assert "prompts" not in page.state["view"], "what never changes would travel with what does"
        page.act("prompt", number=1)
        page.until(
            lambda: (page.state["prompt"], page.state["text:0"], page.state["text:1"]) == ("q", "a of q", "b of q")
        )
        page.act("vote", column=1)
        page.until(lambda: column(page, 1)["better"])
        assert [trial.vote for trial in comparison] == [0, 0, 0, 1]
        assert "no prompt 2" in words(page, "prompt", number=2)


def test_one_that_runs_already_is_live_and_closing_does_not_stop_it_but_what_was_begun_here(
    llm: LLMFactory, one: ModelServer, two: ModelServer
) -> None:
    gate = Gate()
    one.next(sse(delta("half"), gate, delta(" and half"), finish(), DONE))
    ticks: list[Comparison] = []
    begun = threading.Event()

    def tick(comparison: Comparison) -> None:
        ticks.append(comparison)
        if comparison.progress[0].text:
            begun.set()

    cell = threading.Thread(target=lambda: llm_jupyter.compare("hi", ["one/m"], llm=llm, on_tick=tick))
    cell.start()
    assert begun.wait(10)
    with shown(CompareDashboard(llm, ticks[0])) as page:
        assert (page.state["text:0"], states(page)) == ("half", ["streaming"])
        two.next(endless("tick "))
        page.act("ask", prompt="own", contenders=[{"model": "two/m"}])
        page.until(lambda: "tick" in page.state["text:0"])
        own = result(page)
        page.act("open", number=1)
        page.until(lambda: page.state["text:0"] == "half")
    gate.open()
    cell.join(10)
    assert [trial.answer for trial in ticks[0]] == ["half and half"]
    (asked,) = (visit for visit in two.visits if visit.request.method == "POST")
    asked.wait_until_left()
    assert own.was_stopped


def test_the_last_ten_can_be_looked_at_again(page: Page) -> None:
    for number in range(11):
        ask(page, [{"model": "one/m"}], prompt=f"prompt {number}")
    assert [row["prompt"] for row in page.state["history"]] == [f"prompt {number}" for number in range(10, 0, -1)]
    page.act("open", number=page.state["history"][-1]["number"])
    page.until(lambda: page.state["text:0"] == "Heard: prompt 1")
    assert result(page).prompts == ("prompt 1",)


def test_of_a_huge_answer_the_page_gets_a_part_and_hostile_text_stays_text(llm: LLMFactory) -> None:
    comparison = filled("<i>a</i>", "b", prompts="<script>p", answer=["x" * (SHOWN + 7), "<script>alert(1)</script>"])
    with shown(CompareDashboard(llm, comparison)) as page:
        assert (len(page.state["text:0"]), page.state["figures:0"]["more"]) == (SHOWN, 7)
        assert page.state["text:1"] == "<script>alert(1)</script>"
        picture = page.dashboard.picture()
        assert "<script" not in picture.html
        assert "<i>" not in picture.html
        assert "&lt;script&gt;p" in picture.html
        assert len(picture.text) < 3000
        assert page.dashboard._repr_mimebundle_()[0]["text/plain"] == picture.text


def test_before_the_first_question_it_says_so(page: Page) -> None:
    assert page.dashboard.picture().text.splitlines()[-1] == "Nothing was compared yet."
    assert isinstance(page.dashboard, CompareDashboard)
    assert page.dashboard.result is None
    assert not page.state["keeps"]


def test_in_a_kernel_it_shows_what_cells_compare_and_keeps_what_is_compared_here(
    tmp_path: Path, one: ModelServer, two: ModelServer
) -> None:
    with Kernel(tmp_path, configured({"one": one, "two": two})) as kernel:
        kernel.load()
        assert kernel.run("%%compare -m one/m -m two/m -o first\nhi").status == "ok"
        shown = kernel.run("%llm dash compare -o dash")
        assert "Heard: hi" in str(shown.outputs[0]["data"]["text/plain"]), shown.error
        assert kernel.value("dash.result is first") is True
        kernel.run("%%compare -m one/m -m two/m -o second\nhi again")
        kernel.run("dash.llm.portal.run(dash.refresh([]))")
        assert kernel.value("dash.result is second") is True
        kernel.run("dash.llm.portal.run(dash.do_ask('from here', [{'model': 'one/m'}, {'model': 'two/m'}]))")
        while not kernel.value("dash.result.is_over"):
            pass
        assert kernel.run("dash.llm.portal.run(dash.do_keep('third'))").status == "ok"
        assert kernel.value("[trial.answer for trial in third]") == ["Heard: from here"] * 2
        assert kernel.value("third is get_ipython()._llm_jupyter_magics.kernel.comparison") is True
        refused = kernel.run("dash.llm.portal.run(dash.do_keep('not a name'))")
        assert "no name for a variable" in refused.error[0]
        for name in ("print", "_", "_1", "In", "exit"):
            refused = kernel.run(f"dash.llm.portal.run(dash.do_keep({name!r}))")
            assert f"{name!r} belongs to Python or IPython" in refused.error[0]
        kernel.run("third = [1]; dash.llm.portal.run(dash.do_keep('third'))")
        said = kernel.value("dash.channel.state['notice']['text']")
        assert said.startswith("third holds this comparison in place of a value of type list: ")
        kernel.run("%llm dash compare -o again")
        history = kernel.value("[row['prompt'] for row in again.channel.state['history']]")
        assert history == ["from here", "hi again", "hi"]
