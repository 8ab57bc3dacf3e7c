"""The embedded model: its program, and its weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding, Remedy, error, note, ok, warning
from llm_jupyter.errors import LLMError
from llm_jupyter.providers._download import sha256_of
from llm_jupyter.providers._gguf import read_header
from llm_jupyter.providers._weights import DOWNLOAD_SIZE, MODEL_ID, SHA256, SIZE, WeightsFolder
from llm_jupyter.selection import EMBEDDED

STEP = "embedded"
MODULE = "xllamacpp"


def look_at_runtime(case: Case) -> Iterator[Finding]:
    """Whether llama.cpp is installed here. It is not loaded."""
    if importlib.util.find_spec(MODULE) is None:
        needed = case.default_provider == EMBEDDED
        remedy = Remedy("", (_install(case),))
        what = f"{MODULE} is not installed: the embedded model cannot answer"
        yield (error if needed else warning)(STEP, "runtime-missing", what, remedy)
    else:
        yield ok(STEP, "runtime", f"{MODULE} {_version(MODULE)}")


def look_at_weights(case: Case) -> Iterator[Finding]:
    """Whether every model file here is whole. The demonstration model is hashed anew, whatever was remembered of it."""
    folder = WeightsFolder(case.settings.home)
    files = folder.files()
    file = files.pop(MODEL_ID, None)
    if file is None:
        what = f"{MODEL_ID} is not here yet: its first answer fetches it ({DOWNLOAD_SIZE / 1e6:,.0f} MB)"
        yield note(STEP, "weights-missing", what, Remedy("To have it now", (case.llm("pull", MODEL_ID),)))
    elif (wrong := _wrong_with(file)) is None:
        yield ok(STEP, "weights", f"{MODEL_ID} is here and whole")
    else:
        yield _damaged(case, folder, file, wrong)
    for other in files.values():
        try:
            read_header(other)
        except LLMError as failure:
            aside = f"{shlex.quote(str(other))} {shlex.quote(f'{other}.damaged')}"
            remedy = Remedy("Fetch it again, or put it aside", (f"mv {aside}",))
            yield error(STEP, "weights-damaged", failure.what, remedy)


def weights_missing(case: Case) -> bool:
    """Whether the demonstration model would have to be fetched."""
    return MODEL_ID not in WeightsFolder(case.settings.home).files()


def _wrong_with(file: Path) -> str | None:
    try:
        size = file.stat().st_size
        if size != SIZE:
            return f"{size:,} bytes instead of {SIZE:,}"
        digest = sha256_of(file)
    except OSError as failure:
        return f"it cannot be read: {failure.strerror}"
    return None if digest == SHA256 else f"its SHA-256 begins {digest[:12]} instead of {SHA256[:12]}"


def _damaged(case: Case, folder: WeightsFolder, file: Path, wrong: str) -> Finding:
    what = f"{file} is damaged: {wrong}"
    if file.parent != folder.path:
        words = "Whoever looks after that folder removes it"
        return error(STEP, "weights-damaged", what, Remedy(words, (f"rm {shlex.quote(str(file))}",)))
    with contextlib.suppress(OSError):  # it says that the file was whole once; the next look is to hash it anew
        (folder.path / "verified.json").unlink(missing_ok=True)
    return error(STEP, "weights-damaged", what, Remedy("", (case.llm("pull", MODEL_ID),)))


def _install(case: Case) -> str:
    wanted = MODULE
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        stated = importlib.metadata.requires("jupyter-llm") or ()
        wanted = next((text.partition(";")[0].strip() for text in stated if text.startswith(MODULE)), MODULE)
    pip = "%pip" if case.face == "cell" else f"{shlex.quote(sys.executable)} -m pip"
    return f"{pip} install {shlex.quote(wanted)}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
