"""Which conversation a notebook goes on with.

A kernel finds its own by its id, which survives a restart. Otherwise the notebook finds it: by its path, if the file shares a
cell or the conversation's id with it (a new Untitled.ipynb is not the old one); else by the conversation's id, or by cells
in which the same is still asked: a file whose old path is gone was renamed, and one whose old path is still there is a copy.
What another living kernel goes on with is continued as a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter.documents import Document, read_document, sources
from llm_jupyter.store import SessionRecord, Store

HELD = "another kernel goes on with it"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What a kernel knows of itself: its id, and the notebook that it runs; `None` where nobody told."""

    kernel: str | None = None
    notebook: Path | None = None


class How(StrEnum):
    """How a conversation was come by."""

    NEW = "new"
    RESUMED = "resumed"
    FORKED = "forked"


@dataclass(frozen=True, slots=True)
class Found:
    """The conversation that goes on, and why it is this one; `how` says whether it is taken as it is or copied."""

    how: How
    record: SessionRecord | None = None
    reason: str = ""


def own_holder() -> str:
    """This process, as the holder of a conversation."""
    own = ProcessIdentity.own()
    return f"{machine()}.{own.pid}.{own.start}"


def is_held_by_another(holder: str | None) -> bool:
    """Whether another living process of this machine goes on with a conversation.

    A holder on another machine counts as gone: a hub moves a person's kernels from one to the next, and nobody can tell
    from here whether it lives.
    """
    if holder is None or holder == own_holder():
        return False
    where, _, rest = holder.partition(".")
    pid, _, start = rest.partition(".")
    if where != machine() or not (pid.isdigit() and start.isdigit()):
        return False
    return ProcessIdentity(int(pid), int(start)).is_alive


def find(store: Store, here: Whereabouts, document: Document | None) -> Found:
    """The conversation of this kernel, or of its notebook."""
    if here.kernel is not None and (mine := store.sessions_of(kernel=here.kernel)):
        return Found(How.RESUMED, mine[0], "the kernel was restarted")
    if here.notebook is None or document is None:
        return Found(How.NEW)
    path = str(here.notebook)
    if (record := _of_path(store, path, document)) is not None:
        return _taken(record, "it is this notebook's")
    for record in (*_shown(store, document), *_asked(store, document)):
        if record.notebook is None or record.notebook == path:
            continue  # another beginning was wanted here, or the file shares nothing with it any more
        name = Path(record.notebook).name
        if _is_still_there(store, record):
            return Found(How.FORKED, record, f"this notebook is a copy of {name}")
        return _taken(record, f"this notebook was {name}")
    return Found(How.NEW)


def belongs(store: Store, record: SessionRecord, document: Document) -> bool:
    """Whether a notebook shares a cell with a conversation, or shows an answer of it."""
    if record.id in document.sessions:
        return True
    cells = {cell for cell in document.cells if cell}
    return any(one.id == record.id for one in store.sessions_of(cells=cells)) if cells else False


def _of_path(store: Store, path: str, document: Document) -> SessionRecord | None:
    """The conversation of a notebook where it always was. Of several (there were two kernels) one that nobody goes on with,
    then one that the file shows, of these the youngest: it has all turns of what it was copied from.
    """

    def rank(record: SessionRecord) -> tuple[bool, bool, float]:
        is_shown = record.id in document.sessions
        return is_held_by_another(record.holder), not is_shown, -(record.created if is_shown else record.updated)

    return min(
        (one for one in store.sessions_of(notebook=path) if belongs(store, one, document)), key=rank, default=None
    )


def _shown(store: Store, document: Document) -> list[SessionRecord]:
    """The conversations whose answers a notebook shows, the youngest first: that is the one that it went on with."""
    shown = store.sessions_of(ids=document.sessions)
    return sorted(shown, key=lambda record: record.created, reverse=True)


def _asked(store: Store, document: Document) -> list[SessionRecord]:
    """Those that a notebook's cells have asked in, before its answers were removed: first those whose notebook is gone, then
    those of which most stands there.

    The id of a cell says little here: notebooks that programs write begin with `cell-1` all of them. What was asked must
    still stand in the cell.
    """
    cells = {cell for cell in document.cells if cell}
    found = store.sessions_of(cells=cells) if cells else []
    texts = sources(document.path) if found else {}
    standing = [(record, count) for record in found if (count := _standing(store, record, texts))]
    standing.sort(key=lambda one: (_is_still_there(store, one[0]), one[0].turns - 2 * one[1]))
    return [record for record, _ in standing]


def _standing(store: Store, record: SessionRecord, texts: Mapping[str, str]) -> int:
    """How many turns of a conversation stand in the cells that asked them."""
    return sum(
        (turn.template or turn.prompt.content).strip() in text
        for cell, text in texts.items() for turn in store.of_cell(record.id, cell)
    )  # fmt: skip


def _is_still_there(store: Store, record: SessionRecord) -> bool:
    """Whether a conversation's notebook is where it was: under its old name there may be another one by now."""
    document = read_document(Path(record.notebook)) if record.notebook is not None else None
    return document is not None and belongs(store, record, document)


def _taken(record: SessionRecord, reason: str) -> Found:
    if is_held_by_another(record.holder):
        return Found(How.FORKED, record, HELD)
    return Found(How.RESUMED, record, reason)
