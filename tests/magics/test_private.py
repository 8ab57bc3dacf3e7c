"""What is asked privately stands in no file, and the conversation that is stored goes on as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commanding import holding
from conftest import local_provider
from kernels import Kernel
from servers.paced import ModelServer

from notebooks import Notebook


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def talk(home: Path) -> Notebook:
    """A notebook whose answers are recorded; two questions."""
    notebook = Notebook(home / "talk.ipynb")
    for source in ("%load_ext llm_jupyter", "%%chat\none", "%%chat\ntwo"):
        notebook.add(source)
    notebook.save()
    return notebook


@pytest.fixture(scope="module")
def kernel(home: Path, talk: Notebook, module_server: ModelServer) -> Iterator[Kernel]:
    environment = local_provider(module_server) | {"LLM_JUPYTER_OFFLINE": "record"}
    with Kernel(home, environment, notebook=talk.path) as kernel:
        talk.run_all(kernel)
        yield kernel


def kept(home: Path, word: str) -> set[str]:
    """The files with a word in them: store, cache, recordings, logs. What a notebook shows is the person's."""
    return {Path(name).name.removesuffix("-wal") for name in holding(home, word)} - {"talk.ipynb"}


def asked(server: ModelServer) -> list[list[str]]:
    requests = [server.contents(number) for number in range(len(server.chats))]
    server.forget()
    return requests


WHOLE = [["one"], ["one", "Heard: one", "two"]]


def test_what_is_asked_while_private_stands_in_no_file_and_the_order_is_as_before(
    talk: Notebook, kernel: Kernel, server: ModelServer, home: Path
) -> None:
    assert kept(home, "Heard: two") >= {"sessions.db", "cache.db", "talk.recording.jsonl"}
    assert kernel.run("%llm private on").printed.startswith("Nothing that is asked from here on is stored")
    hidden = talk.add("%%chat\nmy zyzzyva secret", 2)
    talk.save()
    said = talk.run(kernel, hidden)
    assert asked(server) == [["one", "Heard: one", "my zyzzyva secret"]]
    kernel.run("%chat and what was it?")
    assert asked(server)[0][-2:] == ["Heard: two", "and what was it?"]
    (answer,) = said.answers
    assert set(answer["metadata"]["llm_jupyter"]) == {"model", "provider", "finish_reason", "private"}
    assert "It is private" in kernel.run("%llm session").printed
    assert kept(home, "zyzzyva") == set()
    assert kernel.run("%llm private off").printed.startswith("Conversations are stored again.")
    talk.cells.remove(hidden)
    talk.save()
    talk.run_all(kernel)
    assert asked(server) == WHOLE
    assert kept(home, "zyzzyva") == set()


@pytest.mark.parametrize(
    "command",
    [
        "%llm session use other", "%llm session name open", "%llm session fork", "%llm session delete --yes other",
        "%llm session import other.json", "%llm session resume", "%llm session new open", "%chat -s open my secret",
        "%llm purge --older 0h --yes",
    ],
)  # fmt: skip
def test_while_private_nothing_touches_what_is_stored(
    talk: Notebook, kernel: Kernel, server: ModelServer, home: Path, command: str
) -> None:
    before = (home / "sessions.db").read_bytes(), kernel.run("%llm session list").printed.replace("→", " ")
    kernel.run("%llm private on")
    ran = kernel.run(command)
    kernel.run("%llm reset")
    after = (home / "sessions.db").read_bytes(), kernel.run("%llm session list").printed
    kernel.run("%llm private off")
    assert ran.status == "error"
    assert 2 <= len(ran.error) <= 3
    assert [line.split() for line in after[1].splitlines()] == [line.split() for line in before[1].splitlines()]
    assert after[0] == before[0]
    talk.run_all(kernel)
    assert asked(server) == WHOLE


def test_one_private_question_sees_what_stands_above_it_and_leaves_nothing(
    talk: Notebook, kernel: Kernel, server: ModelServer, home: Path
) -> None:
    cell = talk.add("%%chat --private\na quokkalike aside", 2)
    talk.save()
    for _ in range(2):
        for ran in talk.run_all(kernel):
            assert ran.status == "ok", ran.error
        assert asked(server) == [WHOLE[0], ["one", "Heard: one", "a quokkalike aside"], WHOLE[1]]
    assert set(talk.run(kernel, cell).answers[0]["metadata"]["llm_jupyter"]) == {
        "model",
        "provider",
        "finish_reason",
        "private",
    }
    assert kept(home, "quokkalike") == set()
    talk.cells.remove(cell)
    talk.save()


def test_where_privacy_is_locked_nothing_begins_to_store(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "hub" / "llm_jupyter").mkdir(parents=True)
    system = tmp_path / "hub" / "llm_jupyter" / "config.toml"
    system.write_text("[locked.session]\nprivate = true")
    environment = local_provider(server) | {"JUPYTER_CONFIG_PATH": str(tmp_path / "hub")}
    with Kernel(tmp_path / "home", environment) as kernel:
        kernel.load()
        for command in ("%llm private off", "%llm private on", "%llm private", "%llm session"):
            ran = kernel.run(command)
            told = " ".join(ran.error) if command == "%llm private off" else ran.printed
            assert f"locked by {system}" in told
            assert "private off" not in told.replace(command, "")
        kernel.run("%%chat\nmy zyzzyva secret")
    assert len(asked(server)) == 1
    assert kept(tmp_path / "home", "zyzzyva") == set()


def test_a_kernel_that_begins_privately_can_begin_to_store(tmp_path: Path, server: ModelServer) -> None:
    environment = local_provider(server) | {"LLM_JUPYTER_SESSION__PRIVATE": "true"}
    talk = Notebook(tmp_path / "talk.ipynb")
    for source in ("%load_ext llm_jupyter", "%%chat\none"):
        talk.add(source)
    talk.save()
    with Kernel(tmp_path / "home", environment, notebook=talk.path) as kernel:
        talk.run_all(kernel)
        assert kept(tmp_path / "home", "Heard: one") == set()
        kernel.run("%llm private off")
        talk.run_all(kernel)
        assert kept(tmp_path / "home", "Heard: one") == {"sessions.db"}
