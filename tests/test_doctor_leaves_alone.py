"""The doctor looks on: it asks nobody who was not named, starts nothing, and says no more than it has seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from doctoring import Patient
from live import place
from servers.paced import ModelServer
from servers.real_ollama import free_port
from servers.scripted_ollama import ScriptedOllama, entry
from test_doctor import Lists, provider
from test_foreign import SERVER, STRANGER

from llm_jupyter.doctor import Finding, Report, report
from llm_jupyter.doctor.case import Case
from llm_jupyter.errors import LLMError
from llm_jupyter.settings import LLMSettings


@pytest.fixture
def home(tmp_path: Path, weights: Path) -> Path:
    place(weights, tmp_path / "home")
    return tmp_path / "home"


async def looked(home: Path, settings: str, **environment: str) -> Report:
    """What the doctor finds, in this process."""
    return await report(Patient(home, environment, settings=settings).environment)


def one(found: Report, step: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.step == step]
    return finding


def dead(name: str) -> str:
    return provider(name, f"http://127.0.0.1:{free_port()}/v1")


@contextmanager
def far() -> Iterator[tuple[str, list[str]]]:
    """A server by a name that is not loopback's, and what it was asked."""
    asked: list[str] = []

    class Remembers(Lists):
        def do_GET(self) -> None:  # noqa: N802  # the base class calls it so
            asked.append(self.path)
            super().do_GET()

    with ThreadingHTTPServer(("", 0), Remembers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://{socket.gethostname()}:{server.server_port}/v1", asked
        server.shutdown()


@pytest.mark.parametrize("name", ["far/m", "far"])
async def test_a_remote_fallback_is_neither_asked_nor_promised(home: Path, name: str) -> None:
    with far() as (url, asked):
        tables = dead("local") + provider("far", url, 'api_key = "sk-secret"')
        found = await looked(home, f'default_model = "local/m"\nfallback = ["{name}"]\n{tables}')
    assert asked == []
    assert "meanwhile" not in one(found, "session").what
    assert "nothing answers" in one(found, "session").what


async def test_a_remote_fallback_of_a_remote_model_is_told_of_and_not_asked(home: Path) -> None:
    with far() as (url, asked), socket.create_server(("", 0)) as silent:
        gone = f"http://{socket.gethostname()}:{silent.getsockname()[1]}/v1"
        silent.close()
        tables = provider("gone", gone) + provider("far", url)
        found = await looked(home, f'default_model = "gone/m"\nfallback = ["far/m"]\n{tables}')
    assert asked == []
    assert one(found, "session").what.startswith("far/m is asked meanwhile, since it is listed as fallback; it was not")


async def test_a_model_that_the_local_server_passes_on_is_not_promised_for_a_local_one(home: Path) -> None:
    with ScriptedOllama(entry("copy", remote_host="https://ollama.com:443"), entry("own:1b")) as ollama:
        settings = f'default_model = "local/m"\nfallback = ["ollama/copy", "ollama/own:1b"]\n{dead("local")}'
        found = await looked(home, settings, OLLAMA_HOST=ollama.origin)
        assert ollama.chats == []
    assert one(found, "session").what.startswith("ollama/own:1b answers meanwhile")


@pytest.mark.parametrize(
    "settings",
    [
        'default_model = "ollama/spy:1b"\nfallback = ["embedded"]',
        'default_model = "ollama"',
        'default_model = "spy:1b"',
        "",
    ],
)
async def test_another_users_server_is_asked_nothing_by_the_doctor(home: Path, settings: str) -> None:
    command = [sys.executable, "-c", SERVER, str(STRANGER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = await looked(home, settings + "\n", OLLAMA_HOST=f"127.0.0.1:{port}")
        process.kill()
        asked = process.stdout.read().split()
    if os.getuid() != 0 or sys.platform != "linux":
        return  # nobody else can become another user
    assert asked == []
    assert (
        "asked only when it is named" in next(finding for finding in found.findings if finding.code == "foreign").what
    )
    if settings:
        assert found.exit_code == 1
        wrong = next(finding for finding in found.findings if finding.step == "model")
        assert wrong.remedy.commands == ("jupyter llm config set default_model embedded/smollm2-135m",)
    if "fallback" in settings:
        assert one(found, "session").what.startswith("embedded answers meanwhile, since it is listed as fallback")


@pytest.mark.parametrize(
    "top",
    [
        'default_model = "mine/m"', 'default_model = "mine"', 'default_model = "local/m"',
        'default_model = "gone/m"\nfallback = ["mine"]', 'default_model = "gone/m"\nfallback = ["mine/m"]',
    ],
)  # fmt: skip
async def test_a_host_that_a_question_starts_is_not_started(home: Path, top: str) -> None:
    port = free_port()
    command = json.dumps([sys.executable, "-c", f"open({str(home / 'started')!r}, 'w')"])
    host = f"[hosts.mine]\ncommand = {command}\nport = {port}\nautostart = true\n"
    tables = dead("gone") + (provider("local", f"http://127.0.0.1:{port}/v1") if "local" in top else "")
    found = await looked(home, f"{top}\n{tables}{host}")
    assert not (home / "started").exists()
    assert not (home / "hosts").exists()
    assert one(found, "session").code == "session"
    assert ("starts with the first question" in one(found, "session").what) == ("gone" not in top)


# -- who answers instead


async def test_another_holder_of_the_same_model_is_named_before_what_is_listed(home: Path) -> None:
    with ModelServer(["same"]) as server:
        settings = f'default_model = "a/same"\nfallback = ["embedded"]\n{dead("a")}{provider("e", server.base_url)}'
        found = await looked(home, settings)
    assert one(found, "session").what.startswith("e/same answers meanwhile, since it holds the same model")


async def test_nobody_is_promised_where_nobody_may_answer_in_place_of_an_unknown_model(home: Path) -> None:
    with ModelServer() as server:
        settings = f'default_model = "local/none"\nfallback = ["embedded"]\n{provider("local", server.base_url)}'
        found = await looked(home, settings)
    assert "nothing answers before the errors above are mended" in one(found, "session").what


async def test_a_providers_name_stands_for_its_best_model(home: Path) -> None:
    with ModelServer() as server:
        settings = f'default_model = "local"\nfallback = ["embedded"]\n{provider("local", server.base_url)}'
        found = await looked(home, settings)
    assert (found.exit_code, found.lines()[-1]) == (0, "no errors, no warnings.")


def test_what_takes_one_dead_fallback_off_takes_off_all(home: Path) -> None:
    patient = Patient(home, settings='fallback = ["nope/1", "embedded", "nada/2"]\n')
    before = patient.doctor()
    warnings = [finding for finding in before.findings if finding["mark"] == "warning"]
    assert [finding["what"].split()[-1] for finding in warnings] == ["'nope/1'", "'nada/2'"]
    for finding in warnings:
        patient.type(*finding["commands"])
    assert patient.doctor().codes == []
    assert (home / "config.toml").read_text() == 'fallback = ["embedded"]\n'


# -- words


def test_advice_for_a_cell_says_so_in_a_terminal_and_ends_once() -> None:
    failure = LLMError("it is gone", next_step="It is default_model; %llm use MODEL takes another. ")
    terminal, cell = (Case(LLMSettings(), {}, face).advice(failure).words for face in ("terminal", "cell"))
    assert cell == "It is default_model; %llm use MODEL takes another"
    assert terminal == f"In a notebook: {cell}"
