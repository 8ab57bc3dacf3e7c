"""`%llm dash`: open a dashboard in this cell."""

from __future__ import annotations

import difflib
import importlib

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.args import OF_COMMANDS, parse
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say

USUALLY = "status"
"""What opens where no name is given."""


def dash(kernel: KernelServices, line: str) -> None:
    """`%llm dash [NAME] [-o VARIABLE]`: the dashboard of that name in this cell, until the cell runs again or is deleted.

    Where there is no page, as in a terminal, it is printed as it is now. Raises `InvalidInputError` for a name that no
    dashboard has.
    """
    from llm_jupyter import widgets

    name, variable = _asked(line)
    if name not in widgets.DASHBOARDS:
        near = difflib.get_close_matches(name, widgets.DASHBOARDS, 1)
        hint = f"Did you mean %llm dash {near[0]}? " if near else ""
        raise InvalidInputError(
            f"there is no dashboard {name[:40]!r}", next_step=f"{hint}There are: {', '.join(widgets.DASHBOARDS)}."
        )
    dashboard = getattr(widgets, widgets.DASHBOARDS[name][0])()
    if variable:
        kernel.shell.user_ns[variable] = dashboard
    if not kernel.in_notebook:
        say([repr(dashboard)])
        if not variable:
            dashboard.close()
        return
    importlib.import_module("IPython.display").display(dashboard)


def _asked(line: str) -> tuple[str, str | None]:
    """The name that stands on the line, and the variable; the option may stand on either side of the name."""
    from llm_jupyter.widgets import DASHBOARDS

    keep = OF_COMMANDS["dash"]
    before, rest = parse(line, keep, "%llm dash")
    name, _, rest = rest.partition(" ")
    after, surplus = parse(rest, keep, "%llm dash")
    if surplus:
        one = surplus if surplus in DASHBOARDS else name
        raise InvalidInputError(
            f"%llm dash takes one name, not {surplus[:40]!r} too",
            next_step=f"%llm dash {one} opens that one."
            if one in DASHBOARDS
            else f"There are: {', '.join(DASHBOARDS)}.",
        )
    return name or USUALLY, {**before, **after}.get("output")
