"""A comparison: prompts, contenders, and what came of each with each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from llm_jupyter.comparison.contender import Contender
from llm_jupyter.comparison.difference import Difference
from llm_jupyter.comparison.given import count_of, messages_of
from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.comparison.page import page
from llm_jupyter.comparison.plain import plain
from llm_jupyter.comparison.spread import Spreads
from llm_jupyter.comparison.trial import FAILED, INTERRUPTED, Trial
from llm_jupyter.errors import InvalidInputError, LLMError, StoreError
from llm_jupyter.files import put
from llm_jupyter.types import Message

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_STATES = {FAILED: LaneState.FAILED, INTERRUPTED: LaneState.STOPPED}


class _Head(msgspec.Struct):
    """What every version of the file has."""

    format: int


class Saved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A comparison as its file holds it."""

    format: int
    prompts: tuple[Message, ...]
    contenders: tuple[Contender, ...]
    repeats: int = 1
    trials: tuple[Trial, ...] = ()


FORMAT = 1


class Comparison:
    """What several contenders answer to the same prompts. It grows while it runs, and shows itself in a notebook.

    `progress` is how far each question is, in the order in which they are asked; `trials` are those that are over.
    `messages` are the prompts as they are sent, with their pictures. Raises `InvalidInputError` where there is nothing to
    ask, or a prompt is no text.
    """

    def __init__(
        self, prompts: str | Message | Sequence[str | Message], contenders: Sequence[Contender], *, repeats: int = 1
    ) -> None:
        self.messages, self.contenders = messages_of(prompts), tuple(contenders)
        if not self.messages or not self.contenders:
            raise InvalidInputError("there is nothing to compare", next_step="Give at least one prompt and one model.")
        self.repeats = count_of("repeats", repeats)
        self.progress = tuple(
            Lane(prompt, one.label, repeat, one.model)
            for repeat in range(self.repeats) for prompt in range(len(self.messages)) for one in self.contenders
        )  # fmt: skip
        self.was_stopped = False
        self._cancel: Callable[[], object] | None = None
        self._lock = threading.Lock()

    @property
    def prompts(self) -> tuple[str, ...]:
        """What is asked."""
        return tuple(message.content for message in self.messages)

    @property
    def trials(self) -> list[Trial]:
        """What is over, in the order in which it was asked: by runs, by prompts, by contenders."""
        return [lane.trial for lane in self.progress if lane.trial is not None]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return all(lane.is_over for lane in self.progress)

    @property
    def failure(self) -> LLMError | None:
        """The first error, where every single answer failed in one."""
        failures = [lane.failure for lane in self.progress]
        return failures[0] if all(failures) else None

    def lanes_of(self, label: str) -> list[Lane]:
        """The questions to one contender. Raises `InvalidInputError` for a label that nobody has."""
        if not (lanes := [lane for lane in self.progress if lane.contender == label]):
            labels = ", ".join(one.label for one in self.contenders)
            raise InvalidInputError(f"no contender is called {label!r}", next_step=f"There are: {labels}.")
        return lanes

    def trial(self, label: str, prompt: int = 0, repeat: int = 0) -> Trial:
        """One answer. Raises `InvalidInputError` where there is none."""
        trial = self._lane(label, prompt, repeat).trial
        if trial is None:
            raise InvalidInputError(f"{label} has not answered that yet")
        return trial

    def _lane(self, label: str, prompt: int, repeat: int) -> Lane:
        for lane in self.lanes_of(label):
            if (lane.prompt, lane.repeat) == (prompt, repeat):
                return lane
        raise InvalidInputError(
            f"there is no prompt {prompt} in a run {repeat}",
            next_step=f"Prompts are 0 to {len(self.messages) - 1}, runs 0 to {self.repeats - 1}.",
        )

    # -- while it runs

    def running(self, cancel: Callable[[], object] | None) -> None:
        """It runs from now on, and `cancel`, callable from any thread, stops it; `None`: it runs no longer."""
        self._cancel = cancel
        if cancel is not None and self.was_stopped:
            cancel()

    def stop(self) -> None:
        """Let it end now, from any thread: what has arrived is kept. Idempotent."""
        if self.is_over:
            return
        self.was_stopped = True
        if (cancel := self._cancel) is not None:
            cancel()

    def vote(self, label: str, prompt: int = 0, repeat: int = 0, *, points: int = 1) -> None:
        """Add a person's vote to an answer; `points` of -1 take one back. Raises `InvalidInputError`."""
        lane = self._lane(label, prompt, repeat)
        with self._lock:
            trial = self.trial(label, prompt, repeat)
            lane.trial = msgspec.structs.replace(trial, vote=trial.vote + points)

    # -- looking at it

    def spread(self) -> Spreads:
        """The figures of each contender over all its whole answers: how many, and their median, least and largest."""
        return Spreads.of(self.contenders, self.trials)

    def diff(self, a: str, b: str, prompt: int = 0, repeat: int = 0) -> Difference:
        """How the answers of two contenders differ, word by word. Raises `InvalidInputError`.

        Of one that failed, was interrupted or is empty it says so.
        """
        return Difference.of(self.trial(a, prompt, repeat), self.trial(b, prompt, repeat))

    def to_dataframe(self) -> DataFrame:
        """A row for each answer. Raises `ResourceError` where pandas is missing."""
        from llm_jupyter.comparison.frames import frame

        return frame(self.trials)

    def plot(self) -> Figure:
        """Speed and length of each contender, with their spread. Raises `ResourceError` where matplotlib is missing."""
        from llm_jupyter.comparison.plotting import figure

        return figure(self.spread())

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        return plain(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": plain(self), "text/html": page(self)}

    # -- keeping it

    def save(self, path: str | Path) -> None:
        """Write it down as JSON. Raises `StoreError` where that is not possible."""
        try:
            put(_at(path), msgspec.json.format(msgspec.json.encode(self._saved())))
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` has written. Raises `StoreError` for a file that holds no comparison."""
        try:
            written = _at(path).read_bytes()
            if (told := msgspec.json.decode(written, type=_Head).format) != FORMAT:
                raise StoreError(
                    f"{path} is a comparison of format {told}, and this version reads format {FORMAT}",
                    next_step="Load it with the version that saved it, or a newer one.",
                )
            return cls._of(msgspec.json.decode(written, type=Saved))
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{path} holds no comparison: {_first_line(error)}") from None

    def _saved(self) -> Saved:
        return Saved(
            format=FORMAT, prompts=self.messages, contenders=self.contenders, repeats=self.repeats,
            trials=tuple(self.trials),
        )  # fmt: skip

    @classmethod
    def _of(cls, saved: Saved) -> Self:
        """The comparison that was saved. Raises `InvalidInputError` where its parts do not fit."""
        comparison = cls(saved.prompts, saved.contenders, repeats=saved.repeats)
        for trial in saved.trials:
            lane = comparison._lane(trial.contender, trial.prompt_index, trial.repeat)
            lane.end(trial, _STATES.get(trial.finish, LaneState.DONE))
        return comparison

    def __reduce__(self) -> tuple[Callable[[Saved], Self], tuple[Saved]]:
        """A copy, in memory or pickled, has what a file would hold of it."""
        return type(self)._of, (self._saved(),)


def _at(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))


def _first_line(error: Exception) -> str:
    return error.lines()[0] if isinstance(error, LLMError) else str(error)
