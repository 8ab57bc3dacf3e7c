"""What a cell shows of an answer, without a kernel."""

from __future__ import annotations

from typing import Any

import pytest
from bs4 import BeautifulSoup
from pages import HOSTILE, IMAGE, TRICKY, html, live, rendered

from llm_jupyter.magics.markdown import MOST
from llm_jupyter.magics.render import NotebookView
from llm_jupyter.magics.text import say, table
from llm_jupyter.types import LLMResponse


class Cell:
    """What was published, newest last; each time that somebody looks at the clock, a second has passed."""

    def __init__(self) -> None:
        self.data: list[dict[str, str]] = []
        self.seconds = 0.0

    def publish(self, data: dict[str, str], **_: Any) -> None:
        self.data.append(data)

    def clock(self) -> float:
        self.seconds += 1
        return self.seconds

    def view(self, label: str = "local/m") -> NotebookView:
        return NotebookView(self.publish, label=lambda: label, clock=self.clock)


def innocent(page: BeautifulSoup) -> bool:
    """Whether nothing in it is live but the place into which thinking is folded, which is ours."""
    for one in page.find_all(["details", "summary", "small"]):
        one.unwrap() if one.name != "small" else one.decompose()
    return live(page) == []


@pytest.mark.parametrize("text", [*HOSTILE, *TRICKY])
def test_nothing_is_live_while_an_answer_grows_and_when_it_is_done(text: str) -> None:
    cell = Cell()
    view = cell.view(label=text)
    view.beat("", text, text)
    for length in (0, 3_000, 6_000, 9_000):
        view.beat("words " * (length // 6) + "\n\n" + text, text, text)
    view.finish(LLMResponse(text=text, thinking=text), {}, [text])
    assert len(cell.data) >= 6
    for data in cell.data:
        page = data.get("text/html") or html(data["text/markdown"])
        assert innocent(BeautifulSoup(page, "html.parser"))


def test_thinking_that_leaves_code_open_does_not_swallow_the_answer() -> None:
    cell = Cell()
    cell.view().finish(
        LLMResponse(text=f"```\n{IMAGE}\n```\n\nThe *answer*.", thinking="Hm:\n\n```python\nx = 1"), {}, []
    )
    page = rendered(cell.data[0]["text/markdown"])
    assert [one.get_text() for one in page.find_all("em")] == ["answer"]
    assert page.find("details").find("em") is None
    assert page.find("img") is None


def test_thinking_is_folded_while_the_answer_grows() -> None:
    cell = Cell()
    cell.view().beat("The answer", "Hm.", "answering")
    assert cell.data[0]["text/markdown"].startswith("<details><summary>Thought")


def test_long_thinking_is_not_sent_again_with_each_word_of_the_answer() -> None:
    cell = Cell()
    view, words = cell.view(), "word " * 1_000
    for end in range(0, len(words), 10):
        view.beat(words[: end + 10], "hm " * 4_000, "answering")
    view.finish(LLMResponse(text=words, thinking="hm " * 4_000), {}, [])
    assert sum("<details>" in data.get("text/markdown", "") for data in cell.data) <= 5
    assert words.split()[:100] == cell.data[-2]["text/plain"].split()[:100]


def test_of_a_megabyte_the_beginning_is_shown_and_all_is_kept() -> None:
    cell = Cell()
    cell.view().finish(LLMResponse(text="x" * 1_000_000), {}, [])
    assert MOST <= len(cell.data[0]["text/markdown"]) < MOST + 100
    assert cell.data[0]["text/plain"] == "x" * 1_000_000
    assert "900,000 more characters are not shown here" in cell.data[1]["text/plain"]


def test_what_a_server_calls_its_models_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(table(("model", "size"), [("a\x1b]52;c;eA==\x07\rb\nc", "1 GB"), ("\u202ed", "2 GB")]))
    say(["\x1b[2J"])
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:3] == ["a␛]52;c;eA==␇ b c  1 GB", "⟨U+202E⟩d          2 GB"]
    assert lines[3] == "␛[2J"
