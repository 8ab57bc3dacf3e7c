from __future__ import annotations

from typing import Any

import pytest
from kernels import Kernel

from llm_jupyter.magics.completion import COMMANDS


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
