"""What a cell asks, as its text says it: the prompts of `%chat` and `%%chat`, read as the magics read them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

AGAIN = "again"
"""What an answer says that it was asked, where that was the last question once more."""

SWITCHES = frozenset(
    {"--think", "--no-think", "-q", "--quiet", "--no-history", "--raw", "--append", "--private", "--dry-run", "--save-prompt"}
)  # fmt: skip
"""The options of `%chat` that take no value; every other one does."""

_CELL = re.compile(r"(?:[ \t]*\r?\n)*%%chat(?:[ \t]++([^\r\n]*+))?+\r?\n(.+)", re.DOTALL)
_LINE = re.compile(r"^[ \t]*%(chat|llm)[ \t]+((?:[^\n]*\\\n(?!\Z))*[^\n]*)", re.MULTILINE)
_ABOVE = re.compile(r"(?:\s*%%(?:capture|debug|prun|time|timeit)\b[^\n]*\n)+")
_FLAG = re.compile(r"(--?[A-Za-z][\w-]*)(?==|\s|$)")
_VALUE = re.compile(r"(?:=|\s*)(?:\"((?:[^\"\\]|\\.)*)\"(?=\s|$)|'((?:[^'\\]|\\.)*)'(?=\s|$)|(\S*))")

Kind = Literal["turn", "aside", "again", "quiet"]


class Asking(msgspec.Struct, frozen=True):
    """One place in a cell that asks: a turn of the conversation, one beside it, the last turn again, or one turn whose
    answer is not shown. `conversation` is the name that it was asked under, `None` for the notebook's own.
    """

    kind: Kind
    prompt: str = ""
    system: str | None = None
    conversation: str | None = None

    @property
    def asked(self) -> str:
        """What its answer says of it."""
        return AGAIN if self.kind == "again" else digest_of(self.prompt)


def digest_of(prompt: str) -> str:
    """What the notebook says of a prompt as it was typed, to tell later whether the cell still asks that.

    Blanks do not count: tools that tidy up change them.
    """
    return hashlib.sha256(" ".join(prompt.split()).encode(errors="replace")).hexdigest()[:8]


def askings_of(source: str) -> Iterator[Asking]:
    """What a cell asks, in the order of its text. IPython's own magics as `%%time` run what stands below them."""
    if above := _ABOVE.match(source):
        source = source[above.end() :]
    if cell := _CELL.match(source):
        options, _ = _options(cell[1] or "")
        yield from _asked(options, cell[2].removesuffix("\n"))
    elif not source.lstrip().startswith("%%"):
        for name, text in _LINE.findall(source):
            *continued, last = text.split("\\\n")
            options, rest = _options(" ".join([*continued, last.rstrip()]))
            if name == "chat":
                yield from _asked(options, rest)
            elif rest.split()[:1] == ["again"]:
                yield Asking("again")


def _asked(options: dict[str, str], prompt: str) -> Iterator[Asking]:
    """One question, unless it is refused or only looked at."""
    is_aside, is_quiet = bool(options.keys() & {"--no-history", "--private"}), bool(options.keys() & {"-q", "--quiet"})
    if prompt.strip() and "--dry-run" not in options and not (is_aside and is_quiet):
        kind: Kind = "aside" if is_aside else "quiet" if is_quiet else "turn"
        yield Asking(kind, prompt, options.get("--system"), options.get("-s", options.get("--session")))


def _options(line: str) -> tuple[dict[str, str], str]:
    """The leading options of a line, and the rest to the letter. What the magic would refuse is read as well as it can be."""
    options = {}
    rest = line.lstrip()
    while found := _FLAG.match(rest):
        rest, options[found[1]] = rest[found.end() :], ""
        if found[1] not in SWITCHES and (value := _VALUE.match(rest)):
            quoted = value[1] if value[1] is not None else value[2]
            options[found[1]] = value[3] if quoted is None else re.sub(r"\\([\"'\\])", r"\1", quoted)
            rest = rest[value.end() :]
        rest = rest.lstrip()
    if rest == "--" or rest.startswith(("-- ", "--\n")):
        rest = rest[2:].lstrip()
    return options, rest
