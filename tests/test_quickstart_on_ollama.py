"""The quickstart, unchanged, where a real Ollama is the server that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import kernel_environment, kinds
from labs import NOTEBOOKS
from nbclient import NotebookClient
from servers.real_ollama import Ollama

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


def said(cell: Any) -> list[str]:
    """The lines below an answer."""
    return [
        line
        for output in cell.outputs
        if "<small" in output.get("data", {}).get("text/html", "")
        for line in output["data"]["text/plain"].splitlines()
    ]


async def test_the_quickstart_runs_as_it_stands_and_says_who_answers_and_why(tmp_path: Path, ollama: Ollama) -> None:
    notebook = nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells]
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    async with client.async_setup_kernel(env=kernel_environment(tmp_path / "home", {"OLLAMA_HOST": ollama.url})):
        for number, cell in enumerate(notebook.cells):
            await client.async_execute_cell(cell, number)

    assert [cell.source for cell in notebook.cells] == sources
    first, second, colours, value, again = [cell for cell in notebook.cells if cell.cell_type == "code"][1:6]
    assert said(first)[0] == "ollama/smollm2:135m · local"
    reasons = [line for line in said(first)[1:] if line.startswith("It answers because ")]
    assert reasons
    assert (
        reasons[0]
        .removeprefix("It answers because ")
        .startswith(("it is the newest model in ollama", "it is loaded in ollama"))
    )
    assert not any("demonstration" in line for line in said(first))
    for cell in (first, second, colours, again):
        answers = [output for output in cell.outputs if "llm_jupyter" in output.get("metadata", {})]
        assert answers
        assert kinds(cell.outputs) == ["answer", "footer"] * len(answers)
        for answer in answers:
            about = answer["metadata"]["llm_jupyter"]
            assert (about["provider"], about["model"]) == ("ollama", "smollm2:135m")
            assert answer["data"]["text/markdown"].strip()
    assert not any("because" in line for cell in (second, colours, again) for line in said(cell))
    assert value.outputs[0]["data"]["text/plain"].endswith(", True, True)")
    assert not (tmp_path / "home" / "models").exists()
