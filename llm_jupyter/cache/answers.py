"""Answers that are kept: whole ones only, in the pieces that they came in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from llm_jupyter.cache.request import Request, Who, whole
from llm_jupyter.types import Chunk, FinishReason, Timing, ToolCallDelta, Usage

WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER})
"""How an answer ends that the model itself ended."""


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one chunk said."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class Kept(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A whole answer: to which question, whose, and in which pieces.

    A piece that is text alone is a plain string. `reported` is the model as the server called it, where it differs.
    `created` is when it came, in seconds since the epoch; a recording does not hold it. `timing` is what was measured then,
    to a thousandth. Raises `ValueError` for an answer that no model ended.
    """

    request: Request
    who: Who
    provider: str
    is_local: bool = True
    pieces: tuple[str | Piece, ...]
    finish_reason: FinishReason
    usage: Usage = Usage()
    timing: Timing = Timing()
    reported: str | None = None
    created: float | None = None

    def __post_init__(self) -> None:
        if self.finish_reason not in WHOLE:
            raise ValueError(f"an answer that ended with {self.finish_reason} is not whole")

    @property
    def full_name(self) -> str:
        """`provider/model`, as people type it, or the path of a model that is named by one."""
        return self.who.model if Path(self.who.model).is_absolute() else f"{self.provider}/{self.who.model}"

    def is_of(self, wanted: str | None) -> bool:
        """Whether the model that is wanted gave it: `provider/model`, a model or a provider; `None` is any."""
        if wanted is None:
            return True
        names = (self.provider, self.who.model, self.full_name)
        return _file_name(wanted).removesuffix(":latest") in {_file_name(n).removesuffix(":latest") for n in names}

    def shareable(self) -> Kept:
        """As a recording holds it: without what changes from run to run or belongs to one machine."""
        who = msgspec.structs.replace(self.who, model=_file_name(self.who.model), settings=None)
        reported = (
            None if self.reported is None or _file_name(self.reported) == who.model else _file_name(self.reported)
        )
        usage = msgspec.structs.replace(self.usage, cached_tokens=None)
        return msgspec.structs.replace(self, who=who, reported=reported, usage=usage, created=None)

    def says_as(self, other: Kept) -> bool:
        """Whether both are the same answer, however long either took."""
        return msgspec.structs.replace(self, timing=other.timing) == other

    def chunks(self) -> list[Chunk]:
        """The answer as it came, one chunk for each piece; one more tells how it ended."""
        said = [
            Chunk(piece) if isinstance(piece, str) else Chunk(piece.text, piece.thinking, piece.tool_calls)
            for piece in self.pieces
        ]
        end = Chunk(finish_reason=self.finish_reason, usage=self.usage, timing=self.timing, model=self.reported)
        return [*said, end]


class Recorder:
    """Listens to a stream. What broke off leaves nothing: whoever sees the stream end well asks for what was `kept`."""

    def __init__(self) -> None:
        self._pieces: list[str | Piece] = []
        self._finish: FinishReason | None = None
        self._usage = Usage()
        self._timing = Timing()
        self._model: str | None = None

    def feed(self, chunks: Iterable[Chunk]) -> None:
        """Take in what has arrived."""
        for chunk in chunks:
            if chunk.thinking or chunk.tool_calls:
                calls = tuple(_whole_call(call) for call in chunk.tool_calls)
                self._pieces.append(Piece(whole(chunk.text), whole(chunk.thinking), calls))
            elif chunk.text:
                self._pieces.append(whole(chunk.text))
            self._finish = chunk.finish_reason or self._finish
            self._usage = chunk.usage or self._usage
            self._timing = chunk.timing or self._timing
            self._model = chunk.model or self._model

    def kept(self, request: Request, who: Who, *, provider: str, is_local: bool, created: float) -> Kept | None:
        """The answer; `None` if the model did not end it itself."""
        if self._finish not in WHOLE:
            return None
        return Kept(
            request=request, who=who, provider=provider, is_local=is_local, pieces=tuple(self._pieces),
            finish_reason=self._finish, usage=self._usage, timing=_shortened(self._timing), created=created,
            reported=None if self._model == who.model else self._model,
        )  # fmt: skip


def _whole_call(call: ToolCallDelta) -> ToolCallDelta:
    return ToolCallDelta(call.index, whole(call.id), whole(call.name), whole(call.arguments))


def _shortened(timing: Timing) -> Timing:
    """The figures that people compare, in digits that mean something; JSON knows no infinite ones."""
    figures = timing.first_token, timing.total, timing.tokens_per_second
    first, total, speed = (None if n is None or not math.isfinite(n) else round(n, 3) for n in figures)
    return Timing(first_token=first, total=total, tokens_per_second=speed)


def _file_name(model: str) -> str:
    """The model's name; of a path the last part, since folders differ from machine to machine and name their owner."""
    return Path(model).name if Path(model).is_absolute() else model
