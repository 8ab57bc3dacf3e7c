"""How a server that does not run is started: by a host of the settings, or by the program that is installed here."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Remedy
from llm_jupyter.doctor.ports import free_port
from llm_jupyter.ports import port_of
from llm_jupyter.selection import Recipe

USUAL_PORTS = {"ollama": 11434, "lmstudio": 1234}
DOWNLOADS = {
    "ollama": "Install Ollama (https://ollama.com/download) and start it, or do without it",
    "lmstudio": "Install LM Studio (https://lmstudio.ai) and start its server, or do without it",
}


def how_to_start(case: Case, recipe: Recipe) -> Remedy:
    """What starts it where it is looked for; without commands where that is not known."""
    url = recipe.base_url or ""
    if host := case.host_of(recipe):
        return Remedy("In a notebook" if case.face == "terminal" else "", (f"%llm host start {host}",))
    return _program(case, recipe, urlsplit(url).hostname or "127.0.0.1", port_of(url))


def how_to_start_elsewhere(case: Case, recipe: Recipe) -> tuple[Remedy, str]:
    """What starts it at a free port, and its address there; no address where it is not known how."""
    port = free_port()
    remedy = _program(case, recipe, "127.0.0.1", port)
    return (remedy, f"http://127.0.0.1:{port}") if remedy.commands else (remedy, "")


def _program(case: Case, recipe: Recipe, host: str, port: int) -> Remedy:
    words = "In a terminal" if case.face == "cell" else ""
    path = case.environment.get("PATH")
    if recipe.kind == "ollama" and shutil.which("ollama", path=path):
        usual = port == USUAL_PORTS["ollama"]
        return Remedy(words, ("ollama serve" if usual else f"OLLAMA_HOST={host}:{port} ollama serve",))
    if recipe.kind == "lmstudio" and shutil.which("lms", path=path):
        return Remedy(words, (f"lms server start --port {port}",))
    return Remedy(DOWNLOADS.get(recipe.kind, "Start that server, or do without it"))
