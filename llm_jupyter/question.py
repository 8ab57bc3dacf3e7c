"""What is asked, whoever answers it, and who did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_jupyter.choice import Choice
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.errors import LLMError
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.types import Capability, GenerationOptions, Message, Role


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, whoever answers.

    `completion` continues the last message's text as it stands; `is_instructed` says that the person gave the instructions
    that stand before the conversation, so that those of a model's settings do not count.
    """

    request: str
    messages: Sequence[Message]
    options: GenerationOptions
    completion: bool = False
    read_interval: float = 0.0
    is_instructed: bool = False

    def put_to(self, choice: Choice, defaults: ModelDefaults) -> ChunkStream:
        """The answer's stream; nothing is sent before it is read."""
        options = defaults.options(choice, self.options)
        if self.completion:
            text = self.messages[-1].content
            stream = choice.provider.stream_completion(text, model=choice.model, options=options)
        else:
            messages = self._instructed(defaults.system(choice))
            stream = choice.provider.stream_chat_completion(messages, model=choice.model, options=options)
        stream.pace.interval = self.read_interval
        return stream

    @property
    def needed(self) -> frozenset[Capability]:
        """What a model must be able to do to answer it."""
        if self.completion:
            return frozenset({Capability.COMPLETION})
        extra = {
            Capability.VISION: any(message.images for message in self.messages),
            Capability.TOOLS: bool(self.options.tools),
            Capability.JSON_SCHEMA: self.options.json_schema is not None,
        }
        return frozenset({Capability.CHAT, *(capability for capability, asked in extra.items() if asked)})

    def _instructed(self, system: str | None) -> Sequence[Message]:
        """The messages, with the model's own instructions where the person gave none for this conversation."""
        if system is None or self.is_instructed:
            return self.messages
        said = self.messages[1:] if self.messages[0].role is Role.SYSTEM else self.messages
        return [Message.system(system), *said]


@dataclass(frozen=True, slots=True)
class Tried:
    """Who did not answer, and why; `was_asked` is false where it failed so lately that it was left alone."""

    choice: Choice
    error: LLMError
    was_asked: bool = True

    def __str__(self) -> str:
        return f"{self.choice.full_name}: {self.error.what}"
