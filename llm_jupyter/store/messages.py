"""Messages and their parts: number 0 of a turn is its prompt, the others are its answers."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from llm_jupyter.store.records import AnswerRecord
from llm_jupyter.store.sql import as_json, batches, marks, reading_rows, run, text
from llm_jupyter.types import FinishReason, Image, LLMResponse, Message, Role, Timing, ToolCall, Usage

PROMPT = 0


class Part(NamedTuple):
    """One part of a message as it stands in the table."""

    kind: str
    text: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    name: str | None = None
    reference: str | None = None


class Kept(NamedTuple):
    """The messages of one turn."""

    prompt: Message
    answers: tuple[AnswerRecord, ...]


def put_prompt(connection: sqlite3.Connection, turn: int, prompt: Message, created: float) -> None:
    """Keep a turn's prompt."""
    run(
        connection,
        "INSERT INTO messages (turn, number, role, name, created, is_whole) VALUES (?, ?, ?, ?, ?, 1)",
        turn, PROMPT, prompt.role, prompt.name, created,
    )  # fmt: skip
    _put_parts(connection, turn, PROMPT, _parts_of(prompt))


def put_answer(connection: sqlite3.Connection, turn: int, answer: AnswerRecord) -> None:
    """Keep an answer in place of what had arrived of it; it was created when its first piece arrived."""
    number, response = answer.number, answer.response
    run(
        connection,
        """INSERT INTO messages (turn, number, role, created, is_whole, model, provider, finish_reason, is_local,
        from_cache, usage, timing, tried) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (turn, number) DO UPDATE SET is_whole = excluded.is_whole, model = excluded.model,
        provider = excluded.provider, finish_reason = excluded.finish_reason, is_local = excluded.is_local,
        from_cache = excluded.from_cache, usage = excluded.usage, timing = excluded.timing, tried = excluded.tried""",
        turn, number, Role.ASSISTANT, answer.created, answer.is_whole, response.model, response.provider,
        response.finish_reason, response.is_local, response.from_cache, as_json(response.usage),
        as_json(response.timing), as_json(response.tried),
    )  # fmt: skip
    run(connection, "DELETE FROM parts WHERE turn = ? AND number = ?", turn, number)
    thinking = [Part("thinking", response.thinking)] if response.thinking else []
    _put_parts(connection, turn, number, [*thinking, *_parts_of(response.message)])


def messages_of(connection: sqlite3.Connection, turns: Sequence[int]) -> dict[int, Kept]:
    """The messages of each turn. Raises `ValueError`, `TypeError` or `LookupError` for what is no message."""
    parts: dict[tuple[int, int], list[sqlite3.Row]] = defaultdict(list)
    found: dict[int, list[sqlite3.Row]] = {turn: [] for turn in turns}
    for batch in batches(turns):
        where = f"WHERE turn IN ({marks(batch)}) ORDER BY turn, number"
        for row in run(connection, f"SELECT * FROM parts {where}, position", *batch):
            parts[row["turn"], row["number"]].append(row)
        for row in run(connection, f"SELECT * FROM messages {where}", *batch):
            found[row["turn"]].append(row)
    return {turn: _kept([(row, parts[turn, row["number"]]) for row in rows]) for turn, rows in found.items()}


def has_answer(connection: sqlite3.Connection, turn: int) -> bool:
    """Whether a turn has an answer, or the beginning of one that is more than thinking."""
    sql = """SELECT 1 FROM messages LEFT JOIN parts USING (turn, number)
        WHERE turn = ? AND number > 0 AND (is_whole OR kind = 'text') LIMIT 1"""
    return run(connection, sql, turn).fetchone() is not None


def texts_of(connection: sqlite3.Connection, turn: int) -> tuple[str, str]:
    """What a person may look for in a turn: the texts of its prompt, and those of its answers."""
    prompt: list[str] = []
    answers: list[str] = []
    sql = "SELECT number, text FROM parts WHERE turn = ? AND kind IN ('text', 'tool_result') ORDER BY number, position"
    with reading_rows():
        for number, value in run(connection, sql, turn):
            (answers if number else prompt).append(text(value))
    return "\n".join(prompt), "\n".join(answers)


def _parts_of(message: Message) -> Iterator[Part]:
    if message.tool_call_id is not None:
        yield Part("tool_result", message.content, reference=message.tool_call_id)
    elif message.content:
        yield Part("text", message.content)
    for image in message.images:
        yield Part("image", data=image.data, media_type=image.media_type)
    for call in message.tool_calls:
        yield Part("tool_call", call.arguments, name=call.name, reference=call.id)


def _put_parts(connection: sqlite3.Connection, turn: int, number: int, parts: Iterable[Part]) -> None:
    for position, part in enumerate(parts):
        run(
            connection,
            """INSERT INTO parts (turn, number, position, kind, text, data, media_type, name, reference)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            turn, number, position, *part,
        )  # fmt: skip


def _kept(messages: list[tuple[sqlite3.Row, list[sqlite3.Row]]]) -> Kept:
    (prompt, parts), *answers = messages
    if prompt["number"] != PROMPT:
        raise ValueError("a turn has lost its prompt")
    return Kept(_message(prompt, parts), tuple(_answer(row, parts) for row, parts in answers))


def _message(row: sqlite3.Row, parts: list[sqlite3.Row]) -> Message:
    content, reference = "", None
    for part in parts:
        if part["kind"] in ("text", "tool_result"):
            content = text(part["text"])
            reference = part["reference"]
    return Message(
        role=Role(row["role"]),
        content=content,
        images=tuple(Image(part["data"], text(part["media_type"])) for part in parts if part["kind"] == "image"),
        tool_calls=tuple(
            ToolCall(text(part["reference"]), text(part["name"]), text(part["text"]))
            for part in parts
            if part["kind"] == "tool_call"
        ),
        tool_call_id=None if reference is None else text(reference),
        name=None if row["name"] is None else text(row["name"]),
    )


def _answer(row: sqlite3.Row, parts: list[sqlite3.Row]) -> AnswerRecord:
    message = _message(row, parts)
    response = LLMResponse(
        text=message.content,
        thinking="".join(text(part["text"]) for part in parts if part["kind"] == "thinking"),
        tool_calls=message.tool_calls,
        finish_reason=FinishReason(row["finish_reason"]),
        usage=Usage(**json.loads(row["usage"])),
        timing=Timing(**json.loads(row["timing"])),
        model=text(row["model"]),
        provider=text(row["provider"]),
        is_local=bool(row["is_local"]),
        from_cache=bool(row["from_cache"]),
        tried=tuple(json.loads(row["tried"])),
    )
    return AnswerRecord(number=row["number"], response=response, created=row["created"], is_whole=bool(row["is_whole"]))
