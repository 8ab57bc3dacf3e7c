from __future__ import annotations

from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from kernels import Kernel
from servers.paced import ModelServer

from llm_jupyter.magics.completion import COMMANDS
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.known import known


def matches(notebook: Kernel, code: str) -> list[str]:
    """What the kernel offers at the end of the code, as a front end asks it."""
    reply: dict[str, Any] = notebook.client.complete(code, len(code), reply=True, timeout=20)["content"]
    assert reply["status"] == "ok"
    assert reply["cursor_end"] == len(code)
    assert all(match.startswith(code[reply["cursor_start"] :]) for match in reply["matches"])
    return list(reply["matches"])


@pytest.mark.parametrize(
    ("code", "offered"),
    [
        ("%llm ", [*COMMANDS]),
        ("%llm ag", ["again"]),
        ("%chat --temp", ["--temperature"]),
        ("%%chat -q --max", ["--max-tokens"]),
        ("x = 1\n%chat --no-h", ["--no-history"]),
        ("%%llm --compl", ["--completion"]),
    ],
)
def test_a_front_end_is_offered_options_and_commands(notebook: Kernel, code: str, offered: list[str]) -> None:
    assert matches(notebook, code) == sorted(offered)


def test_the_words_of_a_prompt_are_not_completed_as_options(notebook: Kernel) -> None:
    assert not any(match.startswith("--") for match in matches(notebook, "%chat tell me"))


@pytest.fixture(scope="module")
def asked(module_notebook: Kernel) -> None:
    """The servers have told of their models."""
    assert module_notebook.run("%llm models").status == "ok"


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("code", "offered"),
    [
        ("%llm use loc", ["local/m", "local/other-model"]),
        ("%llm use emb", ["embedded", "embedded/smollm2-135m"]),
        ("%llm use --default local/o", ["local/other-model"]),
        ("%chat -m ", ["embedded", "embedded/smollm2-135m", "local/m", "local/other-model"]),
        ("%%llm --model=local/m", ["local/m"]),
        ('%%compare -m local/m -m "local/o', ["local/other-model"]),
        ("%llm again -m local/o", ["local/other-model"]),
        ("%llm host stop e", ["embedded"]),
        ("%llm connect loc", ["local"]),
        ("%llm config def", ["default_model"]),
        ("%llm config set connection.ret", ["connection.retries"]),
        ("%llm config connection", ["connection"]),
        ("%llm config un", ["unset"]),
    ],
)
def test_names_are_offered_as_far_as_they_are_known_and_nobody_is_asked(
    notebook: Kernel, server: ModelServer, code: str, offered: list[str]
) -> None:
    asked = len(server.visits)
    found = matches(notebook, code)
    assert [name for name in found if not name.startswith("connection.") or name in offered] == offered
    assert len(server.visits) == asked


def test_a_tab_before_the_first_question_makes_no_service() -> None:
    said: dict[str, Any] = {"default_model": "local/mine", "hosts": {"den": {"command": ["x"], "port": 1}}}
    kernel = KernelServices(InteractiveShell(), lambda: said)
    assert known(kernel, "model") == ["local/mine", "embedded"]
    assert known(kernel, "host") == ["den", "embedded"]
    said["default_model"] = 5
    assert known(kernel, "model") == []
    assert kernel.standing is None
