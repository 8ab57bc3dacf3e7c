"""What may be filled in: `{name}`, `{name.attribute}`, `{name[key]}` and chains of these, outside of code and formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llm_jupyter.filling.verbatim import Span, verbatim_spans

_NAME = r"[^\W\d]\w*+"
_QUOTED = r"'[^'\\\n{}]*+'|\"[^\"\\\n{}]*+\""
_EXPRESSION = rf"(?!__){_NAME}(?:\.(?!_){_NAME}|\[(?:-?[0-9]++|\w++|{_QUOTED})\])*+"
"""Nothing in it can be a call or a conversion, hold a brace, or reach what begins with an underscore."""

_FORMAT = r"(?:![rsa])?:(?:[^\s{}]*+\{[^\s{}]*+\})++[^\s{}]*+"
"""A format specification with fields of its own, as in `{price:>{width}}`."""

_COMPUTED = r"[ ]*+(?:[-+*/%(]|\[[^\[\]{}\n]++\]|![rsa]\b|:(?![\s\"'\[]))[^{}\n]*+"
"""What makes an f-string's expression of a name: a call, a calculation, a conversion or a format. A comma, a word, or a colon
before a space or a quotation is how people write sets, templates and tables.
"""

_PLACEHOLDER = re.compile(
    rf"\{{(?:\{{(?P<literal>{_EXPRESSION})\}}|(?P<expression>{_EXPRESSION})"
    rf"|(?P<computed>{_EXPRESSION}(?:{_FORMAT}|{_COMPUTED})))\}}"
)
_BELONGS = re.compile(r"[\w^}\]$\\{]")
"""What stands before braces of another language: `x_{n+1}`, `\\frac{n-1}{2}`, `${x}`, `{{n + 1}}`."""

_OWN = {"`": re.compile(r"\$"), "$": re.compile(r"[\w^}\]]")}
"""What stands before braces that surely belong to the code, as in `${x}`, or to the formula, as in `x_{i}` or `\\frac{x}`."""

_ROOT = re.compile(_NAME)
_STEP = re.compile(
    r"\.(?P<attribute>\w+)|\[(?:(?P<index>-?[0-9]+)|'(?P<single>.*?)'|\"(?P<double>.*?)\"|(?P<word>\w+))\]"
)


class Placeholder(msgspec.Struct, frozen=True):
    """Where an expression stands in braces, from `start` up to `end`; in two pairs of them it is meant literally.

    `verbatim` is the mark around it, a backtick or a dollar, where its braces are those of code or mathematics. One that is
    computed is what an f-string would fill in, and nothing here does.
    """

    start: int
    end: int
    expression: str
    is_literal: bool
    verbatim: str = ""
    is_computed: bool = False

    @property
    def root(self) -> str:
        """The name that the expression begins with."""
        return root_of(self.expression)


def placeholders(prompt: str) -> Iterator[Placeholder]:
    """All that has the form of a placeholder and may be meant as one, in order: in prose, or where one pair of marks, which
    may have come about by chance, makes it code or mathematics.
    """
    found = [_placeholder(match) for match in _PLACEHOLDER.finditer(prompt)]
    spans = verbatim_spans(prompt) if found else []
    passed, around = 0, Span(0, 0)
    for place in found:
        while passed < len(spans) and spans[passed].start < place.end:
            around = max(around, spans[passed], key=lambda span: span.end)
            passed += 1
        if place.is_computed:
            if around.end <= place.start and not _BELONGS.match(prompt[max(0, place.start - 1) : place.start]):
                yield place
        elif around.end <= place.start:
            yield place
        elif around.mark in _OWN and not _OWN[around.mark].match(prompt, place.start - 1):
            yield msgspec.structs.replace(place, verbatim=around.mark)


def root_of(expression: str) -> str:
    """The name that an expression begins with."""
    found = _ROOT.match(expression)
    assert found is not None
    return found[0]


def look_up(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression whose root is among the names. Raises whatever its attributes and items raise."""
    root = root_of(expression)
    value = names[root]
    for step in _STEP.finditer(expression, len(root)):
        if step["attribute"]:
            value = getattr(value, step["attribute"])
        elif step["index"]:
            value = value[int(step["index"])]
        else:
            value = value[next(key for key in step.group("single", "double", "word") if key is not None)]
    return value


def _placeholder(match: re.Match[str]) -> Placeholder:
    kind = str(match.lastgroup)
    return Placeholder(match.start(), match.end(), match[kind], kind == "literal", is_computed=kind == "computed")
