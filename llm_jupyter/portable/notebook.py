"""A conversation from its notebook alone: the prompts stand in the cells, the answers in their outputs.

This is how a conversation goes on where there is no store of it: on another machine, at a colleague's, from a forge.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from llm_jupyter.documents import METADATA_KEY, decoded, is_cell_id
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import FinishReason, LLMResponse, Timing, Usage

EMPTY_ANSWER = "(The answer is empty.)"
"""What a notebook shows, as plain text, for an answer that says nothing."""

SWITCHES = frozenset(
    {"--think", "--no-think", "-q", "--quiet", "--no-history", "--raw", "--append", "--private", "--dry-run", "--save-prompt"}
)  # fmt: skip
"""The options of `%chat` that take no value; every other one does."""

_CELL = re.compile(r"(?:[ \t]*\r?\n)*%%chat(?:[ \t]+([^\r\n]*))?\r?\n(.+)", re.DOTALL)
_LINE = re.compile(r"^[ \t]*%(chat|llm)[ \t]+((?:[^\n]*\\\n(?!\Z))*[^\n]*)", re.MULTILINE)
_FLAG = re.compile(r"(--?[A-Za-z][\w-]*)(?==|\s|$)")
_VALUE = re.compile(r"(?:=|\s*)(?:\"((?:[^\"\\]|\\.)*)\"(?=\s|$)|'((?:[^'\\]|\\.)*)'(?=\s|$)|(\S*))")


Kind = Literal["turn", "aside", "again", "quiet"]


class RebuiltTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its answers, as a notebook holds them; the last answer counts.

    `id` and `session` are those under which it was asked, `None` where the notebook does not tell. `lacks` names the
    variables whose values were filled into the prompt and are not saved in the notebook.
    """

    prompt: str
    answers: tuple[LLMResponse, ...] = ()
    system: str | None = None
    cell: str | None = None
    id: str | None = None
    session: str | None = None
    lacks: tuple[str, ...] = ()


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation of a notebook: its turns in the document's order, and the questions that have no answer in it."""

    turns: tuple[RebuiltTurn, ...] = ()
    unanswered: tuple[RebuiltTurn, ...] = ()

    @property
    def incomplete(self) -> tuple[RebuiltTurn, ...]:
        """The turns whose prompt is not whole."""
        return tuple(turn for turn in self.turns if turn.lacks)


class _Data(msgspec.Struct, frozen=True):
    plain: str | list[str] | None = msgspec.field(name="text/plain", default=None)
    markdown: str | list[str] | None = msgspec.field(name="text/markdown", default=None)


class _Metadata(msgspec.Struct, frozen=True):
    ours: Any = msgspec.field(name=METADATA_KEY, default=None)


class _Output(msgspec.Struct, frozen=True):
    data: _Data | None = None
    metadata: _Metadata | None = None


class _Cell(msgspec.Struct, frozen=True):
    cell_type: str
    source: str | list[str] = ""
    id: Any = None
    outputs: tuple[_Output, ...] = ()


class _Notebook(msgspec.Struct, frozen=True):
    nbformat: int
    cells: tuple[_Cell, ...]


class _Saved(msgspec.Struct, frozen=True):
    """What an answer's output says about it. `turn_id` is what `turn` was called before conversations were kept."""

    finish_reason: str
    model: str = ""
    provider: str = ""
    is_local: bool = True
    session: str | None = None
    turn: str | None = None
    turn_id: str | None = None
    filled: tuple[str, ...] = ()
    prompt: str | None = None
    private: bool = False
    tried: tuple[str, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()


class _Asking(msgspec.Struct, frozen=True):
    """One place in a cell that asks: a turn of the conversation, one beside it, the last turn again, or one turn whose
    answer is not shown. `conversation` is the name that it was asked under, `None` for the notebook's own.
    """

    kind: Kind
    prompt: str = ""
    system: str | None = None
    conversation: str | None = None


def conversation_of(path: Path) -> Rebuilt:
    """The conversation that a saved notebook shows: its own one, or the first with a name where each question has one.

    Raises `InvalidInputError` if no notebook can be read there.
    """
    found = decoded(path, _Notebook)
    if found is None or found[0].nbformat != 4:
        raise InvalidInputError(
            f"no notebook can be read from {path}", next_step="Give the path of a saved .ipynb file."
        )
    cells = [(cell, list(_askings(_joined(cell.source)))) for cell in found[0].cells if cell.cell_type == "code"]
    names = [one.conversation for _, askings in cells for one in askings if one.kind in ("turn", "quiet")]
    name = None if None in names else next(iter(names), None)
    rebuilding = _Rebuilding()
    for cell, askings in cells:
        rebuilding.take(cell, [shown for one in askings if (shown := _as_of(name, one))])
    return Rebuilt(turns=tuple(rebuilding.turns), unanswered=tuple(rebuilding.unanswered))


class _Rebuilding:
    """Takes cell after cell."""

    def __init__(self) -> None:
        self.turns: list[RebuiltTurn] = []
        self.unanswered: list[RebuiltTurn] = []
        self._positions: dict[str, int] = {}

    def take(self, cell: _Cell, askings: Sequence[_Asking]) -> None:
        """Bring together what a cell asks and what it shows, in order. A loop shows more than once what it asks."""
        shown = [asking for asking in askings if asking.kind != "quiet"]
        answers = [(saved, _text(output)) for output in cell.outputs if (saved := _saved(output))]
        name = cell.id if is_cell_id(cell.id) else None
        for asking, (saved, text) in zip(itertools.cycle(shown), answers, strict=False):
            self._answered(asking, name, saved, text)
        for asking in [*shown[len(answers) :], *(asking for asking in askings if asking.kind == "quiet")]:
            self._not_answered(asking, name)

    def _answered(self, asking: _Asking, cell: str | None, saved: _Saved, text: str) -> None:
        if saved.private:
            return
        turn_id = saved.turn or saved.turn_id
        position = self._positions.get(turn_id or "")
        if asking.kind == "again" and turn_id is None and self.turns:
            position = len(self.turns) - 1  # a notebook that was cleaned of ids
        if asking.kind == "again" and position is not None:
            turn = self.turns[position]
            self.turns[position] = msgspec.structs.replace(turn, answers=(*turn.answers, _response(saved, text)))
        elif asking.kind == "turn" and position is not None:
            # A copied cell: what it shows is the answer of the cell that it was copied from.
            self._not_answered(asking, cell)
        elif asking.kind == "turn":
            if turn_id:
                self._positions[turn_id] = len(self.turns)
            prompt, lacks = (asking.prompt, saved.filled) if saved.prompt is None else (saved.prompt, ())
            self.turns.append(
                RebuiltTurn(
                    prompt=prompt, system=asking.system, cell=cell, id=turn_id, session=saved.session, lacks=lacks,
                    answers=(_response(saved, text),),
                )
            )  # fmt: skip

    def _not_answered(self, asking: _Asking, cell: str | None) -> None:
        if asking.kind in ("turn", "quiet"):
            self.unanswered.append(RebuiltTurn(prompt=asking.prompt, system=asking.system, cell=cell))


def _saved(output: _Output) -> _Saved | None:
    """What an output says about the answer that it shows, `None` if it is no answer of ours."""
    try:
        return msgspec.convert(output.metadata.ours if output.metadata else None, _Saved)
    except msgspec.ValidationError:
        return None


def _response(saved: _Saved, text: str) -> LLMResponse:
    reason = next((reason for reason in FinishReason if reason == saved.finish_reason), FinishReason.OTHER)
    return LLMResponse(
        text=text, finish_reason=reason, model=saved.model, provider=saved.provider, is_local=saved.is_local,
        tried=saved.tried, usage=saved.usage, timing=saved.timing,
    )  # fmt: skip


def _text(output: _Output) -> str:
    """An answer as the model gave it: plain text is exact, Markdown was made harmless for pages."""
    data = output.data or _Data()
    text = _joined(data.markdown or "" if data.plain is None else data.plain)
    return "" if text == EMPTY_ANSWER else text


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _as_of(name: str | None, asking: _Asking) -> _Asking | None:
    """What a place that asks is to the conversation of that name: a question of another one stands beside it."""
    if asking.kind not in ("turn", "quiet") or asking.conversation == name:
        return asking
    return msgspec.structs.replace(asking, kind="aside") if asking.kind == "turn" else None


def _askings(source: str) -> Iterator[_Asking]:
    """What a cell asks, in the order of its text."""
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
                yield _Asking("again")


def _asked(options: dict[str, str], prompt: str) -> Iterator[_Asking]:
    """One question, unless it is refused or only looked at."""
    is_aside, is_quiet = bool(options.keys() & {"--no-history", "--private"}), bool(options.keys() & {"-q", "--quiet"})
    if prompt.strip() and "--dry-run" not in options and not (is_aside and is_quiet):
        kind: Kind = "aside" if is_aside else "quiet" if is_quiet else "turn"
        yield _Asking(kind, prompt, options.get("--system"), options.get("-s", options.get("--session")))


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
