"""A download that Ollama makes: how far it is over all layers, whether the disk has room for it, why it failed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from llm_jupyter.errors import DiskFullError, LLMConnectionError, LLMError, ModelNotFoundError
from llm_jupyter.providers._errors import error_from_fields, error_object
from llm_jupyter.providers._ollama_wire import ProgressLine
from llm_jupyter.types import PullProgress

AGAIN = "Run it again: it goes on where it stopped."

_BLOB = re.compile(r"^FROM (.+)[/\\]blobs[/\\]sha256", re.MULTILINE)
_UNREACHABLE = re.compile(
    r"dial tcp|connection (?:refused|reset)|no such host|i/o timeout|tls: |unexpected eof|: eof|max retries exceeded"
)


class PullTally:
    """Adds up the layers of a model. `folder` is where they go, if that is known and on this machine."""

    def __init__(self, where: str, folder: Path | None) -> None:
        self._where = where
        self._folder = folder
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, line: ProgressLine) -> PullProgress:
        """How far all layers together are; never less than before. Raises `DiskFullError` where a layer has no room."""
        if line.digest and line.total is not None:
            before, _ = self._layers.get(line.digest, (0, 0))
            done = max(before, line.completed or 0)
            if line.digest not in self._layers:
                self._require_room(line.total - done)
            self._layers[line.digest] = (done, line.total)
        if not self._layers:
            return PullProgress(line.status)
        completed, total = (sum(part) for part in zip(*self._layers.values(), strict=True))
        return PullProgress(line.status, completed, total)

    def _require_room(self, size: int) -> None:
        if self._folder is not None and (free := shutil.disk_usage(self._folder).free) < size:
            raise DiskFullError(
                f"{self._folder} has {free / 1e6:,.0f} MB free, {size / 1e6:,.0f} MB are needed",
                where=self._where,
                next_step="Make room, or remove a model: %llm rm MODEL",
            )


def models_folder(modelfile: str | None) -> Path | None:
    """Where a server on this machine keeps its models, if that can be known.

    The modelfile of any model names it; without one it is taken from the environment, or from where Ollama puts it for
    the person who started it.
    """
    if modelfile is not None:
        found = _BLOB.search(modelfile)
        folder = Path(found[1].strip('"')) if found else None
    else:
        folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    return folder if folder is not None and folder.is_dir() else None


def pull_error(error: Any, where: str) -> LLMError:
    """The error that an error line of a download means."""
    fields, text = error_object(error)
    words = text.lower()
    if "file does not exist" in words or "manifest unknown" in words:
        return ModelNotFoundError(
            "the registry has no such model", where=where, next_step="Its names are on ollama.com/library."
        )
    if "no space left" not in words and _UNREACHABLE.search(words):
        return LLMConnectionError(f"the registry cannot be reached: {text}", where=where, next_step=AGAIN)
    return error_from_fields(200, fields, text, where)
