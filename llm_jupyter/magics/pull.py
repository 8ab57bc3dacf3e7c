"""`%llm pull`: fetch a model, with its progress in the cell."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import closing
from types import TracebackType
from typing import Self

from llm_jupyter.errors import AnswerInterrupted
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.types import PullProgress

INTERVAL = 0.25
"""Seconds between two looks at the progress."""


def pull(kernel: KernelServices, name: str) -> None:
    """Fetch a model. Raises `AnswerInterrupted` when the person stops it; the next call goes on from there."""
    factory = kernel.factory
    prefix, slash, rest = name.partition("/")
    named = bool(slash) and prefix in factory.registry
    provider = factory.providers.get(prefix if named else "embedded")
    model = rest if named else name
    started, begun_at, last = time.monotonic(), None, PullProgress("starting")
    show = kernel.progress_line()
    try:
        with closing(
            factory.portal.batches(lambda: _Reports(provider.pull_model(model)), interval=INTERVAL)
        ) as batches:
            for batch in batches:
                last = batch[-1] if batch else last
                if begun_at is None and last.completed:
                    begun_at = (time.monotonic(), last.completed)
                show(_line(model, last, begun_at))
    except KeyboardInterrupt:
        show(f"{model}: stopped at {last.completed / 1e6:,.0f} MB")
        raise AnswerInterrupted("stopped; %llm pull again goes on from here") from None
    took = f" in {time.monotonic() - started:.1f} s" if last.completed else ": it was here already"
    show(f"{provider.name}/{model} is here{took}.")


def _line(model: str, progress: PullProgress, begun_at: tuple[float, int] | None) -> str:
    if not progress.total or not progress.completed or begun_at is None:
        return f"{model}: {progress.status}"
    share = progress.completed / progress.total
    bar = "█" * round(24 * share) + "░" * (24 - round(24 * share))
    text = f"{model}  {bar} {share:4.0%}  {progress.completed / 1e6:,.0f} of {progress.total / 1e6:,.0f} MB"
    elapsed = time.monotonic() - begun_at[0]
    speed = (progress.completed - begun_at[1]) / elapsed if elapsed > 0.2 else 0
    if speed > 0:
        text += f"  {speed / 1e6:,.1f} MB/s  {(progress.total - progress.completed) / speed:,.0f} s left"
    return text


class _Reports:
    """An async iterator of reports as a batch stream."""

    def __init__(self, reports: AsyncIterator[PullProgress]) -> None:
        self._reports = reports

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._reports, "aclose", None)
        if close is not None:
            await close()

    async def read_batch(self) -> list[PullProgress]:
        async for report in self._reports:
            return [report]
        return []
