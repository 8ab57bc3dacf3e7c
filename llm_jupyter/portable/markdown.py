"""A conversation as Markdown that any forge shows.

Each text stays within itself: an open fence is closed, and nothing in it becomes a tag or a picture of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from llm_jupyter.store.records import SessionRecord, TurnRecord
from llm_jupyter.types import FinishReason, LLMResponse

_LINE_END = re.compile(r"\r\n|\r|\n")
_OPENING = re.compile(r"`{3,}(?=[^`]*$)|~{3,}")
_CLOSING = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*$")
_NESTED = re.compile(r"[ \t>*+\-\d.)]+(?:`{3,}|~{3,})")
_LIVE = re.compile(r"<(?=[A-Za-z/!?])(?!https?://[^\s<>`]*>)|!(?=\[)")
_ZERO_WIDTH = "\u200b"


def as_markdown(session: SessionRecord, turns: Sequence[TurnRecord]) -> str:
    """The turns that count, in their order, each with the answer that counts. The text can always be written as UTF-8."""
    shown = sorted((turn for turn in turns if turn.is_current and not turn.left_out), key=lambda turn: turn.position)
    parts = [f"# {_one_line(session.name or 'Conversation')}", *_date(session), _quoted(session.config.system or "")]
    for turn in shown:
        parts += _turn(turn)
    return "\n\n".join(part for part in parts if part).encode(errors="replace").decode() + "\n"


def _date(session: SessionRecord) -> Iterator[str]:
    try:
        yield f"*{datetime.fromtimestamp(session.created, UTC):%Y-%m-%d %H:%M} UTC*"
    except (ValueError, OverflowError, OSError):  # a moment that no calendar has
        return


def _turn(turn: TurnRecord) -> Iterator[str]:
    yield _quoted(turn.system or "")
    yield "**You**"
    yield _contained(turn.prompt.content)
    for image in turn.prompt.images:
        yield f"*({_one_line(image.media_type)}, {len(image.data) / 1000:,.1f} kB)*"
    said = [answer.response for answer in turn.answers if answer.response.text or answer.response.tool_calls]
    yield from _answer(said[-1]) if said else ["*There is no answer.*"]


def _answer(response: LLMResponse) -> Iterator[str]:
    yield f"**{_one_line(f'{response.provider}/{response.model}'.strip('/') or 'The model')}**"
    if response.thinking.strip():
        yield f"<details><summary>Thinking</summary>\n\n{_quoted(response.thinking.strip())}\n\n</details>"
    yield _contained(response.text)
    for call in response.tool_calls:
        yield _quoted(f"The model asks for {call.name}({call.arguments})")
    if response.finish_reason is FinishReason.INTERRUPTED:
        yield "*The answer was interrupted here.*"


def _one_line(text: str) -> str:
    return _LIVE.sub(_defused, " ".join(text.split()))


def _quoted(text: str) -> str:
    """The text as a quotation, whose end closes whatever it opens."""
    return "\n".join(f"> {line}".rstrip() for line in _LINE_END.split(_LIVE.sub(_defused, text))) if text else ""


def _contained(text: str) -> str:
    """The text, ending with no block open. Where a fence stands in a list or a quotation nobody but a whole parser
    knows where it ends: such a text becomes a quotation.
    """
    lines, fence = [], ""
    for line in _LINE_END.split(text):
        if fence:
            closing = _CLOSING.match(line)
            fence = "" if closing and closing[1].startswith(fence) else fence
        elif opening := _OPENING.match(line):
            fence = opening[0]
        elif _NESTED.match(line):
            return _quoted(text)
        else:
            line = _LIVE.sub(_defused, line)
        lines.append(line)
    return "\n".join([*lines, fence] if fence else lines)


def _defused(match: re.Match[str]) -> str:
    return match[0] + _ZERO_WIDTH
