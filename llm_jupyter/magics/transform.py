"""Brings a prompt through IPython's input transformations to the letter.

IPython reads `%chat what is a monad?` as a request for help on `monad`, takes `>>> ` and indentation out of a cell that it
has not yet seen to be a prompt, and ends a line at every character that Unicode calls a line's end. This transformer
writes our magics as the calls they stand for before that happens. `%chat?` and `%%chat?` stay help, other cell magics are
left alone, and so are lines that lie inside a string of several lines.
"""

from __future__ import annotations

import re
from collections import deque

MAGICS = {"line": ("chat", "compare", "llm"), "cell": ("chat", "compare", "llm")}
"""The names of our magics."""

_CELL = re.compile(
    rf"(?:[ \t]*\r?\n)*%%(?P<name>{'|'.join(MAGICS['cell'])})(?:[ \t]++(?P<line>[^\r\n]*+))?+\r?\n(?P<body>.*)",
    re.DOTALL,
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_OURS = re.compile(rf"(?P<indent>[ \t]*)%(?P<name>{'|'.join(MAGICS['line'])})[ \t]+(?=\S)")
_ODD_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_QUOTE = re.compile(r"'''|\"\"\"|#|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


def prompts_are_literal(lines: list[str]) -> list[str]:
    """IPython's `input_transformers_cleanup` protocol: lines in, lines out. It stands both first and last there: a line
    that was pasted with the prompt of another session is recognized only once that is off.
    """
    text = "".join(lines)
    if found := _CELL.match(text):
        body = found["body"] or "\n"  # else IPython would refuse it, and we could not say how it is used
        return [f"get_ipython().run_cell_magic({found['name']!r}, {found['line'] or ''!r}, {body!r})\n"]
    if not any(f"%{name}" in text for name in MAGICS["line"]) or text.lstrip().startswith("%%"):
        return lines
    rest, result, delimiter = deque(_LINE.findall(text)), [], ""
    while rest:
        line = rest.popleft()
        if delimiter or not (magic := _OURS.match(line)):
            delimiter = _delimiter_after(line, delimiter)
            result.append(line)
            continue
        pieces = [line]
        while pieces[-1].endswith("\\\n") and rest:
            pieces.append(rest.popleft())
        result += _as_call(magic, pieces)
    return result


# IPython asks its transformers whether a cell is complete, too, and must see there that a cell magic is still being typed.
prompts_are_literal.has_side_effects = True  # type: ignore[attr-defined]


def _as_call(magic: re.Match[str], pieces: list[str]) -> list[str]:
    """A line of ours (with those that continue it) as a call, where IPython would take it for something else."""
    whole = " ".join([*(piece.rstrip()[:-1] for piece in pieces[:-1]), pieces[-1].rstrip()])
    if not whole.endswith("?") and not _ODD_END.search(whole):
        return pieces
    return [f"{magic['indent']}get_ipython().run_line_magic({magic['name']!r}, {whole[magic.end() :]!r})\n"]


def _delimiter_after(line: str, delimiter: str) -> str:
    """The triple quotes that are open after a line of Python, if they are before it."""
    while line:
        if delimiter:
            _, found, line = line.partition(delimiter)
            delimiter = "" if found else delimiter
        else:
            token = _QUOTE.search(line)
            if token is None or token[0] == "#":
                break
            line = line[token.end() :]
            delimiter = token[0] if token[0] in ("'''", '"""') else ""
    return delimiter
