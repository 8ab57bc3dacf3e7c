"""Conversations that go elsewhere, from an export or from their notebook alone, and those that are removed for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commanding import answered, holding, said, turns
from conftest import local_provider
from kernels import Kernel
from servers.paced import ModelServer

from notebooks import Notebook


@pytest.fixture
def elsewhere(tmp_path: Path, server: ModelServer) -> Iterator[Kernel]:
    """A kernel of another machine: another home, another folder."""
    with Kernel(tmp_path / "elsewhere", local_provider(server)) as kernel:
        yield kernel.load()


def test_a_conversation_goes_on_elsewhere_from_its_export(
    notebook: Kernel, server: ModelServer, elsewhere: Kernel, tmp_path: Path
) -> None:
    notebook.run("%chat one", "a")
    notebook.run("%chat uno", "a")
    notebook.run("%llm session name travels well")
    for kind in ("md", "json"):
        written = said(notebook, f"%llm session export {tmp_path}/a talk.{kind}")
        assert written == f"Written to {tmp_path}/a talk.{kind}.\n"
        said(notebook, f"%llm session export {tmp_path}/a talk.{kind}")  # again, over itself
    assert "**You**\n\nuno\n\n**local/m**\n\nHeard: uno" in (tmp_path / "a talk.md").read_text()
    line = said(elsewhere, f"%llm session import {tmp_path}/a talk.json")
    assert line == "Resumed 1 turn of travels well (from a talk.json); %llm reset starts over.\n"
    elsewhere.run("%chat two", "b")
    assert server.contents() == ["uno", "Heard: uno", "two"]
    assert list(turns(said(elsewhere, "%llm history")).values()) == ["uno Heard: uno 2", "two Heard: two"]


def test_a_file_that_is_no_export_is_not_replaced(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("%chat one")
    thesis = tmp_path / "thesis.md"
    thesis.write_text("# Three years of work\n")
    assert notebook.run(f"%llm session export {thesis}").status == "error"
    question, line = answered(notebook, f"%llm session export {thesis}", "n")
    assert (question, line) == (f"Replace {thesis}, which is no export? [y/N] ", "Nothing was written.\n")
    assert thesis.read_text() == "# Three years of work\n"
    said(notebook, f"%llm session export --yes {thesis}")
    assert "Heard: one" in thesis.read_text()


def test_a_conversation_goes_on_elsewhere_from_its_notebook_alone(
    notebook: Kernel, server: ModelServer, elsewhere: Kernel, tmp_path: Path
) -> None:
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in ("%%chat\none", "%%chat -s 'not this one'\nbeside", "%%chat --private\nhush", "%%chat\ntwo"):
        talk.run(notebook, talk.add(source))
    talk.save()
    line = said(elsewhere, f"%llm session resume {talk.path}")
    assert "Resumed 2 turns" in line
    assert "alone)" in line
    assert list(turns(said(elsewhere, "%llm history")).values()) == ["one Heard: one", "two Heard: two"]
    elsewhere.run("%chat three")
    assert server.contents() == ["one", "Heard: one", "two", "Heard: two", "three"]


def test_a_purge_leaves_no_word_of_it_in_any_file_and_spares_this_conversation(tmp_path: Path) -> None:
    with ModelServer() as server, Kernel(tmp_path, local_provider(server) | {"LLM_JUPYTER_OFFLINE": "auto"}) as kernel:
        kernel.load()
        kernel.run("%chat what is a zyzzyva", "a")
        kernel.run("%chat what is a quokkalike", "a")
        kernel.run("%llm reset")
        kernel.run("%chat my axolotlish pet")
        assert holding(tmp_path, "zyzzyva")
        assert holding(tmp_path, "quokkalike")
        question, line = answered(kernel, "%llm purge --older 0h", "n")
        assert question == "Delete for good: 1 conversation not used for 0h, and cached answers as old? [y/N] "
        assert line == "Nothing was deleted.\n"
        line = said(kernel, "%llm purge --older 0h --yes")
        assert line.startswith("Deleted 1 conversation with 2 turns, and 3 cached answers.")
        assert holding(tmp_path, "zyzzyva") == []
        assert holding(tmp_path, "quokkalike") == []
        assert [name for name in holding(tmp_path, "axolotlish") if "cache" in name] == []
        kernel.run("%chat and?")
        assert server.contents() == ["my axolotlish pet", "Heard: my axolotlish pet", "and?"]
