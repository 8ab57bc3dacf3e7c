"""What a person gives to a comparison, looked at before anybody is asked."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import Message


def several(name: str, given: Any, *kinds: type) -> list[Any]:
    """What was given, one by one. One of these kinds is the only one, and so is what does not consist of parts.

    Raises `InvalidInputError` for a table, of which Python would take the names of the columns.
    """
    if (columns := getattr(given, "columns", None)) is not None and not isinstance(given, kinds):
        column = next((one for one in columns if isinstance(one, str)), "question")
        wrong = f"{name} cannot be a whole table (a value of type {type(given).__name__})"
        raise InvalidInputError(wrong, next_step=f"Give one column of it, such as df[{column!r:.40}].")
    is_one = isinstance(given, kinds) or not isinstance(given, Iterable)
    return [given] if is_one else list(given)


def messages_of(prompts: Any) -> tuple[Message, ...]:
    """The prompts as they are sent: of one text or message, or of several, such as a column of a table.

    Raises `InvalidInputError` for what is no text, and for one that says nothing.
    """
    found = several("prompts", prompts, str, Message, Mapping)
    names = [f"prompts[{n}]" for n in range(len(found))] if len(found) > 1 else ["the prompt"]
    return tuple(map(_message, names, found))


def _message(name: str, prompt: Any) -> Message:
    message = prompt if isinstance(prompt, Message) else Message.user(prompt)
    text = text_of(name, message.content)
    if not text.strip() and not message.images:
        raise InvalidInputError(f"{name} is empty: there is nothing to ask", next_step="Leave it out.")
    return msgspec.structs.replace(message, content=text)


def text_of(name: str, value: object, next_step: str = "") -> str:
    """A plain text, also of one of numpy, which no file can hold. Raises `InvalidInputError` for anything else."""
    expect(name, value, str, "a text", next_step)
    return str(value)


def count_of(name: str, value: Any) -> int:
    """A whole number from 1 on. Raises `InvalidInputError` for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InvalidInputError(f"{name} has to be a whole number from 1 on, not {value!r:.40}")
    return number


def expect(name: str, value: object, kind: type, said: str, next_step: str = "") -> None:
    """Raise `InvalidInputError` for a value of another kind; `said` is what it has to be, in words."""
    if not isinstance(value, kind):
        wrong = f"{name} has to be {said}, not a value of type {type(value).__name__}"
        raise InvalidInputError(wrong, next_step=next_step)
