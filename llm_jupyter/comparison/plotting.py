"""A comparison as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_jupyter.comparison.frames import INSTALL
from llm_jupyter.comparison.spread import Range, Spread
from llm_jupyter.errors import ResourceError
from llm_jupyter.tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (("tokens_per_second", "tokens/s"), ("first_token", "first token (s)"), ("tokens", "tokens"))
LABEL_WIDTH = 40


def figure(spreads: Sequence[Spread]) -> Figure:
    """Bars of the medians from least to most, and a word where an answer failed. Raises `ResourceError`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ResourceError("a plot needs matplotlib, which is not installed", next_step=INSTALL) from None
    drawn, panels = pyplot.subplots(
        1, len(PANELS), sharey=True, figsize=(9, 1.2 + 0.45 * len(spreads)), layout="constrained"
    )
    for axes, (field, title) in zip(panels, PANELS, strict=True):
        _draw(axes, title, [getattr(row, field) for row in spreads])
    panels[0].set_yticks(range(len(spreads)), [_label(row) for row in spreads], parse_math=False)
    panels[0].invert_yaxis()
    pyplot.close(drawn)  # the cell shows what is returned; open, it would be shown twice
    return drawn


def _draw(axes: Axes, title: str, ranges: Sequence[Range | None]) -> None:
    for place, values in enumerate(ranges):
        if values is None:
            axes.text(0, place, " no figure", va="center", style="italic", color="gray")
            continue
        apart = [[values.median - values.least], [values.most - values.median]]
        axes.barh(place, values.median, height=0.6, color=f"C{place % 10}", xerr=apart, capsize=3, ecolor="gray")
    axes.set_title(title, fontsize="medium")
    axes.set_ylim(-0.5, len(ranges) - 0.5)
    axes.set_xlim(left=0)


def _label(row: Spread) -> str:
    name = one_line(row.contender, LABEL_WIDTH)
    return f"{name}\n✗ {row.failures} of {row.total} failed" if row.failures else name
