"""What is known of a prompt's length without a tokenizer, and the error for one that is too long."""

from __future__ import annotations

from collections.abc import Sequence

from llm_jupyter.errors import ContextExceededError
from llm_jupyter.types import Message, Role

MESSAGE_OVERHEAD = 64
"""Tokens that a template puts around one message, generously."""

PICTURE = 8192
"""Tokens for one picture, generously."""


def least_tokens(messages: Sequence[Message]) -> int:
    """A lower bound: no tokenizer in use makes one token of two pieces that a blank parts.

    Of an answer only what follows its thinking counts: many templates leave the thinking out.
    """
    return sum(
        len((m.content.rpartition("</think>")[2] if m.role is Role.ASSISTANT else m.content).split()) for m in messages
    )


def most_tokens(message: Message) -> int:
    """An upper bound: a token is one byte of the text at least."""
    calls = sum(
        len(call.name) + 2 * len(call.arguments.encode(errors="replace")) + MESSAGE_OVERHEAD
        for call in message.tool_calls
    )
    return len(message.content.encode(errors="replace")) + calls + MESSAGE_OVERHEAD + PICTURE * len(message.images)


def too_long(
    tokens: int, window: int, *, where: str, next_step: str, counted: str = "at least ", reserve: int = 0,
    what: str = "prompt",
) -> ContextExceededError:  # fmt: skip
    """The error for what does not fit. `counted` says how well its tokens are known; `reserve` is kept for the answer."""
    if tokens + reserve > window:
        answer = f", and {reserve:,} for the answer," if reserve else ""
        why = f"{counted}{tokens:,} tokens{answer} do not fit into its window of {window:,}"
    else:
        why = f"it takes the whole window of {window:,} tokens, or more"
    return ContextExceededError(
        f"the {what} is too long for the model: {why}",
        where=where,
        prompt_tokens=tokens,
        context_length=window,
        next_step=next_step,
    )
