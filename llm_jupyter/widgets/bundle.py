"""The script and the style sheet that all dashboards share, as an anywidget."""

from __future__ import annotations

import contextlib
from functools import cache
from importlib.resources import files
from typing import Any

from anywidget import AnyWidget
from traitlets import TraitType, Unicode, default


class BundledWidget(AnyWidget):
    """A widget whose page is in the package's bundle."""

    _esm = Unicode().tag(sync=True)
    _css = Unicode().tag(sync=True)
    _anywidget_id = Unicode().tag(sync=True)

    def add_traits(self, **traits: TraitType[Any, Any]) -> None:
        """As traitlets', but what the class has already stays: a class of its own for each widget would be a leak."""
        missing = {name: trait for name, trait in traits.items() if not self.has_trait(name)}
        if missing:
            super().add_traits(**missing)

    def answer_at_once(self) -> None:
        """Let the page's messages be handled while a cell runs, where it sends them to a subshell.

        ipykernel 7.4 hands them to the shell that published last instead, where a running cell stands before them. What
        tells it so is private, and older ones lack it.
        """
        if hasattr(self.comm, "_reply_subshell_for"):
            with contextlib.suppress(AttributeError):
                self.comm._reply_subshell_for = lambda data, default: default

    @default("_esm")
    def _default_esm(self) -> str:
        return _static("dashboards.js")

    @default("_css")
    def _default_css(self) -> str:
        return _static("dashboards.css")

    @default("_anywidget_id")
    def _default_anywidget_id(self) -> str:
        return "llm_jupyter.widgets.Dashboard"


@cache
def _static(name: str) -> str:
    return (files("llm_jupyter.widgets") / "static" / name).read_text(encoding="utf-8")
