"""`--dry-run`: what a question would send, to the letter, and what of the conversation it would leave out."""

from __future__ import annotations

from llm_jupyter.choice import Choice
from llm_jupyter.context import Fitted
from llm_jupyter.portable import digest_of
from llm_jupyter.sessions import Answering, LLMSession
from llm_jupyter.types import Message


async def preview(answering: Answering) -> list[str]:
    """The lines to show. Nothing is sent, and nothing of the conversation changes."""
    choice, fitted = await answering.session.preview(answering.asked)
    turn = "turn" if fitted.turns == 1 else "turns"
    about = "" if fitted.is_exact else "about "
    window = f" of {fitted.window.tokens:,} ({fitted.window.source})" if fitted.window is not None else ""
    head = [
        f"To {_whom(choice)}, and not sent:",
        f"{about}{fitted.tokens:,} tokens{window}, with {fitted.turns:,} earlier {turn}; {_left_out(fitted)}.",
        *answering.notes,
        "",
    ]
    return head + [line for message in fitted.messages for line in _written(message)]


def has_asked(session: LLMSession, cell: str | None, typed: str) -> bool:
    """Whether a cell has asked that before, and only looks at it now; it may have been given another question since."""
    turns = session.store.of_cell(session.id, cell) if cell is not None else []
    return digest_of(typed) in {digest_of(turn.template or turn.prompt.content) for turn in turns}


def _whom(choice: Choice | None) -> str:
    if choice is None:
        return "nobody, since offline mode is replay"
    return f"{choice.full_name} ({'local' if choice.is_local else 'remote'})"


def _left_out(fitted: Fitted) -> str:
    if fitted.left_out == 0:
        return "nothing is left out"
    many = f"{fitted.left_out:,}" if fitted.left_out is not None else "many"
    return f"{many} older ones are left out, for want of room"


def _written(message: Message) -> list[str]:
    images = [f"[{image.media_type}, {len(image.data):,} bytes]" for image in message.images]
    calls = [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    return [f"── {message.role}", *message.content.split("\n"), *images, *calls]
