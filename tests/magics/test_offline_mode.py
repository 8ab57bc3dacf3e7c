"""Offline mode in real kernels: what is recorded beside a notebook, and what a kernel without network makes of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from conftest import local_provider
from kernels import Kernel, Output, Ran
from servers.paced import ModelServer, endless
from servers.scripted import answer
from unplugged import Unplugged

from notebooks import Notebook

PIECES = ["Once", " upon", " a time", ",\n\n", "- all", " was *well*", "."]
SECRET = "sk-not-to-be-seen"
TALK = [
    "%load_ext llm_jupyter",
    "animal = 'fox'",
    "%llm use local/m",
    "%%chat -t 0 --max-tokens 50\nTell me a story.",
    "%chat {animal} and now?",
    "%%llm -o one\nName a colour.",
    "%%llm -o two\nName a colour.",
    "one.text, two.text, one.provider, one.usage.completion_tokens",
    "%llm again --seed 2",
    "%llm reset",
]


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def configured(server: ModelServer, mode: str) -> dict[str, str]:
    return local_provider(server) | {
        "LLM_JUPYTER_PROVIDERS__LOCAL__API_KEY_ENV": "LOCAL_KEY",
        "LOCAL_KEY": SECRET,
        "LLM_JUPYTER_OFFLINE": mode,
    }


def talk(folder: Path) -> Notebook:
    folder.mkdir()
    notebook = Notebook(folder / "talk.ipynb")
    for source in TALK:
        notebook.add(source)
    notebook.save()
    return notebook


def run_all(notebook: Notebook, kernel: Kernel, server: ModelServer) -> list[Ran]:
    """ "Run All" while the server has an answer of its own to each question."""
    server.forget()
    server.next(answer(*PIECES), answer("A ", "fox."), answer("Red."), answer("Blue."), answer("A ", "wolf."))
    ran = notebook.run_all(kernel)
    assert [run.error for run in ran] == [[]] * len(ran)
    assert len(server.chats) == 5
    return ran


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, server: ModelServer) -> Notebook:
    """A notebook that ran while its answers were recorded beside it, and was saved."""
    folder = tmp_path_factory.mktemp("recorded")
    notebook = talk(folder / "here")
    with Kernel(folder / "home", configured(server, "record"), notebook=notebook.path) as kernel:
        run_all(notebook, kernel, server)
    notebook.save()
    return notebook


def recording_of(notebook: Notebook) -> Path:
    return notebook.path.with_name("talk.recording.jsonl")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Unplugged:
    return Unplugged(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, recorded: Notebook, network: Unplugged
) -> Iterator[tuple[Notebook, Kernel]]:
    """The notebook with its recording on another machine: nothing is configured, kept or reachable there."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(recorded.path.parent, folder / "shared")
    notebook = Notebook(folder / "shared" / "talk.ipynb")
    for cell in recorded.cells:
        notebook.add(cell.source)
    offline = {"LLM_JUPYTER_OFFLINE": "replay", "LLM_JUPYTER_DEFAULT_MODEL": "ollama/some-model-of-theirs"}
    with Kernel(folder / "home", {**network.variables, **offline}, notebook=notebook.path) as kernel:
        yield notebook, kernel


def seen(outputs: list[Output]) -> list[object]:
    """What a reader sees, without what the file says beside it."""
    return [output.get("data") or output for output in outputs]


def test_a_notebook_with_its_recording_shows_the_same_on_a_machine_that_has_nothing(
    recorded: Notebook, elsewhere: tuple[Notebook, Kernel], network: Unplugged
) -> None:
    notebook, kernel = elsewhere
    ran = notebook.run_all(kernel)
    assert [run.error for run in ran] == [[]] * len(ran)
    for cell, run in zip(recorded.cells, ran, strict=True):
        if cell.source != "%llm reset":  # it names what it leaves
            assert seen(run.outputs) == seen(cell.outputs), cell.source
    assert ran[3].texts == ["".join(PIECES)]
    assert ran[5].footers == ["local/m · local"]
    assert ran[7].outputs[0]["data"]["text/plain"] == "('Red.', 'Blue.', 'local', None)"
    assert network.processes == 1
    assert network.refused == []


def test_what_was_not_recorded_is_one_error_at_once_and_no_socket_is_opened(
    elsewhere: tuple[Notebook, Kernel], network: Unplugged, report: Callable[[str], None]
) -> None:
    _, kernel = elsewhere
    kernel.run("%reload_ext llm_jupyter")
    missed = kernel.run("%%llm\nWhat was never asked?")
    assert missed.status == "error"
    assert missed.error == [
        'OfflineMissError: offline, and no answer was recorded for "What was never asked?"',
        "%llm offline record, and run the cell; or %llm offline off asks the model.",
    ]
    other = kernel.run("%%llm -m local/other-model\nName a colour.")
    assert other.error == [
        'OfflineMissError: offline, and no answer by local/other-model was recorded for "Name a colour."',
        "local/m answered it: -m local/m. %llm offline record, and run the cell; or %llm offline off asks the model.",
    ]
    assert kernel.run("%%llm -m local/m\nName a colour.").status == "ok"
    milliseconds = kernel.run(MISS).outputs[-1]["text"]
    report(f"a miss in a kernel: {milliseconds.strip()} ms")
    assert float(milliseconds) < 50
    assert network.refused == []
    assert "refused by the test" in kernel.run("import socket; socket.create_connection(('127.0.0.1', 9))").error[-1]
    assert len(network.refused) == 1, "the hook must catch a real connection"


MISS = """
import time
began = time.perf_counter()
try:
    get_ipython().run_cell_magic("llm", "", "What was never asked either?")
except Exception:
    print(1000 * (time.perf_counter() - began))
"""


def test_the_figures_of_a_replayed_answer_are_those_of_its_recording(elsewhere: tuple[Notebook, Kernel]) -> None:
    _, kernel = elsewhere
    kernel.run("%reload_ext llm_jupyter")
    kernel.run("%%llm\nName a colour.")
    figures = kernel.run("%llm last").printed.splitlines()
    labels = [line.split("  ")[0] for line in figures if line.endswith(" when recorded")]
    assert labels == ["first token", "total"], figures  # and no speed: its server counts no tokens


def test_a_question_that_missed_is_no_part_of_the_conversation(elsewhere: tuple[Notebook, Kernel]) -> None:
    _, kernel = elsewhere
    kernel.run("%reload_ext llm_jupyter\n%llm reset")
    assert kernel.run("%%chat\nWhat was never asked?", "missed").status == "error"
    ran = kernel.run("%%chat -t 0 --max-tokens 50\nTell me a story.", "told")
    assert ran.texts == ["".join(PIECES)]


def test_in_a_replay_a_dry_run_asks_nobody_either(elsewhere: tuple[Notebook, Kernel]) -> None:
    _, kernel = elsewhere
    kernel.run("%reload_ext llm_jupyter")
    kernel.run("%llm reset")
    printed = kernel.run("%%chat --dry-run --system 'Be brief.'\nWould you?").printed
    assert printed.startswith("To nobody, since offline mode is replay, and not sent:\nabout ")
    assert printed.endswith("── system\nBe brief.\n── user\nWould you?\n")


def test_recording_twice_gives_the_same_bytes_with_no_key_path_date_or_id(
    tmp_path: Path, recorded: Notebook, server: ModelServer
) -> None:
    again = talk(tmp_path / "there")
    with Kernel(tmp_path / "home", configured(server, "record"), notebook=again.path) as kernel:
        run_all(again, kernel, server)
        once = recording_of(again).read_bytes()
        assert without_times(again) == without_times(recorded)
        kernel.restart()
        run_all(again, kernel, server)
        assert recording_of(again).read_bytes() == once
        said = kernel.run("%llm offline").printed.splitlines()
        assert said[1] == "Recording: talk.recording.jsonl (5 answers)"
    text = once.decode()
    assert len(text.splitlines()) == 5
    for private in (SECRET, str(tmp_path.parent), "127.0.0.1", server.base_url, "home", *session_ids(again)):
        assert private not in text
    assert not re.search(r"\b20\d\d-|\b1[5-9]\d{8}\b|[0-9a-f]{12}", text)


def without_times(notebook: Notebook) -> list[dict[str, object]]:
    """What was recorded beside a notebook, but for how long it took."""
    lines = [json.loads(line) for line in recording_of(notebook).read_text().splitlines()]
    assert all(set(line.pop("timing")) >= {"first_token", "total"} for line in lines)
    return lines


def session_ids(notebook: Notebook) -> list[str]:
    """The ids that the notebook's own outputs carry."""
    marks = [output.get("metadata", {}).get("llm_jupyter", {}) for cell in notebook.cells for output in cell.outputs]
    ids = [mark[name] for mark in marks for name in ("session", "turn") if name in mark]
    assert ids
    return ids


API = """
from llm_jupyter.factory import LLMFactory
from llm_jupyter.types import GenerationOptions
async with LLMFactory() as llm:
    session = llm.sessions.new()
    async with session.ask("Tell me a story.", options=GenerationOptions(temperature=0, max_tokens=50)) as answering:
        async for chunk in answering:
            if chunk.text:
                display({"text/plain": repr(chunk.text)}, raw=True)
"""


def test_a_question_without_memory_is_replayed_as_its_cell_was_run_last(tmp_path: Path, server: ModelServer) -> None:
    notebook = Notebook(tmp_path / "talk.ipynb")
    notebook.add("%load_ext llm_jupyter\n%llm use local/m")
    notebook.save()
    once = notebook.add("%%llm\nName a colour.")
    beside = notebook.add("for _ in range(2):\n    %chat --no-history Name a colour.")
    server.forget()
    server.next(*(answer(text) for text in ("rejected", "red", "no", "nor this", "green", "blue")))
    with Kernel(tmp_path / "home", configured(server, "record"), notebook=notebook.path) as kernel:
        notebook.run(kernel, notebook.cells[0])
        assert [notebook.run(kernel, cell).texts for cell in (once, once, beside, beside)] == [
            ["rejected"], ["red"], ["no", "nor this"], ["green", "blue"]
        ]  # fmt: skip
        kernel.run("%llm offline replay")
        for _ in range(2):
            assert [notebook.run(kernel, cell).texts for cell in (once, beside)] == [["red"], ["green", "blue"]]


def test_a_question_without_memory_leaves_the_conversation_as_it_stands(tmp_path: Path, server: ModelServer) -> None:
    notebook = Notebook(tmp_path / "talk.ipynb")
    for source in ("%load_ext llm_jupyter\n%llm use local/m", "%%chat\none", "%%chat\ntwo", "%%chat\nthree"):
        notebook.add(source)
    notebook.save()
    server.forget()
    with Kernel(tmp_path / "home", configured(server, "off"), notebook=notebook.path) as kernel:
        notebook.run_all(kernel)
        notebook.cells[2].source = "%%llm\ntwo"
        notebook.delete(1)  # which the front end tells with the next cell, and the file not yet
        for cell in notebook.cells[1:]:
            notebook.run(kernel, cell)
        assert [server.contents(number) for number in (-2, -1)] == [["two"], ["three"]]


def test_an_answer_that_was_stopped_says_that_a_replay_will_miss_it(tmp_path: Path, server: ModelServer) -> None:
    server.forget()
    with Kernel(tmp_path / "home", configured(server, "record")) as kernel:
        kernel.run("%load_ext llm_jupyter\n%llm use local/m")
        said = []
        for source in ("%%chat\none", "%%llm\ntwo", "%%chat --private\nthree", "%llm offline off\n%chat four"):
            server.next(endless("word "))
            ran = kernel.start(source)
            kernel.until(ran, lambda ran: ran.shown())
            kernel.interrupt()
            said.append([line for line in kernel.finish(ran).footers[0].splitlines() if "recorded" in line])
        assert said == [
            ["Only whole answers are recorded: a replay misses this one and what is asked after it. Run its cell again before going on."],
            ["Only whole answers are recorded: a replay misses this one. Run its cell again before going on."],
            [], [],
        ]  # fmt: skip
        assert not [line for line in kernel.run("%%chat\nfive").footers if "recorded" in line]


def test_a_paced_replay_grows_on_the_page_piece_by_piece_as_it_was_recorded(tmp_path: Path, recorded: Notebook) -> None:
    line = recording_of(recorded).read_text().splitlines()[0]
    assert json.loads(line)["pieces"] == PIECES
    offline = {
        "LLM_JUPYTER_OFFLINE": "replay",
        "LLM_JUPYTER_RECORDING": str(recording_of(recorded)),
        "LLM_JUPYTER_REPLAY_PACE": "0.25",
    }
    with Kernel(tmp_path / "home", offline) as kernel:
        ran = kernel.load().run("%%chat -t 0 --max-tokens 50\nTell me a story.")
        assert ran.status == "ok", ran.error
        growth = [text for _, text in ran.shown()]
        final = growth.pop()
        assert final == "".join(PIECES)
        assert [text for text in growth if text != final] == list(accumulate(PIECES))[:-1]
        by_piece = kernel.run(API)
        assert [text for _, text in by_piece.shown("text/plain")] == [repr(piece) for piece in PIECES], by_piece.error


def test_auto_gives_the_cached_answer_only_once_nobody_else_can(tmp_path: Path) -> None:
    with ModelServer() as server, ModelServer(["spare"]) as spare:
        server.next(answer("It ", "was."))
        more = {
            "LLM_JUPYTER_PROVIDERS__SPARE__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__SPARE__BASE_URL": spare.base_url,
            "LLM_JUPYTER_DEFAULT_MODEL": "local/m",
        }
        with Kernel(tmp_path / "home", {**configured(server, "auto"), **more}) as kernel:
            first = kernel.load().run("%%chat\nWhat was it?", "c1")
            assert first.texts == ["It was."]
            server.close()

            again = kernel.run("%%chat\nWhat was it?", "c1")
            assert again.texts == ["It was."]
            lines = again.footers[0].splitlines()
            assert lines[0] == "local/m · local · cached, less than a minute old"
            assert lines[1].startswith("local/m: ")
            assert "So " not in lines[1]
            failed = kernel.run("%%llm\nAnd what is new?")
            assert failed.status == "error"
            assert 1 <= len(failed.error) <= 3

            kernel.run("%unload_ext llm_jupyter\nimport os; os.environ['LLM_JUPYTER_FALLBACK'] = 'spare/spare'")
            spared = kernel.load().run("%%llm\nWhat was it?")
            assert spared.texts == ["Heard: What was it?"]
            assert "So spare/spare answered." in spared.footers[0]
            spare.close()
            last = kernel.run("%%llm\nWhat was it?")
            assert last.texts == ["It was."]
            assert "cached" in last.footers[0]


def test_the_modes_and_the_cache_are_said_in_a_few_lines(tmp_path: Path, server: ModelServer) -> None:
    server.forget()
    with Kernel(tmp_path / "home", configured(server, "off")) as kernel:
        said = {mode: kernel.load().run(f"%llm offline {mode}").printed.splitlines() for mode in ("", "auto", "replay")}
        assert said[""] == ["Offline mode is off. Each question asks a model; no answers are kept for offline use."]
        assert said["auto"][0].startswith("Offline mode is auto.")
        assert said["replay"][1] == "Recordings here: none"
        recording = kernel.run("%llm offline record").printed.splitlines()
        assert recording[1].startswith("This kernel does not know its notebook")
        wrong = kernel.run("%llm offline perhaps")
        assert wrong.status == "error"
        assert "off, auto, record, replay" in wrong.error[0]
        assert kernel.run("%llm offline").printed.startswith("Offline mode is record.")
        kernel.run("%chat -m local/m hello")
        assert kernel.run("%llm cache").printed.startswith("1 answer, ")
        assert kernel.run("%llm cache clear").printed.startswith("Deleted 1 answer from the cache.")
        assert kernel.run("%llm cache").printed.startswith("0 answers, ")


def test_what_the_code_of_a_notebook_asks_by_itself_is_recorded_beside_it(tmp_path: Path, server: ModelServer) -> None:
    asks = "import llm_jupyter\nwith llm_jupyter.LLMFactory() as llm:\n    print(llm.chat('by code').text)"
    notebook = Notebook(tmp_path / "code.ipynb")
    cell = notebook.add(asks)
    notebook.save()
    with Kernel(tmp_path / "here", configured(server, "record"), notebook=notebook.path) as kernel:
        recorded = notebook.run(kernel, cell).printed
        kernel.run("%load_ext llm_jupyter\n%chat hello")
    assert recorded == "Heard: by code\n"
    assert len((tmp_path / "code.recording.jsonl").read_text().splitlines()) == 2
    with Kernel(tmp_path / "elsewhere", {"LLM_JUPYTER_OFFLINE": "replay"}, notebook=notebook.path) as kernel:
        assert notebook.run(kernel, cell).printed == recorded
