"""Cells that ran before a question, as the kernel remembers them: their source, and what they gave if that is short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llm_jupyter.filling.cutting import cut
from llm_jupyter.filling.steady import steady
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.transform import MAGICS

SHORT = 500
"""Characters of a result that are still shown; a longer one is cut."""

BYTES_PER_TOKEN = 3
"""A cautious guess."""

MOST_NAMES = 3
"""Cells that are named one by one where it is said which were added."""

LONGEST_TITLE = 40

_OURS = re.compile(rf"(?:^|=)[ \t]*%%?(?:{'|'.join({*MAGICS['line'], *MAGICS['cell']})})\b", re.MULTILINE)
_SETTING_UP = re.compile(
    r"^[ \t]*%(?:(?:re|un)?load_ext[ \t]+llm_jupyter[ \t]*|config[ \t]+LLMMagics\b[^\n]*)(?:\n|\Z)", re.MULTILINE
)
_LOADED = re.compile(r"The llm_jupyter extension is already loaded\.[^\n]*+(?:\n[^\n]*+\n?)?+")
"""What IPython says when such a cell runs again; the first time it says nothing."""

_BACKTICKS = re.compile("`{3,}")


@dataclass(frozen=True, slots=True)
class CellBefore:
    """A cell that ran: its source, and what it gave.

    Nothing tells under which number it ran. That differs from run to run, and the question shall not.
    """

    source: str
    result: str

    @property
    def title(self) -> str:
        """How people find it: by its first line."""
        line = self.source.partition("\n")[0]
        return f'"{line if len(line) <= LONGEST_TITLE else line[: LONGEST_TITLE - 1] + "…"}"'

    @property
    def length(self) -> int:
        """Characters of it that go along."""
        return len(self.source) + len(self.result)

    @property
    def size(self) -> str:
        """How much of it goes along, in words."""
        return _characters(self.length)

    def text(self) -> str:
        """As a model reads it."""
        result = f"\nIt gave:\n{_fenced(self.result)}\n" if self.result else ""
        return f"{_fenced(self.source, 'python')}\n{result}"


@dataclass(frozen=True, slots=True)
class CellsBefore:
    """The cells that go along, in the order in which they ran; `left_out` had no room."""

    cells: tuple[CellBefore, ...]
    left_out: int = 0

    def text(self) -> str:
        """The beginning of a prompt; empty where there is none of them."""
        if not self.cells:
            return ""
        return "These cells of the notebook ran before:\n\n" + "\n".join(c.text() for c in self.cells) + "\n---\n\n"

    def line(self) -> str:
        """What was added, for people."""
        if not self.cells:
            return "No cells were added: none that counts ran before this one."
        if len(self.cells) <= MOST_NAMES:
            added = ", ".join(f"{cell.title} ({cell.size})" for cell in self.cells)
        else:
            size = _characters(sum(cell.length for cell in self.cells))
            added = f"{len(self.cells)} cells, {self.cells[0].title} to {self.cells[-1].title} ({size})"
        return f"Added: {added}." + (
            f" For want of room without {self.left_out} before these." if self.left_out else ""
        )


def cells_before(kernel: KernelServices, which: str, budget: int) -> CellsBefore:
    """`above`, `last` or a number of the cells that ran before this one.

    The latest go first into the budget of tokens; the first that does not fit ends it, as what would follow is older.
    """
    count = {"above": None, "last": 1}.get(which) if not which.isdigit() else int(which)
    wanted = [cell for cell, _ in zip(_ran(kernel, which == "above"), _numbers(count), strict=False)]
    found: list[CellBefore] = []
    left = budget * BYTES_PER_TOKEN
    for number, source in wanted:
        cell = CellBefore(source if found else cut(source, left), _result(kernel, number))
        left -= len(cell.text().encode(errors="replace"))
        if left < 0 and found:
            break
        found.append(cell)
    return CellsBefore(tuple(reversed(found)), len(wanted) - len(found))


def _numbers(count: int | None) -> Iterator[int]:
    yield from range(count if count is not None else 2**31)


def _ran(kernel: KernelServices, is_above: bool) -> Iterator[tuple[int, str]]:
    """Numbers and sources, the latest first, of a cell that ran several times only the last run.

    Cells with our own magics are the conversation. One that was deleted or, where only those above are wanted, stands
    below in the saved notebook is left out; where nobody tells of cells, each counts. What ran before the extension was
    loaded has no known cell: it is one that ran again if that has the same source.
    """
    sources: Sequence[str] = kernel.shell.history_manager.input_hist_raw if kernel.shell.history_manager else ()
    runs = kernel.runs
    now = runs.number if runs.number is not None else len(sources) - 1
    here = runs.cells.get(now)
    again: set[str] = set()
    passed = {*runs.gone, *([here] if here is not None else []), *(_below(kernel, here) if is_above else ())}
    for number in range(min(len(sources), now) - 1, 0, -1):
        cell, source = runs.cells.get(number), _SETTING_UP.sub("", sources[number]).strip()
        if cell is not None:
            again.add(source)
        if cell in passed or (cell is None and source in again):
            continue
        if cell is not None:
            passed.add(cell)
        if source and not _OURS.search(source):
            yield number, source


def _below(kernel: KernelServices, here: str | None) -> Sequence[str]:
    """The cells that the saved notebook lists below one, if it lists that."""
    document = kernel.session().document
    if document is None or here is None or here in document.repeated or here not in document.cells:
        return ()
    return document.cells[document.cells.index(here) + 1 :]


def _result(kernel: KernelServices, number: int) -> str:
    """What a cell gave, in short, and the same in every run of the same cells."""
    text = steady(_LOADED.sub("", kernel.results.text(number)))
    return text if len(text) <= SHORT else f"{text[:SHORT]}… ({_characters(len(text))} in all)"


def _fenced(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any in it."""
    fence = "`" * max((len(found) + 1 for found in _BACKTICKS.findall(text)), default=3)
    return f"{fence}{language}\n{text}\n{fence}"


def _characters(count: int) -> str:
    return f"{count:,} character{'' if count == 1 else 's'}"
