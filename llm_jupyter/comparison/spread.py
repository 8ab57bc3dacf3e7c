"""The figures of contenders over several answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple, Self

import msgspec

from llm_jupyter.comparison.contender import Contender
from llm_jupyter.comparison.trial import FAILED, Trial
from llm_jupyter.tables import html_table, one_line, table


class Range(NamedTuple):
    """The middle of several values, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Range | None:
        """The range of those that are known; `None` where none is."""
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known)) if known else None


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all the questions to one contender.

    `count` are the whole answers, and `distinct` how many different ones they are; `failures` are the questions that ended
    in an error, `interrupted` those that somebody stopped, asked or not. The figures are those of whole answers alone:
    `first_token` in seconds, as in a `Trial`, `tokens_per_second` and `tokens`, each `None` where nobody told. `error` says in
    one line why the first question failed, where no whole answer came.
    """

    contender: str
    count: int
    failures: int
    interrupted: int
    distinct: int
    first_token: Range | None = None
    tokens_per_second: Range | None = None
    tokens: Range | None = None
    error: str = ""

    @classmethod
    def of(cls, contender: str, trials: Sequence[Trial]) -> Spread:
        """The figures of these answers."""
        whole = [trial for trial in trials if trial.is_whole]
        failed = [trial for trial in trials if trial.finish == FAILED]
        return cls(
            contender=contender,
            count=len(whole),
            failures=len(failed),
            interrupted=len(trials) - len(whole) - len(failed),
            error=failed[0].error if failed and not whole else "",
            distinct=len({(trial.prompt_index, trial.answer) for trial in whole}),
            first_token=Range.of(trial.first_token for trial in whole),
            tokens_per_second=Range.of(trial.tokens_per_second for trial in whole),
            tokens=Range.of(trial.tokens for trial in whole),
        )

    @property
    def total(self) -> int:
        """All that are over, however they ended."""
        return self.count + self.failures + self.interrupted

    def cells(self) -> tuple[str, ...]:
        """Its row in a table, without the error; see `HEAD`."""
        return (
            one_line(self.contender),
            str(self.count),
            str(self.failures or ""),
            str(self.interrupted or ""),
            _written(self.first_token, 2),
            _written(self.tokens_per_second, 1),
            _written(self.tokens, 0),
            str(self.distinct) if self.count > 1 else "",
        )


HEAD = ("contender", "answers", "failed", "interrupted", "first token (s)", "tokens/s", "tokens", "distinct")

ERROR_WIDTH = 80
"""Characters of an error that the table shows."""


class Spreads(list[Spread]):
    """A row for each contender, which shows itself as a table."""

    @classmethod
    def of(cls, contenders: Sequence[Contender], trials: Sequence[Trial]) -> Self:
        """The rows, in the order of the contenders."""
        return cls(
            Spread.of(one.label, [trial for trial in trials if trial.contender == one.label]) for one in contenders
        )

    def _rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        return (*HEAD, "error"), [(*row.cells(), one_line(row.error, ERROR_WIDTH)) for row in self]

    def __repr__(self) -> str:
        return "\n".join(table(*self._rows()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": html_table(*self._rows())}


def _written(values: Range | None, digits: int) -> str:
    if values is None:
        return ""
    middle, least, most = (f"{value:,.{digits}f}" for value in values)
    return middle if least == most else f"{middle} ({least}–{most})"
