"""The dashboard `models` on real Ollamas: fetched from a registry on loopback, loaded, freed, deleted."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.model_registry import ModelRegistry
from servers.real_ollama import Ollama, free_port
from watching import Page, shown

from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from llm_jupyter.widgets import ModelsDashboard

MODEL = "smollm2:135m"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """A second real server, with nothing on it."""
    server = Ollama(tmp_path_factory.mktemp("empty"), free_port())
    server.start()
    yield server
    server.stop()


def names(server: Ollama) -> set[str]:
    """What the server itself says that it has."""
    with urllib.request.urlopen(server.url + "/api/tags", timeout=60) as reply:
        return {model["name"] for model in json.load(reply)["models"]}


def row(page: Page, model: str) -> dict[str, Any]:
    """A model as it is shown; empty where it is not."""
    return next((row for row in page.state["models"] if row["key"] == model), {})


@pytest.mark.live
def test_a_model_is_fetched_in_two_parts_loaded_freed_and_deleted(
    tmp_path: Path, ollama: Ollama, empty: Ollama
) -> None:
    environment = {"OLLAMA_HOST": empty.url}
    settings = load_settings({}, {"LLM_JUPYTER_HOME": str(tmp_path), **environment})
    with (
        ModelRegistry(ollama.folder / "models", delay=0.01) as registry,
        LLMFactory(settings, environment=environment) as llm,
        shown(ModelsDashboard(llm)) as page,
    ):
        short = registry.name(MODEL).removeprefix("http://")
        model = f"ollama/{short}"
        page.act("pull", model=registry.name(MODEL))
        page.until(lambda: page.state["pulls"] and page.state["pulls"][0]["speed"])
        number = page.state["pulls"][0]["number"]
        page.act("cancel", pull=number)
        page.until(lambda: page.state["pulls"][0]["state"] == "stopped")
        kept = page.state["pulls"][0]["completed"]
        assert 0 < kept < page.state["pulls"][0]["total"]
        assert names(empty) == set()

        page.act("resume", pull=number)
        page.until(lambda: row(page, model), within=30)
        page.until(lambda: page.state["pulls"] == [])
        assert registry.starts[1] >= kept - (1 << 20)
        assert page.state["notice"]["text"].startswith(f"{model} is here: 98 MB, after ")
        assert names(empty) == {short}

        page.act("load", model=model)
        page.until(lambda: row(page, model)["loaded"])
        assert empty.runners()
        page.act("unload", model=model)
        page.until(lambda: row(page, model)["loaded"] is False)
        page.act("delete", model=model)
        page.until(lambda: not row(page, model))
        assert names(empty) == set()
        page.act("delete", model=model)
        page.until(lambda: page.state["notice"]["error"])
        assert "not found" in page.state["notice"]["text"]
