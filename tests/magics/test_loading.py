"""Loading and unloading: what changes in a shell, and that nothing is contacted by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel
from live import place
from servers.paced import ModelServer

AUDIT = """
import sys
contacted = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[:2]
        if not str(address).startswith(("/", "b'/")):
            contacted.append((event, str(address)))
sys.addaudithook(watch)
"""

RIVAL = """
from IPython.core.magic import Magics, magics_class, line_magic, cell_magic
@magics_class
class Rival(Magics):
    @line_magic
    def chat(self, line):
        print("rival", line)
    @cell_magic("llm")
    def llm_cell(self, line, cell):
        print("rival", cell)
get_ipython().register_magics(Rival)
"""

STATE = """(
    sorted(n for kind in ("line", "cell") for n in get_ipython().magics_manager.magics[kind]),
    [getattr(t, "__module__", "") for t in get_ipython().input_transformers_cleanup],
    [getattr(m, "__module__", "") for m in get_ipython().Completer.custom_matchers],
    "LLMMagics" in [type(c).__name__ for c in get_ipython().configurables],
)"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel(tmp_path) as kernel:
        yield kernel


def test_unloading_leaves_the_shell_as_it_was(kernel: Kernel) -> None:
    before = kernel.value(STATE)
    for _ in range(2):
        kernel.load()
        loaded = kernel.value(STATE)
        assert set(loaded[0]) - set(before[0]) == {"chat", "compare", "llm"}
        assert loaded[1].count("llm_jupyter.magics.transform") == 2
        assert loaded[2].count("llm_jupyter.magics.completion") == 1
        assert loaded[3] is True
        assert kernel.run("%unload_ext llm_jupyter").outputs == []
        assert kernel.value(STATE) == before


def test_loading_twice_and_reloading_registers_once(kernel: Kernel) -> None:
    kernel.load()
    once = kernel.value(STATE)
    kernel.run("%load_ext llm_jupyter")
    assert kernel.run("%reload_ext llm_jupyter").status == "ok"
    assert kernel.value(STATE) == once
    assert kernel.run("%llm help").status == "ok"


def test_the_magics_of_another_extension_give_way_with_a_word_and_come_back(kernel: Kernel) -> None:
    kernel.run(RIVAL)
    said = kernel.run("%load_ext llm_jupyter").printed.splitlines()
    assert [line.split()[0] for line in said] == ["%chat", "%%llm"]
    assert all("%unload_ext llm_jupyter" in line for line in said)
    assert kernel.run("%chat --nonsense x").error[0].startswith("InvalidInputError")
    kernel.run("%reload_ext llm_jupyter")
    assert kernel.run("%unload_ext llm_jupyter").status == "ok"
    assert kernel.run("%chat hello").printed == "rival hello\n"
    assert kernel.run("%%llm\nhello").printed == "rival hello\n\n"
    assert "llm" not in kernel.value("list(get_ipython().magics_manager.magics['line'])")


def test_one_who_registers_after_us_keeps_the_magic_when_we_go(kernel: Kernel) -> None:
    kernel.load()
    kernel.run(RIVAL)
    kernel.run("%unload_ext llm_jupyter")
    assert kernel.run("%chat hello").printed == "rival hello\n"


def test_the_audit_hook_catches_a_real_connect(kernel: Kernel) -> None:
    with ModelServer() as server:
        kernel.run(AUDIT)
        kernel.run(f"import urllib.request; urllib.request.urlopen({server.base_url + '/models'!r}).read()")
        events = kernel.value("contacted")
        assert {event for event, _ in events} == {"socket.connect", "socket.getaddrinfo"}
        assert any(str(server.port) in address for _, address in events)


def test_import_and_load_contact_nobody_and_stay_light(tmp_path: Path) -> None:
    keys = {"OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": "https://models.invalid/v1"}
    with ModelServer() as server:
        local = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
        }
        with Kernel(tmp_path, {**keys, **local}) as kernel:
            kernel.run(AUDIT + "import threading; threads = threading.active_count()")
            kernel.load()
            kernel.run("import llm_jupyter; [getattr(llm_jupyter, name) for name in llm_jupyter.__all__]")
            kernel.run("%reload_ext llm_jupyter")
            assert kernel.value("contacted") == []
            assert kernel.value("threading.active_count() - threads") == 0
            assert server.visits == []
            kernel.run("%llm models")
            assert any(str(server.port) in address for _, address in kernel.value("contacted"))


def test_remote_providers_of_the_environment_are_listed_and_never_contacted(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "sk-very-secret"}
    with ModelServer() as server:
        environment["LLM_JUPYTER_PROVIDERS__LOCAL__KIND"] = "openai-compatible"
        environment["LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL"] = server.base_url
        with Kernel(tmp_path, environment) as kernel:
            kernel.run(AUDIT)
            kernel.load()
            runs = [
                kernel.run(code)
                for code in ("%llm", "%llm models", "%chat hi", "%llm info", "%llm config", "%chat -m gpt-none hi")
            ]
            addresses = [address for _, address in kernel.value("contacted")]
    assert [ran.status for ran in runs] == ["ok"] * 5 + ["error"]
    row = next(line for line in runs[0].printed.splitlines() if line.startswith("openai"))
    assert "remote" in row
    assert "OPENAI_API_KEY" in row
    assert "%llm models --remote" in runs[1].printed
    assert addresses
    assert all("('127.0.0.1'," in address for address in addresses), addresses
    assert "sk-very-secret" not in str([ran.messages for ran in runs])


def test_a_local_only_kernel_refuses_remote_providers(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "sk-none", "LLM_JUPYTER_LOCAL_ONLY": "true"}
    with Kernel(tmp_path, environment) as kernel:
        kernel.run(AUDIT)
        kernel.load()
        for code in ("%chat -m openai/gpt-none hi", "%llm use openai/gpt-none"):
            ran = kernel.run(code)
            assert ran.error[0] == "InvalidInputError: the provider 'openai' is remote, and local_only is set"
        assert kernel.value("contacted") == []


def test_settings_that_are_wrong_are_said_at_the_first_question_and_not_at_load(tmp_path: Path) -> None:
    with Kernel(tmp_path, {"LLM_JUPYTER_STREAM": "sometimes"}) as kernel:
        assert kernel.run("%load_ext llm_jupyter").outputs == []
        ran = kernel.run("%chat hi")
        assert ran.status == "error"
        assert ran.error[0].startswith("ConfigurationError: ")
        assert "LLM_JUPYTER_STREAM" in "\n".join(ran.error)
        assert len(ran.error) <= 3


@pytest.mark.live
def test_unloading_ends_the_model_process_and_loading_again_starts_a_new_one(tmp_path: Path, weights: Path) -> None:
    import psutil

    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        process = psutil.Process(kernel.value("__import__('os').getpid()"))
        kernel.load()
        assert kernel.run("%chat -t 0 --max-tokens 3 hi").status == "ok"
        children = process.children(recursive=True)
        assert children
        assert kernel.run("%unload_ext llm_jupyter").status == "ok"
        gone, alive = psutil.wait_procs(children, timeout=3)
        assert (len(gone), alive) == (len(children), [])
        kernel.load()
        assert kernel.run("%chat -t 0 --max-tokens 3 hi").status == "ok"
