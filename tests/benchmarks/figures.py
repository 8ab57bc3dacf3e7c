"""Measured figures beside what they ought to be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `limit` is the largest value that is good, or with `at_least` the smallest."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met, where there is one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> str:
        """The figure as a line of a table."""
        target = "" if self.limit is None else f"{'>=' if self.at_least else '<='} {self.limit:g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return f"{self.name:58} {self.value:10.3f} {self.unit:10} {target:>9} {verdict:7} {self.note}".rstrip()


@dataclass(slots=True)
class Report:
    """All figures of a run, and the checks that went wrong."""

    figures: list[Figure] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, limit: float | None = None, **more: Any) -> None:
        """Take a figure in and show it."""
        figure = Figure(name, value, unit, limit, **more)
        self.figures.append(figure)
        print(figure.row(), flush=True)

    def check(self, holds: bool, what: str) -> None:
        """Take in whether something is as it must be."""
        if not holds:
            self.failures.append(what)
            print(f"FAILED: {what}", flush=True)

    def title(self, text: str) -> None:
        """Begin a part of the table."""
        print(f"\n{text}", flush=True)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        figures = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        return {"versions": self.versions, "figures": figures, "failures": self.failures}


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
