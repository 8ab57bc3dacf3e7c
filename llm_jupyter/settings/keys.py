"""The names of settings. A key is a tuple of parts; written, its parts stand between dots as in TOML.

The parts of `models."ollama/qwen2.5:7b".seed` are `models`, `ollama/qwen2.5:7b` and `seed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

Key = tuple[str | int, ...]

PREFIX = "LLM_JUPYTER_"
NAMED = ("providers", "models", "hosts")
"""The sections that hold a table for each name."""

ALIASES: Mapping[Key, Key] = {
    ("connection", "first_token_timeout"): ("timeout",),
    ("session", "model"): ("default_model",),
}
"""Settings with two names, and the name under which their value is kept."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^."'\s]+))\s*(\.|$)""")


def written(key: Key) -> str:
    """The key with dots between its parts; a part that needs quotes has them, a place in a list stands in brackets."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False))
    return text


def read(name: str, names: Mapping[str, Collection[str]]) -> Key:
    """The key that a person means; `names` holds what is configured in each section of `NAMED`.

    Quotes may be left out around such a name, whatever dots stand in it. What has no end of its quotes is one part.
    """
    name = name.strip()
    section, _, rest = name.partition(".")
    for known in sorted(names.get(section, ()), key=len, reverse=True):
        if rest == known or rest.startswith(known + "."):
            return (section, known, *_parts(rest[len(known) + 1 :]))
    return _parts(name)


def _parts(text: str) -> tuple[str, ...]:
    parts, position = [], 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            return (text,)
        quoted, literal, bare, _ = match.groups()
        parts.append(_unquoted(quoted) if quoted is not None else literal if literal is not None else bare)
        position = match.end()
    return tuple(parts)


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def variable(key: Key) -> str:
    """The environment variable that sets this key: signs that no variable can hold become an underscore."""
    return PREFIX + "__".join(re.sub(r"[^A-Za-z0-9_]", "_", str(part)).upper() for part in key)
