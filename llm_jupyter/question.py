"""What is asked, whoever answers it, and who did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_jupyter.choice import Choice
from llm_jupyter.context import ContextBuilder, Earlier, Exchange, Fitted, Policy
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.errors import LLMError
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.types import Capability, GenerationOptions, Message, Role

PAGE = 200
"""Exchanges that are read at a time where all are wanted."""


class NothingEarlier:
    """What stands before a question with no memory."""

    async def latest(self, skip: int, count: int) -> Sequence[Exchange]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, whoever answers.

    `system` are the instructions that stand before the conversation, `is_instructed` says that the person gave them, so
    that those of a model's settings do not count. `earlier` is the conversation so far, of which as much is sent as the
    model's window holds; `policy` says what happens with the rest. `completion` continues the prompt's text as it stands.
    """

    request: str
    prompt: Message
    options: GenerationOptions
    system: str | None = None
    earlier: Earlier = field(default_factory=NothingEarlier)
    completion: bool = False
    read_interval: float = 0.0
    is_instructed: bool = False
    policy: Policy = "window"

    async def fitted(
        self, choice: Choice, defaults: ModelDefaults, context: ContextBuilder, *, may_count: bool = True
    ) -> Fitted:
        """What of it all goes to that model; `may_count` lets its tokenizer be asked. Raises `ContextExceededError`."""
        system = None if self.completion else self._system_for(choice, defaults)
        options = defaults.options(choice, self.options)
        return await context.fit(
            choice,
            system=system,
            earlier=self.earlier,
            prompt=self.prompt,
            options=options,
            policy=self.policy,
            may_count=may_count,
        )

    async def unfitted(self, context: ContextBuilder) -> Fitted:
        """All of it, where no model is there to tell what it holds."""
        said = tuple(await self.conversation())
        earlier = sum(message.role is Role.USER for message in said) - 1
        return Fitted(said, context.estimates.estimate("", said), False, None, earlier, 0, 0)

    def stream(self, choice: Choice, defaults: ModelDefaults, fitted: Fitted) -> ChunkStream:
        """The answer's stream; nothing is sent before it is read."""
        options, provider = defaults.options(choice, self.options), choice.provider
        if self.completion:
            stream = provider.stream_completion(self.prompt.content, model=choice.model, options=options)
        else:
            stream = provider.stream_chat_completion(fitted.messages, model=choice.model, options=options)
        stream.pace.interval = self.read_interval
        return stream

    async def conversation(self) -> list[Message]:
        """All that is said before it and with it, whatever a window holds."""
        said: list[Message] = []
        exchanges: list[Exchange] = []
        while page := await self.earlier.latest(len(exchanges), PAGE):
            exchanges += page
            if len(page) < PAGE:
                break
        for exchange in reversed(exchanges):
            said += exchange.messages
        instructions = [Message.system(self.system)] if self.system and not self.completion else []
        return [*instructions, *said, self.prompt]

    @property
    def needed(self) -> frozenset[Capability]:
        """What a model must be able to do to answer it."""
        if self.completion:
            return frozenset({Capability.COMPLETION})
        extra = {
            Capability.VISION: bool(self.prompt.images),
            Capability.TOOLS: bool(self.options.tools),
            Capability.JSON_SCHEMA: self.options.json_schema is not None,
        }
        return frozenset({Capability.CHAT, *(capability for capability, asked in extra.items() if asked)})

    def _system_for(self, choice: Choice, defaults: ModelDefaults) -> str | None:
        """The person's instructions for this conversation, else the model's own, else those before every one."""
        return self.system if self.is_instructed else defaults.system(choice) or self.system


@dataclass(frozen=True, slots=True)
class Tried:
    """Who did not answer, and why; `was_asked` is false where it failed so lately that it was left alone."""

    choice: Choice
    error: LLMError
    was_asked: bool = True

    def __str__(self) -> str:
        return f"{self.choice.full_name}: {self.error.what}"
