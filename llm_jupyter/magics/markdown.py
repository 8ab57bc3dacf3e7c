"""A model's Markdown on its way to a page: made harmless, and cut where it can be cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^(`{3,}|~{3,})([^`\n]*)$")
_ANY_FENCE = re.compile(r"^[ \t>*+\-\d.)]+(?:`{3,}|~{3,})", re.MULTILINE)
_LIVE = re.compile(
    r"<(?=[A-Za-z/!?])(?!https?://[^\s<>`]*>)"
    r"|!(?=\[)"
    # Where a link leads: to a scheme that is none of the web's (perhaps in entities), or to what the next line says.
    r"|(?:(?<=\]\()|(?<=\]:))(?=[ \t]*(?:<?[^\s)>/]{0,100}?[:&]|$))(?![ \t]*<?(?:https?://|mailto:|[/#.?]))",
    re.MULTILINE,
)
_SEPARATOR = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
ZERO_WIDTH = "\u200b"


def harmless(text: str) -> str:
    """The text with nothing in it that a page could run or fetch.

    A zero-width space goes behind each `<` that could open a tag, behind the `!` of an image (whose address would be
    fetched from the network when the page shows it), and before a link's address that is none of the web's
    (`javascript:`). It is invisible in prose and in code alike, so that it does no harm
    where a renderer sees code and this function does not. Fenced blocks stay untouched, if all fences of the text stand
    at the beginning of a line: others may end with the list or quotation around them. The sole `text/plain` is exact.
    """
    if not _LIVE.search(text):
        return text
    if _ANY_FENCE.search(text):
        return _LIVE.sub(_defused, text)
    result: list[str] = []
    scanner = BlockScanner()
    for line in text.split("\n"):
        outside = scanner.fence == ""
        scanner.feed(line)
        result.append(_LIVE.sub(_defused, line) if outside else line)
    return "\n".join(result)


def _defused(match: re.Match[str]) -> str:
    return match[0] + ZERO_WIDTH


class BlockScanner:
    """Follows lines and knows whether a fence or a table is open after them."""

    def __init__(self) -> None:
        self.fence = ""
        self.table: tuple[str, str] | None = None
        self._previous = ""

    def feed(self, line: str) -> None:
        """Take the next whole line, without its end."""
        found = _FENCE.match(line)
        if self.fence:
            marker = self.fence.rstrip("\n").rstrip()
            run = marker[: len(marker) - len(marker.lstrip(marker[0]))]
            if found and not found[2].strip() and found[1].startswith(run):
                self.fence = ""
        elif found and not (found[1][0] == "`" and "`" in found[2]):
            self.fence, self.table = line, None
        elif "|" not in line:
            self.table = None
        elif self.table is None and "|" in self._previous and "-" in line and _SEPARATOR.match(line):
            self.table = (self._previous, line)
        self._previous = line

    @property
    def closing(self) -> str:
        """What ends the open block."""
        if not self.fence:
            return ""
        return "\n" + self.fence[: len(self.fence) - len(self.fence.lstrip(self.fence[0]))]

    @property
    def opening(self) -> str:
        """What begins the open block anew."""
        if self.fence:
            return self.fence + "\n"
        return "\n".join(self.table) + "\n" if self.table else ""


@dataclass(slots=True)
class Parts:
    """A growing text in two parts: what has settled, and the open end. Together they are the text, once."""

    least: int = 4096
    settled: int = 0
    closing: str = ""
    opening: str = ""
    _scanned: int = 0
    _scanner: BlockScanner | None = None

    def settle(self, text: str) -> bool:
        """Move the border where the open end has grown too long; say whether it moved.

        The end may be as long as `least` or a fifth of what has settled. So the settled part is shown again only when it
        has grown by a fifth, and all showings together stay a fixed multiple of the text.
        """
        if len(text) - self.settled <= max(self.least, self.settled // 5):
            return False
        self._move_to(text, self._border(text))
        return True

    def _border(self, text: str) -> int:
        """A place to cut near the end: between blocks, else between lines, else between words, else anywhere."""
        earliest = self.settled + (len(text) - self.settled) // 2
        for mark in ("\n\n", "\n", " "):
            place = text.rfind(mark, earliest)
            if place > 0:
                return place + len(mark)
        return len(text)

    def _move_to(self, text: str, border: int) -> None:
        scanner = self._scanner = self._scanner or BlockScanner()
        whole_lines = text.rfind("\n", 0, border) + 1
        if whole_lines > self._scanned:
            for line in text[self._scanned : whole_lines - 1].split("\n"):
                scanner.feed(line)
            self._scanned = whole_lines
        self.settled = border
        at_line = whole_lines == border
        self.closing = scanner.closing.removeprefix("\n" if at_line else "")
        self.opening = scanner.opening if at_line or scanner.fence else ""
