"""Which conversation a notebook goes on with.

A kernel finds its own by its id, which survives a restart. Otherwise the notebook finds it: by its path, if the file shares a
cell or the conversation's id with it (a new Untitled.ipynb is not the old one); else by the conversation's id, or by cells
in which the same is still asked: a file whose old path is gone was renamed, and one whose old path is still there is a copy.
What another living kernel goes on with is continued as a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from llm_jupyter.documents import Document, read_document, sources
from llm_jupyter.sessions.holding import HELD, is_held_by_another
from llm_jupyter.store import SessionRecord, Store


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
    """The conversation that goes on, and why it is this one; `how` says whether it is taken as it is or copied. `origin`
    is the path of the notebook whose cells this one's were, where it was renamed or copied.
    """

    how: How
    record: SessionRecord | None = None
    reason: str = ""
    origin: str | None = None


def find(store: Store, here: Whereabouts, document: Document | None) -> Found:
    """The conversation of this kernel, or of its notebook."""
    if here.kernel is not None and (mine := store.sessions_of(kernel=here.kernel)):
        return Found(How.RESUMED, mine[0], "the kernel was restarted", _renamed(store, mine[0], document))
    if here.notebook is None or document is None:
        return Found(How.NEW)
    path = str(here.notebook)
    if (record := _of_path(store, path, document)) is not None:
        return _taken(record, "it is this notebook's")
    for record in (*_shown(store, document), *_asked(store, document)):
        if record.notebook is None or record.notebook == path:
            continue  # another beginning was wanted here, or the file shares nothing with it any more
        origin = _origin(store, record, document)
        if origin == path:
            return _taken(record, "it is this notebook's too")
        name = Path(origin).name
        if _is_still_there(store, record, origin):
            return Found(How.FORKED, record, f"this notebook is a copy of {name}", origin)
        return _taken(record, f"this notebook was {name}", origin)
    return Found(How.NEW)


def _origin(store: Store, record: SessionRecord, document: Document) -> str:
    """The notebook that asked what a notebook's cells have asked in a conversation: itself if it did, else that of which
    it has most cells, else the one that goes on with it.
    """
    cells = {cell for cell in document.cells if cell}
    places = store.places(record.id, of_cells=True)
    shared = Counter(one.notebook for one in places if one.cell in cells and one.notebook is not None)
    own = str(document.path)
    return own if own in shared else max(shared, key=shared.__getitem__, default=record.notebook or own)


def _renamed(store: Store, record: SessionRecord, document: Document | None) -> str | None:
    """What the notebook of a kernel was called before, if it is called otherwise now."""
    origin = _origin(store, record, document) if document is not None else None
    return origin if origin is not None and not _is_still_there(store, record, origin) else None


def belongs(store: Store, record: SessionRecord, document: Document) -> bool:
    """Whether a notebook shares a cell with a conversation, or shows an answer of it."""
    if record.id in document.sessions:
        return True
    cells = {cell for cell in document.cells if cell}
    return any(one.id == record.id for one in store.sessions_of(cells=cells)) if cells else False


def taken_from(store: Store, session: str, notebook: Path | None) -> str | None:
    """The other notebook that asked last in a conversation, if any has."""
    others = [one for one in store.places(session, of_cells=True) if one.notebook not in (None, str(notebook))]
    return max(others, key=lambda one: one.created).notebook if others else None


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
    standing.sort(key=lambda one: (_is_still_there(store, one[0], one[0].notebook), one[0].turns - 2 * one[1]))
    return [record for record, _ in standing]


def _standing(store: Store, record: SessionRecord, texts: Mapping[str, str]) -> int:
    """How many turns of a conversation stand in the cells that asked them."""
    return sum(
        (turn.template or turn.prompt.content).strip() in text
        for cell, text in texts.items() for turn in store.of_cell(record.id, cell)
    )  # fmt: skip


def _is_still_there(store: Store, record: SessionRecord, notebook: str | None) -> bool:
    """Whether a notebook of a conversation is where it was: under its old name there may be another one by now."""
    document = read_document(Path(notebook)) if notebook is not None else None
    return document is not None and belongs(store, record, document)


def _taken(record: SessionRecord, reason: str, origin: str | None = None) -> Found:
    if is_held_by_another(record.holder):
        return Found(How.FORKED, record, HELD, origin)
    return Found(How.RESUMED, record, reason, origin)
