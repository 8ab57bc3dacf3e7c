"""The rows of turns, on a connection that is given. Each function that writes is one transaction."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping

import msgspec

from llm_jupyter.errors import StoreError
from llm_jupyter.store import messages, search, sessions
from llm_jupyter.store.records import AnswerRecord, Filled, Place, TurnRecord, TurnState
from llm_jupyter.store.sql import as_json, columns, reading_rows, run, text, transaction
from llm_jupyter.types import FinishReason, LLMResponse

COLUMNS = (
    "id", "session", "slot", "version", "position", "cell", "client", "execution", "system", "state", "created",
    "is_current", "left_out", "was_saved", "stamp", "under", "filled", "template", "notebook",
)  # fmt: skip
CURRENT = "session = ? AND is_current = 1"


def add(connection: sqlite3.Connection, turn: TurnRecord, now: float) -> None:
    """Keep a new turn, or a new version of one, as the current version of its slot. Raises `StoreError` if its id is not
    new.
    """
    with transaction(connection):
        if _serial_of(connection, turn.session, turn.id) is not None:
            raise StoreError(f"the conversation {turn.session} has a turn {turn.id} already")
        run(connection, f"UPDATE turns SET is_current = 0 WHERE {CURRENT} AND slot = ?", turn.session, turn.slot)
        sql = "SELECT coalesce(max(version), 0) + 1 FROM turns WHERE session = ? AND slot = ?"
        (version,) = run(connection, sql, turn.session, turn.slot).fetchone()
        serial = _insert(connection, msgspec.structs.replace(turn, version=version, is_current=True))
        for answer in turn.answers:
            _put_answer(connection, serial, answer)
        search.index(connection, serial)
        sessions.touch(connection, turn.session, now)


def grow(
    connection: sqlite3.Connection, session: str, turn: str, number: int, answer: str, thinking: str, now: float
) -> None:
    """Keep what has arrived of an answer. The search index waits until it is whole."""
    response = LLMResponse(text=answer, thinking=thinking, finish_reason=FinishReason.INTERRUPTED)
    with transaction(connection):
        if (serial := _serial_of(connection, session, turn)) is not None:
            _put_answer(connection, serial, AnswerRecord(number=number, response=response, created=now, is_whole=False))


def answered(
    connection: sqlite3.Connection,
    session: str,
    turn: str,
    number: int,
    response: LLMResponse,
    state: TurnState,
    now: float,
) -> None:
    """Keep an answer as it ended; it is whole unless the state says otherwise."""
    is_whole = state not in (TurnState.INTERRUPTED, TurnState.FAILED)
    answer = AnswerRecord(number=number, response=response, created=now, is_whole=is_whole)
    with transaction(connection):
        if (serial := _serial_of(connection, session, turn)) is not None:
            _put_answer(connection, serial, answer)
            _end(connection, serial, state)
            sessions.touch(connection, session, now)


def ended(connection: sqlite3.Connection, session: str, turn: str, state: TurnState, now: float) -> None:
    """Keep how a turn ended whose answer, as far as it came, is kept already."""
    with transaction(connection):
        if (serial := _serial_of(connection, session, turn)) is not None:
            _end(connection, serial, state)
            sessions.touch(connection, session, now)


def settle(connection: sqlite3.Connection, session: str) -> int:
    """End the turns whose process is gone; how many there were."""
    with transaction(connection):
        rows = run(connection, "SELECT serial FROM turns WHERE session = ? AND state = 'pending'", session).fetchall()
        for (serial,) in rows:
            has_answer = messages.has_answer(connection, serial)
            _end(connection, serial, TurnState.INTERRUPTED if has_answer else TurnState.FAILED)
    return len(rows)


def move(connection: sqlite3.Connection, session: str, positions: Mapping[str, float]) -> None:
    """Give slots other positions."""
    with transaction(connection):
        for slot, position in positions.items():
            sql = f"UPDATE turns SET position = ? WHERE {CURRENT} AND slot = ?"
            run(connection, sql, position, session, slot)


def carry(connection: sqlite3.Connection, old: str | None, new: str, session: str | None) -> None:
    """Say that the notebook of turns is called otherwise now; of all of them, or of those of a conversation."""
    sql = "UPDATE turns SET notebook = ? WHERE notebook IS ? AND cell IS NOT NULL"
    if session is None:
        run(connection, sql, new, old)
    else:
        run(connection, f"{sql} AND session = ?", new, old, session)


def mark(
    connection: sqlite3.Connection,
    session: str,
    slots: Collection[str],
    left_out: str | None,
    was_saved: bool | None,
) -> None:
    """Say of slots why they are not in the context, or that they were saved; `None` leaves it as it is."""
    sql = f"""UPDATE turns SET left_out = coalesce(?, left_out), was_saved = coalesce(?, was_saved)
        WHERE {CURRENT} AND slot = ?"""
    with transaction(connection):
        for slot in slots:
            run(connection, sql, left_out, was_saved, session, slot)


def restore(connection: sqlite3.Connection, session: str, turn: str) -> None:
    """Make a version the current one of its slot again; it takes the place that the slot has now."""
    with transaction(connection):
        sql = "SELECT serial, slot FROM turns WHERE session = ? AND id = ? AND is_current = 0"
        if (older := run(connection, sql, session, turn).fetchone()) is None:
            return
        sql = f"SELECT serial, position, left_out, was_saved FROM turns WHERE {CURRENT} AND slot = ?"
        with reading_rows():
            serial, *place = run(connection, sql, session, text(older["slot"])).fetchone()
        run(connection, "UPDATE turns SET is_current = 0 WHERE serial = ?", serial)
        run(
            connection,
            "UPDATE turns SET is_current = 1, position = ?, left_out = ?, was_saved = ? WHERE serial = ?",
            *place, older["serial"],
        )  # fmt: skip


def detach(connection: sqlite3.Connection, session: str, slot: str) -> None:
    """Let a slot stand in the context without a cell: what becomes of that says nothing about it any more."""
    with transaction(connection):
        sql = f"UPDATE turns SET cell = NULL, notebook = NULL, left_out = '' WHERE {CURRENT} AND slot = ?"
        run(connection, sql, session, slot)


def get(connection: sqlite3.Connection, session: str, turn: str) -> TurnRecord | None:
    """The one of that id."""
    return next(iter(_found(connection, "session = ? AND id = ?", session, turn)), None)


def before(
    connection: sqlite3.Connection, session: str, position: float | None, limit: int, skip: Collection[str]
) -> list[TurnRecord]:
    """The turns in the context before a position (`None`: the end) without those of the slots `skip`, nearest first."""
    sql = f"""SELECT * FROM turns WHERE {CURRENT} AND left_out = '' AND position < ?
        ORDER BY position DESC, serial DESC LIMIT ?"""
    end = math.inf if position is None else position
    rows = run(connection, sql, session, end, limit + len(skip)).fetchall()
    return load(connection, [row for row in rows if text(row["slot"]) not in skip][:limit])


def of_cell(connection: sqlite3.Connection, session: str, cell: str) -> list[TurnRecord]:
    """The current turns of a cell in their order."""
    return _found(connection, f"{CURRENT} AND cell = ? ORDER BY position, serial", session, cell)


def versions(connection: sqlite3.Connection, session: str, slot: str) -> list[TurnRecord]:
    """All versions of a turn, oldest first."""
    return _found(connection, "session = ? AND slot = ? ORDER BY version", session, slot)


def places(connection: sqlite3.Connection, session: str, *, of_cells: bool) -> list[Place]:
    """Where the current turns stand, in their order; all, or those that have a cell."""
    chosen = ", ".join(Place.__struct_fields__)
    where = f"{CURRENT} AND cell IS NOT NULL" if of_cells else CURRENT
    rows = run(connection, f"SELECT {chosen} FROM turns WHERE {where} ORDER BY position, serial", session)
    with reading_rows():
        return [Place(**{**(values := columns(row)), "was_saved": bool(values["was_saved"])}) for row in rows]


def last_position(connection: sqlite3.Connection, session: str) -> float:
    """The highest position of a current turn; 0 where there is none."""
    row = run(
        connection, f"SELECT position FROM turns WHERE {CURRENT} ORDER BY position DESC LIMIT 1", session
    ).fetchone()
    return 0.0 if row is None else float(row[0])


def position_after(connection: sqlite3.Connection, session: str, position: float) -> float | None:
    """The position of the next current turn."""
    sql = f"SELECT min(position) FROM turns WHERE {CURRENT} AND position > ?"
    (found,) = run(connection, sql, session, position).fetchone()
    return None if found is None else float(found)


def position_before(connection: sqlite3.Connection, session: str, position: float) -> float | None:
    """The position of the current turn before."""
    sql = f"SELECT max(position) FROM turns WHERE {CURRENT} AND position < ?"
    (found,) = run(connection, sql, session, position).fetchone()
    return None if found is None else float(found)


def set_apart(connection: sqlite3.Connection, session: str, position: float) -> float:
    """Number the current turns from 1, as they stand; where the one that stood at that position stands now."""
    sql = f"SELECT serial, position FROM turns WHERE {CURRENT} ORDER BY position, serial"
    found = 1.0
    with transaction(connection):
        for number, row in enumerate(run(connection, sql, session).fetchall(), 1):
            run(connection, "UPDATE turns SET position = ? WHERE serial = ?", float(number), row["serial"])
            if row["position"] <= position:
                found = float(number)
    return found


def system_before(connection: sqlite3.Connection, session: str, position: float, skip: Collection[str]) -> str | None:
    """The instructions that were given last before a position, by a turn that is in the context."""
    sql = f"""SELECT slot, system FROM turns WHERE {CURRENT} AND left_out = '' AND position < ? AND system IS NOT NULL
        ORDER BY position DESC, serial DESC LIMIT ?"""
    rows = run(connection, sql, session, position, len(skip) + 1)
    return next((text(row["system"]) for row in rows if text(row["slot"]) not in skip), None)


def every(connection: sqlite3.Connection, session: str) -> list[TurnRecord]:
    """All turns of a conversation with all versions, in their order."""
    return _found(connection, "session = ? ORDER BY position, slot, version", session)


def take_in(connection: sqlite3.Connection, turns: Iterable[TurnRecord]) -> None:
    """Keep turns as they are, versions and all."""
    with transaction(connection):
        for turn in turns:
            serial = _insert(connection, turn)
            for answer in turn.answers:
                _put_answer(connection, serial, answer)
            search.index(connection, serial)


def load(connection: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[TurnRecord]:
    """The turns of these rows, with their messages."""
    rows = list(rows)
    with reading_rows():
        kept = messages.messages_of(connection, [row["serial"] for row in rows])
        return [_record(row, kept[row["serial"]]) for row in rows]


def _found(connection: sqlite3.Connection, where: str, *values: object) -> list[TurnRecord]:
    return load(connection, run(connection, f"SELECT * FROM turns WHERE {where}", *values))


def _record(row: sqlite3.Row, kept: messages.Kept) -> TurnRecord:
    values = {name: value for name, value in columns(row).items() if name in COLUMNS}
    return TurnRecord(
        **{
            **values,
            "state": TurnState(values["state"]),
            "is_current": bool(values["is_current"]),
            "was_saved": bool(values["was_saved"]),
            "filled": tuple(Filled(**entry) for entry in json.loads(values["filled"])),
            "prompt": kept.prompt,
            "answers": kept.answers,
        }
    )


def _insert(connection: sqlite3.Connection, turn: TurnRecord) -> int:
    values = {name: getattr(turn, name) for name in COLUMNS} | {"filled": as_json(turn.filled)}
    sql = f"INSERT INTO turns ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    serial = run(connection, sql, *values.values()).lastrowid
    assert serial is not None
    messages.put_prompt(connection, serial, turn.prompt, turn.created)
    return serial


def _put_answer(connection: sqlite3.Connection, serial: int, answer: AnswerRecord) -> None:
    messages.put_answer(connection, serial, answer)
    sql = "UPDATE turns SET answers = ? WHERE serial = ? AND answers < ?"
    run(connection, sql, answer.number, serial, answer.number)


def _end(connection: sqlite3.Connection, serial: int, state: TurnState) -> None:
    run(connection, "UPDATE turns SET state = ? WHERE serial = ?", state, serial)
    search.index(connection, serial)


def _serial_of(connection: sqlite3.Connection, session: str, turn: str) -> int | None:
    row = run(connection, "SELECT serial FROM turns WHERE session = ? AND id = ?", session, turn).fetchone()
    return None if row is None else int(row[0])
