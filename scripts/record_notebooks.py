"""Run tutorials on the embedded model; save their outputs, and beside each its recording.

    scripts/record_notebooks.py [--into FOLDER] [--ollama URL] NOTEBOOK...

Each runs twice, in a home of its own: once with the model's weights while its answers are recorded, once without weights and
servers, as a test will run it. Answers of an Ollama are recorded where its URL is given; else those that were recorded
before stay. The outputs of the first run are saved; those of the second where the notebook itself
is about replaying, or its metadata ask for it (`"llm_jupyter": {"outputs": "replay"}`) because it shows times. With `--into` everything is saved there, and the notebooks stay as they are.
"""

from __future__ import annotations

import argparse
import json
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

NOBODY = "127.0.0.1:9"
"""An address at which nothing listens."""

WIDGET = "application/vnd.jupyter.widget-view+json"

Wanted = Callable[[NotebookNode], bool]


def record(source: Path, folder: Path, weights: Path, ollama: str | None = None) -> int:
    """Run a tutorial, and save it and its recording in a folder; how many answers there are."""
    notebook = nbformat.read(source, as_version=4)
    path = folder / source.name
    recording = path.with_suffix(".recording.jsonl")
    others = [] if ollama else _of_others(source.with_suffix(".recording.jsonl"))
    recording.unlink(missing_ok=True)  # questions of yesterday are not to stay in it
    _run(notebook, folder, weights, _asks_a_model, OFFLINE="record", RECORDING=str(recording), ollama=ollama or NOBODY)
    with recording.open("a", encoding="utf-8") as file:
        file.writelines(others)
    _run(replayed := nbformat.read(source, as_version=4), folder, None, lambda cell: True, OFFLINE="replay")
    is_about_replaying = _told(notebook).get("outputs") == "replay" or not all(map(_asks_a_model, notebook.cells))
    saved = replayed if is_about_replaying else notebook
    nbformat.write(saved, path)
    return len(recording.read_bytes().splitlines())


def _told(notebook: NotebookNode) -> dict[str, str]:
    """What a notebook says to us."""
    return dict(notebook.metadata.get("llm_jupyter", {}))


def _asks_a_model(cell: NotebookNode) -> bool:
    """Whether a cell belongs into a run with a model: it leaves the mode alone, and is not to fail for want of one."""
    fails = "raises-exception" in cell.metadata.get("tags", ())
    return not fails and not cell.source.startswith("%llm offline")


def _of_others(recording: Path) -> list[str]:
    """The lines of a recording that other providers answered than the embedded one."""
    if not recording.exists():
        return []
    lines = recording.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if json.loads(line)["provider"] != "embedded"]


def _run(
    notebook: NotebookNode, folder: Path, weights: Path | None, is_wanted: Wanted, *, ollama: str = NOBODY, **settings: str
) -> None:  # fmt: skip
    """Run those cells of a notebook that are wanted. Raises `CellExecutionError`."""
    with tempfile.TemporaryDirectory() as home:
        if weights is not None:
            (Path(home) / "models").symlink_to(weights)
        told = {f"LLM_JUPYTER_{name}": value for name, value in settings.items()}
        environment = {**os.environ, "LLM_JUPYTER_HOME": home, "OLLAMA_HOST": ollama, **told}
        if weights is None:  # nobody is asked, so nobody need be switched off
            environment.pop("LLM_JUPYTER_PROVIDERS", None)
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", record_timing=False, store_widget_state=False,
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        with client.setup_kernel(env=environment):
            for number, cell in enumerate(notebook.cells):
                if cell.cell_type == "code" and is_wanted(cell):
                    cell.outputs = []
                    client.execute_cell(cell, number, store_history=True)
                    _settle(cell, folder, home)


def _settle(cell: NotebookNode, folder: Path, home: str) -> None:
    """Take out what belongs to this run or this machine alone."""
    for output in cell.outputs:
        output.get("data", {}).pop(WIDGET, None)  # of a kernel that is gone: its picture as HTML says more
        for name in UNSTABLE:
            output.get("metadata", {}).get("llm_jupyter", {}).pop(name, None)
        if output.output_type == "stream":
            output.text = output.text.replace(f"{folder}{os.sep}", "")
        for kind, text in output.get("data", {}).items():
            if kind.startswith("text/"):
                output.data[kind] = text.replace(home, "HOME")


def main(arguments: Iterable[str]) -> None:
    """Record what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="save there; else beside the notebooks")
    parser.add_argument("--ollama", help="the address of an Ollama that joins in where a notebook asks for one")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the embedded model's weights are")
    told = parser.parse_args(list(arguments))
    for source in told.notebooks:
        began = time.monotonic()
        folder = (told.into or source.parent).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        count = record(source, folder, told.weights.absolute(), told.ollama)
        print(f"{source.name}: {count} answers, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
