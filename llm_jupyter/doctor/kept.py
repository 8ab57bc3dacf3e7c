"""The store of conversations: where it is, what is in it, and what keeps it from being written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding, Remedy, listed, note, ok, warning
from llm_jupyter.doctor.locks import holder_of, is_locked
from llm_jupyter.doctor.machine import elsewhere
from llm_jupyter.mounts import on_network
from llm_jupyter.store import Examination, Fault, Store
from llm_jupyter.store.file import SIDES

STEP = "store"
PATIENCE = 2.0
"""Seconds that a kernel waits for a lock before it goes on without the file."""

ASIDE = ".aside"
"""The end of a name under which a file is put away."""


def look_at_store(case: Case, store: Store, is_remote: Callable[[Path], bool] = on_network) -> Iterator[Finding]:
    """Whether conversations can be read and kept. Nothing is made or changed."""
    if case.trouble:
        what = f"this kernel keeps its conversations in memory only: {case.trouble}"
        yield warning(STEP, "store-in-memory", what, Remedy("Restart the kernel once nothing else is wrong here"))
    found = store.examine()
    if found.path is None:
        return
    where = " on a network file system" if is_remote(found.path) else ""
    yield _state(case, found, found.path, where)
    yield from _leftovers(case, found, found.path)


def _state(case: Case, found: Examination, path: Path, where: str) -> Finding:
    if found.fault is not None:
        return _unusable(case, found, path)
    if not found.is_writable and found.exists:
        return _unwritable(case, path)
    if found.exists and is_locked(path, PATIENCE):
        return _locked(case, path)
    private = "; session.private holds, so new ones are not kept" if case.settings.session.private else ""
    if not found.turns:
        return ok(STEP, "store", f"{path}: no conversation yet{where}{private}")
    journal = "write-ahead log" if found.journal == "wal" else "rollback journal"
    held = f"{_counted(found.sessions, 'conversation')}, {_counted(found.turns, 'turn')}, {megabytes(found.size)}"
    return ok(STEP, "store", f"{path}: {held}; {journal}{where}{private}")


# -- what is wrong


def _unusable(case: Case, found: Examination, path: Path) -> Finding:
    what = f"{path}: {found.problem}; conversations are not kept"
    if found.fault is Fault.NEWER:
        remedy = put_aside(case, path, words="Update jupyter-llm, or put that file away and begin a new one")
        return warning(STEP, "store-newer", what, remedy)
    if found.fault is Fault.CLOSED and path.is_file() and not may(path, os.R_OK):
        return _unwritable(case, path)
    if found.fault is Fault.CLOSED:
        return warning(STEP, "store-closed", what, put_aside(case, path, words="Put it away"))
    target = _free_name(path)
    rescue = f"jupyter llm rescue {shlex.quote(str(target))}"
    words = "Put it away, and save what can be read of it"
    return warning(STEP, "store-damaged", what, put_aside(case, path, words=words, then=(rescue,)))


def _unwritable(case: Case, path: Path) -> Finding:
    what = f"{path} cannot be written: what is asked is not kept"
    if path.exists() and not may(path.parent, os.W_OK | os.X_OK):
        return note(STEP, "store-read-only", f"{what}, since its folder cannot be written")
    if is_mine(path):
        return warning(STEP, "store-read-only", what, in_terminal(case, f"chmod u+rw {_quoted(path)}"))
    remedy = put_aside(case, path, words="Put it away and begin a new one")
    return warning(STEP, "store-read-only", what, remedy)


def _locked(case: Case, path: Path) -> Finding:
    return locked(case, STEP, "store-locked", path, "conversations are not kept meanwhile")


def locked(case: Case, step: str, code: str, path: Path, loss: str) -> Finding:
    """Somebody has locked a database for longer than anybody waits."""
    holder = holder_of(path)
    who = str(holder) if holder else "another process"
    what = f"{path}: {who} has held its lock for more than {PATIENCE:g} s; {loss}"
    if holder is None:
        return warning(step, code, what, Remedy("End that process"))
    return warning(step, code, what, in_terminal(case, f"kill {holder.pid}", words="If it does not end by itself"))


# -- what is left over


def _leftovers(case: Case, found: Examination, path: Path) -> Iterator[Finding]:
    if not found.exists and (sides := _sides(path)):
        what = f"{listed([side.name for side in sides])} in {path.parent}: left over from a store that is gone"
        yield note(STEP, "store-leftover", what, in_terminal(case, _rm(sides)))
    aside = sorted(path.parent.glob(f"{path.name}{ASIDE}*"))
    if aside:
        size = megabytes(sum(file.stat().st_size for file in aside))
        what = f"{listed([file.name for file in aside])} in {path.parent}: put away earlier, {size}"
        yield note(STEP, "store-aside", what, in_terminal(case, _rm(aside), words="If nothing in it is missed"))


# -- remedies


def put_aside(case: Case, path: Path, *, words: str, then: tuple[str, ...] = ()) -> Remedy:
    """How to put a database away with all that SQLite keeps beside it: apart, they could not be read any more.

    What another user has in a folder that is not ours may be in use, and stays where it is.
    """
    if not (is_mine(path) or is_mine(path.parent)):
        there = elsewhere(case)
        return Remedy(
            "; ".join(filter(None, ["It is another user's. Take a folder of your own", there.words])), there.commands
        )
    target = _free_name(path)
    moves = [f"mv {_quoted(side)} {_quoted(Path(str(target) + str(side)[len(str(path)) :]))}" for side in _sides(path)]
    return in_terminal(case, " && ".join(moves), *then, words=words)


def in_terminal(case: Case, *commands: str, words: str = "") -> Remedy:
    """What is to be typed in a terminal, also where the report is read in a cell."""
    there = "in a terminal, and restart the kernel afterwards" if case.face == "cell" else ""
    said = "; ".join(filter(None, [words, there]))
    return Remedy(said[:1].upper() + said[1:], commands)


def may(path: Path, what: int) -> bool:
    """Whether this process may do something with a file: `os.R_OK` and its like."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def is_mine(path: Path) -> bool:
    """Whether this user may change the rights of a file."""
    try:
        return not hasattr(os, "geteuid") or path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def megabytes(size: int) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"


def _sides(path: Path) -> list[Path]:
    return [side for end in SIDES if os.path.lexists(side := path.with_name(path.name + end))]


def _free_name(path: Path) -> Path:
    names = [path.with_name(f"{path.name}{ASIDE}{number or ''}") for number in range(1000)]
    return next((name for name in names if not os.path.lexists(name)), names[0])


def _rm(files: list[Path]) -> str:
    return f"rm {' '.join(map(_quoted, files))}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
