"""The list of models and a running pull, as a person sees them in JupyterLab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from labs import ARTIFACTS, Lab
from pages_of import code_cell, menu, open_notebook, wait_until_done
from playwright.sync_api import Locator, Page, expect
from servers.model_registry import ModelRegistry
from servers.real_ollama import Ollama, free_port
from servers.scripted_ollama import ScriptedOllama, entry

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

CHAT = ["completion", "tools", "thinking"]


def details(quantization: str, context: int) -> dict[str, object]:
    return {"quantization_level": quantization, "context_length": context}


MODELS = (
    entry("qwen3:8b", size=5_225_388_164, details=details("Q4_K_M", 40_960), capabilities=CHAT),
    entry("gemma3:4b-it-qat", size=4_006_630_895, details=details("Q4_0", 131_072), capabilities=["completion", "vision"]),
    entry("llama3.3:70b", size=42_520_413_916, details=details("Q4_K_M", 131_072), capabilities=["completion", "tools"]),
    entry("nomic-embed-text:latest", size=274_302_450, details=details("F16", 2048), capabilities=["embedding"]),
    entry("gpt-oss:120b-cloud", size=384, remote_host="https://ollama.com:443", capabilities=CHAT),
)  # fmt: skip


def notebook(lab: Lab, name: str, host: str, *sources: str) -> None:
    """A notebook whose kernel finds Ollama at that place."""
    hidden = f"import os\nos.environ['OLLAMA_HOST'] = '{host}'\n%load_ext llm_jupyter"
    cells = [nbformat.v4.new_code_cell(source) for source in (hidden, *sources)]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}  # else the page asks for one
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), lab.root / name)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Ollama]:
    """A real server with nothing on it."""
    server = Ollama(tmp_path / "empty", free_port())
    server.start()
    yield server
    server.stop()


LINES = """
cell => {
  const text = cell.querySelector('.jp-OutputArea-output pre');
  return text && text.getBoundingClientRect().height / parseFloat(getComputedStyle(text).lineHeight);
}
"""


def lines_of(page: Page, cell: Locator) -> int:
    """How many lines of the page the output of a cell takes, as soon as it is there: an update draws it anew."""
    return round(page.wait_for_function(LINES, arg=cell.element_handle()).json_value())


def test_the_list_of_models_reads_at_a_glance(page: Page, lab: Lab) -> None:
    with ScriptedOllama(*MODELS) as server:
        server.loaded = {"qwen3:8b": {"context_length": 8192}}
        notebook(lab, "models.ipynb", server.origin, "%llm models", "%llm info qwen3:8b")
        open_notebook(page, lab, "models.ipynb")
        menu(page, "Run", "Run All Cells")
        wait_until_done(page, cells=3)
    cell = code_cell(page, "%llm models")
    text = cell.locator(".jp-OutputArea-output pre").inner_text()
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert re.search(r"local +5\.2 GB +yes +yes +8k of 40k +Q4_K_M +thinking, tools$", rows["ollama/qwen3:8b"])
    assert re.search(r"b-cloud +remote +8k +Q4_1 ", rows["ollama/gpt-oss:120b-cloud"])
    assert "embedding" in rows["ollama/nomic-embed-text"]
    assert "embedded/smollm2-135m" in rows
    assert lines_of(page, cell) == len(text.rstrip().splitlines()), "a row is wrapped"
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "models.png")


def test_a_running_pull_shows_bytes_speed_and_time_left(page: Page, lab: Lab, ollama: Ollama, empty: Ollama) -> None:
    with ModelRegistry(ollama.folder / "models", delay=0.05) as registry:
        name = registry.name("smollm2:135m")
        notebook(lab, "pull.ipynb", empty.url, f"%llm pull {name}", "%llm models")
        open_notebook(page, lab, "pull.ipynb")
        menu(page, "Run", "Run All Cells")
        cell = code_cell(page, "%llm pull")
        output = cell.locator(".jp-OutputArea-output pre")
        expect(output).to_contain_text(re.compile(r"█░.* [4-9]\d of 98 MB  [\d.]+ MB/s  [\d.]+ s left"))
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / "pull.png")
        assert lines_of(page, cell) == 1, "the line is wrapped"
        expect(output).to_have_count(1)
        expect(output).to_contain_text("is here: 98 MB, after", timeout=30_000)
        wait_until_done(page, cells=3)
    expect(code_cell(page, "%llm models").locator(".jp-OutputArea-output pre")).to_contain_text("smollm2:135m")
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    saved = json.loads((lab.root / "pull.ipynb").read_text())["cells"][1]["outputs"]
    assert len(saved) == 1
