"""Whether a prompt fits, asked of servers that cut one that does not and say nothing.

Ollama before 0.12.6 drops the oldest messages until the rest fits, cuts what is then still too long to exactly its
window, and answers as if nothing had happened. What can be known all the same:

- A prompt has at least as many tokens as pieces between blanks. More pieces than tokens in the window: refused unsent.
- It has at most as many tokens as bytes, and what the template adds. If that fits, nothing was cut.
- What was cut to the window is reported as exactly as long as the window.
- Where old messages were dropped, the same request without the oldest of them reads the very same prompt, and both are
  reported as equally long; where none was dropped, the shorter one is shorter.

The last two are asked for only where the first two leave it open, with answers of one token and before the answer itself:
nothing wrong is shown, and the server, which keeps the prompt that it has read, does not read it twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from llm_jupyter.errors import ContextExceededError
from llm_jupyter.providers._tokens import MESSAGE_OVERHEAD, least_tokens, most_tokens, too_long
from llm_jupyter.types import Message, Role

REMEMBERED = 64
"""Prompts whose length is kept."""

Count = Callable[[dict[str, Any]], Awaitable[int | None]]
"""The tokens that the server reads of a request with this body."""


class Prompt(msgspec.Struct, frozen=True):
    """What is asked: the body without its options, the messages in it, and the most tokens that the rest of it can be."""

    body: dict[str, Any]
    messages: tuple[Message, ...]
    window: int
    rest: int = 0

    @property
    def most(self) -> int:
        return self.rest + sum(most_tokens(message) for message in self.messages)


class WindowGuard:
    """Refuses the prompts that a server would cut; `where` is the server as errors name it, `name` its provider."""

    def __init__(self, where: str, name: str) -> None:
        self._where = where
        self._name = name
        self._lengths: OrderedDict[tuple[Any, ...], int] = OrderedDict()

    def refuse_what_cannot_fit(self, prompt: Prompt) -> None:
        """Raise where the words alone are too many; nothing needs to be sent for that."""
        least = least_tokens(prompt.messages)
        if least > prompt.window:
            raise self.too_long(prompt, least)

    def may_be_cut(self, prompt: Prompt) -> bool:
        """Whether it cannot be ruled out, from its size and from what is known of its beginning."""
        return prompt.most > prompt.window and self._most_known(prompt) > prompt.window

    async def refuse_what_is_cut(self, prompt: Prompt, count: Count) -> None:
        """Raise where the server does not read the whole prompt."""
        read = await count(prompt.body)
        if read is None:
            return
        if read >= prompt.window:
            raise self.too_long(prompt, read)
        if (shorter := _without_oldest(prompt, read)) is not None and await count(shorter) == read:
            raise self.too_long(prompt, prompt.window + 1)
        self._remember(prompt, prompt.messages, read)

    def answered(self, prompt: Prompt, read: int | None, written: int | None, text: str) -> None:
        """Learn from an answer's figures. Raises where they tell that the prompt was cut after all."""
        if read is None:
            return
        if read >= prompt.window:
            raise self.too_long(prompt, read)
        self._remember(prompt, prompt.messages, read)
        if written is not None:
            self._remember(prompt, (*prompt.messages, Message.assistant(text)), read + written + MESSAGE_OVERHEAD)

    def forget(self) -> None:
        """Forget all lengths: a model has changed."""
        self._lengths.clear()

    def too_long(self, prompt: Prompt, tokens: int) -> ContextExceededError:
        """The error for a prompt of so many tokens or more."""
        return too_long(
            max(tokens, least_tokens(prompt.messages)),
            prompt.window,
            where=self._where,
            next_step="Shorten it, leave out the conversation so far (--no-history), "
            f"or set context in [providers.{self._name}].",
        )

    def _most_known(self, prompt: Prompt) -> int:
        """The upper bound, where the conversation is one that went well before and has grown since."""
        for end in range(len(prompt.messages), 0, -1):
            if (known := self._lengths.get(_key(prompt, prompt.messages[:end]))) is not None:
                return known + sum(most_tokens(message) for message in prompt.messages[end:])
        return prompt.most

    def _remember(self, prompt: Prompt, messages: tuple[Message, ...], tokens: int) -> None:
        self._lengths[_key(prompt, messages)] = tokens
        while len(self._lengths) > REMEMBERED:
            self._lengths.popitem(last=False)


def _key(prompt: Prompt, messages: tuple[Message, ...]) -> tuple[Any, ...]:
    return (prompt.body["model"], "messages" in prompt.body, prompt.rest, messages)


def _without_oldest(prompt: Prompt, read: int) -> dict[str, Any] | None:
    """The body without the message that is dropped first; `None` where none can have been dropped.

    Dropped up to some message, the prompt was at most what the kept ones can be, and with that message more than the
    window. System messages are never dropped, nor is the last message.
    """
    kept = prompt.most
    suspicious = False
    for message in prompt.messages[:-1]:
        if message.role is not Role.SYSTEM:
            kept -= most_tokens(message)
            suspicious = suspicious or (read <= kept and read + most_tokens(message) > prompt.window)
    oldest = next(
        (n for n, m in enumerate(prompt.messages[:-1]) if m.role in (Role.USER, Role.ASSISTANT) and m.content.strip()),
        None,
    )
    if not suspicious or oldest is None:
        return None
    sent = prompt.body["messages"]
    return {**prompt.body, "messages": [*sent[:oldest], *sent[oldest + 1 :]]}
