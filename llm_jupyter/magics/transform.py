"""Lets a question mark at the end of a prompt through.

IPython reads `%chat what is a monad?` as a request for help on `monad`. This transformer runs before that and writes such
lines as the call they stand for. `%chat?` alone stays help, cell magics are left alone, and so are lines that lie inside
a string of several lines.
"""

from __future__ import annotations

import re

_QUESTION = re.compile(r"^(?P<indent>\s*)%(?P<name>chat|llm)[ \t]+(?P<line>\S.*\?[ \t]*)$")


def questions_are_prompts(lines: list[str]) -> list[str]:
    """IPython's `input_transformers_cleanup` protocol: lines in, lines out."""
    if not lines or lines[0].lstrip().startswith("%%"):
        return lines
    found = {n: match for n, line in enumerate(lines) if (match := _QUESTION.match(line.rstrip("\r\n")))}
    if not found:
        return lines
    inside = _lines_inside_strings(lines)
    return [_as_call(found[n]) if n in found and n not in inside else line for n, line in enumerate(lines)]


def _as_call(match: re.Match[str]) -> str:
    line = match["line"].rstrip()
    return f"{match['indent']}get_ipython().run_line_magic({match['name']!r}, {line!r})\n"


def _lines_inside_strings(lines: list[str]) -> set[int]:
    """The numbers of lines that begin inside a triple-quoted string."""
    inside: set[int] = set()
    delimiter = ""
    for number, line in enumerate(lines):
        if delimiter:
            inside.add(number)
        elif _QUESTION.match(line.rstrip("\r\n")):
            continue  # a prompt's quotes are no Python
        rest = line
        while rest:
            if delimiter:
                _, found, rest = rest.partition(delimiter)
                delimiter = "" if found else delimiter
            else:
                token = re.search(r"'''|\"\"\"|#|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"", rest)
                if token is None or token[0] == "#":
                    break
                rest = rest[token.end() :]
                delimiter = token[0] if len(token[0]) == 3 and token[0] in ("'''", '"""') else ""
    return inside
