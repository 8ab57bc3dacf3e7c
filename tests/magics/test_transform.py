from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from llm_jupyter.magics.args import OPTIONS, parse
from llm_jupyter.magics.transform import prompts_are_literal


def manager() -> TransformerManager:
    """IPython's own chain, with ours in it as `load` puts it there."""
    chain = TransformerManager()
    chain.cleanup_transforms.insert(0, prompts_are_literal)
    chain.cleanup_transforms.append(prompts_are_literal)
    return chain


class Shell:
    """Takes the calls that a transformed cell makes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def run_line_magic(self, name: str, line: str) -> None:
        self.calls.append((name, line))

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        self.calls.append((name, line, cell))


def called(cell: str) -> list[tuple[str, ...]]:
    """What a cell calls when it is run as IPython would run it."""
    shell = Shell()
    names: dict[str, Any] = {"get_ipython": lambda: shell}
    exec(compile(manager().transform_cell(cell), "cell", "exec"), names)
    return shell.calls


one_line = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and not text.strip().startswith("-")
)


@given(one_line)
@example("what is a monad?")
@example("what's up")
@example("{nope} $HOME $$ {{x}}")
@example("?")
@example("??")
@example("one\u2028two")
@example("page\x0cbreak?")
@example("!ls > x")
@example("ends with a backslash\\")
@example("'''")
@example("a = b?")
@example(";,/")
def test_one_line_arrives_to_the_letter(text: str) -> None:
    ((name, line),) = called(f"%chat {text}")
    assert name == "chat"
    assert parse(line, OPTIONS, "%chat") == ({}, text.strip())


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(">>> 1 + 1\n2")
@example("first\n... and so on")
@example("In [1]: x\nOut[1]: y")
@example("    indented\n   \n\tx  ")
@example("%chat what?\n!ls\nx?")
@example("a\u2028b\x0c\x85")
def test_a_cell_arrives_to_the_letter(text: str) -> None:
    cell = f"%%chat -t 0\n{text}"
    ((name, line, body),) = called(cell)
    assert (name, line.strip()) == ("chat", "-t 0")
    assert body.removesuffix("\n") == text.removesuffix("\n")


@pytest.mark.parametrize(
    ("cell", "calls"),
    [
        ("for x in (1, 2):\n    %chat a?\n    %llm b?\n", [("chat", "a?"), ("llm", "b?")] * 2),
        ('%chat it\'s """ here\n%chat b?', [("chat", 'it\'s """ here'), ("chat", "b?")]),
        ("%chat one \\\n  two?", [("chat", "one    two?")]),
        ("%chat one \\\n  two", [("chat", "one    two")]),
        ("\n\n%%llm\nb?", [("llm", "", "b?\n")]),
        ("  %%llm -q\n  b?", [("llm", "-q", "b?\n")]),
        ("In [3]: %chat pasted?", [("chat", "pasted?")]),
        ("x = 'it''s'  # '''\n%chat a?", [("chat", "a?")]),
        ("%llm why is a?  ", [("llm", "why is a?")]),
    ],
)
def test_prompts_are_found_where_they_stand(cell: str, calls: list[tuple[str, ...]]) -> None:
    assert called(cell) == calls


@pytest.mark.parametrize("quotes", ["'''", '"""'])
def test_a_question_inside_a_string_is_left_alone(quotes: str) -> None:
    cell = f"x = {quotes}\n%chat a?\n    %llm b?\n{quotes}\n%chat c?"
    assert called(cell) == [("chat", "c?")]
    names: dict[str, Any] = {"get_ipython": Shell}
    exec(manager().transform_cell(cell), names)
    assert names["x"] == "\n%chat a?\n    %llm b?\n"


@pytest.mark.parametrize("cell", ["%chat?", "%%chat?", "%llm?", "%%llm?", "%chat??"])
def test_help_stays_help(cell: str) -> None:
    ((name, line),) = called(cell)
    assert name.startswith("pinfo")
    assert line == cell.rstrip("?")


@pytest.mark.parametrize(
    "cell", ["%%time\n%chat a?\n", "print(1)\n", "x?\n", "%chatter a?\n", "%other b?\n", "  \n", ""]
)
def test_what_is_not_ours_is_left_to_ipython(cell: str) -> None:
    assert manager().transform_cell(cell) == TransformerManager().transform_cell(cell)


@pytest.mark.parametrize(
    ("cell", "call"),
    [
        ("%%chat --help", ("chat", "--help", "\n")),
        ("%%compare\n", ("compare", "", "\n")),
        ("%%llm ?", ("llm", "?", "\n")),
        ("%compare what?", ("compare", "what?")),
    ],
)
def test_a_cell_without_a_prompt_comes_to_us_and_not_to_ipythons_refusal(cell: str, call: tuple[str, ...]) -> None:
    assert called(cell) == [call]


def test_a_cell_that_is_being_typed_in_a_terminal_is_not_taken_for_complete() -> None:
    assert manager().check_complete("%%chat\nhello")[0] == "incomplete"
    assert manager().check_complete("%%chat\nhello\n\n")[0] == "complete"
    assert manager().check_complete("%chat hello?")[0] == "complete"
