"""Notebooks and their recordings under strict nbval, in kernels that are kept from the network: the tutorials first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from kernels import Kernel, kernel_environment
from labs import NOTEBOOKS
from servers.paced import ModelServer
from servers.scripted import answer
from unplugged import Unplugged

from notebooks import Notebook

TUTORIALS = sorted(NOTEBOOKS.glob("*.ipynb"))
SANITIZE = NOTEBOOKS / "sanitize.cfg"


def nbval(home: Path, network: Unplugged, notebooks: Sequence[Path], *options: str) -> str:
    """What CI types: strict, with the outputs that are saved. Returns what pytest said, once all cells have passed."""
    run = judged(home, network, notebooks, *options)
    assert run.returncode == 0, run.stdout[-5000:]
    assert network.refused == []
    return run.stdout


def judged(
    home: Path, network: Unplugged, notebooks: Sequence[Path], *options: str
) -> subprocess.CompletedProcess[str]:
    flags = ["--override-ini", "addopts=", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", *options]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "nbval", *flags, *map(str, notebooks)],
        env=kernel_environment(
            home, {**network.variables, "LLM_JUPYTER_OFFLINE": "replay", "PYTEST_DEBUG_TEMPROOT": str(home)}
        ),
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_every_tutorial_has_its_recording_and_passes_from_it_without_model_or_network(tmp_path: Path) -> None:
    assert len(TUTORIALS) >= 3
    network = Unplugged(tmp_path)
    said = nbval(tmp_path / "home", network, TUTORIALS, "--nbval-sanitize-with", str(SANITIZE))
    assert f"{sum(map(count_of_code_cells, TUTORIALS))} passed" in said
    assert network.processes == 1 + len(TUTORIALS), "pytest itself and each kernel"
    assert not (tmp_path / "home" / "models").exists()


def count_of_code_cells(path: Path) -> int:
    return sum(cell["cell_type"] == "code" for cell in json.loads(path.read_text())["cells"])


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_and_its_recording_hold_nothing_of_the_run_or_the_machine_that_made_them(path: Path) -> None:
    notebook, recording = json.loads(path.read_text()), path.with_suffix(".recording.jsonl").read_text()
    for text in (json.dumps(notebook, ensure_ascii=False), recording):
        assert str(Path(__file__).parents[1]) not in text
        assert str(Path.home()) + os.sep not in text
        assert "127.0.0.1:" not in text.replace("127.0.0.1:8080", "")
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            assert not {"session", "turn", "usage", "timing"} & set(output.get("metadata", {}).get("llm_jupyter", {}))
    questions = [line for line in recording.splitlines() if line]
    assert questions
    assert all(set(json.loads(line)) <= KEPT for line in questions)


KEPT = {"request", "who", "provider", "is_local", "pieces", "finish_reason", "usage", "timing", "reported"}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A notebook that streamed its answers in a page, was recorded, and was saved."""
    notebook = Notebook(tmp_path / "talk.ipynb")
    for source in (
        "%load_ext llm_jupyter",
        "place = 'the sea'",
        "%llm use local/m",
        '%%chat --system "Be brief."\nWhat is {place}?',
        "%chat And what's on it?",
        "%%llm -o ship\nName a ship.",
        "ship.text",
        "%llm again --seed 2",
    ):
        notebook.add(source)
    notebook.save()
    with ModelServer() as server:
        server.next(answer("Wa", "ter", ", and\n\n", "- salt\n- *fish*"), answer("A ship."), answer("Ar", "go."))
        variables = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
            "LLM_JUPYTER_OFFLINE": "record",
        }
        with Kernel(tmp_path / "home", variables, notebook=notebook.path) as kernel:
            assert all(ran.status == "ok" for ran in notebook.run_all(kernel))
    saved = notebook.as_json()
    for number, cell in enumerate(saved["cells"], 1):
        cell["execution_count"] = number  # nbval takes a cell without one for one that never ran
    notebook.path.write_text(json.dumps(saved))
    return notebook.path


def test_a_shared_notebook_passes_three_times_in_a_row_and_no_more_once_a_prompt_has_changed(
    tmp_path: Path, shared: Path
) -> None:
    network = Unplugged(tmp_path)
    before = shared.with_suffix(".recording.jsonl").read_bytes()
    assert "24 passed" in nbval(tmp_path / "elsewhere", network, [shared] * 3, "--keep-duplicates")
    assert network.processes == 1 + 3, "a kernel for each time"
    assert shared.with_suffix(".recording.jsonl").read_bytes() == before

    shared.write_text(shared.read_text().replace("Name a ship.", "Name a boat."))
    failed = judged(tmp_path / "elsewhere", network, [shared])
    assert failed.returncode == 1
    assert "OfflineMissError: offline, and no answer by local/m was recorded" in failed.stdout
    assert network.refused == []
