"""What the store keeps and tells, as frozen values. Times are in seconds since the epoch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from llm_jupyter.types import LLMResponse, Message
from llm_jupyter.wording import shortened

QUESTION = 50
"""Characters of a question that stand for a conversation without a name."""


class TurnState(StrEnum):
    """How far a turn has come."""

    PENDING = "pending"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation asks with; `options` are `GenerationOptions` as plain values, only those that are set."""

    model: str | None = None
    system: str | None = None
    options: dict[str, Any] = {}
    context: str | None = None


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation.

    `notebook` is an absolute path, `parent` the conversation that it was forked from, `holder` the living process that
    uses it (`MACHINE.PID.START`). `turns` counts those that have an answer and stand in the context, `question` is the
    beginning of what was asked first; both are filled in on reading and ignored on saving.
    """

    id: str
    name: str | None = None
    created: float
    updated: float
    kernel: str | None = None
    notebook: str | None = None
    parent: str | None = None
    holder: str | None = None
    config: SessionConfig = SessionConfig()
    turns: int = 0
    question: str = ""

    @property
    def title(self) -> str:
        """What it is called where people read of it: its name, its notebook, its first question in quotes, or its id."""
        return self.name or (Path(self.notebook).name if self.notebook else self.quoted or self.id)

    def is_called(self, words: str) -> bool:
        """Whether its title has these words in it, as they stand but in any case."""
        return words.casefold() in self.title.casefold()

    @property
    def quoted(self) -> str:
        """The beginning of its first question on one line, in quotes; empty where there is none."""
        asked = shortened(" ".join(self.question.split()), QUESTION)
        return f"“{asked}”" if asked else ""


class Filled(msgspec.Struct, frozen=True):
    """A variable that was filled into a prompt, with its size in words; its value stands in the prompt alone."""

    name: str
    size: str


class AnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; a turn that calls tools has several, numbered from 1. `is_whole` is false while and where it broke off."""

    number: int
    response: LLMResponse
    created: float
    is_whole: bool


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one turn. Its key is `(session, id)`: a fork keeps the ids.

    `cell` is the cell that asked and `notebook` the path of its notebook, as it is called now: the ids of cells tell
    nothing without it. Both are `None` where nobody told.
    `slot` is its place in the conversation, which all versions of a turn share; exactly one of them `is_current`.
    `left_out` says why it is not in the context now (`""`: it is). `was_saved`: its cell was once seen in the saved
    notebook; `stamp` tells which state of that file was there when it was asked; `under` is the digest of the context
    that it was answered under. `template` is the prompt as typed, where values were `filled` in.
    """

    id: str
    session: str
    slot: str
    version: int = 1
    position: float
    cell: str | None = None
    notebook: str | None = None
    client: str | None = None
    execution: str | None = None
    prompt: Message
    system: str | None = None
    state: TurnState = TurnState.PENDING
    created: float
    is_current: bool = True
    left_out: str = ""
    was_saved: bool = False
    stamp: str = ""
    under: str = ""
    filled: tuple[Filled, ...] = ()
    template: str | None = None
    answers: tuple[AnswerRecord, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a current turn stands, without its texts; `answers` is how many it has."""

    slot: str
    id: str
    cell: str | None
    notebook: str | None
    client: str | None
    position: float
    left_out: str
    was_saved: bool
    stamp: str
    created: float
    under: str
    answers: int


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that a search found, and the words around what was found, in one line."""

    session: SessionRecord
    turn: TurnRecord
    excerpt: str


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed for good; `bytes` is what the store shrank by."""

    sessions: int = 0
    turns: int = 0
    bytes: int = 0


class Fault(StrEnum):
    """What is wrong with a store's file: what stands in it, who wrote it, or that it cannot be opened."""

    DAMAGED = "damaged"
    NEWER = "newer"
    CLOSED = "closed"


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What is there of the store's file. `size` is in bytes; `problem` is empty where nothing is wrong, and `fault` then
    `None`.
    """

    path: Path | None
    exists: bool = False
    size: int = 0
    sessions: int = 0
    turns: int = 0
    journal: str = ""
    is_writable: bool = False
    problem: str = ""
    fault: Fault | None = None
