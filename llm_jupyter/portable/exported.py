"""A conversation as JSON: all turns with all their versions and answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.store.records import SessionRecord, TurnRecord

FORMAT = "llm_jupyter.session"
VERSION = 1


class _Exported(msgspec.Struct, frozen=True, kw_only=True):
    format: str = FORMAT
    version: int = VERSION
    session: SessionRecord
    turns: tuple[TurnRecord, ...]


def as_json(session: SessionRecord, turns: Sequence[TurnRecord]) -> bytes:
    """The conversation as UTF-8 JSON, without what holds only on this machine (kernel, path, process)."""
    exported = msgspec.to_builtins(_Exported(session=_anywhere(session), turns=_without_paths(turns)))
    try:
        return json.dumps(exported, ensure_ascii=False, indent=1).encode()
    except UnicodeEncodeError:  # half a character, as a text may hold that was cut
        return json.dumps(exported, indent=1).encode()


def from_json(content: bytes) -> tuple[SessionRecord, tuple[TurnRecord, ...]]:
    """The session and its turns, as they were exported. Raises `InvalidInputError` for everything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidInputError("this is no exported conversation: it is not JSON, or was cut off") from None
    _expect_our_format(found)
    try:
        exported = msgspec.convert(found, _Exported)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInputError(f"this exported conversation is damaged: {error}") from None
    if fault := _fault(exported):
        raise InvalidInputError(f"this exported conversation is damaged: {fault}")
    return _anywhere(exported.session), _without_paths(exported.turns)


def _expect_our_format(found: Any) -> None:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InvalidInputError(f'this is no exported conversation: it does not say "format": "{FORMAT}"')
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InvalidInputError(
            f"this conversation was exported by a newer llm_jupyter (format {version}; this one reads {VERSION})"
        )


def _anywhere(session: SessionRecord) -> SessionRecord:
    """The session without what holds only on the machine and in the process where it was."""
    return msgspec.structs.replace(session, kernel=None, notebook=None, holder=None)


def _without_paths(turns: Sequence[TurnRecord]) -> tuple[TurnRecord, ...]:
    return tuple(msgspec.structs.replace(turn, notebook=None) for turn in turns)


def _fault(exported: _Exported) -> str:
    """What is wrong with turns that cannot all stand in one conversation, or nothing."""
    ids = Counter(turn.id for turn in exported.turns)
    current = Counter(turn.slot for turn in exported.turns if turn.is_current)
    if any(count > 1 for count in ids.values()):
        return "it holds a turn twice"
    if any(count > 1 for count in current.values()):
        return "two versions of one turn are said to count"
    if any(turn.session != exported.session.id for turn in exported.turns):
        return "it holds a turn of another conversation"
    return ""
