"""A provider that answers from a script: no server, no network, no waiting."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from llm_jupyter.errors import LLMError, ModelNotFoundError
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ChunkStream, LLMProvider, checked_messages
from llm_jupyter.types import (
    Capability,
    Chunk,
    FinishReason,
    GenerationOptions,
    LLMModelInfo,
    Message,
    MessageLike,
    ProviderState,
    Timing,
    Usage,
)

Piece = str | Chunk | LLMError | Callable[[], Awaitable[Any]]
Answer = str | Sequence[Piece]


class Asked(msgspec.Struct, frozen=True):
    """What a scripted provider was asked; `is_raw` says that it was text to continue."""

    messages: tuple[Message, ...]
    model: str
    options: GenerationOptions
    is_raw: bool = False

    @property
    def prompt(self) -> str:
        """The last message's text."""
        return self.messages[-1].content


class ScriptedProvider(LLMProvider):
    """Answers by script, each answer in turn; the last one stays, and without any it repeats what it was asked.

        provider = ScriptedProvider("Paris.", ["Half an ", StreamTruncatedError("the line was cut")])

    An answer is a text, which is handed on word by word, or its pieces: texts, whole `Chunk`s, an `LLMError` that is
    raised there, or a function that is awaited there (`gate.wait`, for an answer that a test holds back). `asked` is what
    was asked. While `outage` is an error, every request raises it. Words count as tokens.
    """

    kind: ClassVar[str] = "scripted"

    def __init__(
        self, *answers: Answer, name: str = "scripted", models: Sequence[str] = ("m",), is_local: bool = True
    ) -> None:
        super().__init__(name)
        self.models = list(models)
        self.asked: list[Asked] = []
        self.outage: LLMError | None = None
        self._answers = list(answers)
        self._is_local = is_local

    @property
    def is_local(self) -> bool:
        return self._is_local

    async def disconnect(self) -> None:
        self._enter(ProviderState.DISCONNECTED)

    async def get_available_models(self) -> list[LLMModelInfo]:
        self._check_outage()
        return [self._info(model) for model in self.models]

    async def get_model_info(self, model: str) -> LLMModelInfo:
        self._check_outage()
        self._check_model(model)
        return self._info(model)

    def stream_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return ChunkStream(self._batches(Asked(tuple(checked_messages(messages)), model, options)))

    def stream_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return ChunkStream(self._batches(Asked((Message.user(prompt),), model, options, is_raw=True)))

    async def _batches(self, asked: Asked) -> AsyncGenerator[list[Chunk], None]:
        self.in_flight += 1
        started, first, written = time.perf_counter(), 0.0, 0
        limit = asked.options.max_tokens
        reason = FinishReason.STOP
        try:
            self._check_outage()
            self._check_model(asked.model)
            self.asked.append(asked)
            for piece in _words(self._next_answer(asked)):
                if limit is not None and written >= limit:
                    reason = FinishReason.LENGTH
                    break
                if (chunk := await _played(piece)) is not None:
                    written += 1
                    first = first or time.perf_counter() - started
                    reason = chunk.finish_reason or reason
                    yield [msgspec.structs.replace(chunk, finish_reason=None)]
            yield [self._last(asked, reason, Usage(_counted(asked), written), first, started)]
        finally:
            self.in_flight -= 1

    def _last(self, asked: Asked, reason: FinishReason, usage: Usage, first: float, started: float) -> Chunk:
        total = time.perf_counter() - started
        speed = (usage.completion_tokens or 0) / total
        timing = Timing(first_token=first or total, total=total, tokens_per_second=speed)
        return Chunk(finish_reason=reason, usage=usage, timing=timing, model=asked.model)

    def _next_answer(self, asked: Asked) -> Answer:
        if not self._answers:
            return f"You said: {asked.prompt}"
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def _check_outage(self) -> None:
        if self.outage is not None:
            raise self.outage

    def _check_model(self, model: str) -> None:
        if model not in self.models:
            raise ModelNotFoundError(
                f"there is no model {model!r}", where=self.where, next_step="%llm models lists what is there."
            )

    def _info(self, model: str) -> LLMModelInfo:
        can = frozenset({Capability.CHAT, Capability.COMPLETION})
        return LLMModelInfo(id=model, name=model, provider=self.name, is_local=self.is_local, capabilities=can)


def _words(answer: Answer) -> Iterator[Piece]:
    yield from re.findall(r"\s*\S+|\s+$", answer) if isinstance(answer, str) else answer


def _counted(asked: Asked) -> int:
    """Words, and two for each message: a template's share."""
    return sum(len(message.content.split()) + 2 for message in asked.messages)


async def _played(piece: Piece) -> Chunk | None:
    """What a piece of an answer means; nothing, where it is only waited for."""
    await asyncio.sleep(0)  # a real answer lets others run, too
    if isinstance(piece, LLMError):
        raise piece
    if callable(piece):
        await piece()
        return None
    return Chunk(piece) if isinstance(piece, str) else piece
