"""The main job from end to end: the quickstart on the embedded model, its answers streaming in this terminal.

Runs `notebooks/01_quickstart.ipynb` in a real kernel, adds one question with a code made up for this run, checks that
llama.cpp received that code, and leaves the executed notebook in `notebooks/executed/`.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "notebooks" / "01_quickstart.ipynb"
EXECUTED = ROOT / "notebooks" / "executed" / QUICKSTART.name
STATUS = re.compile(r"\*[^*\n]+\*")
"""What a cell shows while it waits."""

FENCES = re.compile(r"(?:(?:^|\n)[ >]*(?:`{3,}|~{3,})[^\n]*)+\Z")
"""Lines at the end that open or close code: a closing one that only completes the page moves on with the text."""

WITHOUT_OTHERS = {
    f"LLM_JUPYTER_PROVIDERS__{name.upper()}__{field}": value
    for name in ("ollama", "lmstudio")
    for field, value in (("KIND", name), ("ENABLED", "false"))
}
"""The demo is of the embedded model, whatever else runs here."""


class TerminalClient(NotebookClient):
    """Runs a notebook and writes what its cells show to the terminal, as it comes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._shown: dict[str, str] = {}
        self._held_back = ""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """What nbclient calls for every message of the kernel."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            self._write(content["text"])
        elif kind in ("display_data", "update_display_data"):
            self._show(content)
        elif kind == "status" and content["execution_state"] == "idle":
            self._write(self._held_back)
            self._held_back = ""
        elif kind == "execute_result":
            self._write(content["data"].get("text/plain", "") + "\n")
        return super().process_message(msg, cell, cell_index)

    def _show(self, content: dict[str, Any]) -> None:
        identity = content.get("transient", {}).get("display_id", "")
        data = content["data"]
        text = data.get("text/markdown") or data.get("text/plain", "")
        before = self._shown.get(identity, "")
        if "text/html" in data:  # the footer: shown when it stays
            if "tokens/s" not in text and "answering" not in text:
                self._write(self._held_back + "\n" + "\n".join(f"  [{line}]" for line in text.splitlines()) + "\n")
                self._held_back = ""
        elif STATUS.fullmatch(text):
            self._write(f"\r{text.strip('*'):<110}")
        else:
            steady = FENCES.sub("", text)
            if STATUS.fullmatch(before):
                self._write("\r" + " " * 110 + "\r" + steady)
            else:
                self._write(steady[len(before) :])
            self._held_back = text.removeprefix(steady)
            text = steady
        self._shown[identity] = text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def main() -> int:
    """Run the demo; 0 if every cell ran and the model server received this run's code."""
    code = os.environ.get("LLM_JUPYTER_DEMO_CODE") or secrets.token_hex(4)
    notebook = nbformat.read(QUICKSTART, as_version=4)
    source = f"%%llm -t 0 --seed 1 --max-tokens 32\nSay hello to room {code}."
    notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": ["demo"]}))
    with tempfile.TemporaryDirectory() as log:
        environment = {
            **os.environ,
            "LLM_JUPYTER_PROVIDERS__EMBEDDED__KIND": "llamacpp",
            "LLM_JUPYTER_PROVIDERS__EMBEDDED__PROMPT_LOG": log,
            **WITHOUT_OTHERS,
        }
        client = TerminalClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
        )
        client.create_kernel_manager().transport = "ipc" if os.name == "posix" else "tcp"
        with client.setup_kernel(env=environment):
            for number, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    sys.stdout.write("\n" + "\n".join(f"> {line}" for line in cell.source.splitlines()) + "\n")
                    client.execute_cell(cell, number, execution_count=None)
                else:
                    sys.stdout.write("\n" + cell.source + "\n")
        received = any(code in file.read_text(errors="replace") for file in Path(log).iterdir())
    EXECUTED.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, EXECUTED)
    answered_elsewhere = not received and os.environ.get("LLM_JUPYTER_DEFAULT_MODEL")
    if answered_elsewhere:
        sys.stdout.write(f"\nAnother server answered, as your settings say; the code of this run was {code}.\n")
    elif received:
        sys.stdout.write(f"\nThe code {code} was found in the prompt that llama.cpp received.\n")
    else:
        sys.stdout.write(f"\nThe code {code} did not reach llama.cpp.\n")
    sys.stdout.write(f"The executed notebook is {EXECUTED.relative_to(ROOT)}. To go on in JupyterLab: make lab\n")
    return 0 if received or answered_elsewhere else 1


if __name__ == "__main__":
    sys.exit(main())
