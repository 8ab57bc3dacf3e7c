"""What the README and CONTRIBUTING say is so: their code runs, their settings load, their commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernels import kernel_environment
from live import place
from servers.paced import ModelServer

from llm_jupyter.magics.args import COMPLETION, OPTIONS
from llm_jupyter.magics.llm import COMMANDS
from llm_jupyter.settings import load_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def printed(code: str, home: Path) -> str:
    """What a program prints; it fails the test if it fails."""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=kernel_environment(home), capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.live
@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_plain_python_run(number: int, tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    assert len(printed(blocks("python")[number], tmp_path).split()) > 10


def test_the_example_of_a_provider_alone_runs(tmp_path: Path) -> None:
    with ModelServer() as server:
        code = blocks("python")[2].replace("http://127.0.0.1:8080/v1", server.base_url)
        assert printed(f"{code}\nimport asyncio\nasyncio.run(ask())", tmp_path).strip()
        assert server.chats[0]["max_tokens"] == 64


def test_the_settings_load_and_say_what_the_text_says(tmp_path: Path) -> None:
    outage, host, block = blocks("toml")
    (tmp_path / "config.toml").write_text(block, encoding="utf-8")
    settings = load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path)})
    assert settings.default_model == "local/qwen3"
    assert {name: provider.kind for name, provider in settings.providers.items()} == {
        "ollama": "ollama",
        "local": "openai-compatible",
        "embedded": "llamacpp",
    }
    assert settings.providers["embedded"].options == {"context": 8192}

    (tmp_path / "config.toml").write_text(f"{outage}\n{host}", encoding="utf-8")
    settings = load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path)})
    assert settings.fallback == ("local/qwen3", "embedded/smollm2-135m")
    assert settings.hosts["mine"].autostart
    assert settings.hosts["mine"].memory_limit == 6 * 2**30
    assert settings.hosts["mine"].on_memory == "restart"


def test_every_command_and_option_that_is_named_exists_and_none_is_left_out() -> None:
    named = set(re.findall(r"%llm ([a-z]+)", README))
    assert named <= set(COMMANDS)
    assert set(COMMANDS) - named == set()
    (sentence,) = re.findall(r"`%%chat\?` lists the options:(.*?)\.\n", README, re.DOTALL)
    options = set(re.findall(r"`(--?[\w-]+)`", sentence))
    flags = {flag for option in (*OPTIONS, COMPLETION) for flag in option.flags}
    assert options <= flags
    assert all(options & set(option.flags) or option.constant is False for option in OPTIONS)


def test_every_file_and_target_that_is_named_is_there() -> None:
    for text in (README, CONTRIBUTING):
        for path in re.findall(r"\]\(((?!http)[^)]+)\)", text):
            assert (ROOT / path).exists(), path
        assert set(re.findall(r"`make ([a-z]+)`", text)) <= TARGETS
        assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) <= TARGETS
    for path in re.findall(r"`((?:tests|providers|magics|server)/[\w./]*|[\w]+\.py)`", CONTRIBUTING):
        assert any((ROOT / folder / path).exists() for folder in ("", "llm_jupyter")), path
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(("user", "is_allowed"), [(0, True), (1000, False)])
def test_jupyterlab_is_started_as_whoever_calls_make(user: int, is_allowed: bool, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    planned = subprocess.run(
        ["make", "-n", "lab"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20
    )
    (line,) = [line for line in planned.stdout.splitlines() if "jupyter lab" in line]
    assert ("--allow-root" in line.split()) == is_allowed
