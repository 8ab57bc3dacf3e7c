"""What real front ends tell a kernel, recorded and said again to ours: `recordings/record.py` made the recordings.

The person runs all four cells, the second again, deletes the third and writes a new one behind the first, saves, renames the
notebook, runs the first, restarts the kernel, runs the first again; then another client asks the same kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import by_default
from kernels import Kernel, Ran
from servers.paced import ModelServer

from notebooks import Cell, Notebook

RECORDINGS = Path(__file__).parent / "recordings"
Request = Mapping[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


class FrontEnd(Kernel):
    """A kernel, and a front end that sends it what was recorded; each cell asks what it is called."""

    def __init__(self, home: Path, server: ModelServer, **more: Any) -> None:
        variables = by_default(server)
        super().__init__(home, variables, **more)
        self.server = server

    def replay(self, *requests: Request) -> tuple[list[list[str]], list[Ran]]:
        """Send requests at once, as far apart by their clock as they were; what reached the model's server."""
        self.server.forget()
        began, first = datetime.now(UTC), _date(requests[0])
        runs = [self._send(request, began + (_date(request) - first)) for request in requests]
        for ran in runs:
            assert self.finish(ran).status == "ok", ran.error
        return [self.server.contents(number) for number in range(len(self.server.chats))], runs

    def _send(self, request: Request, date: datetime) -> Ran:
        content = {"code": f"%%chat\n{request['what']}", "silent": False, "store_history": True, "allow_stdin": True,
                   "user_expressions": {}, "stop_on_error": True}  # fmt: skip
        message = self.client.session.msg("execute_request", content, metadata=dict(request["metadata"]))
        message["header"] |= {**request["header"], "date": date}
        message["msg_id"] = message["header"]["msg_id"]
        ran = self._ran[message["msg_id"]] = Ran(0.0)
        self.client.shell_channel.send(message)
        return ran


def _date(request: Request) -> datetime:
    return datetime.fromisoformat(request["header"]["date"])


def recording(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return content


def after(*words: str) -> list[str]:
    """The texts of a request that ends with the last of these words."""
    return [*(text for word in words[:-1] for text in (word, f"Heard: {word}")), words[-1]]


def save(path: Path, cells: Mapping[str, str]) -> Notebook:
    """A notebook of these cells, each of which asks something."""
    notebook = Notebook(path)
    notebook.cells = [Cell(name, f"%%chat\n{word}") for name, word in cells.items()]
    notebook.save()
    return notebook


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_what_jupyter_sends_keeps_the_turns_of_its_cells_in_order_through_a_rename_and_a_restart(
    front_end: str, tmp_path: Path, server: ModelServer
) -> None:
    recorded = recording(front_end)
    all_at_once, (again, new, renamed, restarted, other) = recorded["requests"][:4], recorded["requests"][4:]
    notebook = save(
        tmp_path / all_at_once[0]["notebook"], {one["metadata"]["cellId"]: one["what"] for one in all_at_once}
    )
    kernel = FrontEnd(tmp_path / "home", server, notebook=notebook.path)
    kernel.manager.connection_file = str(tmp_path / "home" / all_at_once[0]["kernel"])
    with kernel:
        kernel.load()
        words = ["cell 1", "cell 2", "cell 3", "cell 4"]
        assert kernel.replay(*all_at_once)[0] == [after(*words[: n + 1]) for n in range(4)]
        assert kernel.replay(again)[0] == [after("cell 1", "cell 2")]
        assert kernel.replay(new)[0] == [after("cell 1", "cell 2", "cell 4", "a new cell")], "the third was deleted"

        asked = {one["metadata"]["cellId"]: one["what"] for one in (*all_at_once, new)}
        saved = save(notebook.path, {cell: asked[cell] for cell in recorded["saved_cells"]})
        saved.path = notebook.path.rename(tmp_path / restarted["notebook"])
        assert kernel.replay(renamed)[0] == [after("cell 1")]
        kernel._env["JPY_SESSION_NAME"] = str(saved.path)
        kernel.restart()
        kernel.load()
        requests, (ran,) = kernel.replay(restarted)
        assert requests == [after("cell 1")]
        assert "Resumed 4 turns of final.ipynb (the kernel was restarted)" in " ".join(ran.footers)
        assert kernel.replay(other)[0] == [after("cell 1", "a new cell", "cell 2", "cell 4", "another client")]
        rows = kernel.run("%llm session list").printed.splitlines()[1:]
        assert [row.split()[0] for row in rows] == ["→"]
        assert rows[0].endswith("final.ipynb")


def test_what_vs_code_sends_adds_to_the_conversation_and_its_notebook_finds_it_again(
    tmp_path: Path, server: ModelServer
) -> None:
    recorded, path = recording("vscode"), tmp_path / "mein Gespräch.ipynb"
    notebook = save(path, {"a": "cell 1", "b": "cell 2"})
    setup = recorded["setup"].replace("PATH", repr(str(path)))
    with FrontEnd(tmp_path / "home", server) as kernel:
        assert kernel.run(setup).status == "ok"
        kernel.load()
        heard, runs = [], []
        for request in recorded["requests"]:  # one when the other has ended
            requests, ran = kernel.replay(request)
            heard += requests
            runs += ran
        assert heard == [after("cell 1"), after("cell 1", "cell 2"), after("cell 1", "cell 2", "cell 1")]
    for cell, ran in zip(notebook.cells, runs, strict=False):
        cell.outputs = ran.outputs
    notebook.save()
    with FrontEnd(tmp_path / "home", server) as kernel:
        assert kernel.run(setup).status == "ok"
        kernel.load()
        (request,), (ran,) = kernel.replay(recorded["requests"][1])
        assert request == after("cell 1", "cell 2", "cell 1", "cell 2")
        assert f"Resumed 3 turns of {path.name} (it is this notebook's)" in " ".join(ran.footers)
        (row,) = kernel.run("%llm session list").printed.splitlines()[1:]
        assert row.startswith("→")
        assert row.endswith(path.name)


NONSENSE: dict[str, Any] = {
    "ids that are no texts": {"cellId": {"a": 1}, "deletedCells": [1, None, {"b": 2}]},
    "no list of deleted cells": {"cellId": 7, "deletedCells": 5},
    "a text for a list": {"cellId": ["x"], "deletedCells": "abc"},
}


def test_metadata_that_no_front_end_sends_disturbs_nothing(tmp_path: Path, server: ModelServer) -> None:
    (request, *_) = recording("vscode")["requests"]
    with FrontEnd(tmp_path / "home", server) as kernel:
        kernel.load()
        for number, (name, metadata) in enumerate(NONSENSE.items()):
            header = request["header"] | {"msg_id": f"nonsense-{number}"}
            (asked,), (ran,) = kernel.replay({"what": name, "header": header, "metadata": metadata})
            assert asked == after(*list(NONSENSE)[: number + 1])
            assert (ran.error, ran.printed) == ([], "")
