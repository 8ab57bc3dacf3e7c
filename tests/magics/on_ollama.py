"""What the tests of `%llm`'s commands on a real Ollama share."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from kernels import Kernel, Ran
from servers.real_ollama import Ollama

MODEL = "smollm2:135m"
SIZE = 98
"""Megabytes of the model."""


def ask(server: Ollama, path: str, body: Any = None, *, method: str | None = None) -> Any:
    """Ask the server itself, past everything that is tested here."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + path, data, method=method), timeout=60) as reply:
        text = reply.read()
    return json.loads(text) if text else None


def names(server: Ollama) -> set[str]:
    return {model["name"] for model in ask(server, "/api/tags")["models"]}


def good(kernel: Kernel, code: str) -> Ran:
    ran = kernel.run(code)
    assert ran.status == "ok", ran.error
    return ran


def bad(kernel: Kernel, code: str) -> list[str]:
    """The lines of the one error that a cell shows."""
    ran = kernel.run(code)
    assert ran.status == "error"
    assert 1 <= len(ran.error) <= 3
    return ran.error
