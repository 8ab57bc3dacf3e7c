"""`%llm pull`: from a registry on loopback into a real Ollama."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Ran, kinds
from live import place
from on_ollama import MODEL, SIZE, bad, good, names
from servers.model_registry import ModelRegistry
from servers.paced import ModelServer
from servers.real_ollama import Ollama, free_port

from llm_jupyter.download import Download
from llm_jupyter.types import PullProgress

PROGRESS = re.compile(r"([█░]{24}) +(\d+)%  (\d+) of (\d+) MB(?:  ([\d.]+) MB/s  (\d+) s left)?")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Ollama]:
    """A second real server, with nothing on it."""
    server = Ollama(tmp_path / "empty", free_port())
    server.start()
    yield server
    server.stop()


def progress(ran: Ran) -> list[tuple[int, int, bool]]:
    """The lines of a pull that had a bar: megabytes there, megabytes in all, whether speed and time left were said."""
    found = [PROGRESS.search(text) for _, text in ran.shown("text/plain")]
    return [(int(match[3]), int(match[4]), match[5] is not None) for match in found if match]


@pytest.mark.live
def test_a_pull_shows_how_far_it_is_stops_at_an_interrupt_and_goes_on_where_it_was(
    tmp_path: Path, ollama: Ollama, empty: Ollama
) -> None:
    with ModelRegistry(ollama.folder / "models", delay=0.02) as registry, Kernel(
        tmp_path / "home", {"OLLAMA_HOST": empty.url}
    ) as kernel:  # fmt: skip
        kernel.load()
        command = f"%llm pull {registry.name(MODEL)}"
        short = registry.name(MODEL).removeprefix("http://")
        ran = kernel.start(command)
        kernel.until(ran, lambda ran: sum(paced for *_, paced in progress(ran)) >= 2)
        kernel.interrupt()
        kernel.finish(ran)
        seen = progress(ran)
        assert ran.status == "error"
        assert ran.error == [f"AnswerInterrupted: stopped; {command} goes on from here"]
        assert kinds(ran.outputs) == ["display", "error"]
        stopped = re.fullmatch(rf"{short}: stopped at (\d+) of {SIZE} MB", ran.outputs[0]["data"]["text/plain"])
        assert stopped
        amounts = [done for done, *_ in seen]
        assert amounts == sorted(amounts)
        assert amounts[-1] > amounts[0]
        assert {total for _, total, _ in seen} == {SIZE}
        assert 0 < int(stopped[1]) < SIZE
        assert names(empty) == set()

        on = good(kernel, command)
        assert min(done for done, *_ in progress(on)) >= int(stopped[1])
        assert registry.starts[1] >= (int(stopped[1]) - 1) * 10**6
        (last,) = on.outputs
        assert re.fullmatch(rf"ollama/{short} is here: {SIZE} MB, after [\d.]+ s\.", last["data"]["text/plain"])
        assert names(empty) == {short}

        third = good(kernel, command)
        assert third.outputs[0]["data"]["text/plain"] == f"ollama/{short} is here: it was here already."
        assert f"ollama/{short} (local) answers" in good(kernel, f"%llm use ollama/{short}").printed


@pytest.mark.live
def test_a_pull_that_fails_is_one_to_three_lines(tmp_path: Path, ollama: Ollama, empty: Ollama) -> None:
    with Kernel(tmp_path / "home", {"OLLAMA_HOST": empty.url}) as kernel:
        kernel.load()
        with ModelRegistry(ollama.folder / "models") as registry:
            unknown = bad(kernel, f"%llm pull {registry.name('none:1b')}")
            lost = registry.name(MODEL)
        assert unknown[0].startswith("ModelNotFoundError: the registry has no such model")
        assert bad(kernel, f"%llm pull {lost}")[0].startswith("LLMConnectionError: the registry cannot be reached")
        assert names(empty) == set()
        empty.stop()
        nobody = bad(kernel, "%llm pull llama3.2")
        assert nobody[0] == "ModelNotFoundError: no provider that runs here can fetch 'llama3.2'"
        assert "Start Ollama" in nobody[1]
        assert bad(kernel, "%llm pull ollama/llama3.2")[0].startswith("UnreachableError: ")


@pytest.mark.live
def test_the_embedded_model_is_not_fetched_by_ollama_and_not_twice(
    tmp_path: Path, ollama: Ollama, weights: Path
) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path, {"OLLAMA_HOST": ollama.url}) as kernel:
        kernel.load()
        ran = good(kernel, "%llm pull smollm2-135m")
    assert [o["data"]["text/plain"] for o in ran.outputs] == ["embedded/smollm2-135m is here: it was here already."]
    assert names(ollama) == {MODEL}


def test_what_nobody_can_fetch_is_not_asked_of_a_configured_server(tmp_path: Path) -> None:
    with ModelServer() as server:
        environment = {
            "OLLAMA_HOST": "127.0.0.1:9",
            "LLM_JUPYTER_PROVIDERS__MINE__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__MINE__BASE_URL": server.base_url,
        }
        with Kernel(tmp_path, environment) as kernel:
            kernel.load()
            assert "no provider that runs here" in bad(kernel, "%llm pull llama3.2")[0]
            assert "cannot fetch models" in bad(kernel, "%llm pull mine/llama3.2")[0]
    assert [request for request in server.requests if request.method != "GET"] == []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def download(*reports: tuple[float, int], name: str = "llama3.2", total: int = 2_000_000_000) -> list[str]:
    """The lines after each report: a moment, and how many bytes were there."""
    clock, lines = Clock(), []
    state = Download(name, clock)
    for clock.now, completed in reports:
        state.add(PullProgress("pulling 6a0746a1ec1a", completed, total))
        lines.append(state.line())
    return lines


def test_the_speed_is_that_of_the_last_seconds() -> None:
    lines = download((0, 500_000_000), (1, 600_000_000), (10, 600_000_000), (11, 620_000_000), (14, 680_000_000))
    assert lines[0] == "llama3.2  ██████░░░░░░░░░░░░░░░░░░  25%  500 of 2,000 MB"
    assert lines[1].endswith("600 of 2,000 MB  100.0 MB/s  14 s left")
    assert lines[2].endswith("600 of 2,000 MB")
    assert lines[3].endswith("20.0 MB/s  69 s left")
    assert lines[4].endswith("680 of 2,000 MB  20.0 MB/s  66 s left")


def test_a_long_time_is_said_in_minutes_or_hours_and_the_end_has_no_speed() -> None:
    assert download((0, 1_000_000), (1, 2_000_000))[-1].endswith("1.0 MB/s  33 min left")
    assert download((0, 1_000_000), (4, 1_400_000))[-1].endswith("0.1 MB/s  5.6 h left")
    assert download((0, 1_000_000), (1, 2_000_000_000))[-1].endswith("100%  2,000 of 2,000 MB  finishing")


def test_an_address_is_shown_without_what_only_the_server_needs_and_a_long_one_by_its_end() -> None:
    line = download((0, 5), name="https://h/NAME.gguf#sha256=" + 64 * "0", total=10)[0]
    assert line.startswith("h/NAME.gguf  ████████████░")
    keyed = download((0, 5), name="https://me:secret@h/NAME.gguf?key=secret#sha256=" + 64 * "0", total=10)[0]
    assert keyed == line
    long = download((0, 5), name="hf.co/some-people/Some-Long-Model-3B-Instruct-GGUF:Q4_K_M", total=10)[0]
    assert long.startswith("…-Model-3B-Instruct-GGUF:Q4_K_M  ███")
    assert download((0, 5), name="http://127.0.0.1:50000/library/smollm2:135m", total=10)[0].startswith("…/lib")
