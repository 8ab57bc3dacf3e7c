"""The figures of contenders over several answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple, Self

import msgspec

from llm_jupyter.comparison.contender import Contender
from llm_jupyter.comparison.trial import FAILED, Trial
from llm_jupyter.comparison.words import html_table, one_line, table


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
    """One contender's answers: how many, how many of them failed, how many that are whole are distinct, and figures.

    `first_token` is in seconds, as in a `Trial`; `None` where nobody told.
    """

    contender: str
    count: int
    failures: int
    distinct: int
    first_token: Range | None = None
    tokens_per_second: Range | None = None
    tokens: Range | None = None

    @classmethod
    def of(cls, contender: str, trials: Sequence[Trial]) -> Spread:
        """The figures of these answers; those of answers that are not whole do not count."""
        whole = [trial for trial in trials if trial.is_whole]
        return cls(
            contender=contender,
            count=len(trials),
            failures=sum(trial.finish == FAILED for trial in trials),
            distinct=len({(trial.prompt_index, trial.answer) for trial in whole}),
            first_token=Range.of(trial.first_token for trial in whole),
            tokens_per_second=Range.of(trial.tokens_per_second for trial in whole),
            tokens=Range.of(trial.tokens for trial in whole),
        )

    def cells(self) -> tuple[str, ...]:
        """Its row in a table; see `HEAD`."""
        return (
            one_line(self.contender),
            str(self.count),
            str(self.failures or ""),
            _written(self.first_token, 2),
            _written(self.tokens_per_second, 1),
            _written(self.tokens, 0),
            str(self.distinct) if self.count > 1 else "",
        )


HEAD = ("contender", "answers", "failed", "first token (s)", "tokens/s", "tokens", "distinct")


class Spreads(list[Spread]):
    """A row for each contender, which shows itself as a table."""

    @classmethod
    def of(cls, contenders: Sequence[Contender], trials: Sequence[Trial]) -> Self:
        """The rows, in the order of the contenders."""
        return cls(
            Spread.of(one.label, [trial for trial in trials if trial.contender == one.label]) for one in contenders
        )

    def __repr__(self) -> str:
        return "\n".join(table(HEAD, [row.cells() for row in self]))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": html_table(HEAD, [row.cells() for row in self])}


def _written(values: Range | None, digits: int) -> str:
    if values is None:
        return ""
    middle, least, most = (f"{value:,.{digits}f}" for value in values)
    return middle if least == most else f"{middle} ({least}–{most})"
