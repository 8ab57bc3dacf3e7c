"""A server that goes down, as a person sees it in JupyterLab: who answered instead, and what the commands say."""

from __future__ import annotations

import json

import nbformat
import pytest
from labs import ARTIFACTS, Lab
from pages_of import code_cell, menu, open_notebook, wait_until_done
from playwright.sync_api import Page
from servers.paced import ModelServer
from test_models import lines_of

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]


def notebook(lab: Lab, name: str, server: ModelServer, *sources: str) -> None:
    """A notebook whose model stands on a server, with the embedded one to fall back on."""
    environment = {
        "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": server.base_url,
        "LLM_JUPYTER_DEFAULT_MODEL": "desk/m",
        "LLM_JUPYTER_FALLBACK": json.dumps(["embedded/smollm2-135m"]),
    }
    hidden = f"import os\nos.environ.update({environment!r})\n%load_ext llm_jupyter"
    cells = [nbformat.v4.new_code_cell(source) for source in (hidden, *sources)]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), lab.root / name)


def test_an_answer_of_the_fallback_says_so_and_the_tables_read_at_a_glance(page: Page, lab: Lab) -> None:
    with ModelServer() as server:
        notebook(
            lab, "outage.ipynb", server, "%chat Hello there!", "%chat --max-tokens 20 -t 0 Say hello.", "%llm status",
            "%llm hosts", "%llm doctor",
        )  # fmt: skip
        open_notebook(page, lab, "outage.ipynb")
        code_cell(page, "%chat Hello there!").click()
        menu(page, "Run", "Run All Above Selected Cell")
        page.keyboard.press("Shift+Enter")
        wait_until_done(page, cells=2)
        assert "Heard: Hello there!" in code_cell(page, "%chat Hello there!").inner_text()
    code_cell(page, "%chat --max-tokens").click()
    menu(page, "Run", "Run Selected Cell and All Below")
    wait_until_done(page, cells=6)
    answer = code_cell(page, "%chat --max-tokens").inner_text()
    assert "desk/m: nothing answers: the connection was refused. So embedded/smollm2-135m answered." in answer
    for command, word in (("%llm status", "failed"), ("%llm hosts", "running"), ("%llm doctor", "→")):
        cell = code_cell(page, command)
        text = cell.locator(".jp-OutputArea-output pre").inner_text()
        assert word in text
        if command != "%llm doctor":
            assert lines_of(page, cell) == len(text.rstrip().splitlines()), "a row is wrapped"
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "outage.png")
