"""A prompt with its variables filled in, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from llm_jupyter.filling.cutting import BYTES_PER_TOKEN, DEFAULT_BUDGET, cut, fair_share, size_of
from llm_jupyter.filling.hints import Hints
from llm_jupyter.filling.placeholders import Placeholder, look_up, placeholders
from llm_jupyter.filling.shown import Shown, count
from llm_jupyter.filling.values import show
from llm_jupyter.types import Image

FAILURES = (Exception, SystemExit, GeneratorExit)
"""Whatever a value's own code raises, but for what stops this very cell: a person's interrupt."""


class FilledValue(msgspec.Struct, frozen=True):
    """What was filled in for one expression; `size` is in words, such as `table 1,000 x 12, first 10 rows`."""

    name: str
    size: str
    was_cut: bool = False


class FilledPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as it is sent. `template` is what was typed; `hints` say, a line each, what stayed as it was and why.

    The text refers to the images by their order: `[image 1]` stands where the first one was filled in.
    """

    text: str
    template: str
    images: tuple[Image, ...] = ()
    filled: tuple[FilledValue, ...] = ()
    hints: tuple[str, ...] = ()


def fill(prompt: str, names: Mapping[str, Any], *, budget: int | None = None) -> FilledPrompt:
    """Put values in the place of `{name}`, `{name.attribute}` and `{name[key]}`, wherever the name exists.

    All values together take at most `budget` tokens, 2,000 each if that is `None`; what is longer is cut, with a note.
    `{{name}}` becomes `{name}`. Every other brace stays, and so do those in code and formulas. It raises nothing: what
    cannot be read or shown stays as it is, with a hint.
    """
    if "{" not in prompt:
        return FilledPrompt(text=prompt, template=prompt)
    reader = _Reader(names)
    found = list(placeholders(prompt))
    places = [place for place in found if not (place.verbatim or place.is_computed) and reader.takes(place)]
    for place in found:
        if place.verbatim or place.is_computed:
            reader.passes(place)
    limit = _limit(reader.shown, places, budget)
    cuts = {name: replace(shown, text=cut(shown.text, limit)) for name, shown in reader.shown.items()}
    return FilledPrompt(
        text=_joined(prompt, places, cuts),
        template=prompt,
        images=tuple(shown.image for shown in cuts.values() if shown.image is not None),
        filled=tuple(_filled(name, shown, cuts[name].text) for name, shown in reader.shown.items()),
        hints=tuple(reader.hints.lines),
    )


def filled_line(filled: Sequence[FilledValue]) -> str:
    """What was filled in, in one line for people; empty if nothing was."""
    if not filled:
        return ""
    return "Filled in: " + ", ".join(f"{{{value.name}}} ({value.size})" for value in filled) + "."


class _Reader:
    """Reads each expression once, in the order of the text. `shown` are those that can be filled in."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._failed: set[str] = set()
        self._images = 0
        self.shown: dict[str, Shown] = {}
        self.hints = Hints(names)

    def takes(self, place: Placeholder) -> bool:
        """Whether something else will stand there."""
        if place.root not in self._names:
            if not place.is_literal:
                self.hints.unknown(place.expression)
            return False
        return self._is_there(place.expression) if place.is_literal else self._is_shown(place.expression)

    def passes(self, place: Placeholder) -> None:
        """It is computed, or stands in code or mathematics; that is said where it may have been meant."""
        if place.root not in self._names or place.is_literal:
            return
        if place.is_computed:
            self.hints.computed(place)
        else:
            self.hints.verbatim(place)

    def _is_there(self, expression: str) -> bool:
        try:
            look_up(expression, self._names)
        except FAILURES:  # an attribute may be computed
            return False
        return True

    def _is_shown(self, expression: str) -> bool:
        if expression not in self.shown and expression not in self._failed:
            try:
                self.shown[expression] = self._numbered(show(look_up(expression, self._names)))
            except FAILURES as error:
                self._failed.add(expression)
                self.hints.stays(expression, f"reading it raised {type(error).__name__}.")
        return expression in self.shown

    def _numbered(self, shown: Shown) -> Shown:
        if shown.image is None:
            return shown
        self._images += 1
        return replace(shown, text=f"[image {self._images}]")


def _limit(shown: Mapping[str, Shown], places: Sequence[Placeholder], budget: int | None) -> int:
    """Bytes that each value may take."""
    if budget is None:
        return DEFAULT_BUDGET * BYTES_PER_TOKEN
    sizes = {name: size_of(value.text) for name, value in shown.items()}
    return fair_share([sizes[place.expression] for place in places if not place.is_literal], budget * BYTES_PER_TOKEN)


def _filled(name: str, shown: Shown, text: str) -> FilledValue:
    is_cut = text != shown.text
    size = f"{shown.size}, cut to {count(len(text), 'character')}" if is_cut else shown.size
    return FilledValue(name, size, is_cut or shown.is_partial)


def _joined(prompt: str, places: Sequence[Placeholder], values: Mapping[str, Shown]) -> str:
    pieces, end = [], 0
    for place in places:
        pieces += [prompt[end : place.start], _text_at(place, prompt, values)]
        end = place.end
    return "".join([*pieces, prompt[end:]])


def _text_at(place: Placeholder, prompt: str, values: Mapping[str, Shown]) -> str:
    if place.is_literal:
        return f"{{{place.expression}}}"
    value = values[place.expression]
    if not value.is_block:
        return value.text
    before, after = prompt[max(0, place.start - 1) : place.start], prompt[place.end : place.end + 1]
    return ("\n" if before not in ("", "\n") else "") + value.text + ("\n" if after not in ("", "\n") else "")
