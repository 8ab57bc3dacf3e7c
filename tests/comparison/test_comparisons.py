"""What a comparison is once it is there: figures, tables, pictures, a page that nothing in it can harm, and a file."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from contests import configured, contest, filled, services
from hypothesis import given
from hypothesis import strategies as st
from servers.paced import ModelServer, endless
from servers.scripted import answer

import llm_jupyter
from llm_jupyter.comparison import Comparison, LaneState, Range
from llm_jupyter.comparison.comparing import ComparisonInterrupted
from llm_jupyter.comparison.page import SHOWN, growing
from llm_jupyter.comparison.plain import progress
from llm_jupyter.errors import InvalidInputError, LLMError, ResourceError, StoreError

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</div></div><style>*{display:none}</style>",
    '" onmouseover="alert(1)', "<svg/onload=alert(1)>", "[x](javascript:alert(1))", "<a href='data:text/html,x'>x</a>",
    "\x1b[31mred\x1b[0m \x9b31m", "\u202eevil\u2066\u200f", "\x00\x07\b", "&lt;b&gt;", "<!--", "]]>", "x" * 1_000_000,
    "half a pair \ud800",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(["m", "n"]) as server:
        yield server


class Page(HTMLParser):
    """The tags and attributes that a browser would see, the text, and the style of the tag before each piece of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.style = ""
        self.styles: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.style = dict(attrs).get("style") or ""

    def handle_data(self, data: str) -> None:
        self.text += data
        self.styles[data] = self.style


TAGS = {"div", "p", "strong", "small", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "br"}
ATTRIBUTES = {"class", "style", "role", "aria-label", "tabindex", "scope"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_model_writes_is_live_on_the_page(text: str) -> None:
    told = {"answer": text, "thinking": text, "error": text, "answered_by": text, "model": text, "finish": "error"}
    comparison = filled(text[:500] or "a", "b", prompts=[text, "q"], **told)
    bundle = comparison._repr_mimebundle_()
    page, growth = Page(bundle["text/html"]), Page(growing(comparison))
    assert page.tags <= TAGS
    assert growth.tags <= TAGS
    assert page.attributes | growth.attributes <= ATTRIBUTES
    for shown in (page.text, growth.text, bundle["text/plain"]):
        assert not any(c in shown for c in "\x1b\x9b\x00\x07\b\u202e\u2066\u200f\ud800")
    assert len(growing(comparison)) < 20_000


def test_a_megabyte_is_cut_on_the_page_and_whole_in_the_row() -> None:
    comparison = filled("a", "b", answer=["x" * 1_000_000, "short"])
    page = comparison._repr_mimebundle_()["text/html"]
    assert SHOWN < len(page) < 2 * SHOWN
    assert "20,000 of 1,000,000 characters are shown; .answer has all." in page
    assert len(comparison.trial("a").answer) == 1_000_000


def test_the_data_frame_has_a_row_for_each_answer_and_a_type_for_each_column() -> None:
    comparison = filled("a", "b", answer=["yes", ""], tokens=[3, None], first_token=[0.5, None], vote=[1, 0])
    frame = comparison.to_dataframe()
    assert list(frame.columns) == [
        "prompt", "contender", "model", "repeat", "answer", "first_token_s", "tokens_per_s", "tokens", "prompt_tokens",
        "total_s", "queued_s", "finish", "error", "from_cache", "vote",
    ]  # fmt: skip
    assert frame.loc[0, ["contender", "answer", "tokens", "first_token_s"]].tolist() == ["a", "yes", 3, 0.5]
    assert frame["tokens"].isna().tolist() == [False, True]
    assert str(frame["tokens_per_s"].dtype) == "float64"
    assert frame.groupby("contender")["vote"].sum().to_dict() == {"a": 1, "b": 0}
    assert contest("p", "a").to_dataframe().empty


def test_the_spread_counts_whole_answers_and_tells_their_figures_alone() -> None:
    ends = ["stop", "stop", "stop", "error", "length", "interrupted"]
    comparison = filled(
        "a", "b", repeats=3, finish=ends, answer=["x", "y", "x", "", "z", ""],
        first_token=[0.1, 0.5, 0.3, None, 0.2, 0.9], tokens=[10, 20, 10, None, 30, 7],
    )  # fmt: skip
    a, b = comparison.spread()
    assert (a.contender, a.count, a.failures, a.distinct) == ("a", 3, 0, 2)
    assert (a.first_token, a.tokens, a.tokens_per_second) == (Range(0.2, 0.1, 0.3), Range(10, 10, 30), None)
    assert (b.count, b.failures, b.interrupted, b.distinct, b.total) == (1, 1, 1, 1, 3)
    assert (b.first_token, b.tokens) == (Range(0.5, 0.5, 0.5), Range(20, 20, 20))
    assert repr(comparison.spread()).splitlines()[1].split("  ")[0] == "a"
    assert repr(comparison.spread()).splitlines()[2].split()[:4] == ["b", "1", "1", "1"]
    assert "0.20 (0.10–0.30)" in comparison.spread()._repr_mimebundle_()["text/html"]
    assert repr(comparison).splitlines()[2].endswith("stop, error, interrupted")


@pytest.mark.parametrize(
    ("ends", "errors", "told"),
    [
        (["error", "error"], ["<b>it</b> broke", "it broke again"], "<b>it</b> broke"),
        (["interrupted", "error"], ["", "it broke"], "it broke"),
        (["error", "stop"], ["it broke", ""], ""),
        (["interrupted", "interrupted"], ["", ""], ""),
    ],
)
def test_the_spread_says_why_where_no_whole_answer_came(ends: list[str], errors: list[str], told: str) -> None:
    spread = filled("a", repeats=2, finish=ends, error=errors).spread()
    page = Page(spread._repr_mimebundle_()["text/html"])
    assert spread[0].error == told
    for shown in (repr(spread), page.text):
        assert ("error" in shown, told in shown) == (bool(told), True)
    assert page.tags <= TAGS


def test_an_error_is_seen_with_its_next_step_on_the_page_and_in_plain_text() -> None:
    comparison = filled("a", "b", answer=["half", "whole"], finish=["error", "stop"], error=["it <i>broke</i>", ""])
    failure = comparison.progress[0].failure = LLMError("it <i>broke</i>", where="m" * 200, next_step="Try again.")
    first, second = failure.lines()
    bundle = comparison._repr_mimebundle_()
    for page in (Page(bundle["text/html"]), Page(growing(comparison))):
        told = f"✕ failed: {first}"
        assert {"half", told, second} <= set(page.styles), "not by its colour alone"
        assert "color:var(--jp-error-color1" in page.styles[told]
        assert "overflow-wrap:anywhere" in page.styles[told], "a long name would widen a narrow column"
    assert bundle["text/plain"].splitlines()[-2:] == [f"a failed: {first}", f"    {second}"]


def test_the_plot_shows_speed_and_length_and_says_who_failed() -> None:
    comparison = filled(
        "$a$", "b", repeats=2, finish=["stop", "error"] * 2, tokens_per_second=[20.0, None, 40.0, None],
        tokens=[5, None, 7, None],
    )  # fmt: skip
    figure = comparison.plot()
    speed, first, length = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["tokens/s", "first token (s)", "tokens"]
    assert [patch.get_width() for patch in speed.patches] == [30.0]
    assert (len(first.patches), len(length.patches)) == (0, 1)
    assert [label.get_text() for label in speed.get_yticklabels()] == ["$a$", "b\n✗ 2 of 2 failed"]
    figure.canvas.draw()


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_without_the_package_there_is_an_error_that_says_what_to_type(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    comparison = filled("a", "b")
    with pytest.raises(ResourceError, match=package) as caught:
        comparison.to_dataframe() if package == "pandas" else comparison.plot()
    assert "%pip install 'jupyter-llm[compare]'" in caught.value.lines()[-1]


trials = st.builds(
    dict, answer=st.text(), thinking=st.text(), first_token=st.none() | st.floats(0, 9), tokens=st.none() | st.integers(0, 99),
    finish=st.sampled_from(["stop", "length", "error", "interrupted"]), error=st.text(), from_cache=st.booleans(),
    vote=st.integers(-2, 2),
)  # fmt: skip


@given(st.lists(trials, min_size=4, max_size=4), st.lists(st.text().filter(str.strip), min_size=2, max_size=2))
def test_what_is_saved_is_loaded_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, Any]], prompts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "comparison.json"
    saved = filled("a", "b", prompts=prompts, **{name: [one[name] for one in told] for name in told[0]})
    saved.save(path)
    loaded = Comparison.load(path)
    assert loaded.trials == saved.trials
    assert (loaded.prompts, loaded.contenders, loaded.is_over) == (saved.prompts, saved.contenders, True)
    assert loaded._repr_mimebundle_() == saved._repr_mimebundle_()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b"\xff", None])
def test_a_file_that_holds_no_comparison_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "it.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LLMError) as caught:
        Comparison.load(path)
    assert "it.json" in caught.value.lines()[0]
    with pytest.raises(StoreError):
        filled("a").save(tmp_path / "nowhere" / "it.json")


def test_votes_count_and_can_be_taken_back() -> None:
    comparison = filled("a", "b", prompts=["p", "q"])
    comparison.vote("a")
    comparison.vote("b", 1)
    comparison.vote("b", 1)
    comparison.vote("a", points=-1)
    assert [(trial.contender, trial.prompt, trial.vote) for trial in comparison if trial.vote] == [("b", "q", 2)]
    for wrong in ({"label": "c"}, {"label": "a", "prompt": 2}, {"label": "a", "repeat": 1}):
        with pytest.raises(InvalidInputError):
            comparison.vote(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not answered that yet"):
        contest("p", "a").vote("a")


def test_compare_asks_with_services_of_its_own_and_closes_them(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.forget()
    for name, value in {**configured({"one": server}), "LLM_JUPYTER_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    comparison = llm_jupyter.compare(["p", "q"], ["one/m", "one/n"], system="Be brief.", max_tokens=7, stop="x")
    assert [trial.answer for trial in comparison] == ["Heard: p", "Heard: p", "Heard: q", "Heard: q"]
    assert server.contents() == ["Be brief.", "q"]
    assert (server.chats[-1]["max_tokens"], server.chats[-1]["stop"]) == (7, ["x"])
    assert not (tmp_path / "sessions.db").exists(), "nothing is kept of it"


def test_compare_calls_back_while_it_runs_and_an_interrupt_hands_over_what_has_arrived(
    server: ModelServer, tmp_path: Path
) -> None:
    server.forget()
    server.next(answer("whole"), endless("tick "))

    def interrupt(comparison: Comparison) -> None:
        if not comparison.is_over and "tick" in comparison.progress[1].text:
            raise KeyboardInterrupt

    with services(tmp_path, one=server) as llm, pytest.raises(ComparisonInterrupted) as caught:
        llm_jupyter.compare("p", ["one/m", "one/n", "one/m"], llm=llm, on_tick=interrupt)
    whole, half, unasked = caught.value.comparison
    assert (whole.answer, whole.finish) == ("whole", "stop")
    assert half.answer.startswith("tick")
    assert (half.finish, unasked.finish, unasked.answer) == ("interrupted", "interrupted", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": []}, "nothing to compare"),
        ({"models": []}, "no model to compare"),
        ({"prompts": ["p", None, 3.0]}, "prompts\\[1\\] has to be a text, not a value of type NoneType"),
        ({"prompts": pandas.DataFrame({1: [0], "q": ["p"]})}, "such as df\\['q'\\]"),
        ({"prompts": {"q": "p"}}, "the prompt has to be a text, not a value of type dict"),
        ({"prompts": 5}, "not a value of type int"),
        ({"prompts": " \n"}, "the prompt is empty"),
        ({"prompts": ["p", "  "]}, "prompts\\[1\\] is empty"),
        ({"models": 5}, "has to be a text, not a value of type int"),
        ({"models": ["m", None]}, "has to be a text, not a value of type NoneType"),
        ({"repeats": 0}, "whole number from 1 on, not 0"),
        ({"repeats": 1.5}, "repeats has to be a whole number"),
        ({"parallel": "2"}, "parallel has to be a whole number from 1 on, not '2'"),
        ({"system": 5}, "system has to be a text"),
        ({"options": {"temperature": 1}}, "options has to be GenerationOptions"),
        ({"llm": "m"}, "llm has to be an LLMFactory"),
        ({"temprature": 1}, "no setting 'temprature'"),
    ],
)
def test_what_compare_cannot_do_is_said_before_anybody_is_asked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        llm_jupyter.compare(**{"prompts": "p", "models": "m", **arguments})
    assert len(caught.value.lines()) <= 3


def test_prompts_may_come_from_a_table_or_an_array_and_are_plain_texts_then(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"q": ["p", "q"]})
    for column in (frame["q"], frame["q"].to_numpy(), numpy.array(["p", "q"])):
        comparison = contest(column, numpy.str_("m"))
        assert comparison.prompts == ("p", "q")
        assert {type(text) for text in (*comparison.prompts, comparison.contenders[0].model)} == {str}
        comparison.save(tmp_path / "it.json")


def test_the_page_shows_as_many_answers_as_there_is_room_for_and_says_how_many() -> None:
    many = filled("a", "b", "c", prompts=[f"prompt {n}" for n in range(100)], repeats=3, answer="word")
    bundle = many._repr_mimebundle_()
    page = Page(bundle["text/html"]).text
    assert "60 of 900 answers are shown; .to_dataframe() has all." in page
    assert (page.count("word"), "prompt 6" in page, "prompt 7" in page) == (60, True, False)
    assert len(many.to_dataframe()) == 900

    long = filled(*"abcdefgh", prompts=["p", "q"], answer="x" * SHOWN, thinking="y" * SHOWN)
    page = long._repr_mimebundle_()["text/html"]
    assert "8 of 16 answers are shown" in page, "one of each contender at least"
    assert "are shown" not in filled("a", "b", prompts=["p"] * 30)._repr_mimebundle_()["text/html"]


def test_how_far_it_is_tells_answers_from_failures_and_from_what_was_stopped() -> None:
    ends = ["stop", "error", "interrupted", "length", "interrupted", "stop"]
    over = copy.copy(filled("a", "b", "c", prompts=["p", "q"], finish=ends))
    assert progress(over) == "3 of 6 answers, 1 failed, 2 stopped"
    assert progress(contest(["p", "q"], "a")) == "0 of 2 answers"


def test_a_copy_has_what_a_file_would_hold() -> None:
    half = filled("a", "b", finish=["stop", "interrupted"], answer=["whole", "ha"])
    half.progress[1].trial, half.progress[1].state = None, LaneState.STREAMING
    for copied in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        assert (copied.trials, copied.messages, copied.contenders) == (half.trials, half.messages, half.contenders)
        assert [lane.state for lane in copied.progress] == [LaneState.DONE, LaneState.WAITING]
        copied.vote("a")
    assert half.trial("a").vote == 0


def test_a_file_may_lie_at_home_and_one_of_another_format_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    filled("a", answer="kept").save("~/it.json")
    assert Comparison.load("~/it.json").trial("a").answer == "kept"
    for content, words in (
        (b'{"format": 99, "prompts": "in another way"}', "format 99"),
        ((tmp_path / "it.json").read_bytes().replace(b'"contender": "a"', b'"contender": "z"'), "called 'z'"),
    ):
        (tmp_path / "it.json").write_bytes(content)
        with pytest.raises(StoreError, match=words) as caught:
            Comparison.load("~/it.json")
        assert len(caught.value.lines()) <= 3
