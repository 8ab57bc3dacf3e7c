"""Where a prompt is code or mathematics."""

from __future__ import annotations

import itertools

import pytest
from counts import times
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jupyter.filling.verbatim import verbatim_spans


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("{ plain }", []),
        ("a `{` b", ["`{`"]),
        ("a ``{ ` {`` b", ["``{ ` {``"]),
        ("a ``{` b", []),
        ("a `{\nb` c", ["`{\nb`"]),
        ("a `{\n\nb` c", []),
        (r"`C:\{x}\` and {", [r"`C:\{x}\`"]),
        ("$a_{1}$", ["$a_{1}$"]),
        ("$ a_{1}$ b", []),
        ("$a_{1} $ b", []),
        ("$a_{1}$2 {", []),
        ("$a_{1}\n+ b$", ["$a_{1}\n+ b$"]),
        ("$a_{1}\n\n+ b$", []),
        ("the $n$th {x} of $k$-means", ["$n$", "$k$"]),
        ("$$ {a} $$ {b}", ["$$ {a} $$"]),
        (r"\$a{b}$", []),
        (r"$a\${b}$", [r"$a\${b}$"]),
        (r"\({a}\) {b} \[{c}\]", [r"\({a}\)", r"\[{c}\]"]),
        (r"\\({a}\\)", []),
        (r"\({a}\]", []),
        (r"\begin{align*}{a} \\ \end{align*}{b}", [r"\begin{align*}{a} \\ \end{align*}"]),
        (r"\begin{align}{a}\end{equation}", []),
        ("$5 `a=$b; {c}` {d}", ["`a=$b; {c}`"]),
        ("> ```\n> {x}\n> ```\n{y}", ["> ```\n> {x}\n> ```\n"]),
        ("1. ~~~\n   {x}\n   ~~~\n{y}", ["1. ~~~\n   {x}\n   ~~~\n"]),
        ("```\r\n{x}\r\n```\r\n{y}", ["```\r\n{x}\r\n```\r\n"]),
        ("````\n```\n{x}\n````` \n{y}", ["````\n```\n{x}\n````` \n"]),
        ("```\n{x}\n``` no end\n{y}", ["```\n{x}\n``` no end\n{y}"]),
        ("text\n```\n", ["```\n"]),
        ("```", ["```"]),
        ("", []),
    ],
)
def test_code_and_formulas_are_found(text: str, spans: list[str]) -> None:
    assert [text[span.start : span.end] for span in verbatim_spans(text)] == spans


PIECES = ["```", "~~~", "````", "`", "$", "$$", "\\(", "\\)", "\\", "{x}", "\n", "\n\n", " ", "> ", "- ", "a", "5"]


@given(st.lists(st.sampled_from(PIECES)))
@settings(max_examples=times(5000))
def test_spans_lie_within_the_text_in_order_and_none_begins_in_the_midst_of_code(pieces: list[str]) -> None:
    text = "".join(pieces)
    spans = verbatim_spans(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert spans == sorted(spans)
    for one, other in itertools.pairwise(spans):
        assert one.end <= other.start or other.end <= one.end, "apart, or code within a formula"
