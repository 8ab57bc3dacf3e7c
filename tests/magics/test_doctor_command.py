"""`%llm doctor` in a real kernel: its remedies are typed into cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kernels import Kernel
from live import place
from servers.paced import ModelServer

SETTINGS = """\
default_model = "local/qwen3:8b"

[providers.local]
kind = "openai-compatible"
base_url = "{url}"
"""


@pytest.fixture
def home(tmp_path: Path, weights: Path) -> Path:
    place(weights, tmp_path / "home")
    return tmp_path / "home"


def commands(printed: str) -> list[str]:
    return [line.partition("→ ")[2] for line in printed.splitlines() if "→ %llm" in line]


def test_the_doctor_names_the_cause_in_a_cell_and_what_it_says_to_type_mends_it(home: Path) -> None:
    with ModelServer(["qwen3:4b"]) as server:
        (home / "config.toml").write_text(SETTINGS.format(url=server.base_url))
        with Kernel(home) as kernel:
            kernel.load()
            before = kernel.run("%llm doctor")
            assert before.status == "ok"
            assert "✗ error    model        default_model: local has no model 'qwen3:8b'" in before.printed
            assert commands(before.printed) == ["%llm config set default_model local/qwen3:4b"]
            typed = kernel.run(commands(before.printed)[0])
            assert typed.status == "ok", typed.error
            after = kernel.run("%llm doctor")
            assert "no errors" in after.printed
            kernel.restart()
            kernel.load()
            assert kernel.run("%chat hello").texts == ["Heard: hello"]


def test_the_doctor_works_where_the_settings_cannot_be_read(home: Path) -> None:
    (home / "config.toml").write_text("stream = ")
    with Kernel(home) as kernel:
        kernel.load()
        assert kernel.run("%llm").status == "error"
        found = kernel.run("%llm doctor")
        assert found.status == "ok"
        assert found.printed.startswith("✗ error    settings     ")
        assert json.loads(kernel.run("%llm doctor --json").printed)["errors"] == 1
        (home / "config.toml").unlink()
        assert "no errors" in kernel.run("%llm doctor").printed
        wrong = kernel.run("%llm doctor --bogus")
        assert wrong.status == "error"
        assert "%llm doctor takes no '--bogus'" in wrong.error[0]


def test_what_config_says_is_mended_with_config(home: Path) -> None:
    with ModelServer() as server:
        (home / "config.toml").write_text(SETTINGS.format(url=server.base_url).replace("qwen3:8b", "m"))
        with Kernel(home, {"LLM_JUPYTER_DEFAULT_MODEL": "local/m"}) as kernel:
            kernel.load()
            said = kernel.run("%llm use local/other-model --default").printed
            assert "too, but LLM_JUPYTER_DEFAULT_MODEL overrules that after a restart." in said
            kernel.run("%config LLMMagics.default_model = 'local/none'")
            (line,) = [line for line in kernel.run("%llm doctor").printed.splitlines() if "→ %config" in line]
            assert kernel.run(line.partition("→ ")[2]).status == "ok"
            assert "no errors" in kernel.run("%llm doctor").printed
