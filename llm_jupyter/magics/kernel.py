"""The services of one kernel: made at the first question, closed when the kernel ends."""

from __future__ import annotations

import atexit
import builtins
import keyword
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jupyter.here import COMPARISONS
from llm_jupyter.magics.results import CellResults
from llm_jupyter.magics.runs import RunLog

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_jupyter.comparison import Comparison
    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.here import Closable
    from llm_jupyter.magics.render import AnswerView
    from llm_jupyter.sessions import CellPlace, LLMSession, Whereabouts
    from llm_jupyter.types import LLMResponse


class KernelServices:
    """What the magics of one shell share.

    Loading the extension makes one of these and nothing more: what costs time is imported and built at first use.
    `overrides` gives what `%config` says at that moment.
    """

    def __init__(self, shell: InteractiveShell, overrides: Callable[[], Mapping[str, Any]]) -> None:
        self.shell = shell
        self.overrides = overrides
        self._factory: LLMFactory | None = None
        self.said: set[str] = set()
        """Lines that are to be said once in a session, and were."""
        self.last: LLMResponse | None = None
        """The answer that came last, in whatever conversation."""
        self.is_running = False
        """Whether a cell runs."""
        self.runs = RunLog()
        self.results = CellResults(shell)
        self.comparisons: tuple[Comparison, ...] = ()
        """The last comparisons, the newest at the end."""
        self._shown: list[tuple[str, object, Closable]] = []

    @property
    def factory(self) -> LLMFactory:
        """The services, made now if they do not stand. Raises `ConfigurationError`."""
        if self._factory is None:
            from llm_jupyter.factory import LLMFactory
            from llm_jupyter.settings import load_settings

            self._factory = LLMFactory(load_settings(self.overrides())).open()
            atexit.register(self._end)
        return self._factory

    @property
    def standing(self) -> LLMFactory | None:
        """The services, if anything needed them yet."""
        return self._factory

    def close(self) -> None:
        """Close everything that was opened. Idempotent."""
        for _, _, shown in list(self._shown):
            shown.close()
        self._end()

    def _end(self) -> None:
        """The kernel ends: what is shown stays in the page as it was last."""
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.close()
            atexit.unregister(self._end)

    def display_setting(self, name: str) -> str:
        """`stream`, `footer` or `metadata`, as it is set at this moment."""
        return str(getattr(self.factory.settings, name))

    @property
    def in_notebook(self) -> bool:
        """Whether outputs go to a front end and not to a terminal."""
        return getattr(self.shell, "kernel", None) is not None

    @property
    def comparison(self) -> Comparison | None:
        """The comparison that was made last."""
        return self.comparisons[-1] if self.comparisons else None

    @comparison.setter
    def comparison(self, made: Comparison) -> None:
        self.comparisons = (*self.comparisons, made)[-COMPARISONS:]

    def keep(self, name: str, value: object) -> str:
        """Let a variable of the notebook hold it, and return the type of what it held before, empty where that was nothing.

        Raises `InvalidInputError` for what is no name, and for one that has its meaning in every notebook.
        """
        from llm_jupyter.errors import InvalidInputError

        if not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInputError(f"{name[:40]!r} is no name for a variable", next_step="Take letters, digits and _.")
        if name.startswith("_") or name in self.shell.user_ns_hidden or hasattr(builtins, name):
            raise InvalidInputError(f"{name[:40]!r} belongs to Python or IPython", next_step="Take another name.")
        before = self.shell.user_ns.get(name, value)
        self.shell.user_ns[name] = value
        return "" if before is value else type(before).__name__

    # -- the cell that runs now

    def loaded(self) -> None:
        """The magics are there: a cell that loads them belongs to its run of cells like any other."""
        if self._request()[0].get("msg_type") == "execute_request":  # else it was the kernel's own configuration
            self._begin(self._history_length() - 1)  # the cell stands there already

    def cell_begins(self, info: object) -> None:
        """IPython's `pre_run_cell`."""
        number = self._history_length()  # the counter of IPython 9 is one ahead here
        self._begin(number)
        if getattr(info, "store_history", True):  # else it has no number of its own
            self.results.begin(number)

    def _history_length(self) -> int:
        history = self.shell.history_manager
        return len(history.input_hist_raw) if history is not None else 0

    def _begin(self, number: int) -> None:
        self.is_running = True
        header, metadata = self._request()
        told = metadata.get("deletedCells")
        deleted = [cell for cell in told if isinstance(cell, str)] if isinstance(told, list) else []
        sent = date.timestamp() if isinstance(date := header.get("date"), datetime) else None
        self._close_earlier(deleted)
        self.runs.begin(_cell_id(metadata), header.get("session"), sent, time.time(), deleted, number)

    def cell_ends(self, result: object) -> None:
        """IPython's `post_run_cell`."""
        self.is_running = False
        self.runs.end(time.time())
        if self._factory is not None:
            self._factory.sessions.hear(self.runs.news)

    # -- what is shown in cells

    def opened(self, shown: Closable) -> None:
        """It belongs to the cell that runs now, and is closed when that runs again."""
        self._shown.append((self._cell(), self._request()[0].get("msg_id"), shown))

    def closed(self, shown: Closable) -> None:
        """It is closed already."""
        self._shown = [entry for entry in self._shown if entry[2] is not shown]

    def _close_earlier(self, deleted: Collection[str]) -> None:
        """Close what earlier runs of this cell have shown, and what cells have that are deleted."""
        cell, execution = self._cell(), self._request()[0].get("msg_id")
        for place, run, shown in list(self._shown):
            if place in deleted or (place == cell and run != execution):
                shown.close()

    def _cell(self) -> str:
        """What tells the cell that runs from others: its id, else its text."""
        parent = self._parent()
        return _cell_id(parent.get("metadata") or {}) or str((parent.get("content") or {}).get("code", ""))

    def place(self, session: str, *, asks: bool = True) -> CellPlace:
        """The cell that asks now in that session, as far as the front end tells; or that only would."""
        header, metadata = self._request()
        is_beside = session != self.factory.sessions.current.id
        return self.runs.place(_cell_id(metadata), header.get("msg_id"), session, asks=asks, is_beside=is_beside)

    def _request(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Header and metadata of the request that runs now; empty outside a notebook."""
        parent = self._parent()
        return parent.get("header") or {}, parent.get("metadata") or {}

    def _parent(self) -> Mapping[str, Any]:
        return (self.shell.get_parent() or {}) if self.in_notebook else {}  # type: ignore[attr-defined]  # ipykernel's shell has it

    # -- the conversation

    def session(self, name: str | None = None) -> LLMSession:
        """The conversation that this notebook goes on with, or the one of that name. Raises `SessionError`."""
        sessions = self.factory.sessions
        sessions.arrive(self._whereabouts())
        self.factory.cache.place(sessions.notebook, Path.cwd())
        return sessions.named(name) if name is not None else sessions.current

    def notebook(self) -> Path | None:
        """The notebook's file, where the front end told of it."""
        told = self._whereabouts().notebook
        return told if self._factory is None else self._factory.sessions.notebook or told

    def _whereabouts(self) -> Whereabouts:
        from llm_jupyter.documents import kernel_here
        from llm_jupyter.sessions import Whereabouts

        here = kernel_here() if self.in_notebook else None
        return Whereabouts(here.id, here.notebook) if here is not None else Whereabouts()

    def view(self, label: Callable[[], str], *, quiet: bool = False) -> AnswerView:
        """Where the next answer is shown."""
        from llm_jupyter.magics.render import NotebookView, SilentView, TerminalView

        if quiet:
            return SilentView()
        footer = self.display_setting("footer") == "on"
        live = self.display_setting("stream") == "live" and not self.factory.cache.comes_at_once
        if not self.in_notebook:
            return TerminalView(label=label, live=live, footer=footer)
        full = self.display_setting("metadata") == "full"
        return NotebookView(self.shell.display_pub.publish, label=label, live=live, footer=footer, full_metadata=full)

    def progress_line(self) -> Callable[[str], None]:
        """Something that shows one line in place of the one before."""
        from llm_jupyter.magics.render import OverwrittenLine, ReplacedLine

        return ReplacedLine(self.shell.display_pub.publish).show if self.in_notebook else OverwrittenLine().show

    def asks(self, question: str) -> bool:
        """Whether the person says yes. Raises `InvalidInputError` where nobody can be asked."""
        from llm_jupyter.errors import InvalidInputError

        try:
            return input(question).strip().lower() in ("y", "yes")
        except (EOFError, RuntimeError, OSError):  # ipykernel's StdinNotImplementedError is a RuntimeError
            raise InvalidInputError(
                "nobody can be asked here", next_step="Add --yes to do it without asking."
            ) from None

    def check_overrides(self, wanted: Mapping[str, Any]) -> None:
        """Raise `ConfigurationError` where `%config` may not say that now."""
        from llm_jupyter.magics.live import check

        check(self._factory, self.overrides(), wanted)

    def overridden(self, name: str) -> None:
        """`%config LLMMagics.NAME = ...` was typed: it holds from the next question on."""
        if self._factory is not None:
            from llm_jupyter.magics.live import follow

            follow(self._factory, self.overrides(), name)


def _cell_id(metadata: Mapping[str, Any]) -> str | None:
    """What the front end calls the cell; others than Jupyter's own may send anything."""
    told = metadata.get("cellId")
    return told if isinstance(told, str) else None
