"""IPython in a terminal: text streams, and the model cannot steer the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from kernels import kernel_environment
from servers.paced import ModelServer, endless
from servers.scripted import Gate, answer, delta, finish, sse

from llm_jupyter.magics.render import TerminalView, printable
from llm_jupyter.types import LLMResponse

PROMPT = r"In \[\d+\]: "


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def terminal(tmp_path: Path, server: ModelServer) -> Iterator[pexpect.spawn]:
    local = {
        "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
    }
    environment = {**kernel_environment(tmp_path, local), "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable, ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        env=environment, encoding="utf-8", timeout=20, echo=False, dimensions=(50, 200),
    )  # fmt: skip
    child.expect(PROMPT)
    child.sendline("%load_ext llm_jupyter")
    child.expect(PROMPT)
    yield child
    child.close(force=True)


def test_text_streams_and_nothing_of_it_steers_the_terminal(terminal: pexpect.spawn, server: ModelServer) -> None:
    gate = Gate()
    server.next(sse(delta("first \x1b[31mred\x07 "), gate, delta("\x1b]0;title\x07\x9b2Jlast\ttab\n"), finish()))
    terminal.sendline("%chat what is a monad?")
    terminal.expect_exact("first ")
    assert gate.reached.wait(5)
    gate.open()
    terminal.expect_exact("last")
    between = terminal.before
    terminal.expect(PROMPT)
    shown = between + terminal.before
    assert "local/m · local" in shown
    assert "[31mred" in between
    for steering in ("\x1b[31m", "\x1b]0", "\x07", "\x9b"):
        assert steering not in shown
    assert server.last_prompt == "what is a monad?"


def test_a_cell_magic_can_be_typed_line_by_line(terminal: pexpect.spawn, server: ModelServer) -> None:
    terminal.sendline("%%chat")
    terminal.sendline(">>> 1 + 1")
    terminal.sendline("what is it?")
    terminal.sendline("")
    terminal.sendline("")  # a plain prompt takes two empty lines for the end of a cell
    terminal.expect_exact("Heard: ")
    terminal.expect(PROMPT)
    assert server.last_prompt.rstrip("\n") == ">>> 1 + 1\nwhat is it?"


def test_control_c_stops_the_answer_and_keeps_the_shell(terminal: pexpect.spawn, server: ModelServer) -> None:
    server.next(endless("tick "), answer("still here"))
    terminal.sendline("%chat hi")
    terminal.expect_exact("tick tick")
    terminal.sendintr()
    terminal.expect_exact("AnswerInterrupted")
    terminal.expect(PROMPT)
    assert "Traceback" not in terminal.before
    visit = next(v for v in server.visits if v.request.method == "POST")
    visit.wait_until_left(2)
    terminal.sendline("%chat again")
    terminal.expect_exact("still here")


def test_an_error_is_a_few_lines_without_a_stack_trace(terminal: pexpect.spawn) -> None:
    terminal.sendline("%chat -m local/none hi")
    terminal.expect_exact("ModelNotFoundError")
    terminal.expect(PROMPT)
    assert "Traceback" not in terminal.before
    assert len(terminal.before.strip().splitlines()) <= 3


def test_the_terminal_view_writes_each_text_once() -> None:
    out = io.StringIO()
    view = TerminalView(label=lambda: "local/m · local", out=out)
    for text in ("", "Hel", "Hello", "Hello\nyou"):
        view.beat(text, "", "status")
    view.finish(LLMResponse(text="Hello\nyou!"), "t", ["a note"])
    assert out.getvalue() == "Hello\nyou!\n[local/m · local]\n[a note]\n"


def test_a_failure_after_some_text_ends_the_line() -> None:
    out = io.StringIO()
    view = TerminalView(label=lambda: "local/m · local", out=out)
    view.beat("half", "", "status")
    view.fail("half an", "", "the answer broke off")
    assert out.getvalue().startswith("half an\n")


@pytest.mark.parametrize("control", [chr(n) for n in (*range(32), 0x7F, *range(0x80, 0xA0)) if chr(n) not in "\n\t"])
def test_control_characters_are_left_out(control: str) -> None:
    assert printable(f"a{control}[2Jb\n\tc") == "a[2Jb\n\tc"
