"""`compare(...)`: for programs without a loop of their own, and for notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from llm_jupyter.comparison.comparison import Comparison
from llm_jupyter.comparison.contender import ContenderLike, contenders_of, options_of
from llm_jupyter.comparison.given import count_of, expect
from llm_jupyter.comparison.plain import progress
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
    """The person stopped a comparison; `comparison` is what had arrived, and `is_kept` whether the kernel has it too."""

    def __init__(self, comparison: Comparison, *, is_kept: bool = False) -> None:
        shows = "%llm dash compare shows it; " if is_kept else ""
        super().__init__(
            "stopped; what had arrived is kept", next_step=f"{shows}import sys; sys.last_value.comparison has it."
        )
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
    if options is not None:
        expect("options", options, GenerationOptions, "GenerationOptions(...)", "Or write compare(..., temperature=0).")
    if llm is not None:
        expect("llm", llm, LLMFactory, "an LLMFactory", "Leave it out, and the services of this kernel are asked.")
    parallel = None if parallel is None else count_of("parallel", parallel)
    asked = options_of(settings).merged_over(options or GenerationOptions())
    comparison = Comparison(prompts, contenders_of(models, options=asked, system=system), repeats=repeats)
    kernel = here() if llm is None else None
    with contextlib.ExitStack() as stack:
        if kernel is not None:
            llm = kernel.factory
        llm = llm.open() if llm is not None else stack.enter_context(LLMFactory())
        show = on_tick or _progress(kernel, llm)
        session = place = None
        if kernel is not None:
            session, place = kernel.session(), kernel.place(PLACE, asks=False)
            kernel.comparison = comparison  # only now: dashboards show what can be asked
        try:
            for _ in beats(comparison, llm, interval=INTERVAL, session=session, parallel=parallel, place=place):
                show(comparison)
        except KeyboardInterrupt:
            raise ComparisonInterrupted(comparison, is_kept=kernel is not None) from None
        finally:
            show(comparison)
    return comparison


def _progress(kernel: Here | None, llm: LLMFactory) -> OnTick:
    """A line in the notebook, where there is one to write it and something to wait for."""
    if kernel is None or llm.cache.is_replaying or kernel.display_setting("stream") == "final":
        return lambda comparison: None
    line = kernel.progress_line()
    return lambda comparison: line(progress(comparison))
