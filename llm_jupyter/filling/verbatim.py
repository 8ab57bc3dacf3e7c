"""Where a prompt is code or mathematics, whose braces are its own.

Every step is linear: a prompt may be a pasted file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Where it begins, and the place behind its end. `mark` opens it, and is empty for a block of code."""

    start: int
    end: int
    mark: str = ""


_LINE = re.compile(r"[^\n]*+\n?")
_FENCE = re.compile(r"[ \t>]*+(?:(?:[-*+]|\d{1,9}+[.)])[ \t]++)?+(`{3,}+|~{3,}+)(.*+)")
"""A line that may open or close a block of code, in a list or a quotation too."""

_TICKS = re.compile(r"`++")
_MATH = re.compile(r"\\(?:begin|end)\{[a-zA-Z]++\*?\}|\\.|\$\$?", re.DOTALL)
_CLOSING = {r"\(": r"\)", r"\[": r"\]"}


def verbatim_spans(text: str) -> list[Span]:
    """Blocks and spans of code, and mathematics, in order. A span may lie within another."""
    spans: list[Span] = []
    for start, end, is_code in _blocks(text):
        if is_code:
            spans.append(Span(start, end))
        elif text.find("{", start, end) >= 0:
            spans += _inline(text, start, end)
    return spans


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Fenced blocks and paragraphs, and which of the two each is. A fence that nothing closes reaches to the end."""
    start, fence = 0, ""
    for line in _LINE.finditer(text):
        run, rest = _fence(line[0])
        if fence:
            if run.startswith(fence) and not rest.strip():
                yield start, line.end(), True
                start, fence = line.end(), ""
        elif run and not (run[0] == "`" and "`" in rest):
            yield start, line.start(), False
            start, fence = line.start(), run
        elif not line[0].strip(" \t\r\n>"):
            yield start, line.end(), False
            start = line.end()
    yield start, len(text), bool(fence)


def _fence(line: str) -> tuple[str, str]:
    found = _FENCE.match(line)
    return (found[1], found[2]) if found else ("", "")


def _inline(text: str, start: int, end: int) -> list[Span]:
    """Code and mathematics within a paragraph. Code binds tighter: a dollar in it closes nothing."""
    code = list(_paired(text, list(_TICKS.finditer(text, start, end))))
    starts = [span.start for span in code]

    def is_in_code(position: int) -> bool:
        before = bisect_right(starts, position) - 1
        return before >= 0 and position < code[before].end

    marks = [mark for mark in _MATH.finditer(text, start, end) if not is_in_code(mark.start())]
    return sorted([*code, *_paired(text, marks)])


def _paired(text: str, marks: list[re.Match[str]]) -> Iterator[Span]:
    """From each mark that opens to the next one that closes it; what nothing closes is a plain character."""
    closing: dict[str, list[int]] = defaultdict(list)
    for index, mark in enumerate(marks):
        if _can_close(text, mark):
            closing[mark[0]].append(index)
    at = 0
    while at < len(marks):
        candidates = closing[_closing(marks[at][0])] if _can_open(text, marks[at]) else []
        nearest = bisect_right(candidates, at)
        if nearest < len(candidates):
            opening, at = at, candidates[nearest]
            yield Span(marks[opening].start(), marks[at].end(), marks[opening][0])
        at += 1


def _closing(mark: str) -> str:
    return mark.replace("begin", "end", 1) if mark.startswith(r"\begin") else _CLOSING.get(mark, mark)


def _can_open(text: str, mark: re.Match[str]) -> bool:
    """Not an amount ("5 $ and"), an escaped character, or the end of something."""
    if mark[0] == "$":
        return not text[mark.end() : mark.end() + 1].isspace()
    return mark[0] == "$$" or mark[0][0] == "`" or mark[0] in _CLOSING or mark[0].startswith(r"\begin")


def _can_close(text: str, mark: re.Match[str]) -> bool:
    """As in Pandoc, `$` closes next to what it encloses and not before a digit ("$5-$6"); nor does one of `${a}/${b}`."""
    if mark[0] != "$":
        return True
    after = text[mark.end() : mark.end() + 1]
    return not text[mark.start() - 1].isspace() and not after.isdigit() and after != "{"
