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
from llm_jupyter.portable.questions import AGAIN, Asking, askings_of, digest_of
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


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Another conversation that a notebook shows: by which `name` `conversation_of` finds it, how many `turns` of it there
    are, and what the first of them asks.
    """

    name: str
    turns: int
    question: str


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation of a notebook: its turns in the document's order, and the questions that have no answer in it.

    `session` is its id and `forked` those of the conversations that it is a copy of, the nearest first, as far as the
    notebook tells. `lost` tells of answered turns whose questions do not stand in their cells: the source of the cell, for
    each of them. `beside` are the other conversations that the notebook shows.
    """

    turns: tuple[RebuiltTurn, ...] = ()
    unanswered: tuple[RebuiltTurn, ...] = ()
    lost: tuple[str, ...] = ()
    session: str | None = None
    forked: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()

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
    """What an answer's output says about it. `asked` is what `digest_of` says of the prompt as it was typed, or `AGAIN`, and
    `first` what it says where such an answer is the first one to a question, whose own cell shows none. `turn_id` is what `turn` was called before conversations were kept.
    """

    finish_reason: str
    model: str = ""
    provider: str = ""
    is_local: bool = True
    session: str | None = None
    forked: tuple[str, ...] = ()
    turn: str | None = None
    turn_id: str | None = None
    asked: str | None = None
    first: str | None = None
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


def conversation_of(path: Path, which: str | None = None) -> Rebuilt:
    """The conversation that a saved notebook shows: the one that its last answer belongs to, with what that is a copy of.

    Questions that were asked with a name stand beside it, unless each has one; then it is the first of these. `which` asks
    for another one, by its id or by that name. Raises `InvalidInputError` if no notebook can be read there, or if it does
    not show that conversation.
    """
    found = decoded(path, _Notebook)
    if found is None or found[0].nbformat != 4:
        raise InvalidInputError(
            f"no notebook can be read from {path}", next_step="Give the path of a saved .ipynb file."
        )
    cells = [(cell, list(askings_of(_joined(cell.source)))) for cell in found[0].cells if cell.cell_type == "code"]
    names = [one.conversation for _, askings in cells for one in askings if one.kind in ("turn", "quiet")]
    rebuilding = _Rebuilding()
    for cell, askings in cells:
        rebuilding.take(cell, askings)
    if which is None:
        return rebuilding.result(None if None in names else next(iter(names), None))
    if (shown := rebuilding.named(which)) is None:
        raise InvalidInputError(
            f"{path.name} shows no conversation {which[:60]!r}",
            next_step="%llm session resume alone says what it shows.",
        )
    return shown


class _Named(NamedTuple):
    """A turn or question, and the name that its conversation was given by the cell; `None` for the notebook's own."""

    name: str | None
    turn: RebuiltTurn


class _Rebuilding:
    """Takes cell after cell, whatever conversation they ask in."""

    def __init__(self) -> None:
        self._turns: list[_Named] = []
        self._unanswered: list[_Named] = []
        self._lost: list[_Lost] = []
        self._positions: dict[str, int] = {}
        self._forked: dict[str, tuple[str, ...]] = {}

    def result(self, name: str | None) -> Rebuilt:
        """The conversation of that name, `None` for the notebook's own, as its last answer tells which it was by then.

        A copy of it goes on instead of it: the notebook was copied, and some of its cells have run since.
        """
        last = next((turn.session for label, turn in reversed(self._turns) if label == name), None)
        copies = [one for one, forked in self._forked.items() if last in forked]
        return self._of(copies[-1] if copies else last, name)

    def named(self, which: str) -> Rebuilt | None:
        """The one of that id, else the one of that name; `None` where neither is shown."""
        for label, turn in self._turns:
            if which == turn.session:
                return self._of(which, label)
        return self.result(which) if any(which == label for label, _ in self._turns) else None

    def _of(self, session: str | None, name: str | None) -> Rebuilt:
        """A conversation by its id; what does not tell its own is of the name."""
        forked = self._forked.get(session or "", ())
        family = {session, *forked} - {None}
        turns: list[RebuiltTurn] = []
        beside: dict[str, list[RebuiltTurn]] = {}
        for label, turn in self._turns:
            if turn.session in family or (turn.session is None and label == name):
                turns.append(turn)
            else:
                beside.setdefault(label or turn.session or "", []).append(turn)
        lost = (
            one.source for one in self._lost if one.turn not in self._positions and (not family or one.session in family)
        )  # fmt: skip
        return Rebuilt(
            turns=tuple(turns), unanswered=tuple(turn for label, turn in self._unanswered if label == name),
            lost=tuple(lost), session=session, forked=forked,
            beside=tuple(
                Beside(name=name, turns=len(turns), question=turns[0].prompt) for name, turns in beside.items() if name
            ),
        )  # fmt: skip

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
        if saved.session:
            self._forked[saved.session] = saved.forked or self._forked.get(saved.session, ())
        position = self._positions.get(saved.id or "")
        if asking.kind == "again" and saved.id is None and self._turns:
            position = len(self._turns) - 1  # a notebook that was cleaned of ids
        if asking.kind == "again" and position is None:
            self._answered_later(saved, text)
        if asking.kind == "again" and position is not None:
            name, turn = self._turns[position]
            again = msgspec.structs.replace(turn, answers=(*turn.answers, _response(saved, text)))
            self._turns[position] = _Named(name, again)
        elif asking.kind == "turn" and position is not None:
            # A copied cell: what it shows is the answer of the cell that it was copied from.
            self._not_answered(asking, cell)
        elif asking.kind == "turn":
            if saved.id:
                self._positions[saved.id] = len(self._turns)
            prompt, lacks = (asking.prompt, saved.filled) if saved.prompt is None else (saved.prompt, ())
            turn = RebuiltTurn(
                prompt=prompt, system=asking.system, cell=cell, id=saved.id, session=saved.session, lacks=lacks,
                answers=(_response(saved, text),),
            )  # fmt: skip
            self._turns.append(_Named(asking.conversation, turn))

    def _answered_later(self, saved: _Saved, text: str) -> None:
        """A question that failed in its own cell, and was then asked again from another one."""
        for number, (name, turn) in reversed(list(enumerate(self._unanswered))):
            if saved.first == digest_of(turn.prompt):
                del self._unanswered[number]
                self._answered(Asking("turn", turn.prompt, turn.system, name), turn.cell, saved, text)
                return

    def _not_answered(self, asking: Asking, cell: str | None) -> None:
        if asking.kind in ("turn", "quiet"):
            turn = RebuiltTurn(prompt=asking.prompt, system=asking.system, cell=cell)
            self._unanswered.append(_Named(asking.conversation, turn))


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
