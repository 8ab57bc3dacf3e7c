"""What an examination finds, and how it is written down."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SYMBOLS = {"ok": "✓", "note": "·", "warning": "!", "error": "✗"}
STEP_WIDTH = 12
WIDTH = 110
"""Characters of a line; a command that is to be typed is never broken."""


class Mark(StrEnum):
    """How a finding is meant: fine; good to know; may cost something; stands in the way of an answer."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do about a finding. `commands` are typed one after the other, exactly as they stand: those that begin with `%`
    in a cell, the others in a terminal.
    """

    words: str = ""
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        typed = "   then   ".join(self.commands)
        return f"{self.words}: {typed}" if self.words and typed else self.words or typed

    def __bool__(self) -> bool:
        return bool(self.words or self.commands)


NONE = Remedy()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `code` is the same for the same cause, whatever the words are."""

    step: str
    mark: Mark
    code: str
    what: str
    remedy: Remedy = NONE

    def lines(self) -> list[str]:
        """The finding as aligned lines: symbol and word, step, what it is, and below it the remedy."""
        head = f"{SYMBOLS[self.mark]} {self.mark:<7}  {self.step:<{STEP_WIDTH}} "
        below = " " * len(head)
        first, *more = _wrapped(self.what, WIDTH - len(head)) or [""]
        lines = [head + first, *(below + line for line in more)]
        if self.remedy.words:
            words = f"→ {self.remedy.words}{':' if self.remedy.commands else '' if self.remedy.words.endswith('?') else '.'}"
            first, *more = _wrapped(words, WIDTH - len(head))
            lines += [below + first, *(f"{below}  {line}" for line in more)]
        lines += [f"{below}→ {command}" for command in self.remedy.commands]
        return lines

    def document(self) -> dict[str, Any]:
        """The finding for a program."""
        return {
            "step": self.step,
            "mark": str(self.mark),
            "code": self.code,
            "what": _plain(self.what),
            "remedy": str(self.remedy),
            "commands": list(self.remedy.commands),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A whole examination."""

    findings: tuple[Finding, ...]

    def count(self, mark: Mark) -> int:
        """How many findings have that mark."""
        return sum(finding.mark is mark for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 where nothing stands in the way, 1 where something does."""
        return 1 if self.count(Mark.ERROR) else 0

    def lines(self) -> list[str]:
        """The report for people."""
        errors, warnings = self.count(Mark.ERROR), self.count(Mark.WARNING)
        ending = f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}."
        return [*(line for finding in self.findings for line in finding.lines()), "", ending]

    def json(self) -> str:
        """The report as one JSON document."""
        document = {
            "errors": self.count(Mark.ERROR),
            "warnings": self.count(Mark.WARNING),
            "findings": [finding.document() for finding in self.findings],
        }
        return json.dumps(document, indent=2, ensure_ascii=False)


def ok(step: str, code: str, what: str) -> Finding:
    """All is well there."""
    return Finding(step, Mark.OK, code, what)


def note(step: str, code: str, what: str, remedy: Remedy = NONE) -> Finding:
    """Good to know."""
    return Finding(step, Mark.NOTE, code, what, remedy)


def warning(step: str, code: str, what: str, remedy: Remedy = NONE) -> Finding:
    """It may cost something."""
    return Finding(step, Mark.WARNING, code, what, remedy)


def error(step: str, code: str, what: str, remedy: Remedy = NONE) -> Finding:
    """It stands in the way of an answer."""
    return Finding(step, Mark.ERROR, code, what, remedy)


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(_plain(text), width, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    """One line that steers no terminal: servers' and files' own words are in it."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
