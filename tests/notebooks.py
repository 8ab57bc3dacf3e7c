"""A notebook as a person edits it in JupyterLab: cells with ids, a file that may lag behind, and what the front end sends.

notebook = Notebook(tmp_path / "talk.ipynb")
notebook.add("%%chat\\none"); notebook.save()
notebook.run_all(kernel)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels import Kernel, Ran


@dataclass
class Cell:
    """A cell. `outputs` are those of its last run."""

    id: str
    source: str
    kind: str = "code"
    outputs: list[dict[str, Any]] = field(default_factory=list)


class Notebook:
    """Cells, edited in memory; the file follows when it is saved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: list[Cell] = []
        self.deleted: list[str] = []
        self._numbers = itertools.count(1)

    def add(self, source: str, at: int | None = None, kind: str = "code") -> Cell:
        """Insert a cell, at the end unless it says where."""
        cell = Cell(f"cell-{next(self._numbers)}", source, kind)
        self.cells.insert(len(self.cells) if at is None else at, cell)
        return cell

    def delete(self, at: int) -> Cell:
        cell = self.cells.pop(at)
        self.deleted.append(cell.id)
        return cell

    def move(self, at: int, to: int) -> None:
        self.cells.insert(to, self.cells.pop(at))

    def copy(self, at: int, to: int) -> Cell:
        """Copy and paste: the copy has an id of its own."""
        return self.add(self.cells[at].source, to, self.cells[at].kind)

    def split(self, at: int, first: str, second: str) -> None:
        """The upper half keeps the id."""
        self.cells[at].source = first
        self.add(second, at + 1)

    def save(self) -> None:
        """Write the file, as JupyterLab does: outputs and all."""
        self.path.write_text(json.dumps(self.as_json()), encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        return {
            "nbformat": 4, "nbformat_minor": 5, "metadata": {},
            "cells": [dict(self._as_json(cell)) for cell in self.cells],
        }  # fmt: skip

    @staticmethod
    def _as_json(cell: Cell) -> Iterator[tuple[str, Any]]:
        yield from {"id": cell.id, "cell_type": cell.kind, "metadata": {}, "source": cell.source}.items()
        if cell.kind == "code":
            yield "execution_count", None
            yield "outputs", [_saved(output) for output in cell.outputs]

    def run(self, kernel: Kernel, cell: Cell) -> Ran:
        """Run one cell and wait for it."""
        return self._finish(kernel, cell, self._start(kernel, cell))

    def run_all(self, kernel: Kernel) -> list[Ran]:
        """ "Run All": every code cell is sent at once, in order."""
        sent = [(cell, self._start(kernel, cell)) for cell in self.cells if cell.kind == "code"]
        return [self._finish(kernel, cell, ran) for cell, ran in sent]

    def _start(self, kernel: Kernel, cell: Cell) -> Ran:
        deleted, self.deleted = self.deleted, []
        return kernel.start(cell.source, cell.id, metadata={"deletedCells": deleted, "recordTiming": False})

    @staticmethod
    def _finish(kernel: Kernel, cell: Cell, ran: Ran) -> Ran:
        cell.outputs = kernel.finish(ran).outputs
        return ran


def _saved(output: dict[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return output
    kept = {name: value for name, value in output.items() if name != "transient"}
    return kept | ({"execution_count": None} if output["output_type"] == "execute_result" else {})
