"""A conversation from its notebook alone: the prompts stand in the cells, the answers in their outputs.

This is how a conversation goes on where there is no store of it: on another machine, at a colleague's, from a forge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llm_jupyter.documents import METADATA_KEY, decoded, is_cell_id
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.portable.questions import AGAIN, Asking, askings_of
from llm_jupyter.types import FinishReason, LLMResponse, Timing, Usage

EMPTY_ANSWER = "(The answer is empty.)"
"""What a notebook shows, as plain text, for an answer that says nothing."""


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
    """The conversation of a notebook: its turns in the document's order, and the questions that have no answer in it.

    `lost` tells of answered turns whose questions do not stand in their cells: the source of the cell, for each of them.
    """

    turns: tuple[RebuiltTurn, ...] = ()
    unanswered: tuple[RebuiltTurn, ...] = ()
    lost: tuple[str, ...] = ()

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
    """What an answer's output says about it. `asked` is what `digest_of` says of the prompt as it was typed, or `AGAIN`;
    `turn_id` is what `turn` was called before conversations were kept.
    """

    finish_reason: str
    model: str = ""
    provider: str = ""
    is_local: bool = True
    session: str | None = None
    turn: str | None = None
    turn_id: str | None = None
    asked: str | None = None
    filled: tuple[str, ...] = ()
    prompt: str | None = None
    private: bool = False
    tried: tuple[str, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()

    @property
    def id(self) -> str | None:
        return self.turn or self.turn_id


class _Lost(NamedTuple):
    """An answered turn whose question was not found."""

    turn: str
    session: str | None
    source: str


def conversation_of(path: Path) -> Rebuilt:
    """The conversation that a saved notebook shows: its own one, or the first with a name where each question has one.

    Raises `InvalidInputError` if no notebook can be read there.
    """
    found = decoded(path, _Notebook)
    if found is None or found[0].nbformat != 4:
        raise InvalidInputError(
            f"no notebook can be read from {path}", next_step="Give the path of a saved .ipynb file."
        )
    cells = [(cell, list(askings_of(_joined(cell.source)))) for cell in found[0].cells if cell.cell_type == "code"]
    names = [one.conversation for _, askings in cells for one in askings if one.kind in ("turn", "quiet")]
    name = None if None in names else next(iter(names), None)
    rebuilding = _Rebuilding()
    for cell, askings in cells:
        rebuilding.take(cell, [shown for one in askings if (shown := _as_of(name, one))])
    return rebuilding.result()


class _Rebuilding:
    """Takes cell after cell."""

    def __init__(self) -> None:
        self._turns: list[RebuiltTurn] = []
        self._unanswered: list[RebuiltTurn] = []
        self._lost: list[_Lost] = []
        self._positions: dict[str, int] = {}

    def result(self) -> Rebuilt:
        """What was found."""
        sessions = {turn.session for turn in self._turns}
        lost = (
            one.source for one in self._lost
            if one.turn not in self._positions and (not sessions or one.session in sessions)
        )  # fmt: skip
        return Rebuilt(turns=tuple(self._turns), unanswered=tuple(self._unanswered), lost=tuple(lost))

    def take(self, cell: _Cell, askings: Sequence[Asking]) -> None:
        """Bring together what a cell asks and what it shows, in order. A loop shows more than once what it asks.

        An answer that says what it was asked answers nothing else: the cell may have been edited since.
        """
        shown = [asking for asking in askings if asking.kind != "quiet"]
        name = cell.id if is_cell_id(cell.id) else None
        answered: set[int] = set()
        after = 0
        for saved, text in _answers(cell):
            places = (*range(after, len(shown)), *range(after))
            place = next((place for place in places if saved.asked in (None, shown[place].asked)), None)
            if place is None:
                self._without_question(cell, saved, text)
                continue
            answered.add(place)
            after = place + 1
            self._answered(shown[place], name, saved, text)
        left = [asking for place, asking in enumerate(shown) if place not in answered]
        for asking in [*left, *(asking for asking in askings if asking.kind == "quiet")]:
            self._not_answered(asking, name)

    def _without_question(self, cell: _Cell, saved: _Saved, text: str) -> None:
        """What was answered does not stand in the cell: it was edited since, or its code asked."""
        if saved.id is None or saved.asked == AGAIN:
            return
        if saved.prompt is None:
            self._lost.append(_Lost(saved.id, saved.session, _joined(cell.source)))
        elif saved.id not in self._positions:
            name = cell.id if is_cell_id(cell.id) else None
            self._answered(Asking("turn", saved.prompt), name, saved, text)

    def _answered(self, asking: Asking, cell: str | None, saved: _Saved, text: str) -> None:
        if saved.private:
            return
        position = self._positions.get(saved.id or "")
        if asking.kind == "again" and saved.id is None and self._turns:
            position = len(self._turns) - 1  # a notebook that was cleaned of ids
        if asking.kind == "again" and position is not None:
            turn = self._turns[position]
            self._turns[position] = msgspec.structs.replace(turn, answers=(*turn.answers, _response(saved, text)))
        elif asking.kind == "turn" and position is not None:
            # A copied cell: what it shows is the answer of the cell that it was copied from.
            self._not_answered(asking, cell)
        elif asking.kind == "turn":
            if saved.id:
                self._positions[saved.id] = len(self._turns)
            prompt, lacks = (asking.prompt, saved.filled) if saved.prompt is None else (saved.prompt, ())
            self._turns.append(
                RebuiltTurn(
                    prompt=prompt, system=asking.system, cell=cell, id=saved.id, session=saved.session, lacks=lacks,
                    answers=(_response(saved, text),),
                )
            )  # fmt: skip

    def _not_answered(self, asking: Asking, cell: str | None) -> None:
        if asking.kind in ("turn", "quiet"):
            self._unanswered.append(RebuiltTurn(prompt=asking.prompt, system=asking.system, cell=cell))


def _answers(cell: _Cell) -> list[tuple[_Saved, str]]:
    """The answers that a cell shows, and their texts."""
    return [(saved, _text(output)) for output in cell.outputs if (saved := _saved(output))]


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


def _as_of(name: str | None, asking: Asking) -> Asking | None:
    """What a place that asks is to the conversation of that name: a question of another one stands beside it."""
    if asking.kind not in ("turn", "quiet") or asking.conversation == name:
        return asking
    return msgspec.structs.replace(asking, kind="aside") if asking.kind == "turn" else None
