"""`%llm config` in a real kernel: what is set, what it is worth, and where it came from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel

PERSON = """
local_only = false
stream = "final"
[connection]
retries = 1
[models."ollama/qwen2.5:7b"]
seed = 7
[providers.local]
kind = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
api_key = "sk-never-to-be-seen"
"""
SYSTEM = """
[limits]
max_tokens = 512
[locked]
local_only = true
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("home")
    (home / "config.toml").write_text(PERSON)
    (home / "hub" / "llm_jupyter").mkdir(parents=True)
    (home / "hub" / "llm_jupyter" / "config.toml").write_text(SYSTEM)
    variables = {
        "JUPYTER_CONFIG_PATH": str(home / "hub"),
        "LLM_JUPYTER_PROVIDERS__LOCAL__PRIORITY": "3",
        "LLM_JUPYTER_LIMITS__HOST_MEMORY": "2 GiB",
    }
    with Kernel(home, variables) as kernel:
        yield kernel.load()


def said(kernel: Kernel, code: str) -> str:
    ran = kernel.run(code)
    assert ran.status == "ok", ran.error
    return ran.printed


def rows(text: str) -> dict[str, list[str]]:
    """The columns of every line, by its first."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


def system_file(kernel: Kernel) -> Path:
    return kernel.home / "hub" / "llm_jupyter" / "config.toml"


def test_config_lists_what_is_set_with_value_and_origin_and_no_key(notebook: Kernel) -> None:
    text = said(notebook, "%llm config")
    listed = rows(text)
    person, system = str(notebook.home / "config.toml"), str(system_file(notebook))
    assert f"settings file  {person}\n" in text
    assert f"system's file  {system}\n" in text
    assert listed["stream"] == ["final", person]
    assert listed["connection.retries"] == ["1", person]
    assert listed["limits.max_tokens"] == ["512", system]
    assert listed["limits.host_memory"] == ["2", "GiB", "LLM_JUPYTER_LIMITS__HOST_MEMORY"]
    assert listed["providers.local.priority"] == ["3", "LLM_JUPYTER_PROVIDERS__LOCAL__PRIORITY"]
    assert listed["providers.local.api_key"] == ["********", person]
    assert listed['models."ollama/qwen2.5:7b".seed'] == ["7", person]
    assert listed["local_only"] == ["true", "locked", "by", system, "(overrules", f"{person})"]
    assert "footer" not in listed
    assert "sk-never" not in text


def test_all_lists_every_setting(notebook: Kernel) -> None:
    text = said(notebook, "%llm config --all")
    listed = rows(text)
    assert listed["footer"] == ["on", "default"]
    assert listed["connection.idle_timeout"] == ["60", "default"]
    assert listed["stream"][0] == "final"
    assert "sk-never" not in text


def test_a_name_tells_what_a_setting_means_and_may_be(notebook: Kernel) -> None:
    text = said(notebook, "%llm config session.context")
    assert "session.context  window" in text
    assert "one of window, strict" in text
    assert "LLM_JUPYTER_SESSION__CONTEXT" in text
    assert "outgrows the model's window" in text
    both = said(notebook, "%llm config timeout")
    assert "connection.first_token_timeout" in both
    assert "seed" in said(notebook, "%llm config models.ollama/qwen2.5:7b.seed")


def test_a_table_is_shown_whole(notebook: Kernel) -> None:
    listed = rows(said(notebook, "%llm config connection"))
    assert set(listed) >= {"connection.first_token_timeout", "connection.retries", "connection.health_interval"}
    assert "sk-never" not in said(notebook, "%llm config providers.local")
    assert "Nothing is set in it." in said(notebook, "%llm config hosts")


def test_what_config_changes_in_the_kernel_shows_at_once(notebook: Kernel) -> None:
    notebook.run('%config LLMMagics.footer = "off"')
    listed = rows(said(notebook, "%llm config"))
    notebook.run('%config LLMMagics.footer = ""')
    assert listed["footer"][:2] == ["off", "%config"]
    assert "footer" not in rows(said(notebook, "%llm config"))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("conection.retries", "Did you mean connection?"),
        ("connection.retrys", "Did you mean connection.retries?"),
        ("timeout.x", "timeout is a value"),
        ("connection.retries = 3", "%llm config set NAME VALUE"),
        ("one two", "%llm config --all"),
        ("--everything", "%llm config --all"),
        ("models.none/such", "no [models"),
    ],
)
def test_what_is_no_setting_is_answered_with_what_to_type(notebook: Kernel, line: str, hint: str) -> None:
    ran = notebook.run(f"%llm config {line}")
    assert ran.status == "error"
    assert 1 <= len(ran.error) <= 3
    assert hint in "\n".join(ran.error)
