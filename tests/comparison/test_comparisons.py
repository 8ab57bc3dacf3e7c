"""What a comparison is once it is there: figures, tables, pictures, a page that nothing in it can harm, and a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from contests import configured, contest, filled, services
from hypothesis import given
from hypothesis import strategies as st
from servers.paced import ModelServer, endless
from servers.scripted import answer

import llm_jupyter
from llm_jupyter.comparison import Comparison, Range
from llm_jupyter.comparison.comparing import ComparisonInterrupted
from llm_jupyter.comparison.page import SHOWN, growing
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
    """The tags and attributes that a browser would see, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


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


def test_the_spread_tells_of_whole_answers_alone() -> None:
    ends = ["stop", "stop", "stop", "error", "length", "interrupted"]
    comparison = filled(
        "a", "b", repeats=3, finish=ends, answer=["x", "y", "x", "", "z", ""],
        first_token=[0.1, 0.5, 0.3, None, 0.2, 0.9], tokens=[10, 20, 10, None, 30, 7],
    )  # fmt: skip
    a, b = comparison.spread()
    assert (a.contender, a.count, a.failures, a.distinct) == ("a", 3, 0, 2)
    assert (a.first_token, a.tokens, a.tokens_per_second) == (Range(0.2, 0.1, 0.3), Range(10, 10, 30), None)
    assert (b.count, b.failures, b.distinct) == (3, 1, 1)
    assert (b.first_token, b.tokens) == (Range(0.5, 0.5, 0.5), Range(20, 20, 20))
    assert repr(comparison.spread()).splitlines()[1].split("  ")[0] == "a"
    assert "0.20 (0.10–0.30)" in comparison.spread()._repr_mimebundle_()["text/html"]
    assert repr(comparison).splitlines()[2].endswith("stop, error, interrupted")


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


@given(st.lists(trials, min_size=4, max_size=4), st.lists(st.text(min_size=1), min_size=2, max_size=2))
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
        ({"repeats": 0}, "at least once"),
        ({"temprature": 1}, "no setting 'temprature'"),
    ],
)
def test_what_compare_cannot_do_is_said_before_anybody_is_asked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        llm_jupyter.compare(**{"prompts": "p", "models": "m", **arguments})
