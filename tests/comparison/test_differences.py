"""How two answers differ."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from contests import filled
from hypothesis import example, given
from hypothesis import strategies as st

from llm_jupyter.comparison import Difference
from llm_jupyter.comparison.difference import MOST_PIECES, SHOWN
from llm_jupyter.wording import visible

texts = st.one_of(
    st.text(), st.lists(st.sampled_from(["<b>", "the ", "cat ", "&amp;", "sat\n", "\x1b[1m", "\u202e", "</del>"])).map("".join)
)  # fmt: skip


class Reader(HTMLParser):
    """What a browser makes of a difference: its tags, and its text by the tag that marks it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "small" not in self._open:
            self.text.append((self._open[-1], data))

    def without(self, mark: str) -> str:
        return "".join(text for tag, text in self.text if tag != mark)


@given(texts, texts)
@example("a\rb", "a\r\nb")
@example("the cat", "the cat")
@example("", "<script>alert(1)</script>")
def test_the_page_holds_both_texts_and_no_markup_but_its_own(before: str, after: str) -> None:
    difference = Difference("one", "<i>other", before, after)
    page = Reader(difference.html())
    assert page.tags <= {"div", "small", "del", "ins"}
    assert page.without("ins") == visible(before)
    assert page.without("del") == visible(after)
    pieces = difference.pieces
    assert "".join(piece.text for piece in pieces if piece.kind != "+") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "-") == after
    assert difference.is_empty == (before == after) == ({piece.kind for piece in pieces} <= {"="})


def test_it_goes_by_words() -> None:
    page = Difference("a", "b", "The quick cat sat.", "The quick dog sat.").html()
    assert "The quick <del>cat </del><ins>dog </ins>sat." in page
    assert repr(Difference("a", "b", "one\ntwo", "one\n2")).splitlines() == [
        "--- a", "+++ b", "@@ -1,2 +1,2 @@", " one", "-two", "+2"
    ]  # fmt: skip
    assert repr(Difference("a", "b", "x", "x")) == "a and b answered the same."


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ({"finish": "error", "error": "<b>Ollama</b> did not answer"}, "a failed: <b>Ollama</b> did not answer"),
        ({"finish": "error"}, "a failed"),
        ({"finish": "interrupted"}, "a was interrupted"),
        ({"finish": "stop", "answer": " \n"}, "a answered nothing"),
    ],
)
def test_where_one_side_is_missing_it_says_why_and_no_more(told: dict[str, str], note: str) -> None:
    comparison = filled("a", "b", answer=[told.pop("answer", ""), "The cat."], **{n: [t, ""] for n, t in told.items()})
    for difference in (comparison.diff("a", "b"), comparison.diff("b", "a"), comparison.diff("a", "a")):
        assert repr(difference) == note
        page = Reader(difference.html())
        assert (page.tags, page.text) == ({"div"}, [("div", note)])


def test_what_had_come_of_a_failed_answer_is_compared_below_its_error() -> None:
    comparison = filled(
        "a", "b", answer=["The cat", "The dog"], finish=["error", "interrupted"], error=["it broke", ""]
    )
    difference = comparison.diff("a", "b")
    notes = ["a failed: it broke", "b was interrupted"]
    assert repr(difference).splitlines() == [*notes, "--- a", "+++ b", "@@ -1 +1 @@", "-The cat", "+The dog"]
    assert Reader(difference.html()).text == [
        *(("div", note) for note in notes), ("div", "The "), ("del", "cat"), ("ins", "dog")
    ]  # fmt: skip


def test_a_text_of_a_megabyte_is_compared_and_cut_on_the_page() -> None:
    long = "word " * 200_000
    difference = Difference("a", "b", long, long + "end")
    assert not difference.is_empty
    assert len(difference.html()) < 2 * SHOWN
    assert "are shown" in difference.html()
    assert len(repr(difference)) < 3 * SHOWN


def test_long_texts_are_compared_by_lines_also_where_only_one_of_them_is_long() -> None:
    words = [f"w{number} " for number in range(15_000)]
    swapped = [word for pair in zip(words[1::2], words[::2], strict=True) for word in pair]
    pieces = Difference("a", "b", "".join(words), "".join(swapped)).pieces
    assert len(pieces) == 2, "one by one, they would take a quarter of a minute"
    before = "same\n" + "word " * (MOST_PIECES - 1)
    kinds = [piece.kind for piece in Difference("a", "b", before, before + "and more").pieces]
    assert kinds == ["=", "-", "+"]
