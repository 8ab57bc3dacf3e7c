"""`%%compare`: one prompt to several models, side by side."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import IO, Any, Protocol

from llm_jupyter.comparison import Comparison, Contender, beats, contenders_of
from llm_jupyter.comparison.comparing import PLACE
from llm_jupyter.comparison.page import growing, page
from llm_jupyter.comparison.plain import answers, plain, progress, under_way
from llm_jupyter.errors import AnswerInterrupted, InvalidInputError
from llm_jupyter.magics.args import COMPARED, OF_A_CONTENDER, options_alone, parse
from llm_jupyter.magics.chat import KEPT, generation_options
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.output import ReplacedOutput
from llm_jupyter.magics.prompting import prompted
from llm_jupyter.magics.render import FIRST_NOTICE, UPDATE_INTERVAL, Budget, OverwrittenLine
from llm_jupyter.sessions.answering import TOO_EARLY

MAGIC = "%%compare"
INSTEAD = "Each model goes after a -m of its own; the prompt goes on the lines below."
EXAMPLE = (
    '%%compare -m embedded -m ollama/qwen3:4b, or one model under two settings: -m "embedded -t 0" -m "embedded -t 1"'
)


class View(Protocol):
    """Where a comparison is shown. The caller comes by in regular beats."""

    def beat(self, comparison: Comparison) -> None:
        """It is under way."""

    def finish(self, comparison: Comparison, notes: Sequence[str]) -> None:
        """It is over, and stays so."""


def compare(kernel: KernelServices, line: str, cell: str | None) -> None:
    """`%%compare`. A model that fails is a column; the cell fails where all do. As a line it tells how it is used.

    Raises `InvalidInputError`, `AnswerInterrupted` when the person stops it, and the first error where nobody answered.
    """
    values, prompt = _asked(line, cell)
    contenders = contenders_of(
        [_contender(value) for value in values["models"]],
        options=generation_options(values),
        system=values.get("system"),
    )
    ready = prompted(kernel, prompt, values)
    comparison = kernel.comparison = Comparison(ready.message, contenders, repeats=values.get("repeat", 1))
    if name := values.get("output"):
        kernel.shell.user_ns[name] = comparison
    _watch(kernel, comparison, _view(kernel, quiet=values.get("quiet", False)), ready.notes)
    if (error := comparison.failure) is not None:
        raise error


def _watch(kernel: KernelServices, comparison: Comparison, view: View, notes: Sequence[str]) -> None:
    """Run it, and show it as it grows."""
    session, place = kernel.session(), kernel.place(PLACE, asks=False)
    running = beats(comparison, kernel.factory, interval=UPDATE_INTERVAL, session=session, place=place)
    try:
        with closing(running):
            for _ in running:
                view.beat(comparison)
    except KeyboardInterrupt:
        comparison.was_stopped = True
    view.finish(comparison, notes)
    if comparison.was_stopped:
        has_any = any(lane.text or lane.thinking for lane in comparison.progress)
        raise AnswerInterrupted(KEPT if has_any else TOO_EARLY)


def _asked(line: str, cell: str | None) -> tuple[dict[str, Any], str]:
    """The options and the prompt. Raises `InvalidInputError`."""
    if cell is None:
        parse(line, COMPARED, "%compare")
        raise InvalidInputError(f"%compare asks nobody: it is {MAGIC}, at the beginning of a cell", next_step=INSTEAD)
    values = options_alone(line, COMPARED, MAGIC, lambda surplus: INSTEAD)
    if len(values.get("models", ())) < 2:
        raise InvalidInputError("%%compare needs at least two models", next_step=EXAMPLE)
    prompt = cell.removesuffix("\n")
    if not prompt.strip():
        raise InvalidInputError("%%compare: there is nothing to ask", next_step="Write the prompt on the lines below.")
    return values, prompt


def _contender(value: str) -> Contender:
    """A model and the options behind it, as they stand in the quotes of `-m`."""
    model, _, own = re.sub(r"\s+(?=-)", "\0", value.strip(), count=1).partition("\0")  # a path may have spaces
    values, rest = parse(own, OF_A_CONTENDER, f"%%compare -m {model[:40]}")
    if not model or rest.strip():
        raise InvalidInputError(f"%%compare: -m cannot be {value[:60]!r}", next_step='Write -m "MODEL -t 0 --seed 1".')
    return Contender(model, options=generation_options(values), system=values.get("system"))


def _view(kernel: KernelServices, *, quiet: bool) -> View:
    if quiet:
        return SilentView()
    live = kernel.display_setting("stream") == "live" and not kernel.factory.cache.comes_at_once
    return NotebookView(kernel.shell.display_pub.publish, live=live) if kernel.in_notebook else TerminalView(live=live)


class NotebookView:
    """A comparison in a notebook cell: one output, which is shown again as it grows, and once more when it is over.

    `publish` is IPython's `display_pub.publish`. With `live` false it is displayed once, at the end.
    """

    def __init__(
        self, publish: Callable[..., None], *, live: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = ReplacedOutput(publish)
        self._live = live
        self._clock = clock
        self._budget = Budget(clock)
        self._began = self._next = clock()

    def beat(self, comparison: Comparison) -> None:
        now = self._clock()
        has_text = any(lane.tokens for lane in comparison.progress)
        if not self._live or now < self._next - UPDATE_INTERVAL * 0.1 or not self._budget.allows():
            return
        if not has_text and now - self._began < FIRST_NOTICE:
            return
        if self._output.show({"text/html": (shown := growing(comparison)), "text/plain": under_way(comparison)}):
            self._budget.spend(len(shown))
            self._next = max(self._next, now) + UPDATE_INTERVAL

    def finish(self, comparison: Comparison, notes: Sequence[str]) -> None:
        text = "\n".join([plain(comparison), *notes])
        self._output.show({"text/html": page(comparison, notes), "text/plain": text}, _metadata(comparison))


def _metadata(comparison: Comparison) -> dict[str, Any]:
    """What the notebook's file says of it beside the answers: who was asked, and how each first answer ended."""
    first = comparison.progress[: len(comparison.contenders)]
    finish_reasons = [lane.trial.finish for lane in first if lane.trial is not None]
    return {"llm_jupyter": {"models": [lane.model for lane in first], "finish_reasons": finish_reasons}}


class TerminalView:
    """A comparison in a terminal: how far it is in one line, then the answers and the table."""

    def __init__(self, *, live: bool = True, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._line = OverwrittenLine(self._out) if live and self._out.isatty() else None

    def beat(self, comparison: Comparison) -> None:
        if self._line is not None:
            self._line.show(progress(comparison))

    def finish(self, comparison: Comparison, notes: Sequence[str]) -> None:
        if self._line is not None:
            self._line.show("")
            self._out.write("\r")
        self._out.write("\n".join([answers(comparison), plain(comparison), *notes, ""]))
        self._out.flush()


class SilentView:
    """A comparison that is only kept, not shown."""

    def beat(self, comparison: Comparison) -> None:
        pass

    def finish(self, comparison: Comparison, notes: Sequence[str]) -> None:
        pass
