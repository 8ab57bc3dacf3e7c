"""`--context`: which cells that ran before go along with a question, and that the dry run lists exactly those."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import local_provider
from kernels import Kernel, Ran
from servers.paced import ModelServer

from notebooks import Notebook

CELLS = {
    "imports": "%load_ext llm_jupyter\nimport math",
    "print": "print('as printed')\n'x' * 3",
    "sets up": "%config LLMMagics.footer = 'on'\n%reload_ext llm_jupyter\n",
    "ours": "y = 2\n%chat --no-history hello",
    "compares": "%%compare -m local/m -m local/other-model -q\nhello",
    "fails": "print('so far')\n1 / 0",
    "many": "print('many words ' * 500)",
}


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    notebook = Notebook(tmp_path_factory.mktemp("context") / "talk.ipynb")
    for source in CELLS.values():
        notebook.add(source)
    notebook.save()
    return notebook


@pytest.fixture(scope="module")
def kernel(talk: Notebook, module_server: ModelServer) -> Iterator[Kernel]:
    with Kernel(talk.path.parent / "home", local_provider(module_server), notebook=talk.path) as kernel:
        for cell in talk.cells:
            talk.run(kernel, cell)
        yield kernel


@pytest.fixture(autouse=True)
def fresh(kernel: Kernel, server: ModelServer) -> None:
    """A conversation with nothing in it for each test."""
    kernel.run("%llm reset")
    server.forget()


def ask(talk: Notebook, kernel: Kernel, source: str, at: int | None = None, *, save: bool = True) -> Ran:
    """Run a cell that asks, and take it out of the notebook again."""
    cell = talk.add(source, at)
    if save:
        talk.save()
    ran = talk.run(kernel, cell)
    talk.cells.remove(cell)
    talk.save()
    return ran


def added(prompt: str) -> list[str]:
    """The cells in a prompt, by the first line of their source."""
    return re.findall(r"^`{3,}python\n(.*)$", prompt, re.MULTILINE)


def test_no_cell_goes_along_unless_that_is_said(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    for source in ("%%chat\nwhy?", "%%chat --context none\nwhy?", "%%chat --context 0\nwhy?"):
        ask(talk, kernel, source)
        assert server.last_prompt == "why?"


def test_cells_go_along_with_what_they_gave_but_those_that_ask_do_not(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    ran = ask(talk, kernel, "%%chat --context above\nwhy?")
    assert added(server.last_prompt) == [
        "import math",
        "print('as printed')",
        "print('so far')",
        "print('many words ' * 500)",
    ]
    text = server.last_prompt
    assert text.endswith("\n---\n\nwhy?")
    assert "It gave:\n```\nas printed\n'xxx'\n```" in text
    assert "so far\nIt raised ZeroDivisionError: division by zero\n```" in text
    assert "… (5,500 characters in all)\n```" in text
    assert "load_ext" not in text
    assert re.search(
        r"""Added: 4 cells, "import math" to "print\('many words ' \* 500\)" \(\d+ characters\)\.""", ran.footers[-1]
    )


@pytest.mark.parametrize(
    ("which", "cells"), [("last", ["print('many words ' * 500)"]), ("2", ["print('so far')", "print('many words ' * 500)"])]
)  # fmt: skip
def test_the_latest_are_told_one_by_one(
    talk: Notebook, kernel: Kernel, server: ModelServer, which: str, cells: list[str]
) -> None:
    ran = ask(talk, kernel, f"%%chat --context {which}\nwhy?")
    assert added(server.last_prompt) == cells
    assert all(re.search(re.escape(f'"{cell}" (') + r"\d+ characters\)", ran.footers[-1]) for cell in cells)


def test_the_dry_run_lists_exactly_what_would_leave(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    printed = ask(talk, kernel, "%%chat --context above --dry-run\nwhy?").printed
    assert server.chats == []
    ask(talk, kernel, "%%chat --context above\nwhy?")
    assert printed.split("\n\n", 1)[1] == f"── user\n{server.last_prompt}\n"
    assert re.search(r"^Added: 4 cells, ", printed, re.MULTILINE)


def test_above_takes_what_stands_above_in_the_saved_notebook(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    ask(talk, kernel, "%%chat --context above\nwhy?", 2)
    assert added(server.last_prompt) == ["import math", "print('as printed')"]
    ask(talk, kernel, "%%chat --context 3\nwhy?", 2)
    assert len(added(server.last_prompt)) == 3, "a number counts what ran, wherever it stands"


def test_where_the_asking_cell_is_not_saved_yet_above_is_all_that_ran(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    ask(talk, kernel, "%%chat --context above\nwhy?", 2, save=False)
    assert len(added(server.last_prompt)) == 4


def test_of_a_cell_that_ran_again_the_last_run_counts_and_a_deleted_one_is_gone(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    extra = talk.add("first = 'wording'")
    talk.run(kernel, extra)
    extra.source = "second = 'wording'"
    talk.run(kernel, extra)
    ask(talk, kernel, "%%chat --context 2\nwhy?")
    assert added(server.last_prompt) == ["print('many words ' * 500)", "second = 'wording'"]
    talk.delete(talk.cells.index(extra))
    ask(talk, kernel, "%%chat --context last\nwhy?")
    assert added(server.last_prompt) == ["print('many words ' * 500)"]


def test_what_has_no_room_is_left_out_oldest_first_and_that_is_said(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    large = [talk.add(f"text_{n} = '''" + "some words of it\n" * 150 + "'''") for n in range(3)]
    for cell in large:
        talk.run(kernel, cell)
    ran = ask(talk, kernel, "%%chat --context above\nwhy?")
    assert added(server.last_prompt) == ["text_1 = '''some words of it", "text_2 = '''some words of it"]
    assert "For want of room without 5 before these." in ran.footers[-1]
    huge = talk.add("huge = '''" + "some words of it\n" * 5000 + "'''")
    talk.run(kernel, huge)
    ask(talk, kernel, "%%chat --context last\nwhy?")
    assert "characters left out …]" in server.last_prompt
    assert len(server.last_prompt) < 7000
    for cell in (*large, huge):
        talk.delete(talk.cells.index(cell))
    kernel.run("0", metadata={"deletedCells": [cell.id for cell in (*large, huge)]})


def test_a_result_without_blanks_is_cut_however_long_it_is(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    extra = talk.add("print('7,' * 500_000)")
    talk.run(kernel, extra)
    ask(talk, kernel, "%%chat --context last\nwhy?")
    assert "7,7,… (1,000,000 characters in all)\n```" in server.last_prompt
    talk.delete(talk.cells.index(extra))
    kernel.run("0", metadata={"deletedCells": [extra.id]})


def test_braces_of_cells_stay_and_their_fences_cannot_break_out(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    kernel.run("math_name = 'filled in'")
    extra = talk.add("text = '{math_name} ```'\nprint('{math_name}')")
    talk.run(kernel, extra)
    ask(talk, kernel, "%%chat --context last\nSee {math_name}")
    assert "````python\ntext = '{math_name} ```'\nprint('{math_name}')\n````" in server.last_prompt
    assert server.last_prompt.endswith("See filled in")
    talk.delete(talk.cells.index(extra))


INSIDE = (
    "%%capture hidden\nprint('hunter2')\n'secret'",
    "get_ipython().run_cell(\"print('inside')\")",
    "print('own')\nprint(object(), print)",
)


def test_what_a_cell_runs_inside_of_itself_is_told_of_no_other_and_what_it_hides_of_none(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    extra = [talk.add(source) for source in INSIDE]
    for cell in extra:
        talk.run(kernel, cell)
    ask(talk, kernel, "%%chat --context 3\nwhy?")
    hides, runs, plain = server.last_prompt.split("```python\n")[1:]
    assert "secret" in hides
    assert "It gave" not in hides
    assert "It gave:\n```\ninside\n<ExecutionResult object, execution_count=" in runs
    assert "It gave:\n```\nown\n<object object> <built-in function print>\n```" in plain
    for cell in extra:
        talk.delete(talk.cells.index(cell))
    kernel.run("0", metadata={"deletedCells": [cell.id for cell in extra]})


def test_the_same_cells_make_the_same_question_whatever_ran_before(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in ("import math", "%load_ext llm_jupyter\nprint('first')", "math.sin", "%%chat --context above\nwhy?"):
        talk.add(source)
    talk.save()
    with Kernel(tmp_path / "home", local_provider(server), notebook=talk.path) as kernel:
        footers = [talk.run_all(kernel)[-1].footers for _ in range(2)]
        kernel.restart()
        footers.append(talk.run_all(kernel)[-1].footers)
    first, second, after_restart = (server.contents(number) for number in range(3))
    assert added(first[0]) == ["import math", "print('first')", "math.sin"]
    assert first == second == after_restart
    assert """Added: "import math" (11 characters), "print('first')" (19 characters), "math.sin" (""" in footers[0][-1]
    assert len({shown[-1].partition("Added:")[2].partition("\n")[0] for shown in footers}) == 1


def test_where_nothing_ran_that_is_said(tmp_path: Path, server: ModelServer) -> None:
    with Kernel(tmp_path, local_provider(server)) as kernel:
        kernel.load()
        ran = kernel.run("%chat --context above why?", "a")
        assert server.last_prompt == "why?"
        assert "No cells were added: none that counts ran before this one." in ran.footers[-1]
