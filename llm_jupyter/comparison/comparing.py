"""`compare(...)`: for programs without a loop of their own, and for notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from llm_jupyter.comparison.comparison import Comparison
from llm_jupyter.comparison.contender import ContenderLike, contenders_of, options_of
from llm_jupyter.comparison.running import beats
from llm_jupyter.errors import AnswerInterrupted
from llm_jupyter.factory import LLMFactory
from llm_jupyter.here import Here, here
from llm_jupyter.types import GenerationOptions, Message

INTERVAL = 1 / 13
"""Seconds between two looks at what is under way."""

PLACE = "comparison"
"""What stands for a conversation where the cell is asked for: what a conversation is told once is not told to us."""

OnTick = Callable[[Comparison], object]


class ComparisonInterrupted(AnswerInterrupted):
    """The person stopped a comparison; `comparison` is what had arrived."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("stopped; what had arrived is kept", next_step="It is in the error's .comparison.")
        self.comparison = comparison


def compare(
    prompts: str | Message | Sequence[str | Message], models: ContenderLike | Sequence[ContenderLike], *,
    system: str | None = None, repeats: int = 1, options: GenerationOptions | None = None, parallel: int | None = None,
    llm: LLMFactory | None = None, on_tick: OnTick | None = None, **settings: Any,
) -> Comparison:  # fmt: skip
    """Ask several models the same, and return what each answered, how fast, and what failed.

        compare("What is a monad?", ["embedded", {"model": "ollama/qwen3:4b", "temperature": 0}], repeats=3)

    A model is named as for `-m`. `settings` are those of `GenerationOptions`, for all that set nothing else, as are `options`
    and `system`. Every prompt is asked `repeats` times; `parallel` is as for `run`. `on_tick` is called with the comparison a
    dozen times a second, and once when it is over; without it a notebook shows a line of progress. `llm` are the services that
    are asked: those of the loaded extension by default, else ones that are closed afterwards. In a program with a loop of its
    own, await `run`.

    Raises `InvalidInputError`, and `ComparisonInterrupted` with all that had arrived when the person stops it. A model that is
    not there or fails is a row with its error.
    """
    asked = options_of(settings).merged_over(options or GenerationOptions())
    comparison = Comparison(prompts, contenders_of(models, options=asked, system=system), repeats=repeats)
    kernel = here() if llm is None else None
    with contextlib.ExitStack() as stack:
        if kernel is not None:
            kernel.comparison = comparison
            llm = kernel.factory
        llm = llm.open() if llm is not None else stack.enter_context(LLMFactory())
        show = on_tick or _progress(kernel, llm)
        session, place = (kernel.session(), kernel.place(PLACE, asks=False)) if kernel is not None else (None, None)
        try:
            for _ in beats(comparison, llm, interval=INTERVAL, session=session, parallel=parallel, place=place):
                show(comparison)
        except KeyboardInterrupt:
            raise ComparisonInterrupted(comparison) from None
        finally:
            show(comparison)
    return comparison


def progress(comparison: Comparison) -> str:
    """How far it is, in a line."""
    lanes = comparison.progress
    over = sum(lane.is_over for lane in lanes)
    failed = sum(lane.failure is not None for lane in lanes)
    return f"{over} of {len(lanes)} answers" + (f", {failed} failed" if failed else "")


def _progress(kernel: Here | None, llm: LLMFactory) -> OnTick:
    """A line in the notebook, where there is one to write it and something to wait for."""
    if kernel is None or llm.cache.mode == "replay" or kernel.display_setting("stream") == "final":
        return lambda comparison: None
    line = kernel.progress_line()
    return lambda comparison: line(progress(comparison))
