"""How figures and facts are written for people, in a cell and in a dashboard alike."""

from __future__ import annotations

import re

from llm_jupyter.types import Capability, LLMModelInfo

PLAIN = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA, Capability.MODEL_MANAGEMENT})
"""What nearly every model can; a table shows the rest."""

_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")


def visible(text: str) -> str:
    """The text with its control characters, and those that turn the direction of writing, as signs that do nothing."""
    return _ODD.sub(_sign, _LINE_END.sub("\n", text))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def shortened(text: str, width: int = 60) -> str:
    """A text that fits into a column of a table."""
    return text if len(text) <= width else text[: width - 1] + "…"


def size(count: int | None) -> str:
    """A number of bytes as people read it."""
    if count is None:
        return ""
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def window(model: LLMModelInfo, *, short: bool = False) -> str:
    """A model's window in tokens: what it is asked with, of what it declares; `short` writes 8192 as 8k."""
    declared, effective = model.context_length, model.effective_context

    def written(count: int) -> str:
        return f"{count // 1024:,}k" if short and count % 1024 == 0 else f"{count:,}"

    if effective and declared and effective != declared:
        return f"{written(effective)} of {written(declared)}"
    either = declared or effective
    return written(either) if either else ""


def counts(first: int | None, first_name: str, second: int | None, second_name: str) -> str:
    """Two numbers with their names, as far as they are known."""
    return ", ".join(f"{n:,} {name}" for n, name in ((first, first_name), (second, second_name)) if n is not None)


def duration(seconds: float) -> str:
    """A time span as people say it, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def waited(seconds: float, digits: str = ".1f") -> str:
    """A time that somebody waits; `digits` is how its seconds are written."""
    if seconds < 90:
        return f"{seconds:{digits}} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def abilities(model: LLMModelInfo) -> list[str]:
    """What a model can beyond what nearly every one can, in order."""
    return sorted(str(one) for one in model.capabilities - PLAIN)


def answers_now(name: str, is_local: bool) -> str:
    """That this model was chosen to answer."""
    where = "local" if is_local else "remote: prompts leave this machine"
    return f"{name} ({where}) answers from now on, in this session."
