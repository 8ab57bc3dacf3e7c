"""Which conversation a notebook goes on with, in real kernels: what reaches the server, what is said, what the list shows.

Each test begins with a notebook that has asked two things in a conversation named `plan`, whose kernel is shut down.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import by_default
from jupyter_client.blocking.client import BlockingKernelClient
from kernels import Kernel, Ran, kernel_environment
from nbclient import NotebookClient
from servers.paced import ModelServer

from notebooks import Notebook

LOAD = "%load_ext llm_jupyter"
TALK = "Ein Gespräch über Äpfel.ipynb"


@dataclass
class Desk:
    """A person's machine: their home, their notebooks, and the model that they ask."""

    base: Path
    server: ModelServer
    open: ExitStack

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def path(self) -> Path:
        return self.base / "notebooks" / TALK

    @property
    def variables(self) -> dict[str, str]:
        return by_default(self.server)

    def start(self, path: Path) -> Kernel:
        """A kernel for a notebook, with the extension loaded; it is shut down at the end of the test."""
        return self.open.enter_context(Kernel(self.home, self.variables, notebook=path)).load()

    def talk(self) -> Notebook:
        """The notebook, its answers shown in it or not."""
        notebook = Notebook(self.path)
        for source in (LOAD, "%%chat\none", "%%chat\ntwo"):
            notebook.add(source)
        return notebook

    def asked(self) -> list[list[str]]:
        """What reached the server since the last time."""
        requests = [self.server.contents(number) for number in range(len(self.server.chats))]
        self.server.forget()
        return requests

    def ask(self, kernel: Kernel, word: str, cell: str) -> tuple[list[str], str]:
        """Ask something; the texts that reached the server, and what is said below the answer."""
        ran = kernel.run(f"%%chat\n{word}", cell)
        assert ran.status == "ok", ran.error
        (request,) = self.asked()
        return request, said(ran)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def asked_before(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A machine, and a copy of how it was when the notebook had asked its two questions."""
    base = tmp_path_factory.mktemp("machine")
    with ExitStack() as stack:
        desk = Desk(base, server, stack)
        desk.path.parent.mkdir()
        talk = desk.talk()
        talk.save()
        kernel = desk.start(desk.path)
        assert talk.run_all(kernel)[-1].status == "ok"
        assert kernel.run("%llm session name plan").status == "ok"
        talk.save()
    return base, Path(shutil.copytree(base, base.with_name("as-it-was")))


@pytest.fixture
def desk(asked_before: tuple[Path, Path], server: ModelServer) -> Iterator[Desk]:
    base, as_it_was = asked_before
    shutil.rmtree(base)
    shutil.copytree(as_it_was, base)
    server.forget()
    with ExitStack() as stack:
        yield Desk(base, server, stack)


def said(ran: Ran) -> str:
    return " ".join(ran.footers)


def after(*words: str) -> list[str]:
    """The texts of a request that ends with the last of these words."""
    return [*(text for word in words[:-1] for text in (word, f"Heard: {word}")), words[-1]]


def table_rows(text: str) -> list[dict[str, str]]:
    """The rows of a table in text, by the names of its columns."""
    head, *lines = text.splitlines()
    names = head.split()
    starts = [0, *(head.index(name) for name in names), None]
    return [
        {name: line[start:end].strip() for name, start, end in zip(["", *names], starts[:-1], starts[1:], strict=True)}
        for line in lines
    ]


def listed(kernel: Kernel) -> list[list[str]]:
    """What `%llm session list` shows: a mark for the current one, its name, its turns, its notebook; sorted."""
    rows = table_rows(kernel.run("%llm session list").printed)
    return sorted([row[name] for name in ("", "name", "turns", "notebook")] for row in rows)


def restarted(kernel: Kernel, path: Path) -> Kernel:
    """What "Restart Kernel" does: the server tells the new kernel the path that the notebook has now."""
    kernel._env["JPY_SESSION_NAME"] = str(path)
    kernel.restart()
    return kernel.load()


def test_a_renamed_notebook_goes_on_in_its_living_kernel_after_a_restart_and_on_the_next_day(desk: Desk) -> None:
    talk, kernel = desk.talk(), desk.start(desk.path)
    assert "Resumed 2 turns of plan (it is this notebook's)" in said(talk.run(kernel, talk.cells[2]))
    assert desk.asked() == [after("one", "two")]
    talk.path = desk.path.rename(desk.path.with_name("final.ipynb"))
    talk.move(2, 1)
    talk.save()
    assert [talk.run(kernel, cell).status for cell in talk.cells] == ["ok"] * 3
    assert desk.asked() == [after("two"), after("two", "one")], "its file is still followed"
    assert listed(kernel) == [["→", "plan", "2", "final.ipynb"]]

    restarted(kernel, talk.path)
    request, line = desk.ask(kernel, "four", "four")
    assert request == after("two", "one", "four")
    assert "Resumed 2 turns of plan (the kernel was restarted); %llm reset starts over." in line
    kernel.shut_down()

    talk.path = talk.path.rename(talk.path.with_name("final 2.ipynb"))
    kernel = desk.start(talk.path)
    request, line = desk.ask(kernel, "five", "five")
    assert request == after("two", "one", "four", "five")
    assert "Resumed 3 turns of plan (this notebook was final.ipynb); %llm reset starts over." in line
    assert listed(kernel) == [["→", "plan", "4", "final 2.ipynb"]]


def test_a_copy_of_the_file_goes_on_apart_from_its_original_with_its_answers_or_without(desk: Desk) -> None:
    copy = Path(shutil.copy(desk.path, desk.path.with_name("copy.ipynb")))
    stripped = desk.talk()
    stripped.path = desk.path.with_name("stripped.ipynb")
    stripped.save()
    for path in (copy, stripped.path):
        kernel = desk.start(path)
        request, line = desk.ask(kernel, path.stem, "new")
        assert request == after("one", "two", path.stem)
        assert f"This is a copy of plan with its 2 turns, for this notebook is a copy of {TALK}; %llm reset" in line
        assert desk.ask(kernel, "and on", "newer")[0] == after("one", "two", path.stem, "and on")
    original = desk.start(desk.path)
    request, line = desk.ask(original, "mine", "new")
    assert request == after("one", "two", "mine")
    assert "Resumed 2 turns of plan (it is this notebook's)" in line
    assert listed(original) == [
        ["", "", "4", "copy.ipynb"], ["", "", "4", "stripped.ipynb"], ["→", "plan", "3", TALK],
    ]  # fmt: skip


def test_a_notebook_made_anew_at_a_path_does_not_go_on_with_the_deleted_one_nor_take_it_from_the_renamed_one(
    desk: Desk,
) -> None:
    final = desk.path.rename(desk.path.with_name("final.ipynb"))
    anew = Notebook(desk.path)
    cell = anew.add("%%chat\nsomething else")
    cell.id = uuid.uuid4().hex[:8]
    anew.save()
    kernel = desk.start(desk.path)
    request, line = desk.ask(kernel, "something else", cell.id)
    assert request == after("something else")
    assert "Resumed" not in line
    assert "copy" not in line
    assert listed(kernel) == [["", "plan", "2", TALK], ["→", "", "1", TALK]]

    renamed = desk.start(final)
    request, line = desk.ask(renamed, "three", "three")
    assert request == after("one", "two", "three")
    assert f"Resumed 2 turns of plan (this notebook was {TALK})" in line
    assert listed(renamed) == [["", "", "1", TALK], ["→", "plan", "3", "final.ipynb"]]


def test_of_two_kernels_on_a_notebook_one_copies_and_says_so_and_after_a_kill_a_third_resumes(
    desk: Desk,
) -> None:
    kernels = [desk.start(desk.path), desk.start(desk.path)]
    runs = [kernel.start("%%chat\nnow", "now") for kernel in kernels]
    lines = {said(kernel.finish(ran)): kernel for kernel, ran in zip(kernels, runs, strict=True)}
    (resumed, first), (copied, second) = sorted(lines.items())
    assert "Resumed 2 turns of plan (it is this notebook's); %llm reset starts over." in resumed
    assert "This is a copy of plan with its " in copied
    assert " turns, for another kernel goes on with it; %llm reset starts over." in copied
    assert desk.asked() == [after("one", "two", "now")] * 2, "whichever came first, both have asked it in the same cell"
    assert desk.ask(first, "first", "first")[0] == after("one", "two", "now", "first")
    assert desk.ask(second, "second", "second")[0] == after("one", "two", "now", "second")
    assert listed(second) == [["", "plan", "4", TALK], ["→", "", "4", TALK]]

    first.kill()
    third = desk.start(desk.path)
    request, line = desk.ask(third, "third", "third")
    assert request == after("one", "two", "now", "first", "third")
    assert "Resumed 4 turns of plan (it is this notebook's)" in line
    assert listed(third) == [["", "", "4", TALK], ["→", "plan", "5", TALK]]


def test_notebooks_with_the_same_cell_ids_have_conversations_of_their_own(desk: Desk) -> None:
    copied, other = desk.talk(), Notebook(desk.path.with_name("other.ipynb"))
    copied.path = desk.path.with_name("copied before.ipynb")
    copied.save()
    for source in (LOAD, "%%chat\nuno", "%%chat\ndue"):
        other.add(source)
    other.save()
    assert [cell.id for cell in other.cells] == [cell.id for cell in desk.talk().cells]
    kernels = desk.start(copied.path), desk.start(other.path)
    for _ in range(2):
        assert [ran.status for ran in copied.run_all(kernels[0])] == ["ok"] * 3
        assert desk.asked() == [after("one"), after("one", "two")]
        assert [said(ran).count("copy") for ran in other.run_all(kernels[1])] == [0, 0, 0]
        assert desk.asked() == [after("uno"), after("uno", "due")]
    assert listed(kernels[1]) == [
        ["", "", "2", "copied before.ipynb"], ["", "plan", "2", TALK], ["→", "", "2", "other.ipynb"],
    ]  # fmt: skip


PROGRAM = [LOAD, "%%chat\none", "%llm session list", "%llm session resume plan", "%%chat\nthree", "%llm session list"]


def test_a_program_that_runs_a_notebook_begins_anew_each_time_and_resumes_what_it_is_told(desk: Desk) -> None:
    """Also when it is started from a kernel, whose `JPY_SESSION_NAME` it has then."""
    notebook = Notebook(desk.path.with_name("job.ipynb"))
    for source in PROGRAM:
        notebook.add(source)
    notebook.save()
    environment = kernel_environment(desk.home, {**desk.variables, "JPY_SESSION_NAME": str(desk.path)})
    for run, program in enumerate(("nbclient", "papermill")):
        fresh, resumed = (current_row(text) for text in run_by(program, notebook, environment))
        assert desk.asked() == [after("one"), after("one", "two", *["three"] * run, "three")]
        assert (fresh["name"], fresh["turns"], fresh["notebook"]) == ("“one”", "1", "")
        assert (resumed["name"], resumed["turns"], resumed["notebook"]) == ("plan", str(3 + run), TALK)


def current_row(text: str) -> dict[str, str]:
    """The row of the current conversation in what `%llm session list` shows."""
    return next(row for row in table_rows(text) if row[""])


def run_by(program: str, notebook: Notebook, environment: dict[str, str]) -> list[str]:
    """Run a notebook by a program; what its lists of conversations show."""
    import nbformat

    path = notebook.path
    if program == "nbclient":
        read = nbformat.read(path, as_version=4)
        NotebookClient(read, kernel_name="python3").execute(env=environment, cwd=str(path.parent))
    else:
        result = path.with_name("result.ipynb")
        command = [sys.executable, "-m", "papermill", "--kernel", "python3", str(path), str(result)]
        subprocess.run(command, env=environment, cwd=path.parent, check=True, capture_output=True)
        read = nbformat.read(result, as_version=4)
    return [cell.outputs[0].text for cell in read.cells if cell.source == "%llm session list"]


def test_a_kernel_finds_its_conversation_by_its_id_where_its_name_is_no_path_and_where_it_is_another(
    desk: Desk,
) -> None:
    kernel = desk.start(desk.path.parent / str(uuid.uuid4()))
    assert desk.ask(kernel, "uno", "a")[0] == after("uno")
    assert listed(kernel) == [["", "plan", "2", TALK], ["→", "“uno”", "1", ""]]
    restarted(kernel, desk.path)
    request, line = desk.ask(kernel, "due", "b")
    assert request == after("uno", "due")
    assert "Resumed 1 turn of" in line
    assert "(the kernel was restarted)" in line


def test_a_console_beside_the_notebook_adds_to_the_conversation_and_never_replaces(desk: Desk) -> None:
    talk, kernel = desk.talk(), desk.start(desk.path)
    console = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    console.load_connection_file()
    console.start_channels()
    try:
        console.wait_for_ready(timeout=60)
        assert talk.run_all(kernel)[-1].status == "ok"
        desk.asked()
        for before in ([], ["aside"]):
            console.execute_interactive("%chat aside", timeout=60, output_hook=lambda message: None)
            assert desk.asked() == [after("one", "two", *before, "aside")]
        assert [ran.status for ran in talk.run_all(kernel)] == ["ok"] * 3
        assert desk.asked() == [after("one"), after("one", "two")]
        assert desk.ask(kernel, "three", "three")[0] == after("one", "two", "aside", "aside", "three")
        assert listed(kernel) == [["→", "plan", "5", TALK]]
    finally:
        console.stop_channels()


def test_a_notebook_of_chat_lines_resumes_and_after_a_reset_the_fresh_one_does_until_another_is_used(
    desk: Desk,
) -> None:
    notebook = Notebook(desk.path.with_name("lines.ipynb"))
    cells = [notebook.add(source) for source in ("%chat uno", "%chat due")]
    notebook.save()
    kernel = desk.start(notebook.path)
    assert notebook.run_all(kernel)[-1].status == "ok"
    assert kernel.run("%llm session name lines").status == "ok"
    assert desk.asked() == [after("uno"), after("uno", "due")]
    restarted(kernel, notebook.path)
    assert "Resumed 2 turns of lines" in said(notebook.run(kernel, cells[1]))
    assert desk.asked() == [after("uno", "due")]

    shown = kernel.run("%llm reset").printed
    assert "A fresh conversation." in shown
    assert "%llm session use lines returns to the old one" in shown
    assert notebook.run(kernel, cells[1]).status == "ok"
    assert desk.asked() == [after("due")]
    restarted(kernel, notebook.path)
    assert notebook.run(kernel, notebook.add("%chat tre")).status == "ok"
    assert desk.asked() == [after("due", "tre")]

    assert "Resumed 2 turns of lines (you asked for it)" in kernel.run("%llm session use lines").printed
    assert listed(kernel) == [["", "plan", "2", TALK], ["", "“due”", "2", ""], ["→", "lines", "2", "lines.ipynb"]]
    restarted(kernel, notebook.path)
    assert notebook.run(kernel, notebook.add("%chat quattro")).status == "ok"
    assert desk.asked() == [after("uno", "due", "quattro")]
