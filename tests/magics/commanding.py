"""What the tests of commands share: what they print, what they ask, what they leave on disk."""

from __future__ import annotations

from pathlib import Path

from kernels import Kernel


def said(notebook: Kernel, code: str, cell: str | None = None) -> str:
    """What a command prints."""
    ran = notebook.run(code, cell)
    assert ran.status == "ok", ran.error
    return ran.printed


def answered(notebook: Kernel, code: str, answer: str) -> tuple[str, str]:
    """Run a cell that asks the person something: the question, and what was printed after the answer."""
    questions: list[str] = []
    printed: list[str] = []

    def asked(message: dict[str, dict[str, str]]) -> None:
        questions.append(message["content"]["prompt"])
        notebook.client.input(answer)

    def shown(message: dict[str, dict[str, str]]) -> None:
        printed.append(message["content"].get("text", ""))

    notebook.client.execute_interactive(code, stdin_hook=asked, output_hook=shown, timeout=20)
    return "".join(questions), "".join(printed)


def holding(home: Path, word: str) -> list[str]:
    """The files below a folder with a word in them. IPython's own history of what was typed is not ours."""
    files = (path for path in home.rglob("*") if path.is_file() and "ipython" not in path.parts)
    return sorted(str(path.relative_to(home)) for path in files if word.encode() in path.read_bytes())


def turns(printed: str) -> dict[str, str]:
    """The rows of a history, without their ids, by those."""
    rows = printed.split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
