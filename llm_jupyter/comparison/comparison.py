"""A comparison: prompts, contenders, and what came of each with each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from llm_jupyter.comparison.contender import Contender
from llm_jupyter.comparison.difference import Difference
from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.comparison.page import page
from llm_jupyter.comparison.plain import plain
from llm_jupyter.comparison.spread import Spreads
from llm_jupyter.comparison.trial import FAILED, INTERRUPTED, Trial
from llm_jupyter.errors import InvalidInputError, LLMError, StoreError
from llm_jupyter.types import Message

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_STATES = {FAILED: LaneState.FAILED, INTERRUPTED: LaneState.STOPPED}


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
    `messages` are the prompts as they are sent, with their pictures. Raises `InvalidInputError` for an empty one.
    """

    def __init__(
        self, prompts: str | Message | Sequence[str | Message], contenders: Sequence[Contender], *, repeats: int = 1
    ) -> None:
        several = [prompts] if isinstance(prompts, str | Message) else list(prompts)
        if not several or not contenders:
            raise InvalidInputError("there is nothing to compare", next_step="Give at least one prompt and one model.")
        if repeats < 1:
            raise InvalidInputError(f"each prompt is asked at least once, not {repeats} times")
        self.messages = tuple(Message.user(one) if isinstance(one, str) else one for one in several)
        self.contenders = tuple(contenders)
        self.repeats = repeats
        self.progress = tuple(
            Lane(prompt, one.label, repeat, one.model)
            for repeat in range(repeats) for prompt in range(len(self.messages)) for one in contenders
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
        """The figures of each contender over all its answers: how many, and their median, least and largest."""
        return Spreads.of(self.contenders, self.trials)

    def diff(self, a: str, b: str, prompt: int = 0, repeat: int = 0) -> Difference:
        """How the answers of two contenders differ, word by word. Raises `InvalidInputError`."""
        one, other = self.trial(a, prompt, repeat), self.trial(b, prompt, repeat)
        return Difference(a, b, one.answer, other.answer)

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
        saved = Saved(
            format=FORMAT, prompts=self.messages, contenders=self.contenders, repeats=self.repeats,
            trials=tuple(self.trials),
        )  # fmt: skip
        try:
            Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(saved)))
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` has written. Raises `StoreError` for a file that holds no comparison."""
        try:
            saved = msgspec.json.decode(Path(path).read_bytes(), type=Saved)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{path} holds no comparison: {error}") from None
        comparison = cls(saved.prompts, saved.contenders, repeats=saved.repeats)
        for trial in saved.trials:
            lane = comparison._lane(trial.contender, trial.prompt_index, trial.repeat)
            lane.end(trial, _STATES.get(trial.finish, LaneState.DONE))
        return comparison
