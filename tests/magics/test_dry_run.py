"""`--dry-run`: what it shows is what the server receives, to the letter, and it sends and changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import local_provider
from kernels import Kernel
from servers.paced import ModelServer
from servers.scripted import Request, Script, reply

from notebooks import Cell, Notebook

SMALL = 160
"""Tokens of a window in which a few turns have room."""


class SmallServer(ModelServer):
    """A server that tells how small its model's window is."""

    def _script(self, request: Request) -> Script:
        if request.method == "GET":
            return reply({"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": SMALL}]})
        return super()._script(request)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def talk(home: Path) -> Notebook:
    """Three questions, of which the second gives an instruction."""
    notebook = Notebook(home / "talk.ipynb")
    for source in ("%load_ext llm_jupyter", "%%chat\none", "%%chat --system 'Be brief.'\ntwo", "%%chat\nthree"):
        notebook.add(source)
    notebook.save()
    return notebook


@pytest.fixture(scope="module")
def kernel(home: Path, talk: Notebook, module_server: ModelServer) -> Iterator[Kernel]:
    with Kernel(home, local_provider(module_server), notebook=talk.path) as kernel:
        talk.run_all(kernel)
        kernel.run("import pandas as pd\ndf = pd.DataFrame({'n': [7, 8]})")
        yield kernel


def stored(home: Path) -> list[str]:
    """All that the store holds, but for when a conversation was used last."""
    with sqlite3.connect(f"file:{home / 'sessions.db'}?mode=ro", uri=True) as database:
        return [line for line in database.iterdump() if not line.startswith('INSERT INTO "sessions"')]


def shown(printed: str) -> str:
    """The messages that a dry run shows."""
    return printed.split("\n\n", 1)[1].removesuffix("\n")


def received(server: ModelServer) -> str:
    """The messages that reached the server last, written as a dry run writes them."""
    return "\n".join(f"── {message['role']}\n{message['content']}" for message in server.chats[-1]["messages"])


def dry(notebook: Notebook, kernel: Kernel, cell: Cell) -> str:
    """Run a cell with `--dry-run` added to its options, and take that off again."""
    source = cell.source
    first, newline, rest = source.partition("\n")
    cell.source = f"{first} --dry-run{newline}{rest}"
    ran = notebook.run(kernel, cell)
    cell.source = source
    assert ran.status == "ok", ran.error
    return ran.printed


ASKED = {
    "a new cell at the end": (4, "%%chat\nfour"),
    "a new cell in the middle": (2, "%%chat\none and a half"),
    "instructions": (4, "%%chat --system 'Be long.'\nfour"),
    "values": (4, "%%chat\nLook at {df} and {df.n[0]} and {this}.\n\n  {{df}}"),
    "no values": (4, "%%chat --raw\nLook at {df}."),
    "earlier cells": (4, "%%chat --context last\nWhy?"),
    "a private question": (2, "%%chat --private\nhush"),
    "an added turn": (2, "%%chat --append\nfour"),
    "no conversation": (4, "%%chat --no-history\naside"),
    "another conversation": (4, "%%chat -s dry\nelsewhere"),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_shown_is_what_the_server_then_receives(
    talk: Notebook, kernel: Kernel, server: ModelServer, what: str
) -> None:
    at, source = ASKED[what]
    cell = talk.add(source, at)
    talk.save()
    try:
        printed = dry(talk, kernel, cell)
        assert printed.startswith("To local/m (local), and not sent:\nabout ")
        assert server.chats == []
        assert talk.run(kernel, cell).status == "ok"
        assert shown(printed) == received(server)
    finally:
        talk.cells.remove(cell)
        talk.save()


def test_a_dry_run_changes_neither_the_store_nor_the_order(
    talk: Notebook, kernel: Kernel, server: ModelServer, home: Path
) -> None:
    kernel.run("%llm reset")
    talk.run_all(kernel)
    sent = [chat["messages"] for chat in server.chats]
    server.forget()
    before = stored(home)
    printed = [dry(talk, kernel, cell) for cell in talk.cells[1:]]
    assert server.chats == []
    assert stored(home) == before
    kernel.run("%chat --no-history and the kernel asks on")
    assert stored(home) == before
    server.forget()
    talk.run_all(kernel)
    assert [chat["messages"] for chat in server.chats] == sent
    for text, messages in zip(printed, sent, strict=True):
        assert shown(text) == "\n".join(f"── {message['role']}\n{message['content']}" for message in messages)


def test_a_cell_that_was_only_looked_at_keeps_its_turn(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    kernel.run("%llm reset")
    talk.run_all(kernel)
    dry(talk, kernel, talk.cells[2])
    kernel.run("%chat four")
    assert server.contents()[1:] == ["one", "Heard: one", "two", "Heard: two", "three", "Heard: three", "four"]


def test_a_cell_that_looks_at_another_question_asks_its_old_one_no_more(
    talk: Notebook, kernel: Kernel, server: ModelServer
) -> None:
    kernel.run("%llm reset")
    talk.run_all(kernel)
    cell, before = talk.cells[1], talk.cells[1].source
    cell.source = "%%chat --dry-run\nanother one"
    talk.run(kernel, cell)
    cell.source = before
    kernel.run("%chat four")
    assert server.contents()[1:] == ["two", "Heard: two", "three", "Heard: three", "four"]


def test_the_second_question_of_a_cell_sees_its_first(talk: Notebook, kernel: Kernel, server: ModelServer) -> None:
    kernel.run("%llm reset")
    talk.run_all(kernel)
    cell = talk.add("%chat a\n%chat --dry-run b")
    talk.save()
    for _ in range(2):
        printed = talk.run(kernel, cell).printed
        assert shown(printed).endswith("── user\na\n── assistant\nHeard: a\n── user\nb")
    cell.source = "%chat a\n%chat b"
    talk.run(kernel, cell)
    assert shown(printed) == received(server)
    talk.cells.remove(cell)
    talk.save()


def test_a_figure_is_told_with_its_size(kernel: Kernel, server: ModelServer) -> None:
    drawn = (
        "import matplotlib\nmatplotlib.use('agg')\nfrom matplotlib.figure import Figure\nfig = Figure(figsize=(2, 1))"
    )
    assert kernel.run(drawn).status == "ok"
    printed = kernel.run("%chat --no-history --dry-run What is in {fig}?").printed
    assert "Filled in: {fig} (image 200 x 100)." in printed
    assert shown(printed).startswith("── user\nWhat is in [image 1]?\n[image/png, ")
    assert server.chats == []


def test_it_says_what_is_left_out_and_the_server_receives_the_rest(tmp_path: Path) -> None:
    with SmallServer() as server, Kernel(tmp_path, local_provider(server)) as kernel:
        kernel.load()
        for word in ("one", "two", "three", "four"):
            kernel.run(f"%chat {word} " + "and so on " * 8, word)
        printed = kernel.run("%chat --dry-run five", "five").printed
        head = printed.splitlines()[1]
        assert f"tokens of {SMALL}" in head
        assert "older ones are left out, for want of room." in head
        count = int(head.split(" earlier turn")[0].rsplit(" ", 1)[1])
        assert 0 < count < 4
        kernel.run("%chat five", "five")
        assert shown(printed) == received(server)
        assert len(server.contents()) == 2 * count + 1


def test_what_cannot_fit_is_the_same_error_and_nothing_is_sent(tmp_path: Path) -> None:
    with SmallServer() as server, Kernel(tmp_path, local_provider(server)) as kernel:
        kernel.load()
        ran = kernel.run("%chat --dry-run " + "word and word " * 500)
        assert ran.error[0].startswith("ContextExceededError: ")
        assert len(ran.error) <= 3
        assert server.chats == []


def test_offline_it_needs_nobody(tmp_path: Path) -> None:
    with ModelServer() as server:
        environment = local_provider(server)
    with Kernel(tmp_path, environment | {"LLM_JUPYTER_OFFLINE": "replay"}) as kernel:
        kernel.load()
        ran = kernel.run("%chat --dry-run hello")
        assert ran.status == "ok", ran.error
        assert shown(ran.printed) == "── user\nhello"
