"""Full-text search: one entry for each turn, with the words of its prompt and of its answers."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import sqlite3

from llm_jupyter.store import messages
from llm_jupyter.store.sql import run

WORDS_AROUND = 16


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
    """The turns that have all these words, or words that begin so, in either part; the best first, with `excerpt`."""
    if not (query := query_of(words)):
        return []
    return run(
        connection,
        """SELECT turns.*, snippet(found, -1, '', '', '…', ?) AS excerpt
        FROM found JOIN turns ON serial = found.rowid WHERE found MATCH ? ORDER BY rank LIMIT ?""",
        WORDS_AROUND, query, limit,
    ).fetchall()  # fmt: skip


def query_of(words: str) -> str:
    """What a person typed, as a query that has no syntax: each word in quotes. Signs alone are nothing to look for."""
    terms = (term.replace('"', '""') for term in _clean(words).split() if any(sign.isalnum() for sign in term))
    return " ".join(f'"{term}"*' for term in terms)


def _clean(text: str) -> str:
    """The index knows neither halves of surrogate pairs nor NUL."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()
