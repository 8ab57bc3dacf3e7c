"""What the server extension answers. Handlers run on jupyter_server's own loop: whatever may wait goes to a thread."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.web import authenticated

from llm_jupyter import __version__
from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import FILE_NAME, home_folder, load_settings


class StatusHandler(APIHandler):
    """GET: which version runs, where it keeps its things, and what is configured."""

    auth_resource = "llm_jupyter"

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with `read_status()` as JSON."""
        self.finish(await asyncio.to_thread(read_status))


def read_status() -> dict[str, Any]:
    """The status as plain values: never a key, nor a URL that could carry one.

    A settings file that cannot be used is no failure of the request: `settings_error` says what is wrong with it.
    """
    home = home_folder()
    file = home / FILE_NAME
    status: dict[str, Any] = {
        "version": __version__,
        "home": str(home),
        "settings_file": str(file),
        "settings_file_exists": file.exists(),
        "settings_error": None,
        "default_model": None,
        "local_only": None,
        "providers": [],
    }
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return {**status, "settings_error": str(error)}
    return {
        **status,
        "default_model": settings.default_model,
        "local_only": settings.local_only,
        "providers": [
            {"name": name, "kind": provider.kind, "enabled": provider.enabled}
            for name, provider in sorted(settings.providers.items())
        ],
    }
