"""NAME.recording.jsonl: the answers of one notebook in a file that people read, compare and hand on.

One line of JSON for each answer. It holds no dates, no ids of ours, no keys and no folders, and how long an answer took
is of its first recording: recording the same answers again leaves the file as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from llm_jupyter._supervisor.lock import Lock, take_patiently
from llm_jupyter.cache.answers import Kept
from llm_jupyter.cache.request import Request, key, whole
from llm_jupyter.errors import CacheError
from llm_jupyter.files import put

SUFFIX = ".recording.jsonl"

SIZE_LIMIT = 256 * 2**20
"""Bytes beyond which a file is no recording."""

SHARED = 0o644
"""The mode of the file: it is made to be handed on."""

PATIENCE = 2.0
"""Seconds that another kernel which records to the same file is waited for."""

UNUSABLE = (OSError, ValueError, RuntimeError)
"""What the system says to a path: also to one with a zero byte, or to a link that leads to itself."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_decoder = msgspec.json.Decoder(Kept)
logger = logging.getLogger(__name__)


class _Content(NamedTuple):
    """What the file holds: answers by the digests of their questions, and the numbers of the lines that are none."""

    answers: dict[str, list[Kept]]
    bad: list[int]


class Asker(NamedTuple):
    """Who asks: a cell, and the run of it. Asked again in a new run, a cell's question is the same question."""

    cell: str | None = None
    execution: str | None = None


class Numbering:
    """Which of several answers to the same question is meant: each time it is asked, the next one.

    A cell that runs again begins with the answer that it had before.
    """

    def __init__(self) -> None:
        self._cells: dict[str, list[str | None]] = defaultdict(list)
        self._runs: dict[tuple[str, str], tuple[str | None, int]] = {}

    def next(self, question: str, asker: Asker) -> int:
        """The number, from 0, of the answer that this asker is to have now."""
        cells = self._cells[question]
        if asker.cell is None:
            cells.append(None)
            return len(cells) - 1
        execution, asked = self._runs.get((question, asker.cell), (None, 0))
        if execution != asker.execution:
            asked = 0
        self._runs[question, asker.cell] = (asker.execution, asked + 1)
        mine = [number for number, cell in enumerate(cells) if cell == asker.cell]
        if asked < len(mine):
            return mine[asked]
        cells.append(asker.cell)
        return len(cells) - 1


class Recording:
    """A recording, as one run of a notebook writes it or hears it.

    The first answer of this run to a question takes the place of those of earlier runs, further ones stand behind it.
    Replayed, they come in the same order, and the last one stays. A line that nobody can read, as one that was cut off,
    is passed over and stays, with one warning. Two kernels may record to one file: `locks` is the folder where their lock
    is, away from the notebooks. It may be used from several threads.
    """

    def __init__(self, path: Path, locks: Path) -> None:
        self.path = path
        self._locks = locks
        self._recorded: set[str] = set()
        self._earlier: dict[str, list[bytes]] = {}
        self._writing = Numbering()
        self._reading = Numbering()
        self._busy = threading.Lock()
        self._known: tuple[tuple[int, int, int], _Content] | None = None
        self._told: set[bytes] = set()

    def count(self) -> int:
        """How many answers it holds. Raises `CacheError`."""
        return sum(len(answers) for answers in self._content().answers.values())

    def bad_lines(self) -> list[int]:
        """The numbers of the lines that are no recorded answers. Raises `CacheError` for a file that cannot be read."""
        try:
            lines = self._bytes().split(b"\n")
        except UNUSABLE as error:
            raise CacheError(f"{self.path} cannot be read: {_reason(error)}") from None
        return [number for number, line in enumerate(lines, 1) if line.strip() and _read(line) is None]

    def trouble(self) -> CacheError | None:
        """What is wrong with it, where a line is no recorded answer. Raises `CacheError` for a file that cannot be read."""
        bad = self._content().bad
        if not bad:
            return None
        again = "%llm offline record, and running the cell, records its answer anew."
        return CacheError(self._named(bad), next_step=f"Delete that line; {again}")

    def find(self, digest: str, wanted: str | None = None, asker: Asker | None = None) -> Kept | None:
        """The next answer to the question of that digest: of the model that is wanted, else of the one that stands last.

        Without an asker nothing is handed out, only looked up. Raises `CacheError` for a file that cannot be read.
        """
        with self._busy:
            answers = [kept for kept in self._content().answers.get(digest, ()) if kept.is_of(wanted)]
            if not answers:
                return None
            request, who = answers[-1].request, answers[-1].who
            answers = [kept for kept in answers if kept.who == who]
            number = 0 if asker is None else self._reading.next(key(request, who), asker)
            return answers[min(number, len(answers) - 1)]

    def by(self, wanted: str) -> Kept | None:
        """Any answer of that model. Raises `CacheError`."""
        every = self._content().answers.values()
        return next((kept for answers in every for kept in answers if kept.is_of(wanted)), None)

    def otherwise(self, request: Request) -> list[Kept]:
        """The answers to this question in other circumstances: with the same words last. Raises `CacheError`."""
        own, prompt = request.digest, request.prompt
        others = [answers for digest, answers in self._content().answers.items() if digest != own]
        return [kept for answers in others for kept in answers if kept.request.prompt == prompt]

    def add(self, kept: Kept, asker: Asker | None = None) -> None:
        """Write an answer down. Lines that are not concerned, and those that nobody can read, stay. Raises `CacheError`."""
        kept = kept.shareable()
        try:
            path = self.path.resolve()  # a link stays a link
            with self._busy, self._alone(path):
                lines = [line.removesuffix(b"\r") for line in self._bytes().split(b"\n") if line.strip()]
                data = b"".join(line + b"\n" for line in self._with(lines, kept, asker or Asker()))
                put(path, data, mode=SHARED)
                self._recorded.add(kept.request.digest)
        except UNUSABLE as error:
            raise CacheError(f"{self.path} cannot be written: {_reason(error)}") from None

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Nobody else records to that file meanwhile. Raises `OSError` and `CacheError`."""
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = Lock(self._locks / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.lock")
        if not take_patiently(lock, PATIENCE):
            raise CacheError(f"{self.path} was being written by another kernel for more than {PATIENCE:g} s")
        try:
            yield
        finally:
            lock.let_go()

    def _with(self, lines: list[bytes], kept: Kept, asker: Asker) -> list[bytes]:
        """The lines with this answer in its place: answers to one question stand together, in the order they came in."""
        digest = kept.request.digest
        known = [_read(line) for line in lines]
        self._tell([(place, lines[place - 1]) for place, other in enumerate(known, 1) if other is None])
        same = {n: other for n, other in enumerate(known) if other is not None and other.request.digest == digest}
        number = self._writing.next(key(kept.request, kept.who), asker)
        if digest in self._recorded:
            replaced = [place for place, other in same.items() if other.who == kept.who][number : number + 1]
        else:
            replaced = list(same)
            self._earlier[digest] = [lines[place] for place in same]
        new = self._line(kept, [lines[place] for place in replaced])
        if not replaced:
            lines.insert(max(same) + 1 if same else len(lines), new)
            return lines
        lines[replaced[0]] = new
        return [line for place, line in enumerate(lines) if place not in replaced[1:]]

    def _line(self, kept: Kept, replaced: list[bytes]) -> bytes:
        """The line that this very answer had in an earlier run, or that it replaces: only its times would differ."""
        earlier = self._earlier[kept.request.digest]
        for line in (*earlier, *replaced):
            if (other := _read(line)) is not None and kept.says_as(other):
                if line in earlier:
                    earlier.remove(line)
                return line
        return written(kept)

    def _content(self) -> _Content:
        """What stands in it, read anew where the file has changed."""
        try:
            stamp = _stamp(self.path)
            if self._known is None or self._known[0] != stamp:
                self._known = (stamp, self._parsed())
        except FileNotFoundError:
            return _Content({}, [])
        except UNUSABLE as error:
            raise CacheError(f"{self.path} cannot be read: {_reason(error)}") from None
        return self._known[1]

    def _parsed(self) -> _Content:
        answers: dict[str, list[Kept]] = defaultdict(list)
        bad: list[tuple[int, bytes]] = []
        for number, line in enumerate(self._bytes().split(b"\n"), 1):
            if (kept := _read(line)) is not None:
                answers[kept.request.digest].append(kept)
            elif line.strip():
                bad.append((number, line))
        self._tell(bad)
        return _Content(answers, [number for number, _ in bad])

    def _tell(self, bad: list[tuple[int, bytes]]) -> None:
        """Warn of lines that are no recorded answers, of each once: its answer will be missed, and nobody sees why."""
        new = [(number, content) for number, line in bad if (content := line.strip()) not in self._told]
        self._told.update(content for _, content in new)
        if new:
            logger.warning("%s; the others answer", self._named([number for number, _ in new]))

    def _named(self, bad: list[int]) -> str:
        if len(bad) == 1:
            return f"{self.path}: line {bad[0]} is no recorded answer"
        return f"{self.path}: line {bad[0]} and {len(bad) - 1:,} more are no recorded answers"

    def _bytes(self) -> bytes:
        """What the file holds; nothing, where there is none. Raises `OSError` and `CacheError`."""
        try:
            if self.path.stat().st_size > SIZE_LIMIT:
                raise CacheError(f"{self.path} is larger than {SIZE_LIMIT // 2**20} MiB, too large for a recording")
            return self.path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
        except FileNotFoundError:
            return b""


def written(kept: Kept) -> bytes:
    """An answer as one line: what does not show, or could end the line or turn its order round, is escaped."""
    text = whole(json.dumps(msgspec.to_builtins(kept), ensure_ascii=False))
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text).encode()


def _read(line: bytes) -> Kept | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
