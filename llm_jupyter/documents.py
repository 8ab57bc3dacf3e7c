"""Notebooks as they stand on disk: which cells they hold, in which order, and which conversations they show.

Only what is asked for is decoded: a notebook full of pictures costs no more than reading its bytes. Nothing here
raises for what a file holds, because a question must not fail over the notebook that it stands in.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

import msgspec

MAX_SIZE = 200 * 1024 * 1024
"""Bytes of a file that is still read as a notebook."""

METADATA_KEY = "llm_jupyter"
"""Under which key of an output's metadata our answers say what they are."""

KERNEL_FILE = re.compile(r"kernel-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json")
"""The connection file of a kernel that a server started: it carries the kernel's id, which survives a restart."""

_CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_Decoded = TypeVar("_Decoded")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A saved notebook.

    `stamp` changes with each save. `cells` are the ids of the code cells in the order of the document, `""` for one
    that has none; `others` are the ids of all other cells, and `repeated` those that stand more than once. `sessions`
    are the conversations that its answers belong to, the one with the most answers first, of equals the later one.
    """

    path: Path
    stamp: str
    cells: tuple[str, ...] = ()
    repeated: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    sessions: tuple[str, ...] = ()


class _OutputMetadata(msgspec.Struct, frozen=True):
    ours: Any = msgspec.field(name=METADATA_KEY, default=None)


class _Output(msgspec.Struct, frozen=True):
    metadata: _OutputMetadata | None = None


class _Cell(msgspec.Struct, frozen=True):
    id: Any = None
    cell_type: Any = None
    outputs: tuple[_Output, ...] | None = None


class _Notebook(msgspec.Struct, frozen=True):
    nbformat: int
    cells: tuple[_Cell, ...]


class _Source(msgspec.Struct, frozen=True):
    id: Any = None
    source: Any = ""


class _Sources(msgspec.Struct, frozen=True):
    cells: tuple[_Source, ...]


def is_cell_id(text: object) -> TypeGuard[str]:
    """Whether this is an id as notebooks hold it. (VS Code makes up URLs where a file has none.)"""
    return isinstance(text, str) and _CELL_ID.fullmatch(text) is not None


def read_document(path: Path) -> Document | None:
    """The notebook at that path, or `None` where none (of format 4) can be read. Never raises."""
    found = decoded(path, _Notebook)
    if found is None or found[0].nbformat != 4:
        return None
    notebook, stamp = found
    ids = [(cell.cell_type == "code", cell.id if is_cell_id(cell.id) else "") for cell in notebook.cells]
    counts = Counter(name for _, name in ids if name)
    return Document(
        path=path,
        stamp=stamp,
        cells=tuple(name for is_code, name in ids if is_code),
        repeated=frozenset(name for name, count in counts.items() if count > 1),
        others=frozenset(name for is_code, name in ids if name and not is_code),
        sessions=_by_weight(_sessions(notebook)),
    )


def sources(path: Path) -> dict[str, str]:
    """What stands in the cells of a notebook, by their ids; empty where none can be read. Never raises."""
    found = decoded(path, _Sources)
    texts = {cell.id: cell.source for cell in (found[0].cells if found else ()) if is_cell_id(cell.id)}
    lines = {name: [text] if isinstance(text, str) else text for name, text in texts.items()}
    return {name: "".join(map(str, text)) for name, text in lines.items() if isinstance(text, list)}


def decoded(path: Path, kind: type[_Decoded]) -> tuple[_Decoded, str] | None:
    """What a file of JSON holds, as far as `kind` asks for it, and the file's stamp; `None` if it cannot be read so.

    The stamp is taken before the content: if the file changes in between, it will be found changed at the next look.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE:
            return None
        return _decode(path.read_bytes(), kind), _stamp(status)
    except (OSError, ValueError, RecursionError, MemoryError):
        return None


class DocumentReader:
    """Reads a notebook again only when it was saved.

    While a notebook is being saved its file may be torn or missing for a moment: what was read last stands until then.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._seen = ""
        self._last: Document | None = None

    def get(self, path: Path) -> Document | None:
        """The notebook as it was last saved, or `None` if it never could be read. Never raises."""
        if path != self._path:
            self._path, self._seen, self._last = path, "", None
        stamp = _stamp_now(path)
        if stamp and stamp != self._seen:
            document = read_document(path)
            self._seen = document.stamp if document else stamp
            self._last = document or self._last
        return self._last


class NotebookFile:
    """The notebook of a living kernel, followed when it is renamed within its folder.

    Jupyter tells a kernel the path once, when it starts it. A rename keeps the file itself (its inode), and so does
    saving in Jupyter; the system gives the inodes of deleted files away again, so that it takes more to be the same one.
    """

    def __init__(self) -> None:
        self._told: Path | None = None
        self._path: Path | None = None
        self._inode: tuple[int, int] | None = None

    def locate(self, told: Path | None, is_ours: Callable[[Path], bool]) -> Path | None:
        """Where the notebook is now, when the kernel is told of `told`; `is_ours` judges the file of another name."""
        if told is not None and told != self._told:  # the first time; or a front end that tells it anew
            self._told = self._path = told
        elif self._path is not None and _inode(self._path) != self._inode:
            moved = _of_inode(self._path.parent, self._inode)
            self._path = moved if moved is not None and is_ours(moved) else self._path
        there = _inode(self._path)
        self._inode = there or self._inode
        return self._path if there else None


class KernelHere(NamedTuple):
    """The kernel that this code runs in: its id where a server started it, and its notebook where anybody told."""

    id: str | None
    notebook: Path | None


def kernel_here() -> KernelHere | None:
    """The kernel that this code runs in; `None` in a program and in a terminal. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    config = getattr(kernel, "config", {}).get("IPKernelApp", {})
    file = os.path.basename(str(config.get("connection_file") or getattr(kernel.parent, "connection_file", "")))
    found = KERNEL_FILE.fullmatch(file)
    told = os.environ if found else {}  # else this kernel has the variables of one that started it, by nbclient say
    return KernelHere(found[1] if found else None, notebook_path(told, shell.user_ns))


def notebook_path(environment: Mapping[str, str], names: Mapping[str, Any]) -> Path | None:
    """The notebook that this kernel runs, from its environment and the person's variables. Never raises.

    Jupyter's `JPY_SESSION_NAME` may be any text, and after a rename it names a file that is gone; VS Code leaves a
    variable. Only an `.ipynb` file that is there counts.
    """
    told = (environment.get("JPY_SESSION_NAME"), names.get("__vsc_ipynb_file__"))
    return next((path for text in told if (path := _existing_notebook(text))), None)


def _existing_notebook(text: object) -> Path | None:
    if not isinstance(text, str) or not text.endswith(".ipynb"):
        return None
    try:
        path = Path(text).resolve()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, a zero byte
        return None


def _inode(path: Path | None) -> tuple[int, int] | None:
    try:
        status = os.stat(path) if path is not None else None
        return (status.st_dev, status.st_ino) if status is not None else None
    except (OSError, ValueError):
        return None


def _of_inode(folder: Path, inode: tuple[int, int] | None) -> Path | None:
    """The notebook in a folder that is that file."""
    try:
        return next((path for path in folder.glob("*.ipynb") if inode and _inode(path) == inode), None)
    except OSError:
        return None


def _decode(content: bytes, kind: type[_Decoded]) -> _Decoded:
    """Raises `ValueError` or `RecursionError`. What only Python's own reader takes (`NaN`, half characters) is kept."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(content), kind)


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _stamp_now(path: Path) -> str:
    try:
        return _stamp(os.stat(path))
    except (OSError, ValueError):
        return ""


def _sessions(notebook: _Notebook) -> Iterable[str]:
    """The session of each answer, in the order of the document."""
    for cell in notebook.cells:
        for output in cell.outputs or ():
            ours = output.metadata.ours if output.metadata else None
            session = ours.get("session") if isinstance(ours, dict) else None
            if isinstance(session, str) and session:
                yield session


def _by_weight(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: the most frequent first, of equals the one that came last."""
    given = list(names)
    counts, last = Counter(given), {name: position for position, name in enumerate(given)}
    return tuple(sorted(last, key=lambda name: (-counts[name], -last[name])))
