"""`%llm status`, `providers`, `connect`, `disconnect`, `events` and `hosts` in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kernels import Kernel
from live import place
from on_ollama import bad, good
from servers.paced import ModelServer

CONFIG = """
default_model = "main/m"
fallback = ["spare/m"]

[providers.main]
kind = "openai-compatible"
base_url = "{main}"

[providers.spare]
kind = "openai-compatible"
base_url = "{spare}"

[providers."one two"]
kind = "openai-compatible"
base_url = "{spare}"
enabled = false

[providers.cloud]
kind = "openai-compatible"
base_url = "https://me:hunter2@models.example.org/v1"
"""


@pytest.fixture
def spare() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def main() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def kernel(tmp_path: Path, main: ModelServer, spare: ModelServer) -> Iterator[Kernel]:
    (tmp_path / "config.toml").write_text(CONFIG.format(main=main.base_url, spare=spare.base_url))
    with Kernel(tmp_path) as kernel:
        yield kernel.load()


def row(kernel: Kernel, name: str, command: str = "%llm status") -> str:
    lines = good(kernel, command).printed.splitlines()
    return next(line for line in lines if line.startswith(f"{name} "))


def test_status_tells_of_each_provider_where_it_is_and_how_it_is(kernel: Kernel, main: ModelServer) -> None:
    printed = good(kernel, "%llm status").printed
    assert printed.splitlines()[0].split() == ["provider", "where", "state", "since", "latency", "models", "reason"]
    assert row(kernel, "main").split()[1:3] == ["local", "connected"]
    assert row(kernel, "cloud").split()[1:3] == ["remote", "disconnected"]
    assert "not asked before" in row(kernel, "cloud")
    assert "Not running at their usual places: " in printed
    good(kernel, "%chat hi")
    assert "the last question was answered" in row(kernel, "main")
    good(kernel, "%llm disconnect main")
    assert row(kernel, "main").split()[1:3] == ["local", "off"]
    assert row(kernel, "main").endswith("m is chosen, but off: %llm connect main")
    good(kernel, "%llm connect main")
    main.close()
    assert row(kernel, "main").split()[1:3] == ["local", "failed"]
    assert row(kernel, "main").endswith("nothing answers: the connection was refused")


def test_a_failover_is_said_in_one_line_at_the_answer_and_stands_in_its_metadata(
    kernel: Kernel, main: ModelServer
) -> None:
    assert "tried" not in good(kernel, "%chat hi").answers[0]["metadata"]["llm_jupyter"]
    main.close()
    for _ in range(2):  # once by failing, once because it is left alone
        ran = good(kernel, "%chat hello")
        assert ran.texts == ["Heard: hello"]
        about = ran.answers[0]["metadata"]["llm_jupyter"]
        assert about["provider"] == "spare"
        assert about["tried"] == ["main/m: nothing answers: the connection was refused"]
        lines = [line for footer in ran.footers for line in footer.splitlines() if "main/m" in line]
        assert lines == ["main/m: nothing answers: the connection was refused. So spare/m answered."]


def test_a_server_that_is_disconnected_is_asked_no_more_until_it_is_connected(
    kernel: Kernel, main: ModelServer
) -> None:
    good(kernel, "%llm disconnect main")
    asked = len(main.visits)
    (first, second) = bad(kernel, "%chat hi")
    assert "disconnected" in first
    assert "%llm connect main" in second
    assert row(kernel, "main").split()[2] == "off"
    assert len(main.visits) == asked
    assert "connected" in good(kernel, "%llm connect main").printed
    assert good(kernel, "%chat hi").texts == ["Heard: hi"]


def test_connecting_says_how_long_the_answer_took_or_that_none_came(kernel: Kernel, main: ModelServer) -> None:
    assert "main (local) is connected. It answered in " in good(kernel, "%llm connect main").printed
    main.close()
    assert "the connection was refused" in bad(kernel, "%llm connect main")[0]
    assert row(kernel, "main").split()[2] == "failed"
    assert "one two (local) is connected." in good(kernel, "%llm connect one two").printed
    assert "one two is disconnected" in good(kernel, "%llm disconnect one two").printed
    assert "which provider?" in bad(kernel, "%llm connect one three")[0]


def test_providers_lists_where_each_is_and_where_it_comes_from(kernel: Kernel, main: ModelServer) -> None:
    words = row(kernel, "main", "%llm providers").split()
    assert words[1:6] == ["openai-compatible", "local", "yes", "0", main.base_url]
    assert "its usual port" in row(kernel, "lmstudio", "%llm providers")
    assert row(kernel, "cloud", "%llm providers").split()[2:6] == [
        "remote",
        "yes",
        "0",
        "https://models.example.org/v1",
    ]


def test_events_lists_what_happened_the_latest_last(kernel: Kernel) -> None:
    good(kernel, "%chat hi")
    lines = good(kernel, "%llm events -n 3").printed.splitlines()
    assert len(lines) == 4
    assert lines[2].split()[1] == "RequestFinished"
    assert "earlier ones: %llm events -n " in lines[3]
    everything = good(kernel, "%llm events -n 1000").printed.splitlines()
    assert everything[0].split()[1] == "FactoryOpened"
    assert len(everything) > 10


@pytest.mark.live
def test_a_host_is_listed_stopped_by_its_name_and_started_again_by_the_next_question(
    tmp_path: Path, weights: Path
) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        kernel.load()
        good(kernel, "%chat --max-tokens 2 hi")
        head, line = good(kernel, "%llm hosts").printed.splitlines()
        assert head.split()[:4] == ["host", "state", "whose", "pid"]
        assert line.split()[:3] == ["embedded", "running", "ours"]
        pid = int(line.split()[3])
        assert psutil.pid_exists(pid)
        assert "stopped" in good(kernel, "%llm host stop embedded").printed
        assert not psutil.pid_exists(pid)
        assert good(kernel, "%chat --max-tokens 2 hi").answers
        assert " running " in row(kernel, "embedded", "%llm hosts")
        restarted = good(kernel, "%llm host restart embedded").printed
        assert restarted.startswith("embedded is running at http://127.0.0.1:")
        assert good(kernel, "%chat --max-tokens 2 hi").answers


def test_a_server_that_somebody_else_runs_is_watched_and_never_stopped(kernel: Kernel, main: ModelServer) -> None:
    good(kernel, "%chat hi")
    assert "somebody else's" in row(kernel, "main", "%llm hosts")
    assert "was not started by llm_jupyter" in bad(kernel, "%llm host stop main")[0]
    assert good(kernel, "%chat hi").texts == ["Heard: hi"]


def test_the_look_says_who_answers_while_the_chosen_model_cannot(kernel: Kernel, main: ModelServer) -> None:
    main.close()
    printed = good(kernel, "%llm").printed
    assert "main/m (local) is to answer because it is default_model, and does not now: " in printed
    assert "Until it does, spare/m answers." in printed
    ran = good(kernel, "%chat hi")
    assert not any("because" in footer for footer in ran.footers), "the reason is that of a model that did not answer"
    good(kernel, "%llm disconnect main")
    assert good(kernel, "%llm").printed.startswith("main/m (local) is chosen, but off: %llm connect main\n")


@pytest.mark.live
def test_the_status_of_the_embedded_model_follows_its_process(tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        kernel.load()
        assert "is running, with smollm2-135m" in good(kernel, "%llm host start embedded").printed
        assert row(kernel, "embedded").split()[2] == "connected"
        good(kernel, "%llm host stop embedded")
        assert row(kernel, "embedded").split()[2] == "disconnected"
        assert "the next question starts it" in row(kernel, "embedded")
        assert "does not run" in good(kernel, "%llm host logs embedded").printed
