"""The services of one kernel: made at the first question, closed when the kernel ends."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.magics.render import AnswerView
    from llm_jupyter.sessions import CellPlace


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

    @property
    def factory(self) -> LLMFactory:
        """The services, made now if they do not stand. Raises `ConfigurationError`."""
        if self._factory is None:
            from llm_jupyter.factory import LLMFactory
            from llm_jupyter.settings import load_settings

            self._factory = LLMFactory(load_settings(self.overrides())).open()
            atexit.register(self.close)
        return self._factory

    def close(self) -> None:
        """Close everything that was opened. Idempotent."""
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.close()
            atexit.unregister(self.close)

    def display_setting(self, name: str) -> str:
        """`stream`, `footer` or `metadata`, as it is set at this moment."""
        settings = self.factory.settings
        now = None if settings.is_locked(name) else self.overrides().get(name)
        return str(now or getattr(settings, name))

    @property
    def in_notebook(self) -> bool:
        """Whether outputs go to a front end and not to a terminal."""
        return getattr(self.shell, "kernel", None) is not None

    def place(self) -> CellPlace:
        """The cell that runs now, as far as the front end tells."""
        from llm_jupyter.sessions import CellPlace

        if not self.in_notebook:
            return CellPlace()
        parent: Mapping[str, Any] = self.shell.get_parent() or {}  # type: ignore[attr-defined]  # ipykernel's shell has it
        cell_id = (parent.get("metadata") or {}).get("cellId")
        return CellPlace(cell_id, (parent.get("header") or {}).get("msg_id"))

    def view(self, label: Callable[[], str], *, quiet: bool = False) -> AnswerView:
        """Where the next answer is shown."""
        from llm_jupyter.magics.render import NotebookView, SilentView, TerminalView

        if quiet:
            return SilentView()
        live, footer = self.display_setting("stream") == "live", self.display_setting("footer") == "on"
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

    def default_model_changed(self, model: str) -> None:
        """`%config LLMMagics.default_model = ...` in mid-session: the next question asks that model."""
        if self._factory is not None and not self._factory.settings.is_locked("default_model"):
            self._factory.providers.default_model = model or self._factory.settings.default_model
            self._factory.sessions.current.choice = None
