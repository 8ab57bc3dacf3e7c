"""A model's Markdown on its way to a page: made harmless, and cut where it can be cut.

JupyterLab does not sanitise what a kernel shows: a tag that a model wrote would run there. It and other renderers do not
agree either on where code ends: a formula, the title of a link or an indented fence can swallow the beginning of a block
of code, and what seemed to be code is a tag. So nothing here depends on that: each line is safe wherever it stands.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from llm_jupyter.wording import visible

MOST = 100_000
"""Characters of an answer that a cell shows."""

MOST_LINES = 5_000
"""Lines that are laid out as Markdown: JupyterLab takes quadratic time for paragraphs."""

LONGEST = 20_000
"""Characters of a paragraph or list, and of all formulas, that are: emphasis takes renderers quadratic time."""

MOST_CELLS = 20_000
"""Cells of tables; short rows count as long as the head, since renderers fill them up."""

_LINE_END = re.compile(r"\r\n?")
_FENCE = re.compile(r"^(`{3,}|~{3,})([^\n]*)$")
_SIGN = r"[^\s<>\"'$\\()]"
# JupyterLab puts formulas back into addresses and titles without escaping them, so that neither may have any.
_TO_THE_WEB = rf"\((?:https?://|mailto:){_SIGN}*(?:\({_SIGN}*\){_SIGN}*)?(?:[ \t]+\"[^\n<>\"$\\&]*\")?\)"
_LIVE = re.compile(rf"<(?=[A-Za-z/!?])(?!https?://[^\s<>`\"'$\\]*>)|!(?=\[)|\](?=\()(?!{_TO_THE_WEB})")
_LIVE_CODE = re.compile(
    r"<(?:[A-Za-z][\w:-]*(?=[\s/>]|$)|[/!?])|!(?=\[)|\](?=\()" + rf"(?!{_TO_THE_WEB}|\([^\n:&<>\"'$\\()]*\))"
)
_DEFINITION = re.compile(r"^[ \t>*+\-\d.)]*(?:\[[ xX]\][ \t]+)?\[(?:[^\[\]\\]|\\.)*\](?=:)", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r"\$|\\(?:\\|begin)")
_AROUND = ".,;:!?\"'()[]*_~>`"
_ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)[^\s<]*", re.IGNORECASE)
_FENCE_LINE = re.compile(r"^([ \t>*+\-\d.)]*(?:`{3,}(?=[^`\n]*$)|~{3,}))([^\n]*)", re.MULTILINE)
_LANGUAGE = re.compile(r"[ \t]*(?!mermaid)[\w+#.-]*", re.IGNORECASE)
_SEPARATOR = re.compile(r":?-+:?")
_DEEP = re.compile(r"(?:[ \t]*(?:>|[-+*][ \t]|\d{1,9}[.)][ \t])){50}|[ \t]{200}")
_SIGNS = str.maketrans({sign: f"&#{ord(sign)};" for sign in "[]`~$\\@"})
ZERO_WIDTH = "\u200b"


def laid_out(text: str) -> str:
    """The beginning of an answer as Markdown that a page can show: harmless, and laid out in no time.

    What would hold up the page for seconds is shown as it was written.
    """
    shown = _LINE_END.sub("\n", text[:MOST])
    return _as_code("", shown) if _is_costly(shown) else harmless(shown)


def harmless(text: str) -> str:
    """The text with nothing in it that a page could run or fetch.

    A zero-width space goes behind each `<` that could open a tag, behind the `!` of an image (whose address would be
    fetched from the network when the page shows it), and into a link whose address is none of the web's (`javascript:`).
    It is invisible in prose. Code is not changed, as somebody may copy it: a fenced block in which anything is live is
    written as HTML, with all signs of it escaped. Diagrams are shown as their text, since drawing them fetches the pictures
    that they name. A block that is still open is closed. The sole `text/plain` is exact.
    """
    shown: list[str] = []
    block: list[str] = []
    scanner = BlockScanner()
    for line in _LINE_END.sub("\n", text).split("\n"):
        before = scanner.fence
        scanner.feed(line)
        if bool(before) == bool(scanner.fence):
            block.append(line)
        else:
            shown += _shown(before, block)
            block = []
    shown += _shown(scanner.fence, block)
    return "\n".join(shown)


def _shown(opening: str, lines: list[str]) -> list[str]:
    """Some lines as they are shown: prose, or code behind the line that opens it."""
    if opening:
        return [_fenced(opening, lines)]
    return [_without_life("\n".join(lines))] if lines else []


def _without_life(text: str) -> str:
    """Markdown outside of fences as it is safe in any place."""
    text = _DEFINITION.sub(_defused, _LIVE.sub(_defused, text))
    return _ADDRESS.sub(_plain_address, _FENCE_LINE.sub(_plain_fence, text))


def _is_live(code: str) -> bool:
    """Whether it would be more than text where a renderer sees no code in it."""
    return (
        bool(_LIVE_CODE.search(code) or _DEFINITION.search(code))
        or _FENCE_LINE.sub(_plain_fence, code) != code
        or any(_FORMULA.search(address) for address in _ADDRESS.findall(code))
    )


def _defused(match: re.Match[str]) -> str:
    return match[0] + ZERO_WIDTH


def _plain_fence(match: re.Match[str]) -> str:
    """A line that opens code, with nothing in it but the language: JupyterLab does not escape it."""
    language = _LANGUAGE.match(match[2])
    return match[1] + (language[0] if language is not None else "")


def _plain_address(match: re.Match[str]) -> str:
    """An address, which is no link where JupyterLab would put a formula into it, or take it for that of a file."""
    if not _FORMULA.search(match[0]) and not set("\"'>") & set(match[0].rstrip(_AROUND)):
        return match[0]
    return match[0].replace(":", f":{ZERO_WIDTH}").replace(".", f".{ZERO_WIDTH}")


def _fenced(opening: str, lines: list[str]) -> str:
    """A block of code; `opening` is its first line. What would let it read as other code than it is can be seen in it."""
    opening, text = _FENCE_LINE.sub(_plain_fence, opening), visible("\n".join(lines))
    language = opening.lstrip("`~").strip()
    if _is_live(text) or _is_costly(text):
        return _as_code(language, text)
    marks = opening[: len(opening) - len(opening.lstrip(opening[0]))]
    return "\n".join([opening, *([text] if lines else []), marks])


def _as_code(language: str, text: str) -> str:
    """Code as HTML; its signs mean nothing to any renderer."""
    kind = f' class="language-{language}"' if language else ""
    return f"<pre><code{kind}>{html.escape(text).translate(_SIGNS)}</code></pre>\n"


def _is_costly(text: str) -> bool:
    """Whether a page would take seconds for the text as Markdown, or would fail."""
    scanner = BlockScanner()
    lines = block = widest = cells = formulas = 0
    has_formula = False
    for line in text.split("\n"):
        scanner.feed(line)
        if scanner.fence or not line.strip():
            block, widest, has_formula = 0, 0, False
            continue
        lines, block, widest = lines + 1, block + len(line), max(widest, line.count("|"))
        has_formula = has_formula or _FORMULA.search(line) is not None
        cells, formulas = cells + widest, formulas + len(line) * has_formula
        is_long = lines > MOST_LINES or cells > MOST_CELLS or max(block, formulas) > LONGEST
        if is_long or _DEEP.match(line):
            return True
    return False


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
        elif self.table is None and "|" in self._previous and _is_separator(line):
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


def _is_separator(line: str) -> bool:
    """Whether it is the line between the head of a table and its rows."""
    cells = line.strip().removeprefix("|").removesuffix("|").split("|")
    return all(_SEPARATOR.fullmatch(cell.strip()) for cell in cells)


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
