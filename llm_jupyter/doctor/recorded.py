"""Answers that are kept for offline use: the cache of this person, and the recordings beside a notebook."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil

from llm_jupyter.cache import AnswerCache, LLMCache, Recording
from llm_jupyter.cache.disk import DATABASE
from llm_jupyter.cache.recording import SUFFIX
from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding, Remedy, listed, note, ok, warning
from llm_jupyter.doctor.kept import ASIDE, in_terminal, is_mine, locked, may, megabytes
from llm_jupyter.errors import CacheError

CACHE, RECORDING = "cache", "recording"
FEW = 20
"""Bad lines of a recording that are worth naming; a file with more is something else."""

HALF_WRITTEN = re.compile(rf"\..+{re.escape(SUFFIX)}\.(\d+)\.new")
"""A recording on its way to the disk; the number is that of the process."""


async def look_at_cache(case: Case, cache: AnswerCache) -> AsyncIterator[Finding]:
    """Whether answers can be kept and found again."""
    stats = await cache.examine()
    file = stats.folder / DATABASE
    if not file.exists():
        yield ok(CACHE, "cache", f"{stats.folder}: no answers are kept")
    elif stats.trouble:
        yield _cache_trouble(case, file, stats.trouble)
    else:
        answers = f"{stats.count:,} question{'' if stats.count == 1 else 's'} with answers"
        yield ok(CACHE, "cache", f"{stats.folder}: {answers}, {megabytes(stats.size)}")


def _cache_trouble(case: Case, file: Path, trouble: str) -> Finding:
    if "busy" in trouble:
        return locked(case, CACHE, "cache-locked", file, "no answers are kept meanwhile")
    what = f"{file} cannot be used: {trouble}"
    shut = [path for path in (file.parent, file) if not may(path, os.R_OK | os.W_OK)]
    if shut and is_mine(shut[0]):
        rights = "u+rwx" if shut[0].is_dir() else "u+rw"
        remedy = in_terminal(case, f"chmod {rights} {shlex.quote(str(shut[0]))}")
        return warning(CACHE, "cache-read-only", what, remedy)
    if shut:
        return warning(CACHE, "cache-read-only", what, Remedy("Whoever it belongs to has to let this user write there"))
    return _damaged(case, file, trouble)


def _damaged(case: Case, file: Path, damage: str) -> Finding:
    what = f"{file} is damaged ({damage}): no answers are kept"
    return warning(CACHE, "cache-damaged", what, Remedy("Empty it", (case.llm("cache", "clear"),)))


def look_at_recordings(case: Case, cache: LLMCache) -> Iterator[Finding]:
    """Whether the recordings of the notebook, or of the folder where one is asked, can be replayed."""
    folder = case.notebook.parent if case.notebook is not None else Path.cwd()
    cache.place(case.notebook, folder)
    there = [recording for recording in cache.recordings() if os.path.lexists(recording.path)]
    sound = []
    for recording in there:
        if (wrong := _wrong_with(case, recording)) is not None:
            yield wrong
        else:
            sound.append(recording.path.name)
    if sound:
        yield ok(RECORDING, "recording", f"{listed(sound)} in {folder}: can be replayed")
    if cache.is_replaying and not there:
        yield note(RECORDING, "recording-missing", f"offline mode is replay, and there is no recording in {folder}")
    for left in _half_written(folder):
        what = f"{left} was left half-written by a process that is gone"
        yield note(RECORDING, "recording-leftover", what, in_terminal(case, f"rm {shlex.quote(str(left))}"))


def _wrong_with(case: Case, recording: Recording) -> Finding | None:
    name = shlex.quote(str(recording.path))
    try:
        bad = recording.bad_lines()
    except CacheError as failure:
        aside = in_terminal(case, f"mv {name} {shlex.quote(f'{recording.path}{ASIDE}')}", words="Put it away")
        remedy = in_terminal(case, f"chmod u+rw {name}") if _is_shut(recording.path) else aside
        return warning(RECORDING, "recording-unreadable", failure.what, remedy)
    if not bad:
        return None
    lines = f"line{'' if len(bad) == 1 else 's'} {listed([str(number) for number in bad[:FEW]])}"
    what = f"{recording.path}: {lines} {'is no recorded answer' if len(bad) == 1 else 'are no recorded answers'}"
    if len(bad) > FEW:
        what = f"{recording.path}: {len(bad)} lines are no recorded answers"
        remedy = in_terminal(case, f"mv {name} {shlex.quote(f'{recording.path}{ASIDE}')}", words="Put it away")
    else:
        delete = ";".join(f"{number}d" for number in bad)
        remedy = in_terminal(
            case, f"sed -i.bak '{delete}' {name}", words="Take them out" if len(bad) > 1 else "Take it out"
        )
    return warning(RECORDING, "recording-unreadable", what, remedy)


def _is_shut(file: Path) -> bool:
    return file.is_file() and not may(file, os.R_OK) and is_mine(file)


def _half_written(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.glob(f".*{SUFFIX}.*.new")):
        found = HALF_WRITTEN.fullmatch(file.name)
        if found and not psutil.pid_exists(int(found[1])):
            yield file
