"""Full-text search: one entry for each turn, with the words of its prompt and of its answers."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import sqlite3
import unicodedata
from typing import NamedTuple

from llm_jupyter.store import messages
from llm_jupyter.store.sql import run

WORDS_AROUND = 16
BEFORE, LONGEST = 40, 120
"""Characters of an excerpt where no word was looked for: before the place, and in all."""

MOST_LITERAL = 20
"""Terms that are compared with every text."""

_OF_WRITING = "\"'()[]{}*.,;:!?…“”„‘’«»"
"""Signs around a word that nobody means to find."""

_SNIPPET = "snippet(found, -1, '', '', '…', ?)"
_HOLDS = "instr(lower(coalesce(found.prompt, '') || char(10) || coalesce(found.answers, '')), lower(?)) > 0"
_PART = "(CASE WHEN instr(lower(found.prompt), lower(?)) > 0 THEN found.prompt ELSE found.answers END)"
_AT = f"instr(lower({_PART}), lower(?))"
_AROUND = f"(CASE WHEN {_AT} > {BEFORE} THEN '…' ELSE '' END) || substr({_PART}, max(1, {_AT} - {BEFORE}), {LONGEST})"
"""The excerpt around the first place of what stands in for each question mark."""


class Query(NamedTuple):
    """What to look for: words by the index, in its own language, and texts that stand somewhere to the letter."""

    match: str
    literal: tuple[str, ...]


def create(connection: sqlite3.Connection) -> None:
    """Make the index, and put into it what is there already."""
    run(
        connection,
        "CREATE VIRTUAL TABLE found USING fts5 (prompt, answers, tokenize = 'unicode61 remove_diacritics 2')",
    )
    texts = """(SELECT group_concat(text, char(10)) FROM parts WHERE turn = serial AND typeof(text) = 'text'
        AND kind IN ('text', 'tool_result') AND"""
    run(
        connection,
        f"INSERT INTO found (rowid, prompt, answers) SELECT serial, {texts} number = 0), {texts} number > 0) FROM turns",
    )


def index(connection: sqlite3.Connection, serial: int) -> None:
    """Put the words of one turn into the index, in place of those that it had there."""
    prompt, answers = messages.texts_of(connection, serial)
    sql = "INSERT OR REPLACE INTO found (rowid, prompt, answers) VALUES (?, ?, ?)"
    run(connection, sql, serial, _clean(prompt), _clean(answers))


def matches(connection: sqlite3.Connection, words: str, limit: int) -> list[sqlite3.Row]:
    """The turns that have all these words, or words that begin so, in either part; the best first, with `excerpt`.

    The index knows neither signs nor the words of scripts that put no blanks between them: every text is searched for
    those, and where nothing else is asked for the latest turns come first.
    """
    match, literal = query_of(words)
    conditions = [*(["found MATCH ?"] if match else []), *[_HOLDS] * len(literal)]
    if not conditions:
        return []
    excerpt, order = (_SNIPPET, "rank") if match else (_AROUND, "serial DESC")
    shown = (WORDS_AROUND,) if match else literal[:1] * _AROUND.count("?")
    return run(
        connection,
        f"""SELECT turns.*, {excerpt} AS excerpt FROM found JOIN turns ON serial = found.rowid
        WHERE {" AND ".join(conditions)} ORDER BY {order} LIMIT ?""",
        *shown, *([match] if match else []), *literal, limit,
    ).fetchall()  # fmt: skip


def query_of(words: str) -> Query:
    """What a person typed has no syntax: each word in quotes, and whatever the index would not find to the letter.

    Signs of writing around a word are passed over, unless there is nothing else.
    """
    terms = _clean(words).split()
    terms = [bare for term in terms if (bare := term.strip(_OF_WRITING))] or terms
    indexed = [term.replace('"', '""') for term in terms if _is_indexed(term)]
    literal = dict.fromkeys(
        term for term in terms if not (_is_indexed(term) and term[0].isalnum() and term[-1].isalnum())
    )
    return Query(" ".join(f'"{term}"*' for term in indexed), tuple(literal)[:MOST_LITERAL])


def _is_indexed(term: str) -> bool:
    """Whether the index finds it: of a script without capitals, which may put no blanks between words, it has whole lines."""
    return any(sign.isalnum() for sign in term) and not any(unicodedata.category(sign) == "Lo" for sign in term)


def _clean(text: str) -> str:
    """The index knows neither halves of surrogate pairs nor NUL."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()
