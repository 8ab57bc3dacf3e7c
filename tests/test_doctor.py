"""The doctor's walk: what it finds in sound and in odd set-ups, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from doctoring import Patient
from live import place
from servers.paced import ModelServer
from servers.real_ollama import Ollama, free_port
from servers.scripted import End, ScriptedServer
from servers.scripted_ollama import ScriptedOllama, entry

from llm_jupyter.doctor import Finding, Mark, Remedy, Report, report
from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.starting import how_to_start
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.selection import Recipe
from llm_jupyter.settings import LLMSettings


@pytest.fixture
def home(tmp_path: Path, weights: Path) -> Path:
    place(weights, tmp_path / "home")
    return tmp_path / "home"


def provider(name: str, url: str, *more: str) -> str:
    return "\n".join([f"[providers.{name}]", 'kind = "openai-compatible"', f'base_url = "{url}"', *more, ""])


# -- the walk


def test_a_sound_set_up_is_told_in_few_lines_with_the_steps_in_order(home: Path) -> None:
    with ModelServer() as server:
        patient = Patient(home, settings=provider("local", server.base_url))
        ran = patient.run("jupyter-llm", "doctor")
        steps = [finding["step"] for finding in patient.doctor().findings]
    assert ran.returncode == 0
    lines = ran.stdout.splitlines()
    assert len(lines) <= 25
    assert max(len(line.replace(str(home), "~/home")) for line in lines) <= 110
    assert lines[-1] == "no errors, no warnings."
    assert all(line.startswith(("✓ ok ", "· note ", " " * 10)) for line in lines[:-2])
    order = ["settings", "data folder", "package", "Jupyter", "embedded", "providers", "proxy", "server", "session"]
    assert list(dict.fromkeys(step for step in steps if step in order)) == order


@pytest.mark.parametrize(
    "text",
    ["default_model = ", "no_such_setting = 1", '[providers.x]\nkind = "ollamma"\n', "[hosts.x]\nport = 8080\n"],
)
def test_settings_that_cannot_be_used_are_found_and_the_walk_goes_on(home: Path, text: str) -> None:
    found = Patient(home, settings=text).doctor()
    assert found.exit_code == 1
    wrong = found.one("settings-wrong")
    assert wrong["mark"] == "error"
    assert wrong["remedy"]
    codes = [finding["code"] for finding in found.findings]
    assert codes.index("settings-wrong") == 0 or codes[0] == "settings"
    assert {"folder", "weights", "session"} <= set(codes), "nothing else is wrong, and all of it was looked at"


def test_all_faults_of_the_settings_are_found_at_once_and_variables_that_set_nothing_too(home: Path) -> None:
    found = Patient(home, {"LLM_JUPYTER_FOO": "1"}, settings='stream = "never"\nfooter = "maybe"\n').doctor()
    wrong = [finding["what"].split()[0] for finding in found.findings if finding["code"] == "settings-wrong"]
    assert wrong == ["stream", "footer"]
    assert "LLM_JUPYTER_FOO names no setting" in found.one("variable-unknown")["what"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be a user whom nobody knows")
def test_a_user_without_a_home_folder_is_told_how_to_have_one(home: Path) -> None:
    patient = Patient(home, ordinary=True, user=12345)
    del patient.environment["HOME"]
    found = patient.doctor()
    assert found.exit_code == 1
    (command,) = found.one("no-home")["commands"]
    patient.type(command)
    assert "no-home" not in patient.doctor().codes
    shutil.rmtree(patient.environment["HOME"])


async def test_many_servers_that_hang_take_no_longer_than_one(home: Path) -> None:
    async def took(silent: int, dead: int) -> float:
        tables = [provider(f"silent{number}", server.base_url) for number in range(silent)]
        tables += [provider(f"dead{number}", f"http://127.0.0.1:{free_port()}/v1") for number in range(dead)]
        patient = Patient(home, settings="\n".join(tables))
        started = time.monotonic()
        found = await report(patient.environment)
        codes = [finding.code for finding in found.findings]
        assert (codes.count("server-silent"), codes.count("no-server")) == (silent, dead)
        return time.monotonic() - started

    with ScriptedServer([End.HOLD]) as server:
        one, many = await took(1, 0), await took(6, 6)
    print(f"one: {one:.2f} s, many: {many:.2f} s")
    assert many < one + 1.0


# -- what is left alone


class Lists(BaseHTTPRequestHandler):
    """A server that lists one model and counts who asks."""

    asked = 0

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        type(self).asked += 1
        body = b'{"data": [{"id": "m"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def far() -> Iterator[tuple[str, type[Lists]]]:
    """The address of a server by a name that is not loopback's, and its count."""
    import socket

    class Counting(Lists):
        pass

    with ThreadingHTTPServer(("", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://{socket.gethostname()}:{server.server_port}/v1", Counting
        server.shutdown()


def test_a_remote_server_is_asked_only_on_request_or_if_it_is_to_answer(
    home: Path, far: tuple[str, type[Lists]]
) -> None:
    url, server = far
    patient = Patient(home, settings=provider("far", url))
    assert "so it is not asked" in patient.doctor().one("remote")["what"]
    assert server.asked == 0
    assert f"far at {url}: 1 model" in patient.doctor("--remote").one("ready")["what"]
    assert server.asked > 0
    before = server.asked
    (home / "config.toml").write_text('default_model = "far/m"\n' + provider("far", url))
    assert "far/m (remote) answers" in patient.doctor().one("session")["what"]
    assert server.asked > before


def test_no_model_is_asked_or_loaded_without_live_and_one_token_is_asked_with_it(home: Path) -> None:
    with ModelServer() as server, ScriptedOllama(entry("qwen3:4b")) as ollama:
        settings = 'default_model = "local/m"\n' + provider("local", server.base_url)
        patient = Patient(home, {"OLLAMA_HOST": ollama.origin}, settings=settings)
        assert patient.doctor().exit_code == 0
        assert server.chats == []
        assert {request.path for request in ollama.requests} <= {"/api/tags", "/api/ps", "/api/show", "/api/version"}
        live = patient.doctor("--live")
        assert "local: m gave a token" in live.one("live")["what"]
        assert [chat["max_tokens"] for chat in server.chats] == [1]
        assert ollama.chats == []


@pytest.mark.live
def test_the_embedded_model_gives_a_token_with_live(home: Path) -> None:
    found = Patient(home).doctor("--live")
    assert found.exit_code == 0
    assert "embedded: smollm2-135m gave a token" in found.one("live")["what"]


def test_no_secret_stands_in_a_report(home: Path) -> None:
    settings = provider("local", f"http://someone:hunter2@127.0.0.1:{free_port()}/v1", 'api_key = "hunter3"')
    patient = Patient(home, {"OPENAI_API_KEY": "hunter4"}, settings=settings)
    for text in (patient.doctor().text, patient.run("jupyter-llm", "doctor").stdout):
        assert "local" in text
        assert "hunter" not in text


# -- single steps


def test_a_key_that_others_can_read_is_noticed(home: Path) -> None:
    with ModelServer() as server:
        patient = Patient(home, settings=provider("local", server.base_url, 'api_key = "k"'))
        (home / "config.toml").chmod(0o644)
        (command,) = patient.doctor().one("key-readable")["commands"]
        patient.type(command)
        assert "key-readable" not in patient.doctor().codes


def test_a_fallback_that_is_not_there_is_taken_off_the_list(home: Path) -> None:
    with ModelServer() as server:
        settings = 'fallback = ["local/m", "local/none"]\n' + provider("local", server.base_url)
        patient = Patient(home, settings=settings)
        found = patient.doctor().one("model-not-found")
        assert (found["mark"], found["what"]) == ("warning", "fallback: local has no model 'none'")
        patient.type(*found["commands"])
        assert patient.doctor().codes == []


@pytest.mark.live
def test_what_starts_ollama_starts_it_when_it_is_typed(tmp_path: Path, ollama: Ollama) -> None:
    """The doctor would find the other Ollama that runs for the tests, so its words are asked for directly."""
    from servers.real_ollama import program

    executable, variables = program()
    shim = tmp_path / "bin" / "ollama"
    shim.parent.mkdir()
    exports = "\n".join(f"export {name}='{value}'" for name, value in variables.items())
    shim.write_text(f'#!/bin/sh\n{exports}\nexport HOME={tmp_path}\nexec {executable} "$@"\n')
    shim.chmod(0o755)
    patient = Patient(tmp_path / "home")
    patient.environment["PATH"] = f"{shim.parent}:{patient.environment['PATH']}"
    url = f"http://127.0.0.1:{free_port()}"
    recipe = Recipe("mine", "ollama", lambda: OllamaProvider("mine", url), True, base_url=url)
    remedy = how_to_start(Case(LLMSettings(home=tmp_path), patient.environment), recipe)
    (command,) = remedy.commands
    assert command.endswith(" ollama serve")
    server = subprocess.Popen(
        ["bash", "-c", f"exec env {command}"], env=patient.environment, cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        settings = f'[providers.mine]\nkind = "ollama"\nbase_url = "{url}"\n'
        (tmp_path / "home" / "config.toml").write_text(settings)
        while "no-server" in (codes := patient.doctor().codes) or "wrong-port" in codes:
            assert time.monotonic() < deadline
            assert server.poll() is None
        assert any(f"mine at {url}: 0 models" in finding["what"] for finding in patient.doctor().findings)
    finally:
        server.kill()
        server.wait()


METADATA = "Metadata-Version: 2.1\nName: llm-jupyter\nVersion: 9.9\n"


def test_a_strangers_package_in_our_folder_is_found_and_taken_out_by_what_is_typed(tmp_path: Path) -> None:
    room = tmp_path / "room"
    venv.create(room, symlinks=True)
    python = room / "bin" / "python"
    packages = next(room.glob("lib/python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join([*ours, str(Path(__file__).parents[1])]) + "\n")
    wheel = tmp_path / "llm_jupyter-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_jupyter/strange.py", "")
        archive.writestr("llm_jupyter-9.9.dist-info/METADATA", METADATA)
        archive.writestr(
            "llm_jupyter-9.9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("llm_jupyter-9.9.dist-info/RECORD", "llm_jupyter/strange.py,,\n")
    patient = Patient(tmp_path / "home")
    assert "llm_jupyter.cli" not in patient.run(str(python), "-c", "import llm_jupyter.cli").stderr
    patient.run(str(python), "-m", "pip", "install", "--no-index", "--no-deps", str(wheel)).check_returncode()
    look = (str(python), "-m", "llm_jupyter.cli", "doctor")
    before = patient.run(*look)
    assert before.returncode == 1
    assert "somebody else's distribution llm-jupyter 9.9 is installed" in " ".join(before.stdout.split())
    commands = [line.partition("→ ")[2] for line in before.stdout.splitlines() if "→" in line and "pip" in line]
    assert commands[0] == f"{python} -m pip uninstall -y llm-jupyter"
    assert " -m pip install --force-reinstall --no-deps " in commands[1]
    patient.type(commands[0])
    after = patient.run(*look)
    assert after.returncode == 0, after.stdout
    assert "somebody else's" not in after.stdout


# -- the report


def test_a_finding_is_a_symbol_and_words_and_what_is_typed_is_never_broken() -> None:
    command = "jupyter llm config set providers.local.base_url " + "x" * 120
    lines = Finding("server", Mark.ERROR, "c", "word " * 40, Remedy("Then", (command,))).lines()
    assert lines[0].startswith("✗ error    server       word")
    assert lines[-1].strip() == f"→ {command}"
    assert lines[-2].strip() == "→ Then:"
    assert all(len(line) <= 110 for line in lines[:-1])


def test_nothing_in_a_finding_steers_a_terminal() -> None:
    finding = Finding("server", Mark.NOTE, "c", "evil\x1b[2J\r\nname\u202e")
    assert finding.lines() == ["· note     server       evil [2J name"]
    assert "\x1b" not in finding.document()["what"]


def test_the_exit_code_is_that_of_the_worst() -> None:
    marks = [Mark.OK, Mark.NOTE, Mark.WARNING]
    found = [Finding("s", mark, "c", "w") for mark in marks]
    assert Report(tuple(found)).exit_code == 0
    assert Report((*found, Finding("s", Mark.ERROR, "c", "w"))).exit_code == 1
    assert Report(tuple(found)).lines()[-1] == "no errors, 1 warning."
