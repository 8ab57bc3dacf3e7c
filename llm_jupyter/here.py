"""What the kernel that this code runs in has: the services of the loaded extension, if it is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.sessions import CellPlace, LLMSession

ATTRIBUTE = "_llm_jupyter_magics"
"""Under which the loaded extension stands at IPython's shell."""


COMPARISONS = 10
"""Of how many comparisons a kernel remembers what came of them."""


class Closable(Protocol):
    """Something that is shown in a cell and ends with it."""

    def close(self) -> None: ...


class Here(Protocol):
    """The services of this kernel, as its magics share them."""

    comparison: Any
    """The comparison that was made last, `None` before the first."""

    @property
    def comparisons(self) -> tuple[Any, ...]:
        """The last comparisons, the newest at the end."""

    @property
    def is_running(self) -> bool:
        """Whether a cell runs."""

    @property
    def factory(self) -> LLMFactory: ...
    def session(self, name: str | None = None) -> LLMSession: ...
    def place(self, session: str, *, asks: bool = True) -> CellPlace: ...
    def display_setting(self, name: str) -> str: ...
    def progress_line(self) -> Callable[[str], None]: ...
    def keep(self, name: str, value: object) -> str:
        """Let a variable of the notebook hold it, and return the type of what it held before, empty where that was nothing.

        Raises `InvalidInputError` for what is no name, and for one that has its meaning in every notebook.
        """

    def opened(self, shown: Closable) -> None:
        """It belongs to the cell that runs now, and is closed when that runs again."""

    def closed(self, shown: Closable) -> None:
        """It is closed already."""


def here() -> Here | None:
    """What the extension has in this kernel; `None` where it is not loaded. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    magics = getattr(shell, ATTRIBUTE, None)
    return magics.kernel if magics is not None else None
