"""A notebook carries its conversation: on a machine that never saw it, its file alone is enough to go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def kernel_of(home: Path, server: ModelServer, notebook: Notebook) -> Kernel:
    variables = by_default(server)
    return Kernel(home, variables, notebook=notebook.path)


def test_the_file_alone_continues_the_conversation_and_says_what_it_lacks(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (
        LOAD,
        "word = 'apple'",
        "%%chat --system 'Be brief.'\none",
        "%%chat\nA {word}, please",
        "%chat three",
    ):
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        talk.save()
        sent = server.contents()
    assert sent[3:5] == ["A apple, please", "Heard: A apple, please"]
    server.forget()

    with kernel_of(tmp_path / "elsewhere", server, talk) as kernel:
        kernel.run(LOAD)
        first = kernel.run("%%llm\nan aside")
        assert "%llm session resume goes on with it" in " ".join(first.footers)
        said = kernel.run("%llm session resume").printed
        assert "Resumed 3 turns" in said
        assert "1 of its turns lacks" in said
        assert "word" in said
        server.forget()
        next_one = talk.add("%%chat\nfour")
        assert talk.run(kernel, next_one).status == "ok"
        assert server.contents() == [
            "Be brief.", "one", "Heard: one", "A {word}, please", "Heard: A apple, please", "three", "Heard: three", "four"
        ]  # fmt: skip
        talk.save()
        server.forget()
        for ran in talk.run_all(kernel):
            assert ran.status == "ok", ran.error
        assert server.contents() == [*sent, "Heard: three", "four"]


def test_a_saved_prompt_comes_back_whole(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (LOAD, "word = 'apple'", "%%chat --save-prompt\nA {word}, please"):
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        talk.save()
    with kernel_of(tmp_path / "elsewhere", server, talk) as kernel:
        kernel.run(LOAD)
        assert "lack" not in kernel.run("%llm session resume").printed
        talk.run(kernel, talk.add("%%chat\nmore"))
        assert server.contents() == ["A apple, please", "Heard: A apple, please", "more"]


def test_what_the_file_does_not_tell_is_said_and_no_answer_is_given_to_another_question(
    tmp_path: Path, server: ModelServer
) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (
        LOAD, "%%chat\none", "%%time\n%%chat\ntwo", "ask = lambda q: get_ipython().run_line_magic('chat', q)\nask('three')",
        "ask('--save-prompt four')", "%chat -q five", "%%chat\nsix",
    ):  # fmt: skip
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        assert len(server.chats) == 6
    assert "three" not in str([output.get("metadata") for cell in talk.cells for output in cell.outputs])
    talk.cells[1].source = "%%chat\none, edited and not run"
    talk.save()
    with kernel_of(tmp_path / "elsewhere", server, talk) as kernel:
        kernel.run(LOAD)
        first, *more = kernel.run("%llm session resume").printed.splitlines()
        assert first.startswith("Resumed 3 turns")
        assert more == [
            "Left out: 2 answers whose cell does not say what was asked (edited since, or asked by code): "
            '"%%chat one, edited and not run", "ask = lambda q: get_ipython().run_line_…". Running it asks anew.',
            'Without an answer in the file: "five".',
        ]
        talk.run(kernel, talk.add("%%chat\nseven"))
        assert server.contents() == ["two", "Heard: two", "four", "Heard: four", "six", "Heard: six", "seven"]

        talk.cells = talk.cells[3:4]
        talk.save()
        error = kernel.run("%llm session resume").error
        assert error[0] == "SessionError: talk.ipynb shows no conversation"
        assert error[1].startswith("Left out: 1 answer whose cell does not say what was asked")


def test_what_was_reset_away_stays_away_and_can_be_asked_for(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (
        LOAD, "%%chat\none", "%llm reset", "%%chat\ntwo", "%llm session fork copy", "%%chat\nthree", "%llm again",
    ):  # fmt: skip
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        talk.save()
        kernel.run("%%chat\nnext", "next")
        sent = server.contents()
    assert sent == ["two", "Heard: two", "three", "Heard: three", "next"]
    server.forget()
    with kernel_of(tmp_path / "elsewhere", server, talk) as kernel:
        kernel.run(LOAD)
        first, more = kernel.run("%llm session resume").printed.splitlines()
        assert first.startswith("Resumed 2 turns")
        told = re.fullmatch(r'It also shows 1 turn of another conversation \("one"\): (%llm session resume \w+)', more)
        assert told is not None
        kernel.run("%%chat\nnext", "next")
        assert server.contents() == sent
        assert kernel.run(told[1]).printed.startswith("Resumed 1 turn of")
        kernel.run("%%chat\nmore", "more")
        assert server.contents() == ["one", "Heard: one", "more"]
        assert kernel.run(told[1] + "no").error[0].startswith("SessionError: there is no conversation")


def test_a_conversation_that_is_kept_is_not_taken_up_twice(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (LOAD, "%%chat\none"):
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        talk.save()
        assert (
            kernel.run("%llm session resume").printed
            == "This conversation is kept here with its 1 turn, and goes on.\n"
        )
        assert kernel.run("%llm session list").printed.count("talk.ipynb") == 1


def test_what_was_asked_privately_is_not_taken_up_from_the_file(tmp_path: Path, server: ModelServer) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in (
        LOAD, "%%chat\none", "%llm private on", "%%chat\nthe password is hunter2", "%llm private off",
        "%%chat --private\nhunter3", "%%chat\ntwo",
    ):  # fmt: skip
        talk.add(source)
    with kernel_of(tmp_path / "here", server, talk) as kernel:
        talk.run_all(kernel)
        talk.save()
    with kernel_of(tmp_path / "elsewhere", server, talk) as kernel:
        kernel.run(LOAD)
        assert "Resumed 2 turns" in kernel.run("%llm session resume").printed
        talk.run(kernel, talk.add("%%chat\nthree"))
        assert server.contents() == ["one", "Heard: one", "two", "Heard: two", "three"]
    assert not [file for file in tmp_path.glob("*/sessions.db*") if b"hunter" in file.read_bytes()]
