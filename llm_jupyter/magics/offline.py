"""`%llm offline` and `%llm cache`: answers that are recorded, kept, and given again."""

from __future__ import annotations

import time
from pathlib import Path

from llm_jupyter.cache import MODES, OfflineStatus
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import duration, say, size

MEANS = {
    "off": "Each question asks a model; no answers are kept for offline use.",
    "auto": "Each question asks a model; where nobody can answer, an answer from before is given, and says so.",
    "record": "Each question asks a model; its answer is kept, and recorded beside the notebook.",
    "replay": "Nobody is asked: answers come from recordings, or the cell fails.",
}


def offline(kernel: KernelServices, line: str) -> None:
    """`%llm offline [MODE | status]`. Raises `InvalidInputError`."""
    kernel.session()
    cache = kernel.factory.cache
    if line not in ("", "status", "on", *MODES):
        raise InvalidInputError(
            f"%llm offline is one of {', '.join(MODES)}, status; not {line[:40]!r}", next_step="on is replay."
        )
    if line not in ("", "status"):
        cache.mode = line
    say(_lines(kernel.factory.portal.run(cache.status())))


def _lines(status: OfflineStatus) -> list[str]:
    lines = [f"Offline mode is {status.mode}. {MEANS[status.mode]}"]
    if status.trouble:
        lines.append(status.trouble)
    elif status.mode in ("off", "auto"):
        return lines
    elif status.recording is not None and (status.recorded or status.mode == "record"):
        lines.append(f"Recording: {_named(status.recording)} ({_answers(status.recorded)})")
    elif status.mode == "record":
        lines.append(
            "This kernel does not know its notebook, so answers go to the cache alone; set recording to name a file."
        )
    elif status.mode == "replay":
        names = ", ".join(_named(path) for path in status.beside)
        lines.append(f"Recordings here: {names or 'none'}")
    return lines


def _named(path: Path) -> str:
    """The file's name; with its folder where that is not this one."""
    return path.name if path.parent == Path.cwd() else str(path)


def _answers(count: int) -> str:
    return f"{count:,} answer{'' if count == 1 else 's'}"


def cache(kernel: KernelServices, line: str) -> None:
    """`%llm cache stats|clear`. Raises `InvalidInputError`."""
    factory = kernel.factory
    if line == "clear":
        count = factory.portal.run(factory.cache.clear())
        say([f"Deleted {_answers(count)} from the cache. Recordings beside notebooks stay."])
        return
    if line not in ("", "stats"):
        raise InvalidInputError(f"%llm cache is stats or clear, not {line[:40]!r}")
    stats = factory.portal.run(factory.cache.stats())
    if stats.trouble:
        say([stats.trouble])
        return
    oldest = f", the oldest {duration(time.time() - stats.oldest)} old" if stats.oldest is not None else ""
    say([f"{_answers(stats.count)}, {size(stats.size) or '0 MB'}{oldest}", f"in {stats.folder}"])
