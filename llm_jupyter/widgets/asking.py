"""Who asked for what a cell shows: a page, which draws widgets, or a program, which only keeps the outputs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def is_asked_by_program() -> bool:
    """Whether the cell that runs now was sent by nbclient or one of its users, such as nbconvert and papermill.

    Pages say which cell they send, or at least (as do consoles) that the person can be asked something; a program does
    neither.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    request: Mapping[str, Any] = getattr(shell, "get_parent", dict)() or {}
    names_cell = "cellId" in (request.get("metadata") or {})
    may_ask = (request.get("content") or {}).get("allow_stdin", True)
    return not (names_cell or may_ask or "google.colab" in sys.modules)
