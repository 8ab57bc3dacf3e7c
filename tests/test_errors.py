"""The error tree, and how an error looks."""

import builtins
import inspect
import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from llm_jupyter import errors
from llm_jupyter.errors import AnswerInterrupted, InsufficientMemoryError, LLMError, ModelNotFoundError

ROW = re.compile(r"(?P<indent>[│├└─ ]*)(?P<name>\w+)(?: \((?P<builtin>\w+)\))?")
REQUIRED = {InsufficientMemoryError: {"needed": 2, "free": 1}}
"""What an error cannot be made without, beyond its message."""


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Each error of the docstring's drawing with its parent and the builtin that it also is."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    open_branches: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        row = ROW.match(line)
        if not row or not (line.startswith("    ") or tree) or not line.strip():
            if tree:
                break
            continue
        depth = len(row["indent"])
        open_branches = [branch for branch in open_branches if branch[0] < depth]
        tree[row["name"]] = (open_branches[-1][1] if open_branches else None, row["builtin"])
        open_branches.append((depth, row["name"]))
    return tree


def real_tree() -> dict[str, tuple[str | None, str | None]]:
    """The same of the classes themselves."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ != errors.__name__:
            continue
        ours = [base.__name__ for base in kind.__bases__ if issubclass(base, LLMError)]
        others = [base.__name__ for base in kind.__bases__ if not issubclass(base, LLMError)]
        assert len(ours) <= 1, name
        assert len(others) <= 1, name
        tree[name] = (ours[0] if ours else None, others[0] if ours and others else None)
    return tree


KINDS = [getattr(errors, name) for name in real_tree()]
kinds = st.sampled_from(KINDS)


def made(kind: type[LLMError], what: str = "it failed", **more: str) -> LLMError:
    return kind(what, **REQUIRED.get(kind, {}), **more)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    assert drawn_tree() == real_tree()
    assert len(KINDS) > 20


def test_each_error_is_also_the_builtin_that_the_tree_names() -> None:
    named = {name: builtin for name, (_, builtin) in drawn_tree().items() if builtin}
    assert len(named) > 8
    for name, builtin in named.items():
        error = made(getattr(errors, name))
        assert isinstance(error, getattr(builtins, builtin)), name
        assert isinstance(error, LLMError), name


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_explains_itself_and_keeps_what_it_was_given(kind: type[LLMError]) -> None:
    error = made(kind, "it failed", where="local at http://h/v1", next_step="Type %llm.")
    assert kind.__doc__
    assert (error.what, error.where, error.next_step) == ("it failed", "local at http://h/v1", "Type %llm.")
    assert error.lines() == ["it failed [local at http://h/v1]", "Type %llm."]
    assert str(error) == "it failed [local at http://h/v1]\nType %llm."


def test_an_error_keeps_the_figures_that_its_kind_carries() -> None:
    assert ModelNotFoundError("no such model", nearest=["a", "b"]).nearest == ("a", "b")
    memory = InsufficientMemoryError("too big", needed=2, free=1)
    assert (memory.needed, memory.free) == (2, 1)


@given(kinds, st.text(), st.text(), st.text())
def test_whatever_the_words_there_are_one_to_three_short_lines(
    kind: type[LLMError], what: str, where: str, next_step: str
) -> None:
    error = made(kind, what, where=where, next_step=next_step)
    lines = error.lines()
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert 1 <= len(line) <= 300
        assert line.isprintable()
    assert str(error).splitlines() == lines
    assert error._render_traceback_() == [f"{kind.__name__}: {lines[0]}", *lines[1:]]


def test_long_words_are_cut_with_a_mark_and_many_lines_to_two_and_the_next_step() -> None:
    error = LLMError("x" * 301 + "\n\n" + "y" * 300 + "\nz", next_step="n" * 5000)
    assert error.lines() == ["x" * 299 + "…", "y" * 300, "n" * 299 + "…"]


def test_what_could_steer_a_terminal_is_taken_out() -> None:
    assert LLMError("\x1b]0;title\x07 red \x1b[31mtext").lines() == [" ]0;title  red  [31mtext"]


Run = Callable[[str], tuple[str, BaseException | None]]


@pytest.fixture
def run_in_shell(tmp_path: Path) -> Run:
    """Runs a cell in a real shell: what it showed, and the error that its reply carries."""
    shell = InteractiveShell(
        config=Config(HistoryManager={"enabled": False}),
        ipython_dir=str(tmp_path),
        user_module=ModuleType("cells_of_a_test"),
    )

    def run(code: str) -> tuple[str, BaseException | None]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
            result = shell.run_cell(code)
        return out.getvalue(), result.error_in_exec

    return run


def test_a_cell_shows_just_the_lines_of_the_error_and_fails(run_in_shell: Run) -> None:
    code = "from llm_jupyter.errors import ServerError\nraise ServerError('it broke', where='local', next_step='Wait.')"
    shown, error = run_in_shell(code)
    assert shown == "ServerError: it broke [local]\nWait.\n"
    assert isinstance(error, errors.ServerError)


def test_a_cell_shows_an_error_without_words_by_its_name(run_in_shell: Run) -> None:
    shown, error = run_in_shell("from llm_jupyter.errors import AnswerInterrupted\nraise AnswerInterrupted('')")
    assert shown == "AnswerInterrupted: AnswerInterrupted\n"
    assert isinstance(error, AnswerInterrupted)


def test_the_shell_shows_a_whole_traceback_of_errors_that_are_not_ours(run_in_shell: Run) -> None:
    shown, error = run_in_shell("raise ValueError('theirs')")
    assert "Traceback" in shown
    assert isinstance(error, ValueError)
