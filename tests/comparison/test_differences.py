"""How two answers differ."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import example, given
from hypothesis import strategies as st

from llm_jupyter.comparison import Difference
from llm_jupyter.comparison.difference import SHOWN
from llm_jupyter.comparison.words import visible

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


def test_a_text_of_a_megabyte_is_compared_and_cut_on_the_page() -> None:
    long = "word " * 200_000
    difference = Difference("a", "b", long, long + "end")
    assert not difference.is_empty
    assert len(difference.html()) < 2 * SHOWN
    assert "are shown" in difference.html()
    assert len(repr(difference)) < 3 * SHOWN
