"""A conversation as a file: what it is called, and what it may take the place of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_jupyter.errors import InvalidInputError, SessionError
from llm_jupyter.files import put
from llm_jupyter.portable.exported import as_json
from llm_jupyter.portable.markdown import as_markdown
from llm_jupyter.store.records import SessionRecord, TurnRecord

EXPORTED = re.compile(rb'\A(?:# [^\n]*\n\n\*\d{4}-\d\d-\d\d \d\d:\d\d UTC\*|\{\s*"format": "llm_jupyter\.session")')
"""The beginning of an earlier export."""

LONGEST = 60
"""Characters of a file's name; file systems count bytes, and take 255."""


def file_name(title: str) -> str:
    """A name as that of a file, without its ending: an imported conversation may be called anything.

    A copy is called after a notebook, with the ending of that in the middle.
    """
    title = re.sub(r"\.ipynb\b", "", title)
    return re.sub(r"[^\w ().,+-]+", "_", title).strip(" .")[:LONGEST] or "conversation"


def export(
    session: SessionRecord, turns: Sequence[TurnRecord], path: Path, may_replace: Callable[[], bool] = lambda: False
) -> bool:
    """Write a conversation as Markdown (`.md`) or JSON (`.json`), in place of an earlier export; whether it was written.

    `may_replace` is asked where something else stands there. Raises `InvalidInputError` for another ending, and
    `SessionError` where there are no turns, and where it cannot be written.
    """
    if path.suffix not in (".md", ".json"):
        raise InvalidInputError(f"{path.name} tells no format", next_step="Name a file that ends in .md or .json.")
    if not turns:
        raise SessionError("nothing was asked in it yet, so nothing was written", next_step="%chat your question")
    content = as_json(session, turns) if path.suffix == ".json" else as_markdown(session, turns).encode()
    try:
        if path.exists() and not EXPORTED.match(path.read_bytes()) and not may_replace():
            return False
        put(path, content)
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}", next_step="Name another place.") from None
    return True
