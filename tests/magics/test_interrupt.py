"""The kernel's own interrupt, during answers of a scripted server and of the real embedded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from kernels import Kernel, Ran, is_empty, kernel_environment, kinds
from live import place
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from servers.paced import ModelServer, endless
from servers.scripted import Gate, Pause, answer, delta, sse

SWIFT = 0.3
TOO_EARLY = "AnswerInterrupted: stopped before the first token; the question does not count"


def interrupted(notebook: Kernel, ran: Ran) -> float:
    """Interrupt a running cell; the moment of it."""
    at = notebook.interrupt()
    notebook.finish(ran)
    assert ran.idle_at is not None
    assert ran.idle_at - at < SWIFT
    assert ran.status == "error"
    return at


def chat_visit(server: ModelServer) -> float:
    return next(v for v in server.visits if v.request.method == "POST").wait_until_left(2)


def test_what_has_arrived_is_kept_and_marked_and_the_server_is_left(notebook: Kernel, server: ModelServer) -> None:
    server.next(endless("tick "))
    ran = notebook.start("%chat -o kept hi", "a")
    notebook.until(ran, lambda ran: any("tick tick tick" in text for _, text in ran.shown()))
    at = interrupted(notebook, ran)
    assert chat_visit(server) - at < SWIFT
    assert kinds(ran.outputs) == ["answer", "footer", "error"]
    assert ran.texts[0].startswith("tick tick tick")
    assert ran.answers[0]["metadata"]["llm_jupyter"]["finish_reason"] == "interrupted"
    assert "interrupted" in ran.footers[0]
    assert len(ran.error) == 1
    assert ran.error[0].startswith("AnswerInterrupted: ")
    assert notebook.value("kept.text") == ran.texts[0]


def test_before_the_first_token_no_empty_output_is_left(notebook: Kernel, server: ModelServer) -> None:
    server.next([Gate()])
    ran = notebook.start("%chat hi", "a")
    notebook.until(ran, lambda ran: ran.shown())
    at = interrupted(notebook, ran)
    assert chat_visit(server) - at < SWIFT
    assert kinds(ran.outputs) == ["footer", "error"]
    assert "stopped before the first token" in ran.footers[0]
    assert ran.error == [TOO_EARLY]
    assert not any(is_empty(output) for output in ran.outputs)
    notebook.run("%chat next", "b")
    assert server.contents() == ["next"]
    events = notebook.run("%llm events -n 30").printed
    assert 'message="stopped before the first token"' in next(
        line for line in events.splitlines() if "  stopped " in line
    )
    assert "RequestFailed" not in events


def test_a_comparison_of_which_nothing_had_arrived_does_not_say_that_it_is_kept(
    notebook: Kernel, server: ModelServer
) -> None:
    server.next([Gate()])
    ran = notebook.start("%%compare -m local/m -m local/other-model\nhi", "a")
    notebook.until(ran, lambda ran: ran.shown("text/html"))
    interrupted(notebook, ran)
    assert ran.error == ["AnswerInterrupted: stopped before the first token"]


def test_while_it_thinks_the_thought_is_kept(notebook: Kernel, server: ModelServer) -> None:
    server.next(sse(delta(reasoning_content="hmm, let me see"), Gate()))
    ran = notebook.start("%chat hi", "a")
    notebook.until(ran, lambda ran: any("let me see" in text for _, text in ran.shown()))
    interrupted(notebook, ran)
    assert "let me see" in ran.answers[0]["data"]["text/markdown"]
    assert not any(is_empty(output) for output in ran.outputs)
    notebook.run("%chat next", "b")
    assert server.contents() == ["next"]


@pytest.mark.parametrize("options", ["-q", "--no-history"])
def test_quiet_and_unremembered_answers_stop_as_well(notebook: Kernel, server: ModelServer, options: str) -> None:
    gate = Gate()
    server.next(sse(delta("one"), Pause(0.05), gate))
    ran = notebook.start(f"%chat {options} hi", "a")
    assert gate.reached.wait(5)
    at = interrupted(notebook, ran)
    assert chat_visit(server) - at < SWIFT
    assert ran.error[0].startswith("AnswerInterrupted: ")


STOPPER = """
import asyncio, pathlib
kernel = get_ipython().magics_manager.magics["line"]["chat"].__self__.kernel
async def stop_once_there_is(file):
    while not pathlib.Path(file).exists():
        await asyncio.sleep(0.005)
    kernel.session().answering.stop()
"""
"""What a button does, or whoever else stops an answer from outside its cell."""


@pytest.mark.parametrize("question", ["%chat -o kept hi", "%llm again -o kept"])
def test_an_answer_that_is_stopped_from_elsewhere_ends_its_cell_as_an_interrupt_does(
    notebook: Kernel, server: ModelServer, tmp_path: Path, question: str
) -> None:
    def stopped(file: Path, until: Callable[[Ran], object]) -> Ran:
        ran = notebook.start(f"kernel.factory.portal.start(stop_once_there_is({str(file)!r}));\n{question}", file.name)
        notebook.until(ran, until)
        file.touch()
        return notebook.finish(ran)

    notebook.run(f"{STOPPER}\n%chat hello")
    server.next(endless("tick "), [Gate()])
    ran = stopped(tmp_path / "a", lambda ran: any("tick tick tick" in text for _, text in ran.shown()))
    assert kinds(ran.outputs) == ["answer", "footer", "error"]
    assert ran.texts[0].startswith("tick tick tick")
    assert ran.answers[0]["metadata"]["llm_jupyter"]["finish_reason"] == "interrupted"
    assert "interrupted" in ran.footers[0]
    assert ran.error == ["AnswerInterrupted: stopped; what had arrived is kept"]
    assert notebook.value("kept.text") == ran.texts[0]
    ran = stopped(tmp_path / "b", lambda ran: ran.shown())
    assert kinds(ran.outputs) == ["footer", "error"]
    assert "stopped before the first token" in ran.footers[0]
    assert ran.error == [TOO_EARLY if question.startswith("%chat") else TOO_EARLY.partition(";")[0]]
    assert notebook.run("%chat next", "c").texts == ["Heard: next"]


def test_an_interrupt_stops_run_all(notebook: Kernel, server: ModelServer) -> None:
    server.next(endless("tick "))
    cells = [notebook.start(code, name) for name, code in (("a", "%chat one"), ("b", "%chat two"), ("c", "y = 1"))]
    notebook.until(cells[0], lambda ran: any("tick" in text for _, text in ran.shown()))
    notebook.interrupt()
    for ran in cells:
        notebook.finish(ran)
    assert [ran.reply["status"] for ran in cells] == ["error", "aborted", "aborted"]
    assert len(server.chats) == 1


def test_an_error_stops_run_all_and_a_tag_lets_it_go_on(server: ModelServer, tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(code) for code in ("%load_ext llm_jupyter", "%chat -m local/no hi", "print(7)")]
    environment = kernel_environment(
        tmp_path,
        {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
        },
    )
    document = nbformat.v4.new_notebook(cells=cells)
    with pytest.raises(CellExecutionError, match="there is no model 'no'"):
        NotebookClient(document).execute(env=environment)
    assert "outputs" not in document.cells[2] or document.cells[2].outputs == []
    document.cells[1].metadata["tags"] = ["raises-exception"]
    NotebookClient(document).execute(env=environment)
    assert document.cells[2].outputs[0]["text"] == "7\n"
    nbformat.validate(document)


@pytest.fixture(scope="module")
def live_notebook(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("live")
    place(weights, home)
    with Kernel(home) as kernel:
        yield kernel.load()


def model_processes(kernel: Kernel) -> list[psutil.Process]:
    """The kernel's children that hold a model."""
    pid = kernel.value("__import__('os').getpid()")
    return [
        child for child in psutil.Process(pid).children(recursive=True) if "_llama_child" in " ".join(child.cmdline())
    ]


@pytest.mark.live
def test_the_embedded_model_survives_an_interrupt_and_answers_the_next_cell(live_notebook: Kernel) -> None:
    first = live_notebook.run("%chat -t 0 --max-tokens 5 Say hello.", "a")
    assert first.status == "ok", first.error
    assert first.answers[0]["metadata"]["llm_jupyter"]["provider"] == "embedded"
    (before,) = model_processes(live_notebook)
    for _ in range(3):
        ran = live_notebook.start("%chat -t 0 --max-tokens 2000 Tell a very long story about the sea.", "b")
        live_notebook.until(ran, lambda ran: any(len(text) > 20 and "*" not in text for _, text in ran.shown()))
        interrupted(live_notebook, ran)
        live_notebook.take_waiting(SWIFT)
        worked = before.cpu_times().user
        live_notebook.take_waiting(SWIFT)
        assert before.cpu_times().user - worked < SWIFT / 3  # the server has stopped, too
        assert ran.texts[0]
        assert "interrupted" in ran.footers[0]
    after = live_notebook.run("%chat -t 0 --max-tokens 5 Say hello.", "c")
    assert after.status == "ok", after.error
    assert after.idle_after < 5
    assert [process.pid for process in model_processes(live_notebook)] == [before.pid]


@pytest.mark.live
def test_the_demonstration_model_is_marked_once_as_what_it_is(weights: Path, tmp_path: Path) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        kernel.load()
        first = kernel.run("%chat -t 0 --max-tokens 3 hi", "a")
        second = kernel.run("%chat -t 0 --max-tokens 3 hi", "b")
    assert "demonstration model" in first.footers[0]
    assert "%llm use" in first.footers[0]
    assert "demonstration" not in second.footers[0]


@pytest.mark.live
def test_the_same_seed_and_options_give_the_same_answer(live_notebook: Kernel) -> None:
    texts = [
        live_notebook.run("%%llm -t 0.8 --seed 7 --max-tokens 12\nName a colour.").texts for _ in range(2)
    ]  # fmt: skip
    assert texts[0] == texts[1] != [""]


def test_answers_come_after_an_interrupt_as_before(notebook: Kernel, server: ModelServer) -> None:
    server.next(endless("tick "), answer("fine"))
    ran = notebook.start("%chat hi")
    notebook.until(ran, lambda ran: any("tick" in text for _, text in ran.shown()))
    interrupted(notebook, ran)
    assert notebook.run("%chat hi").texts == ["fine"]
