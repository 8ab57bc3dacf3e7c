"""`Store`: every conversation of one person in one file, used by all their kernels at once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from llm_jupyter.errors import StoreError
from llm_jupyter.events import Event
from llm_jupyter.mounts import on_network
from llm_jupyter.store import copying, examination, purging, search, sessions, turns
from llm_jupyter.store.database import Database
from llm_jupyter.store.file import Tune, open_to_keep
from llm_jupyter.store.records import Examination, Hit, Place, Purged, SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import LLMResponse


class Store:
    """Conversations in an SQLite file, or in memory where `path` is `None` or the file cannot be used.

    It is opened at its first use. Any thread may call; coroutines go through `asyncio.to_thread`. What a method wrote is
    on disk when it returns, whatever then becomes of the process.

    Trouble with the file (locked for longer than `wait` seconds, full, read-only, damaged, of a later version) never
    reaches the caller: from then on everything happens in memory, with what can still be read of the file, and one
    `StoreDegraded` is published. Methods raise `StoreError` only for what cannot be meant: a turn that is added twice, a
    fork onto a conversation that exists, a closed store.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        publish: Callable[[Event], object] = lambda event: None,
        wait: float = 2.0,
        is_remote: Callable[[Path], bool] = on_network,
        clock: Callable[[], float] = time.time,
        tune: Tune = lambda connection: None,
    ) -> None:
        self.path = path
        self._wait = wait
        self._clock = clock
        self._database = Database(
            path, lambda path: open_to_keep(path, wait=wait, is_remote=is_remote, tune=tune), publish
        )

    @property
    def is_kept(self) -> bool:
        """Whether conversations go to the file; `False` from the moment on in which it turned out that they cannot."""
        return self._database.is_kept

    @property
    def trouble(self) -> str:
        """Why the file cannot be used, in words; empty where nothing is wrong."""
        return self._database.trouble

    def close(self) -> None:
        """Let go of the file; what was in memory only is gone. Doing so twice is fine."""
        self._database.close()

    # -- conversations

    def save_session(self, record: SessionRecord) -> None:
        """Insert or update a conversation; its turns stay as they are."""
        self._database.do(lambda connection: sessions.save(connection, record), record.id)
        self._database.know(record)

    def session(self, session: str) -> SessionRecord | None:
        """The conversation of that id."""
        record = self._database.do(lambda connection: sessions.get(connection, session), session)
        if record is not None:
            self._database.know(record)
        return record

    def sessions(self, *, limit: int | None = None, called: str = "") -> list[SessionRecord]:
        """The conversations whose title has `called` in it, whatever the case, the last updated first."""
        found = self._database.look(lambda connection: sessions.latest(connection, limit, called))
        return _latest_first(found)[:limit]

    def count(self) -> int:
        """How many conversations there are."""
        return len(self.sessions()) if self.trouble else self._database.do(sessions.count)

    def sessions_of(
        self,
        *,
        kernel: str | None = None,
        notebook: str | None = None,
        ids: Collection[str] = (),
        cells: Collection[str] = (),
    ) -> list[SessionRecord]:
        """Those of the kernel, of the notebook, of one of the ids or with a current turn of one of the cells, the last
        updated first.
        """
        return _latest_first(
            self._database.look(lambda connection: sessions.matching(connection, kernel, notebook, ids, cells))
        )

    def named(self, name: str) -> SessionRecord | None:
        """The conversation of that name; of several, the last updated."""
        return next(iter(_latest_first(self._database.look(lambda connection: sessions.named(connection, name)))), None)

    def fork(self, source: str, record: SessionRecord) -> None:
        """Keep a new conversation with all turns, versions and answers of another, all or nothing.

        Raises `StoreError` if there is one of its id already.
        """
        self._database.do(lambda connection: copying.fork(connection, source, record), source)
        self._database.know(record)

    def delete(self, session: str) -> bool:
        """Remove a conversation; whether there was one. Its text may stand in free pages until a `purge`."""
        self._database.forget(session)
        return self._database.do(lambda connection: sessions.delete(connection, session), session) is not None

    def claim(self, session: str, holder: str, *, expected: str | None) -> bool:
        """Make a process the holder, unless another than the expected one came first; whether it is."""
        return self._database.do(lambda connection: sessions.claim(connection, session, holder, expected), session)

    def release(self, session: str, holder: str) -> None:
        """Let a conversation be nobody's, if it is still that process's. It does not count as use."""
        self._database.do(lambda connection: sessions.release(connection, session, holder), session)

    # -- turns

    def add(self, turn: TurnRecord) -> None:
        """Keep a turn as the current version of its slot; its `version` is the slot's next one, whatever it says.

        Raises `StoreError` if the conversation has a turn of that id.
        """
        self._database.do(lambda connection: turns.add(connection, turn, self._clock()), turn.session)

    def grow(self, session: str, turn: str, number: int, text: str, thinking: str) -> None:
        """Keep the answer under way, all that has arrived of it. A turn that is gone is passed over."""
        self._database.do(
            lambda connection: turns.grow(connection, session, turn, number, text, thinking, self._clock()), session
        )

    def answered(self, session: str, turn: str, number: int, response: LLMResponse, state: TurnState) -> None:
        """Keep an answer as it ended, and the turn's state."""
        self._database.do(
            lambda connection: turns.answered(connection, session, turn, number, response, state, self._clock()),
            session,
        )

    def ended(self, session: str, turn: str, state: TurnState) -> None:
        """Keep the state of a turn that failed, or was interrupted before its first token."""
        self._database.do(lambda connection: turns.ended(connection, session, turn, state, self._clock()), session)

    def turn(self, session: str, turn: str) -> TurnRecord | None:
        """The turn of that id."""
        return self._database.do(lambda connection: turns.get(connection, session, turn), session)

    def before(
        self, session: str, position: float | None, *, limit: int, skip: Collection[str] = ()
    ) -> list[TurnRecord]:
        """The current turns before a position (`None`: the end), the nearest first, without those that are left out and
        those of the slots `skip`.
        """
        return self._database.do(lambda connection: turns.before(connection, session, position, limit, skip), session)

    def of_cell(self, session: str, cell: str) -> list[TurnRecord]:
        """The current turns of a cell in their order."""
        return self._database.do(lambda connection: turns.of_cell(connection, session, cell), session)

    def places(self, session: str, *, of_cells: bool = False) -> list[Place]:
        """Where the current turns stand, in their order, without texts; all of them, or those that have a cell."""
        return self._database.do(lambda connection: turns.places(connection, session, of_cells=of_cells), session)

    def position_after(self, session: str, position: float) -> float | None:
        """The position of the next current turn; `None` at the end."""
        return self._database.do(lambda connection: turns.position_after(connection, session, position), session)

    def position_before(self, session: str, position: float) -> float | None:
        """The position of the current turn before; `None` at the beginning."""
        return self._database.do(lambda connection: turns.position_before(connection, session, position), session)

    def set_apart(self, session: str, position: float) -> float:
        """Number the current turns from 1, as they stand; returns where the one at that position stands now."""
        return self._database.do(lambda connection: turns.set_apart(connection, session, position), session)

    def system_before(self, session: str, position: float, *, skip: Collection[str] = ()) -> str | None:
        """The instructions that were given last before a position, by none of the slots `skip`; `None` if there are none."""
        return self._database.do(lambda connection: turns.system_before(connection, session, position, skip), session)

    def all_turns(self, session: str) -> list[TurnRecord]:
        """All turns with all their versions, in their order."""
        return self._database.do(lambda connection: turns.every(connection, session), session)

    def take_in(self, record: SessionRecord, kept: Iterable[TurnRecord]) -> None:
        """Keep a conversation from elsewhere with its turns as they are, versions and answers and all.

        Raises `StoreError` if it has one of these turns already.
        """
        self.save_session(record)
        turns_of_it = list(kept)
        self._database.do(lambda connection: turns.take_in(connection, turns_of_it), record.id)

    def last_position(self, session: str) -> float:
        """The highest position of a current turn; 0 where there is none."""
        return self._database.do(lambda connection: turns.last_position(connection, session), session)

    def move(self, session: str, positions: Mapping[str, float]) -> None:
        """Give slots other positions."""
        self._database.do(lambda connection: turns.move(connection, session, positions), session)

    def carry(self, old: str | None, new: str, *, session: str | None = None) -> None:
        """Let the cells of one notebook be those of another: it was renamed; or, in one conversation, copied."""
        self._database.do(lambda connection: turns.carry(connection, old, new, session), session)

    def mark(
        self, session: str, slots: Collection[str], *, left_out: str | None = None, was_saved: bool | None = None
    ) -> None:
        """Say of the current turns of slots why they are left out (`""`: they are not), or that they were saved."""
        self._database.do(lambda connection: turns.mark(connection, session, slots, left_out, was_saved), session)

    def versions(self, session: str, slot: str) -> list[TurnRecord]:
        """All versions of a turn, oldest first."""
        return self._database.do(lambda connection: turns.versions(connection, session, slot), session)

    def restore(self, session: str, turn: str) -> None:
        """Make a version the current one of its slot again, in the place that the slot has now."""
        self._database.do(lambda connection: turns.restore(connection, session, turn), session)

    def detach(self, session: str, slot: str) -> None:
        """Let a slot stand in the context without a cell."""
        self._database.do(lambda connection: turns.detach(connection, session, slot), session)

    def settle(self, session: str) -> int:
        """End the turns under way, whose process is gone: interrupted where text had arrived, else failed. How many."""
        return self._database.do(lambda connection: turns.settle(connection, session), session)

    # -- the whole

    def search(self, text: str, *, limit: int = 20) -> list[Hit]:
        """The turns, older versions among them, with words that begin like all of these; the best first."""
        return self._database.look(lambda connection: _hits(connection, text, limit))[:limit]

    def purge(self, *, older: float | None = None, session: str | None = None, spare: Collection[str] = ()) -> Purged:
        """Remove for good: conversations not updated since that second (but for those to `spare`), or one; their text is
        then in no file.

        Raises `StoreError` where the file cannot be written: nothing must be thought removed that is not.
        """
        with self._database.held():
            purged = self._database.do(lambda connection: purging.purge(connection, older, session, self._wait, spare))
            if self.path is not None and not self.is_kept:
                raise StoreError(f"the store could not be purged: {self.trouble}", where=str(self.path))
            return purged

    def examine(self) -> Examination:
        """What is there of the file and what is or was wrong with it, for the doctor; nothing is made or changed."""
        found = Examination(path=None) if self.path is None else examination.examine(self.path)
        return msgspec.structs.replace(found, problem=found.problem or self.trouble)


def _hits(connection: sqlite3.Connection, words: str, limit: int) -> list[Hit]:
    rows = search.matches(connection, words, limit)
    return [
        Hit(session=session, turn=turn, excerpt=" ".join(str(row["excerpt"]).split()))
        for row, turn in zip(rows, turns.load(connection, rows), strict=True)
        if (session := sessions.get(connection, turn.session)) is not None
    ]


def _latest_first(found: list[SessionRecord]) -> list[SessionRecord]:
    return sorted(found, key=lambda record: record.updated, reverse=True)
