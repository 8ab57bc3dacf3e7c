"""What real front ends tell a kernel, recorded and said again to ours: `recordings/record.py` made the recordings, and
`recordings/vscode.json` says where each of its fields is documented.

In JupyterLab and Notebook the person runs all four cells, the second again, deletes the third and writes a new one behind the
first, saves, renames the notebook, runs the first, restarts the kernel, runs the first again; then another client asks the
same kernel. In VS Code they run two cells and the first again. nbclient and papermill run four cells, twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

import nbformat
import papermill
import pytest
from conftest import by_default
from kernels import NOBODY, Kernel, Ran, kernel_environment, kinds
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError
from servers.paced import ModelServer, paced
from servers.scripted import DONE, Gate, delta, finish, sse

from notebooks import Cell, Notebook

RECORDINGS = Path(__file__).parent / "recordings"
IN_JUPYTER = ("lab", "notebook")
PROGRAMS = ("nbclient", "papermill")
FRONT_ENDS = (*IN_JUPYTER, "vscode", *PROGRAMS)
Request = Mapping[str, Any]


class FrontEnd(Kernel):
    """A kernel, started as a front end starts one, and that front end, which sends it what was recorded."""

    def __init__(self, name: str, base: Path, server: ModelServer) -> None:
        self.name, self.server, self.recorded = name, server, recording(name)
        self.requests: list[Request] = self.recorded["requests"]
        self.sends_at_once = name in IN_JUPYTER
        title = self.requests[0].get("notebook") or "mein Gespräch.ipynb"
        super().__init__(base / "home", environment(server), notebook=base / title if name in IN_JUPYTER else None)
        self.manager.connection_file = str(base / (self.recorded.get("kernel") or self.requests[0]["kernel"]))
        self.notebook = Notebook(base / title)
        if name in IN_JUPYTER:
            self.save({request["metadata"]["cellId"]: request["what"] for request in self.requests[:4]})
        elif name == "vscode":  # the file has ids of its own
            self.save({"a": "cell 1", "b": "cell 2"})

    def __enter__(self) -> Self:
        return super().__enter__().load()

    def load(self) -> Self:
        """Load the extension, after what the front end runs before all cells."""
        setup = self.recorded.get("setup", "").replace("PATH", json.dumps(str(self.notebook.path)))
        assert self.run(setup).status == "ok"
        return super().load()

    def save(self, cells: Mapping[str, str]) -> None:
        """Save the notebook with these cells, each of which asks what it is called."""
        self.notebook.cells = [Cell(cell, f"%%chat\n{word}") for cell, word in cells.items()]
        self.notebook.save()

    def run_all(self, cells: Sequence[tuple[Request, str]]) -> list[Ran]:
        """Run All, as this front end does it: each request with a code of its own.

        JupyterLab and Notebook send all cells at once, and the kernel drops the rest after an error. The others send one
        when the last has ended, and stop by themselves: VS Code at an error among the outputs, the programs at the reply.
        """
        if self.sends_at_once:
            began, first = datetime.now(UTC), _date(cells[0][0])
            sent = [self.send(request, code, began + (_date(request) - first)) for request, code in cells]
            return [self.finish(ran) for ran in sent]
        runs = []
        for request, code in cells:
            ran = self.finish(self.send(request, code, datetime.now(UTC)))
            runs.append(ran)
            if "error" in (kinds(ran.outputs) if self.name == "vscode" else [ran.status]):
                break
        return runs

    def asks(self, *requests: Request) -> tuple[list[list[str]], list[Ran]]:
        """Run All of cells that ask what they are called and succeed; the first part is what reached the model's server."""
        self.server.forget()
        runs = self.run_all([(request, f"%%chat\n{request['what']}") for request in requests])
        for ran in runs:
            assert ran.status == "ok", ran.error
        return [self.server.contents(number) for number in range(len(self.server.chats))], runs

    def send(self, request: Request, code: str, date: datetime) -> Ran:
        """Send a request as it was recorded, but for its date and its id; do not wait for it."""
        content = {"code": code, **request["content"]}
        message = self.client.session.msg("execute_request", content, metadata=dict(request["metadata"]))
        message["header"] |= {**request["header"], "msg_id": message["msg_id"], "date": date}
        ran = self._ran[message["msg_id"]] = Ran(0.0)
        self.client.shell_channel.send(message)
        return ran

    def conversation(self) -> list[str]:
        """The words of the row of the current conversation in `%llm session list`."""
        rows = self.run("%llm session list").printed.splitlines()
        return next(row.split() for row in rows if row.startswith("→"))


def environment(server: ModelServer) -> dict[str, str]:
    """A model that answers, and another on a server that is dead."""
    dead = {"KIND": "openai-compatible", "BASE_URL": f"http://{NOBODY}/v1"}
    return by_default(server) | {f"LLM_JUPYTER_PROVIDERS__DEAD__{name}": value for name, value in dead.items()}


def _date(request: Request) -> datetime:
    return datetime.fromisoformat(request["header"]["date"])


def recording(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return content


def after(*words: str) -> list[str]:
    """The texts of a request that ends with the last of these words."""
    return [*(text for word in words[:-1] for text in (word, f"Heard: {word}")), words[-1]]


def growing(*words: str) -> list[list[str]]:
    """The texts of requests, each of which adds one of these words."""
    return [after(*words[: number + 1]) for number in range(len(words))]


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def started(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], FrontEnd]]:
    """Gives one kernel for each front end, started when it is first asked for."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(FrontEnd(name, tmp_path_factory.mktemp(name), server)))


@pytest.fixture
def front_end(request: pytest.FixtureRequest, started: Callable[[str], FrontEnd], server: ModelServer) -> FrontEnd:
    """A front end with a fresh conversation."""
    front_end = started(request.param)
    assert front_end.run("%llm reset").status == "ok"
    server.forget()
    return front_end


@pytest.mark.parametrize("front_end", FRONT_ENDS, indirect=True)
def test_an_answer_grows_while_it_comes_and_stays_as_one_output_with_markdown(
    front_end: FrontEnd, server: ModelServer
) -> None:
    gate = Gate()
    server.next(sse(delta("**First** "), gate, delta("second"), finish(), DONE))
    ran = front_end.send(front_end.requests[0], "%%chat\nhi", datetime.now(UTC))
    try:
        front_end.until(ran, lambda ran: any("First" in text for _, text in ran.shown()), timeout=10)
    finally:
        gate.open()
    front_end.finish(ran)
    texts = [text for _, text in ran.shown() if "First" in text]
    assert (texts[0], texts[-1]) == ("**First** ", "**First** second")
    assert kinds(ran.outputs) == ["answer", "footer"]
    assert ran.outputs[0]["data"] == dict.fromkeys(("text/markdown", "text/plain"), "**First** second")


@pytest.mark.parametrize("front_end", FRONT_ENDS, indirect=True)
def test_a_dead_server_is_one_error_of_few_lines_and_no_cell_below_runs(
    front_end: FrontEnd, server: ModelServer
) -> None:
    server.next(paced(["yes"], 0.3))  # time for all cells to arrive: a kernel drops only what it has
    codes = ("%%chat\nhi", "%%chat -m dead/m\nhi", "%%chat\nnever")
    first, failed, *others = front_end.run_all(list(zip(front_end.requests, codes, strict=False)))
    assert first.status == "ok"
    assert failed.status == "error"
    assert [word for word in kinds(failed.outputs) if word != "footer"] == ["error"]
    assert 1 <= len("\n".join(failed.error).splitlines()) <= 3
    assert failed.error[0].startswith("UnreachableError: ")
    assert [(ran.status, ran.outputs) for ran in others] == ([("aborted", [])] if front_end.sends_at_once else [])
    assert len(server.chats) == 1


@pytest.mark.parametrize("front_end", IN_JUPYTER, indirect=True)
def test_what_jupyter_sends_keeps_the_turns_of_its_cells_in_order_through_a_rename_and_a_restart(
    front_end: FrontEnd,
) -> None:
    all_at_once, (again, new, renamed, restarted, other) = front_end.requests[:4], front_end.requests[4:]
    assert front_end.asks(*all_at_once)[0] == growing("cell 1", "cell 2", "cell 3", "cell 4")
    assert front_end.asks(again)[0] == [after("cell 1", "cell 2")]
    assert front_end.asks(new)[0] == [after("cell 1", "cell 2", "cell 4", "a new cell")], "the third was deleted"

    words = {one["metadata"]["cellId"]: one["what"] for one in (*all_at_once, new)}
    front_end.save({cell: words[cell] for cell in front_end.recorded["saved_cells"]})
    path = front_end.notebook.path
    path = path.rename(path.with_name(restarted["notebook"]))
    assert front_end.asks(renamed)[0] == [after("cell 1")]
    front_end._env["JPY_SESSION_NAME"] = str(path)
    front_end.restart()
    front_end.load()
    requests, (ran,) = front_end.asks(restarted)
    assert requests == [after("cell 1")]
    assert "Resumed 4 turns of final.ipynb (the kernel was restarted)" in " ".join(ran.footers)
    assert front_end.asks(other)[0] == [after("cell 1", "a new cell", "cell 2", "cell 4", "another client")]
    assert front_end.conversation()[-1] == "final.ipynb"


@pytest.mark.parametrize("front_end", ["vscode"], indirect=True)
def test_what_vs_code_sends_adds_to_the_conversation_and_its_notebook_finds_it_again(front_end: FrontEnd) -> None:
    notebook = front_end.notebook
    asked, runs = front_end.asks(*front_end.requests)
    assert asked == growing("cell 1", "cell 2", "cell 1")
    for cell, ran in zip(notebook.cells, runs, strict=False):
        cell.outputs = ran.outputs
    notebook.save()
    front_end.restart()
    front_end.load()
    (request,), (ran,) = front_end.asks(front_end.requests[1])
    assert request == after("cell 1", "cell 2", "cell 1", "cell 2")
    assert f"Resumed 3 turns of {notebook.path.name} (it is this notebook's)" in " ".join(ran.footers)
    assert " ".join(front_end.conversation()).endswith(notebook.path.name)


@pytest.mark.parametrize("front_end", PROGRAMS, indirect=True)
def test_what_a_program_sends_adds_to_the_conversation_and_its_next_run_begins_anew(front_end: FrontEnd) -> None:
    first, second = front_end.requests[:4], front_end.requests[4:]
    words = ("cell 1", "cell 2", "cell 3", "cell 4")
    assert front_end.asks(*first)[0] == growing(*words)
    assert front_end.asks(first[0])[0] == [after(*words, "cell 1")], "no cell is known, so none is replaced"
    front_end.restart()
    front_end.load()
    assert front_end.asks(*second)[0] == growing(*words)


NONSENSE: dict[str, Any] = {
    "ids that are no texts": {"cellId": {"a": 1}, "deletedCells": [1, None, {"b": 2}]},
    "no list of deleted cells": {"cellId": 7, "deletedCells": 5},
    "a text for a list": {"cellId": ["x"], "deletedCells": "abc"},
}


@pytest.mark.parametrize("front_end", ["vscode"], indirect=True)
def test_metadata_that_no_front_end_sends_disturbs_nothing(front_end: FrontEnd) -> None:
    (request, *_) = front_end.requests
    asked, runs = front_end.asks(
        *({**request, "what": name, "metadata": metadata} for name, metadata in NONSENSE.items())
    )
    assert asked == growing(*NONSENSE)
    assert [(ran.error, ran.printed) for ran in runs] == [([], "")] * len(NONSENSE)


def run_by_nbclient(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook).execute(cwd=str(path.parent))
    return notebook


def run_by_papermill(path: Path) -> nbformat.NotebookNode:
    result = path.with_name("result.ipynb")
    with pytest.raises(PapermillExecutionError):
        papermill.execute_notebook(path, result, {"word": "a parameter"}, cwd=path.parent, progress_bar=False)
    return nbformat.read(result, as_version=4)


@pytest.mark.parametrize(("run", "word"), [(run_by_nbclient, "nothing"), (run_by_papermill, "a parameter")])
def test_a_program_saves_the_whole_answer_to_its_parameter_and_stops_at_a_dead_server(
    run: Callable[[Path], nbformat.NotebookNode],
    word: str,
    server: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "home").mkdir()
    outside = kernel_environment(tmp_path / "home", environment(server))
    for name in {*os.environ} - {*outside}:
        monkeypatch.delenv(name)
    for name, value in outside.items():
        monkeypatch.setenv(name, value)
    parameter = nbformat.v4.new_code_cell("word = 'nothing'", metadata={"tags": ["parameters"]})
    sources = ("%load_ext llm_jupyter", "%%chat\nSay {word}.", "%%chat -m dead/m\nhi", "%%chat\nnever")
    cells = [parameter, *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = tmp_path / "job.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    server.forget()
    server.next(paced(["**The ", "whole** ", "answer."], 0.15))

    saved = {cell.source: cell.get("outputs", []) for cell in run(path).cells}
    answer, _footer = saved[sources[1]]
    assert answer.data == dict.fromkeys(("text/markdown", "text/plain"), "**The whole** answer.")
    assert "llm_jupyter" in answer.metadata
    (error,) = saved[sources[2]]
    assert error.output_type == "error"
    assert len(error.traceback) <= 3
    assert saved[sources[3]] == []
    assert [chat["messages"][-1]["content"] for chat in server.chats] == [f"Say {word}."]
