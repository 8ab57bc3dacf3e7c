"""A real Ollama that is killed with `kill -9`, and what the notebook does then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kernels import Kernel
from live import place
from on_ollama import MODEL, ask
from servers.real_ollama import Ollama, real_ollama

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

NAME, FALLBACK = f"ollama/{MODEL}", "embedded/smollm2-135m"
HEALTH_INTERVAL = 5.0
"""Seconds, the default."""

LONG = "%chat --max-tokens 600 --temperature 0 Count from one to three hundred in words."
SHORT = "%chat --max-tokens 4 Say hello."
NETWORK_LOG = """
import sys
contacted = []
def _note(event, arguments):
    if event == "socket.connect":
        contacted.append(str(arguments[1]))
    elif event == "socket.getaddrinfo":
        contacted.append(str(arguments[0]))
sys.addaudithook(_note)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Ollama]:
    with real_ollama(tmp_path_factory.mktemp("outage"), weights) as server:
        yield server


@pytest.fixture
def running(server: Ollama) -> Iterator[Ollama]:
    """The server, which runs before and after the test whatever the test does to it."""
    if server.process is None:
        server.start()
    yield server
    if server.process is not None and server.process.poll() is not None:
        server.process = None
    if server.process is None:
        server.start()


def home(tmp_path: Path, weights: Path, *, fallback: bool) -> Path:
    place(weights, tmp_path)
    lines = [f'default_model = "{NAME}"', *([f'fallback = ["{FALLBACK}"]'] if fallback else [])]
    (tmp_path / "config.toml").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def kernel(tmp_path: Path, weights: Path, running: Ollama) -> Iterator[Kernel]:
    with Kernel(home(tmp_path, weights, fallback=True), {"OLLAMA_HOST": running.url}) as kernel:
        yield kernel.load()


def kill(server: Ollama) -> None:
    """`kill -9` for the server; its runners, which it can no longer end, go with it."""
    assert server.process is not None
    runners = server.runners()
    server.process.kill()
    server.process.wait(10)
    for runner in runners:
        runner.kill()
    psutil.wait_procs(runners, 10)
    server.process = None


def events(kernel: Kernel, kind: str) -> list[str]:
    """Events of a kind, which are listed without asking any server."""
    ran = kernel.run("%llm events -n 500")
    assert ran.status == "ok"
    return [line for line in ran.printed.splitlines() if f" {kind} " in line]


def answered_by_fallback(kernel: Kernel) -> None:
    ran = kernel.run(SHORT)
    assert ran.status == "ok", ran.error
    (about,) = [answer["metadata"]["llm_jupyter"] for answer in ran.answers]
    assert f"{about['provider']}/{about['model']}" == FALLBACK
    (tried,) = about["tried"]
    assert tried.startswith(f"{NAME}: ")
    assert sum(f"So {FALLBACK} answered." in footer for footer in ran.footers) == 1


def answered_by_ollama(kernel: Kernel) -> bool:
    ran = kernel.run(SHORT)
    assert ran.status == "ok", ran.error
    about = ran.answers[0]["metadata"]["llm_jupyter"]
    return about["provider"] == "ollama" and "tried" not in about


def row_of(kernel: Kernel, name: str) -> str:
    printed = kernel.run("%llm status").printed
    return next(line for line in printed.splitlines() if line.startswith(f"{name} "))


def test_a_server_that_is_killed_during_an_answer_costs_that_answer_and_the_next_comes_from_the_fallback(
    kernel: Kernel, running: Ollama
) -> None:
    ran = kernel.start(LONG)
    kernel.until(ran, lambda ran: any("two" in text.lower() or len(text) > 40 for _, text in ran.shown()))
    kill(running)
    kernel.finish(ran)
    assert ran.status == "error"
    assert len(ran.error) <= 3
    assert ran.error[0].startswith("StreamTruncatedError: ")
    assert len(ran.outputs[0]["data"]["text/markdown"]) > 10, "what had arrived is kept"
    answered_by_fallback(kernel)


def test_a_server_that_is_killed_before_the_first_token_is_replaced_within_the_same_cell(
    kernel: Kernel, running: Ollama
) -> None:
    ask(running, "/api/generate", {"model": MODEL, "keep_alive": 0})  # so that the question has to load the model
    ran = kernel.start(SHORT)
    assert running.process is not None
    deadline = time.monotonic() + 30
    while not running.runners():
        assert time.monotonic() < deadline, "Ollama never began to load"
        time.sleep(0.002)
    os.kill(running.process.pid, signal.SIGKILL)
    kernel.finish(ran)
    assert ran.status == "ok", ran.error
    about = ran.answers[0]["metadata"]["llm_jupyter"]
    assert f"{about['provider']}/{about['model']}" == FALLBACK
    assert about["tried"][0].startswith(f"{NAME}: ")


def test_a_server_that_is_killed_while_idle_is_missed_and_used_again_once_it_is_back(
    kernel: Kernel, running: Ollama
) -> None:
    assert answered_by_ollama(kernel)
    kill(running)
    killed = time.monotonic()
    while not events(kernel, "ProviderLost"):
        assert time.monotonic() - killed < 2 * HEALTH_INTERVAL, "nobody noticed"
        kernel.take_waiting(0.1)
    assert " failed " in row_of(kernel, "ollama")
    answered_by_fallback(kernel)

    running.start()
    back = time.monotonic()
    while not events(kernel, "ProviderRecovered"):
        assert time.monotonic() - back < HEALTH_INTERVAL + 1.0, "it was not found again"
        kernel.take_waiting(0.1)
    assert answered_by_ollama(kernel)
    assert " connected " in row_of(kernel, "ollama")


def test_without_a_fallback_the_cell_fails_in_one_line_and_nothing_else_answers_or_is_contacted(
    tmp_path: Path, weights: Path, running: Ollama
) -> None:
    keys = {"OLLAMA_HOST": running.url, "OPENAI_API_KEY": "sk-not-a-real-key"}
    with Kernel(home(tmp_path, weights, fallback=False), keys) as kernel:
        kernel.load()
        assert answered_by_ollama(kernel)
        kernel.run(NETWORK_LOG)
        kill(running)
        for _ in range(2):
            ran = kernel.run(SHORT)
            assert ran.status == "error"
            (line,) = ran.error
            assert "ollama at http://127.0.0.1" in line
            assert "%llm use embedded" in line
            assert not ran.answers
        kernel.run("%llm status\n%llm\n%llm models")
        contacted = kernel.value("contacted")
        assert contacted, "the hook must have seen the attempts on this machine"
        assert [place for place in contacted if "127.0.0.1" not in place] == []
        assert kernel.run("%llm use embedded").status == "ok"
        assert kernel.run(SHORT).answers[0]["metadata"]["llm_jupyter"]["provider"] == "embedded"


def test_with_a_key_in_the_environment_and_every_local_server_dead_no_byte_leaves_the_machine(
    tmp_path: Path, weights: Path
) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path, {"OPENAI_API_KEY": "sk-not-a-real-key"}) as kernel:
        kernel.run(NETWORK_LOG)
        kernel.load()
        ran = kernel.run(SHORT)
        assert ran.answers[0]["metadata"]["llm_jupyter"]["provider"] == "embedded"
        kernel.run("%llm status\n%llm providers\n%llm models\n%llm doctor")
        contacted = kernel.value("contacted")
        assert contacted, "the hook must have seen the attempts on this machine"
        assert [place for place in contacted if "127.0.0.1" not in place] == []
