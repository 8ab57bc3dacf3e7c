"""Which braces of a prompt are filled in, and which pass through to the letter."""

from __future__ import annotations

import string
from types import SimpleNamespace
from typing import Any

import pytest
from counts import times
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jupyter.filling import FilledPrompt, FilledValue, fill, filled_line

NAMES: dict[str, Any] = {
    "x": "VALUE",
    "name": "Ada",
    "n": 3,
    "i": 7,
    "d": {"k": 1, "two words": 2, "3": "three"},
    "rows": [{"c": SimpleNamespace(k=["first", "last"])}],
    "place": SimpleNamespace(city="Paris", _hidden="secret", streets=("a", "b")),
    "Out": {3: "an output"},
    "größe": 12,
    "_": "the last output",
    "__name__": "__main__",
}

UNTOUCHED = {
    "JSON": '{"a": 1, "b": {"c": [1, 2, {"d": null}]}, "x": "{}"}',
    "nested dictionaries": "d = {1: {2: {3: {}}}, 'x': {'name': {'n'}}, **{}}",
    "f-string code": 'print(f"{x!r} {n:>10} {n + 1} {f(x)} {x=} { x } {d[i + 1]} {x if n else i}")',
    "code in a fence": 'Explain:\n```python\nprint(f"{x} {name}")\n```\n',
    "code in a long fence": "~~~~ text\n{x}\n~~~\n{x}\n~~~~\n",
    "a fence that nothing closes": "Explain:\n\n```\n{x}\n\n{name}",
    "inline code": "What does `{y}` do, and ``f'`{x}'``?",
    "formulas": r"Solve $x_{i} = \frac{n}{x}$ and $$\sum_{i}^{n} {x}$$ and \(a_{i}\) and \[ {x} \].",
    "a formula's environment": "\\begin{align}\na_{i} &= {x} \\\\\n\\end{align}",
    "format specifications": "{x:>10} {n:,.2f} {x!r} {x!s:^5} {n:{i}} {x!r:{n}.{i}} {x:>{name[0]}}<{i:}",
    "unmatched": "{ } {x {n x} {name] {{x {{ {name.} {.x} }x{ n} {[x} {d['k} {d[k} {d[k'] }} } {{",
    "positions and spaces": "{} {0} {1} { x } {x } { x} {x.} {x[]} {d[ k ]} {place. city}",
    "calls": "{name.upper()} {place.streets[0]()} {len(x)} {d.get('k')} {rows[0:1]} {x,n}",
    "Python's own": "{__name__} {x.__class__} {place._hidden} {place.city.__class__.__name__}",
    "a set and a block": "{x, n} {x; y} {\nx\n} {'x'} {\"x\"} {x|safe} {-x} {x-1} {*x}",
    "templates of others": "{% if x %} {# x #} {{ x }} {{x|safe}} <%= x %> #{x y}",
}


F_STRINGS = (
    "f-string code",
    "format specifications",
    "positions and spaces",
    "calls",
    "a set and a block",
    "unmatched",
)
"""Where something stands that may be meant for Python: that is said."""


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_braces_that_are_no_placeholder_pass_through_to_the_letter(kind: str) -> None:
    prompt = UNTOUCHED[kind]
    filled = fill(prompt, NAMES)
    assert filled == FilledPrompt(text=prompt, template=prompt, hints=filled.hints)
    assert bool(filled.hints) == (kind in F_STRINGS)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("{x}", "VALUE"),
        ("Dear {name}, you are {n}.", "Dear Ada, you are 3."),
        ("{x}{x}{n}", "VALUEVALUE3"),
        ("{place.city}", "Paris"),
        ("{place.streets[1]} {place.streets[-1]}", "b b"),
        ("{d[k]} {d['k']} {d[\"k\"]}", "1 1 1"),
        ("{d['two words']} {d['3']}", "2 three"),
        ('{rows[0][c].k} {rows[0]["c"].k[-1]}', '["first", "last"] last'),
        ("{Out[3]}", "an output"),
        ("{größe}", "12"),
        ("{_}", "the last output"),
        ('{"a": {x}, "b": 1}', '{"a": VALUE, "b": 1}'),
        ("{a: {x}}", "{a: VALUE}"),
        ("It is $5 to $6, {x} or $7.", "It is $5 to $6, VALUE or $7."),
        ("${n}, ${i} and ${n}/${i}", "$3, $7 and $3/$7"),
        (r"\$5 {x} 6\$", r"\$5 VALUE 6\$"),
        ("a ` alone {x}\n\nand ` another {x}", "a ` alone VALUE\n\nand ` another VALUE"),
        ("```\n{x}\n```\n{x}", "```\n{x}\n```\nVALUE"),
        ("- a\n  ```\n  {x}\n  ```\n- {x}", "- a\n  ```\n  {x}\n  ```\n- VALUE"),
        ("$x$ is {x}", "$x$ is VALUE"),
        ("``` {x} ``` is {x}", "``` {x} ``` is VALUE"),
    ],
)
def test_the_value_of_a_name_stands_in_its_place(prompt: str, text: str) -> None:
    filled = fill(prompt, NAMES)
    assert filled.text == text
    assert filled.template == prompt
    assert filled.hints == ()


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("{{x}}", "{x}"),
        ("{{d[k]}} and {{place.city}}", "{d[k]} and {place.city}"),
        ("{{nothing}}", "{{nothing}}"),
        ("{{d[nothing]}} {{place.nothing}}", "{{d[nothing]}} {{place.nothing}}"),
        ("`{{x}}`", "`{{x}}`"),
        ("{{{x}}}", "{{x}}"),
    ],
)
def test_two_pairs_of_braces_are_one_pair_meant_literally_where_one_would_be_filled_in(prompt: str, text: str) -> None:
    assert fill(prompt, NAMES) == FilledPrompt(text=text, template=prompt)


def test_what_was_filled_in_is_said_in_one_line() -> None:
    filled = fill("{name} has {n}, {name} has {d['two words']}", NAMES).filled
    assert filled == (
        FilledValue("name", "3 characters"),
        FilledValue("n", "1 character"),
        FilledValue("d['two words']", "1 character"),
    )
    line = "Filled in: {name} (3 characters), {n} (1 character), {d['two words']} (1 character)."
    assert filled_line(filled) == line
    assert filled_line(()) == ""


def test_a_value_is_not_filled_in_turn() -> None:
    assert fill("{a} {b}", {"a": "{b} {{b}} `", "b": "{a}"}).text == "{b} {{b}} ` {a}"


def test_an_expression_is_read_once_however_often_it_stands_there() -> None:
    class Counter:
        read = 0

        @property
        def value(self) -> int:
            self.read += 1
            return self.read

    counter = Counter()
    assert fill("{c.value} {c.value} {c.value}", {"c": counter}).text == "1 1 1"


def test_a_prompt_without_braces_reads_no_names() -> None:
    class Unreadable(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            raise AssertionError

    assert fill("no braces, `none`, $none$", Unreadable()).text == "no braces, `none`, $none$"


@given(st.text(alphabet=st.sampled_from("{}{}[]`~$\\\n .'\"-:!()xab01_é")), st.booleans())
@settings(max_examples=times(5000))
def test_a_text_that_names_nothing_known_is_returned_unchanged(text: str, has_names: bool) -> None:
    names = {"known": 1, "other": 2} if has_names else {}
    assert fill(text, names) == FilledPrompt(text=text, template=text)


PROSE = st.text(alphabet=string.ascii_letters + " .,:;!?-\n\t()é", max_size=12)
PIECES = st.lists(st.one_of(PROSE, st.sampled_from(["{x}", "{{x}}", "{d[k]}", "{nothing}", "{x!r}", "{}", "`{x}`"])))
BECOMES = {"{x}": "VALUE", "{{x}}": "{x}", "{d[k]}": "1"}


@given(PIECES)
@settings(max_examples=times(2000))
def test_each_place_is_filled_whole_or_not_at_all(pieces: list[str]) -> None:
    expected = "".join(BECOMES.get(piece, piece) for piece in pieces)
    assert fill("".join(pieces), NAMES).text == expected


@given(st.text(alphabet=st.sampled_from("{}[]`~$\\\n .'\"x"), max_size=40))
@settings(max_examples=times(5000))
def test_whatever_stands_around_a_place_nothing_else_is_changed(text: str) -> None:
    filled = fill(text, {"x": "VALUE"}).text
    assert filled.replace("VALUE", "{x}").replace("{{x}}", "{x}") == text.replace("{{x}}", "{x}")


@pytest.mark.stress
@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "}",
        "{}",
        "{x}",
        "{x.",
        "{x['",
        "{{x}}",
        "{nmae}",
        "`{",
        "`a``{",
        "${",
        "$$ {",
        r"\({",
        r"\[{",
        "\\",
        "  > -",
        "\n{",
    ],
)
def test_a_million_braces_of_any_kind_are_read_in_one_pass(unit: str) -> None:
    # A quadratic reader needs minutes for the tenth of it.
    length = times(1_000_000)
    text = "{z}" + unit * (length // len(unit))
    filled = fill(text, {"name": 1})
    assert filled.text == text
