"""The conversation is the notebook's, in real kernels: what reaches the server after edits, reruns and restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import by_default
from kernels import Kernel
from servers.paced import ModelServer

from notebooks import Notebook

LOAD = "%load_ext llm_jupyter"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def variables(server: ModelServer) -> dict[str, str]:
    return by_default(server)


@pytest.fixture
def talk(tmp_path: Path) -> Notebook:
    """Five questions, saved."""
    notebook = Notebook(tmp_path / "talk.ipynb")
    notebook.add(LOAD)
    for word in ("one", "two", "three", "four", "five"):
        notebook.add(f"%%chat\n{word}")
    notebook.save()
    return notebook


@pytest.fixture
def kernel(tmp_path: Path, talk: Notebook, variables: dict[str, str]) -> Iterator[Kernel]:
    with Kernel(tmp_path / "home", variables, notebook=talk.path) as kernel:
        yield kernel


def asked(server: ModelServer) -> list[list[str]]:
    """What reached the server since the last time, a list of texts for each question."""
    requests = [server.contents(number) for number in range(len(server.chats))]
    server.forget()
    return requests


def conversation(*words: str) -> list[str]:
    """The texts of a request that ends with the last of these words."""
    said = [text for word in words[:-1] for text in (word, f"Heard: {word}")]
    return [*said, words[-1]]


def whole(*words: str) -> list[list[str]]:
    """The requests of a run of all."""
    return [conversation(*words[: n + 1]) for n in range(len(words))]


def run_all(notebook: Notebook, kernel: Kernel, server: ModelServer) -> list[list[str]]:
    for ran in notebook.run_all(kernel):
        assert ran.status == "ok", ran.error
    return asked(server)


def test_five_questions_a_restart_and_on_then_one_again_then_all_of_them_twice(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    words = ["one", "two", "three", "four", "five"]
    assert run_all(talk, kernel, server) == whole(*words)
    kernel.restart()
    six = talk.add("%%chat\nsix")
    talk.run(kernel, talk.cells[0])
    ran = talk.run(kernel, six)
    assert asked(server) == [conversation(*words, "six")]
    assert "Resumed 5 turns of talk.ipynb" in " ".join(ran.footers)
    talk.run(kernel, talk.cells[2])
    assert asked(server) == [conversation("one", "two")]
    talk.save()
    assert run_all(talk, kernel, server) == whole(*words, "six")
    assert run_all(talk, kernel, server) == whole(*words, "six")


EDITS: dict[str, tuple[Callable[[Notebook], object], list[str]]] = {
    "insert": (lambda talk: talk.add("%%chat\nnew", 3), ["one", "two", "new", "three", "four", "five"]),
    "delete": (lambda talk: talk.delete(2), ["one", "three", "four", "five"]),
    "move": (lambda talk: talk.move(4, 1), ["four", "one", "two", "three", "five"]),
    "split": (lambda talk: talk.split(2, "%%chat\ntw", "%%chat\no"), ["one", "tw", "o", "three", "four", "five"]),
    "copy": (lambda talk: talk.copy(1, 3), ["one", "two", "one", "three", "four", "five"]),
    "retype the text": (lambda talk: setattr(talk.cells[2], "source", "%%chat\nII"), ["one", "II", "three", "four", "five"]),
    "retype to plain code": (lambda talk: setattr(talk.cells[2], "source", "x = 2"), ["one", "three", "four", "five"]),
    "retype to markdown": (lambda talk: setattr(talk.cells[2], "kind", "markdown"), ["one", "three", "four", "five"]),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_after_an_edit_that_is_saved_the_living_kernel_asks_what_a_restarted_one_asks(
    edit: str, talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    run_all(talk, kernel, server)
    change, words = EDITS[edit]
    change(talk)
    talk.save()
    assert run_all(talk, kernel, server) == whole(*words)
    kernel.restart()
    assert run_all(talk, kernel, server) == whole(*words)


@pytest.mark.parametrize("edit", [name for name in EDITS if name not in ("move", "retype to markdown")])
def test_after_an_edit_that_is_not_saved_yet_too(
    edit: str, talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    run_all(talk, kernel, server)
    change, words = EDITS[edit]
    change(talk)
    assert run_all(talk, kernel, server) == whole(*words)
    kernel.restart()
    assert run_all(talk, kernel, server) == whole(*words)


def test_the_store_holds_each_turn_once_with_its_versions(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    run_all(talk, kernel, server)
    talk.run(kernel, talk.cells[2])
    talk.run(kernel, talk.cells[2])
    shown = talk.run(kernel, talk.add("%llm history")).printed
    lines = [line for line in shown.splitlines() if "Heard: " in line]
    assert [line.split("Heard: ")[1].split()[0] for line in lines] == ["one", "two", "three", "four", "five"]
    assert [line.split()[-1] if line.split()[-1].isdigit() else "1" for line in lines][1] == "3"


def test_a_deleted_cell_that_comes_back_is_in_the_conversation_again(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    run_all(talk, kernel, server)
    cell = talk.delete(2)
    talk.save()
    talk.run(kernel, talk.add("%%chat --dry-run\nand now?"))
    talk.cells.insert(2, cell)
    talk.save()
    talk.run(kernel, talk.add("%%chat\nsix"))
    assert asked(server) == [conversation("one", "two", "three", "four", "five", "six")]


def test_what_left_the_conversation_stays_away_although_a_restart_comes_before_the_next_question(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    run_all(talk, kernel, server)
    talk.cells[2].source = "%%chat -s beside\ntwo"
    talk.run(kernel, talk.cells[2])
    talk.cells[3].source = "three = 3"
    talk.run(kernel, talk.cells[3])
    talk.delete(4)
    talk.run(kernel, talk.cells[0])
    kernel.restart()
    talk.run(kernel, talk.cells[0])
    server.forget()
    talk.run(kernel, talk.add("%%chat\nsix"))
    assert asked(server) == [conversation("one", "five", "six")]
    talk.cells[2].source = "%%chat\ntwo"
    assert run_all(talk, kernel, server)[-1] == conversation("one", "two", "five", "six")
    talk.run(kernel, talk.add("%%chat -s beside\nseven"))
    assert asked(server) == [conversation("seven")]


def test_a_question_put_above_all_others_and_not_saved_stands_behind_the_plain_cell_that_ran_before_it(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    talk.add("%%llm\naside", 1)
    talk.save()
    words = ["one", "two", "three", "four", "five"]
    assert run_all(talk, kernel, server) == [["aside"], *whole(*words)]
    talk.add("%%chat\nnew", 2)
    assert run_all(talk, kernel, server) == [["aside"], *whole("new", *words)]
    kernel.restart()
    assert run_all(talk, kernel, server) == [["aside"], *whole("new", *words)]


def test_again_asks_what_stands_above_it_in_the_living_kernel_and_in_a_restarted_one(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    talk.add("%llm again", 3)
    talk.save()
    requests = whole("one", "two", "three", "four", "five")
    requests.insert(2, requests[1])
    assert run_all(talk, kernel, server) == requests
    assert run_all(talk, kernel, server) == requests
    kernel.restart()
    assert run_all(talk, kernel, server) == requests
