"""jupyter_server's own fixtures, for this folder only."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403
from tornado.httpclient import HTTPResponse

ENABLING_FILE = Path(__file__).parents[2] / "jupyter-config" / "jupyter_server_config.d" / "llm_jupyter.json"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "llm home"
    folder.mkdir()
    monkeypatch.setenv("LLM_JUPYTER_HOME", str(folder))
    return folder


@pytest.fixture
def jp_server_config(home: Path) -> dict[str, Any]:
    """The server is configured by the very file that an installation puts beside it."""
    return json.loads(ENABLING_FILE.read_text(encoding="utf-8"))


@pytest.fixture
def get(jp_asyncio_loop: asyncio.AbstractEventLoop, jp_fetch: Callable[..., Any]) -> Callable[..., HTTPResponse]:
    """A GET on the server's own loop, for tests that are plain functions."""

    def get(*path: str, **options: Any) -> HTTPResponse:
        async def fetch() -> HTTPResponse:
            return await jp_fetch(*path, raise_error=False, **options)

        return jp_asyncio_loop.run_until_complete(fetch())

    return get
