"""How two answers differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec

from llm_jupyter.comparison.trial import FAILED, INTERRUPTED, Trial
from llm_jupyter.tables import TEXT_ALONE, escaped, one_line
from llm_jupyter.wording import visible

MOST_PIECES = 4_000
"""Words that are compared one by one; longer texts are compared by lines, or as they stand. In the worst order the work
grows with the square: these take a second."""

SHOWN = 50_000
"""Characters of a difference that a page shows."""

LONGEST_NOTE = 400
"""Characters of a note, with the name of whom it is about."""


class Piece(msgspec.Struct, frozen=True):
    """A stretch of text that both have (`=`), or only the first (`-`) or the second (`+`)."""

    kind: str
    text: str


class Difference(msgspec.Struct, frozen=True):
    """Two texts side by side: `a` and `b` say whose they are. It shows itself with what is not in both marked.

    `notes` say, in a line each, what is wrong with either; where such a text is missing, they are all that is shown.
    """

    a: str
    b: str
    before: str
    after: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, one: Trial, other: Trial) -> Self:
        """How two answers differ, with a note for one that is not whole or says nothing."""
        notes = dict.fromkeys(f"{trial.contender} {lack}" for trial in (one, other) if (lack := _lack(trial)))
        return cls(one.contender, other.contender, one.answer, other.answer, tuple(notes))

    @property
    def is_empty(self) -> bool:
        """Whether the texts are the same."""
        return self.before == self.after

    @property
    def pieces(self) -> list[Piece]:
        """Both texts as one: all but the `+` are the first, all but the `-` the second."""
        return list(_pieces(*_split(self.before, self.after)))

    def __repr__(self) -> str:
        return "\n".join([*self._notes(), *self._lines()])

    def html(self) -> str:
        """The second text with what the first has instead; every word of it is escaped."""
        notes = "".join(f'<div style="overflow-wrap:anywhere">{escaped(note)}</div>' for note in self._notes())
        return f"<div {TEXT_ALONE}>{notes}{self._marked() if self._has_both else ''}</div>"

    @property
    def _has_both(self) -> bool:
        """Whether there is anything to compare; if not, the notes say why."""
        return not self.notes or bool(self.before.strip() and self.after.strip())

    def _notes(self) -> list[str]:
        return [one_line(note, LONGEST_NOTE) for note in self.notes]

    def _lines(self) -> Iterable[str]:
        """The difference line by line, as plain text."""
        if not self._has_both:
            return []
        if self.is_empty:
            return [f"{visible(self.a)} and {visible(self.b)} answered the same."]
        before, after = (visible(text)[:SHOWN].splitlines() for text in (self.before, self.after))
        return difflib.unified_diff(before, after, visible(self.a), visible(self.b), lineterm="")

    def _marked(self) -> str:
        """The difference word by word, as HTML."""
        shown, left = [], SHOWN
        for piece in self.pieces:
            text = escaped(piece.text[:left])
            left -= len(piece.text)
            shown.append(_TAGS[piece.kind].format(text))
            if left <= 0:
                shown.append(f"<em> … cut here: {SHOWN:,} characters are shown.</em>")
                break
        head = f"<small><del>{escaped(self.a)}</del> · <ins>{escaped(self.b)}</ins></small>"
        text = "".join(shown) if not self.is_empty else f"{''.join(shown)}<small>\n\nBoth answered the same.</small>"
        return f'{head}<div style="white-space:pre-wrap;overflow-wrap:anywhere">{text}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html()}


def _lack(trial: Trial) -> str:
    """What is wrong with an answer; nothing where it is whole."""
    if trial.finish == FAILED:
        return f"failed: {trial.error}" if trial.error else "failed"
    if trial.finish == INTERRUPTED:
        return "was interrupted"
    return "" if trial.answer.strip() else "answered nothing"


_TAGS = {"=": "{}", "-": "<del>{}</del>", "+": "<ins>{}</ins>"}


def _split(*texts: str) -> list[list[str]]:
    """The texts in pieces of one kind that are compared: words with the space behind them, where they are not too many."""
    for pattern in (r"\S+\s*|\s+", r"[^\n]*\n|[^\n]+"):
        found = [re.findall(pattern, text) for text in texts]
        if max(map(len, found)) <= MOST_PIECES:
            return found
    return [[text] for text in texts]


def _pieces(before: list[str], after: list[str]) -> Iterator[Piece]:
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after).get_opcodes():
        if kind == "equal":
            yield Piece("=", "".join(before[i:j]))
            continue
        if i < j:
            yield Piece("-", "".join(before[i:j]))
        if k < m:
            yield Piece("+", "".join(after[k:m]))
