"""One question on its way to one contender, for whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum

from llm_jupyter.comparison.trial import Trial
from llm_jupyter.errors import LLMError
from llm_jupyter.types import Chunk


class LaneState(StrEnum):
    """How far a question is."""

    WAITING = "waiting"
    QUEUED = "queued"
    ASKING = "asking"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Growing:
    """A text that one thread adds to and others read. `pieces` only grows: who reads on remembers how far it was."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._joined = ("", 0)

    def add(self, piece: str) -> None:
        """Add what has come."""
        if piece:
            self.pieces.append(piece)

    def __str__(self) -> str:
        text, count = self._joined
        if count < (now := len(self.pieces)):
            text += "".join(self.pieces[count:now])
            self._joined = (text, now)  # in one step: another thread may read as well
        return text


class Lane:
    """One question to one contender. It is written on the event loop, and may be read from any thread, often.

    `model` is the full name of who is asked once that is known, `text` and `thinking` what has come so far, `tokens` how
    many pieces that was, `first_token` and `seconds` (since its turn came, or how long it has waited for it) in seconds.
    `trial` is there when it is over.
    """

    def __init__(self, prompt: int, contender: str, repeat: int, model: str) -> None:
        self.prompt = prompt
        self.contender = contender
        self.repeat = repeat
        self.model = model
        self.state = LaneState.WAITING
        self.text_pieces = Growing()
        self.thinking_pieces = Growing()
        self.tokens = 0
        self.first_token: float | None = None
        self.is_replayed = False
        self.trial: Trial | None = None
        self.failure: LLMError | None = None
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Its round: earlier ones are asked first."""
        return self.repeat, self.prompt

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.trial.answer if self.trial is not None else str(self.text_pieces)

    @property
    def thinking(self) -> str:
        """The thinking so far."""
        return self.trial.thinking if self.trial is not None else str(self.thinking_pieces)

    @property
    def error(self) -> list[str]:
        """Why it failed and what to do about it, in lines; none where it did not. A file keeps only the first of them."""
        if self.failure is not None:
            return self.failure.lines()
        return [self.trial.error] if self.trial is not None and self.trial.error else []

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.trial is not None

    @property
    def seconds(self) -> float:
        """How long it has been in hand."""
        if self._began is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._began

    # -- what the run does with it

    def queue(self, model: str) -> None:
        """It waits for its turn at the server of that model."""
        self.model, self.state, self._began = model, LaneState.QUEUED, time.monotonic()

    def ask(self) -> float | None:
        """Its turn has come; the seconds that it waited, `None` where it stood in no queue."""
        now = time.monotonic()
        waited = None if self._began is None else now - self._began
        self.state, self._began = LaneState.ASKING, now
        return waited

    def take(self, batch: Sequence[Chunk]) -> None:
        """Pieces of the answer have come."""
        self.state = LaneState.STREAMING
        self.tokens += sum(1 for chunk in batch if chunk.text or chunk.thinking)
        self.text_pieces.add("".join(chunk.text for chunk in batch))
        self.thinking_pieces.add("".join(chunk.thinking for chunk in batch))

    def end(self, trial: Trial, state: LaneState) -> None:
        """It is over; `trial` is what is kept of it."""
        self._ended = time.monotonic()
        self.trial, self.state, self.first_token = trial, state, trial.first_token
