"""A question that was recorded in other circumstances: what those were, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_jupyter.cache.answers import Kept
from llm_jupyter.cache.request import Request

ANOTHER = "another conversation before it"
NONE = "no conversation before it"
SAID = {"extra": "--option"}
"""Options that a person knows under another name."""


def nearest(asked: Request, answers: Iterable[Kept]) -> list[str]:
    """How the one of them that comes nearest was asked, where that was otherwise; of equally near ones the latest."""
    told = [differences(asked, kept.request) for kept in answers]
    return min(reversed(told), key=len, default=[])


def differences(asked: Request, recorded: Request) -> list[str]:
    """How the recorded question was asked, where that was otherwise; each goes after `with`."""
    found = (
        [] if asked.completion == recorded.completion else ["--completion" if recorded.completion else "a chat's roles"]
    )
    (system, before), (system_then, before_then) = _parts(asked), _parts(recorded)
    if system != system_then:
        found.append("another system prompt" if system_then else "no system prompt")
    if before != before_then:
        found.append(ANOTHER if before_then else NONE)
    if asked.messages[-1:] != recorded.messages[-1:]:
        found.append("other pictures")
    names = sorted({*asked.options, *recorded.options})
    return found + [
        _option(name, recorded.options) for name in names if asked.options.get(name) != recorded.options.get(name)
    ]


def _parts(request: Request) -> tuple[list[Any], list[Any]]:
    """The instructions, and what was said before the question."""
    before = request.messages[:-1]
    is_system = [message.get("role") == "system" for message in before]
    return (
        [message for message, so in zip(before, is_system, strict=True) if so],
        [message for message, so in zip(before, is_system, strict=True) if not so],
    )


def _option(name: str, options: dict[str, Any]) -> str:
    written, value = SAID.get(name, f"--{name.replace('_', '-')}"), options.get(name)
    if name not in options:
        return f"no {written}"
    return (
        f"{written} {value}" if isinstance(value, int | float) and not isinstance(value, bool) else f"another {written}"
    )
