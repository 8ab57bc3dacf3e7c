from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import rendered

from llm_jupyter.magics.markdown import LONGEST, MOST, ZERO_WIDTH, BlockScanner, Parts, harmless, laid_out


@given(st.text().filter(lambda text: "```" not in text and "~~~" not in text))
def test_only_invisible_characters_are_added_to_prose(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert harmless(text).replace(ZERO_WIDTH, "") == lines.replace(ZERO_WIDTH, "")


CODE = st.text("<>b/ \n$`~![](x):\"'&@\\|*=", max_size=40).filter(lambda text: "~~~~" not in text)


@given(CODE)
def test_code_reads_as_it_was_written(code: str) -> None:
    page = rendered(harmless(f"Look:\n\n~~~~\n{code}\n~~~~\n\nand <b>so</b>"))
    assert [one.get_text().removesuffix("\n") for one in page.find_all("pre")] == [code]
    assert page.find("b") is None


@pytest.mark.parametrize(
    "code", ["x[1:]: y", "#include <stdio.h>", "for (i=0;i<n;i++) f[i](x, y);", "cost = $5", "a | b"]
)
def test_code_with_nothing_live_in_it_stays_markdown_and_gets_its_colours(code: str) -> None:
    text = f"Look:\n\n```c\n{code}\n```\n"
    assert harmless(text) == text


def test_a_block_that_is_open_is_closed() -> None:
    assert harmless("```python\nx = 1") == "```python\nx = 1\n```"
    assert rendered(harmless("~~~ a`b\n<i>") + "\n\n*after*").find("em") is not None


def test_diagrams_are_shown_as_their_text() -> None:
    assert harmless("```mermaid\ngraph TD\n```") == "```\ngraph TD\n```"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000, "[" * 1_000_000, "x\n\n" * 300_000, "$x+y$\n\n" * 4_000, "> " * 50_000 + "x", "- " * 1_000 + "x", "a**b" * 100_000, "\n" * 1_000_000,
        "|a" * 4_000 + "|\n" + "|-" * 4_000 + "|\n" + "a\n" * 400, "|a|\n" + " " * 100_000 + "-x|", "|a|\n-" + " " * 100_000 + "x|",
        "](" + " " * 100_000 + "x", "http://" * 50_000, "[a]: \"" * 50_000, "```\n" + "a**b" * 30_000, "`" * 200_000,
    ],
)  # fmt: skip
def test_what_would_hold_up_a_page_is_cut_and_shown_as_text(text: str) -> None:
    shown = laid_out(text)
    assert len(shown) <= 7 * MOST
    longest = max(len(part.strip()) for part in shown.split("\n\n"))
    assert longest <= LONGEST or shown.startswith(("<pre>", "```"))


def test_an_ordinary_answer_is_laid_out_whole() -> None:
    text = "# Title\n\n" + "Some *words* and `code`.\n\n" * 300 + "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 300
    assert laid_out(text) == text


@pytest.mark.parametrize("text", ["a < b and c > d", "1<2", "x <- y", "see <https://example.org/a?b=c>", "wow! [1]"])
def test_prose_without_markup_is_not_touched(text: str) -> None:
    assert harmless(text) == text


def test_the_scanner_knows_what_is_open() -> None:
    scanner = BlockScanner()
    for line in ("text", "````python", "x = 1", "```"):
        scanner.feed(line)
    assert (scanner.closing, scanner.opening) == ("\n````", "````python\n")
    scanner.feed("````")
    assert (scanner.closing, scanner.opening) == ("", "")
    for line in ("| a | b |", "|---|:-:|", "| 1 | 2 |"):
        scanner.feed(line)
    assert scanner.opening == "| a | b |\n|---|:-:|\n"
    scanner.feed("after it")
    assert scanner.opening == ""


@given(st.lists(st.text("ab \n`|-", max_size=40), max_size=60), st.integers(1, 60))
def test_the_two_parts_of_a_growing_text_are_always_the_text(deltas: list[str], least: int) -> None:
    parts, text, border = Parts(least), "", 0
    for piece in deltas:
        text += piece
        moved = parts.settle(text)
        assert text[: parts.settled] + text[parts.settled :] == text
        assert border <= parts.settled <= len(text)
        assert moved == (parts.settled != border)
        border = parts.settled


TEXTS = {
    "prose": "The quick brown fox jumps over it.\n\n" * 2300,
    "one fence": "```python\n" + "x = compute(1, 2, 3)\n" * 4000,
    "one line": "word " * 16000,
    "one word": "x" * 80000,
    "one table": "| a | b |\n|---|---|\n" + "| some cell | another |\n" * 3400,
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_settles_is_shown_a_few_times_and_the_open_end_stays_small(name: str) -> None:
    text = TEXTS[name]
    parts, sent, longest = Parts(), 0, 0
    for end in range(0, len(text), 64):
        if parts.settle(text[:end]):
            sent += parts.settled + len(parts.closing)
        longest = max(longest, end - parts.settled - max(4096, parts.settled // 5))
    assert sent <= 10 * len(text)
    assert longest <= 64
    assert parts.settled > 0.7 * len(text)


def test_a_fence_that_is_cut_is_closed_and_opened_again() -> None:
    text = "Here:\n\n```python\n" + "x = 1\n" * 1000
    parts = Parts()
    assert parts.settle(text)
    head, tail = text[: parts.settled] + parts.closing, parts.opening + text[parts.settled :]
    assert parts.opening == "```python\n"
    for half in (head, tail + "```"):
        code = rendered(half).find_all("pre")
        assert len(code) == 1
        assert "```" not in code[0].get_text()


def test_a_table_that_is_cut_has_its_head_twice() -> None:
    parts, text = Parts(), TEXTS["one table"]
    assert parts.settle(text[:6000])
    tail = rendered(parts.opening + text[parts.settled : 6000])
    assert [cell.get_text() for cell in tail.find_all("th")] == ["a", "b"]
