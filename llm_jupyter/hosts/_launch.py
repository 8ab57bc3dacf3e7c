"""How a kernel starts a supervisor, and what it says when the disk does not let it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from llm_jupyter._supervisor.tree import MARK
from llm_jupyter.errors import HostError

BOOT = """
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
spec = PathFinder.find_spec("llm_jupyter", [sys.argv[1]])
sys.modules["llm_jupyter"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from llm_jupyter._supervisor.main import start
start()
"""
"""By its text and not by `-m`: it is to be this very package, which may stand where only this kernel looks for it."""

PACKAGE_FOLDER = Path(__file__).parents[2]
WORDS = "supervisor.log"
"""What a supervisor says that fails itself."""


def start_supervisor(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A supervisor that waits for its order on its standard input. Raises `OSError`.

    It has a process session of its own: what interrupts, ends or restarts this kernel does not reach it.
    """
    environment = {variable: value for variable, value in os.environ.items() if variable != MARK}
    with (folder / WORDS).open("wb") as words:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, str(PACKAGE_FOLDER), f"llm_jupyter supervises {name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


def last_words(folder: Path) -> str:
    """The last line of a supervisor that failed; empty where there is none."""
    with contextlib.suppress(OSError):
        lines = (folder / WORDS).read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else ""
    return ""


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a `HostError`."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"model servers cannot be kept track of in {folder}: {error.strerror or error}",
            next_step="Make room there or make it writable, or set LLM_JUPYTER_HOME to another folder.",
        ) from None
