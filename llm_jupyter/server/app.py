"""What jupyter_server loads."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp

from llm_jupyter.server.handlers import StatusHandler


class LLMServerExtension(ExtensionApp):
    """Answers under `<base>/llm-jupyter/`."""

    name = "llm_jupyter"

    def initialize_handlers(self) -> None:
        """Add the routes; the base class puts the server's base URL before them."""
        self.handlers.append((r"/llm-jupyter/status", StatusHandler))
