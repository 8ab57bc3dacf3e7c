"""Run tutorials on the embedded model; save their outputs, and beside each its recording.

    scripts/record_notebooks.py [--into FOLDER] NOTEBOOK...

Each runs twice, in a home of its own where nothing is but the weights: once with the model while its answers are recorded,
once without it, as a test will run it. The outputs of the first run are saved; those of the second where the notebook itself
is about replaying. With `--into` everything is saved there, and the notebooks stay as they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

WEIGHTS = Path(__file__).parent.parent / ".cache" / "llm_jupyter" / "models"
UNSTABLE = ("session", "turn")
"""What an answer's metadata say of one run alone. Who opens a tutorial is to begin a conversation of his own."""

Wanted = Callable[[NotebookNode], bool]


def record(source: Path, folder: Path, weights: Path) -> int:
    """Run a tutorial, and save it and its recording in a folder; how many answers there are."""
    notebook = nbformat.read(source, as_version=4)
    path = folder / source.name
    recording = path.with_suffix(".recording.jsonl")
    recording.unlink(missing_ok=True)  # questions of yesterday are not to stay in it
    _run(notebook, folder, weights, _asks_a_model, OFFLINE="record", RECORDING=str(recording))
    _run(replayed := nbformat.read(source, as_version=4), folder, weights, lambda cell: True, OFFLINE="replay")
    saved = notebook if all(map(_asks_a_model, notebook.cells)) else replayed
    for cell in saved.cells:
        if cell.cell_type == "code":
            _settle(cell, folder)
    nbformat.write(saved, path)
    return len(recording.read_bytes().splitlines())


def _asks_a_model(cell: NotebookNode) -> bool:
    """Whether a cell belongs into a run with a model: it leaves the mode alone, and is not to fail for want of one."""
    fails = "raises-exception" in cell.metadata.get("tags", ())
    return not fails and not cell.source.startswith("%llm offline")


def _run(notebook: NotebookNode, folder: Path, weights: Path, is_wanted: Wanted, **settings: str) -> None:
    """Run those cells of a notebook that are wanted. Raises `CellExecutionError`."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(weights)
        told = {f"LLM_JUPYTER_{name}": value for name, value in settings.items()}
        environment = {**os.environ, "LLM_JUPYTER_HOME": home, **told}
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        )
        with client.setup_kernel(env=environment):
            for number, cell in enumerate(notebook.cells):
                if cell.cell_type == "code" and is_wanted(cell):
                    cell.outputs = []
                    client.execute_cell(cell, number, store_history=True)


def _settle(cell: NotebookNode, folder: Path) -> None:
    """Take out what belongs to this run or this machine alone."""
    for output in cell.outputs:
        for name in UNSTABLE:
            output.get("metadata", {}).get("llm_jupyter", {}).pop(name, None)
        if output.output_type == "stream":
            output.text = output.text.replace(f"{folder}{os.sep}", "")


def main(arguments: Iterable[str]) -> None:
    """Record what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="save there; else beside the notebooks")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the embedded model's weights are")
    told = parser.parse_args(list(arguments))
    for source in told.notebooks:
        began = time.monotonic()
        folder = (told.into or source.parent).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        count = record(source, folder, told.weights.absolute())
        print(f"{source.name}: {count} answers, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
