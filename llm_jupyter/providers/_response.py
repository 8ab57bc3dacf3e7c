"""Chunks gathered into a whole answer."""

from __future__ import annotations

from collections.abc import Sequence

from llm_jupyter.types import Chunk, FinishReason, LLMResponse, Timing, ToolCall, ToolCallDelta, Usage


class ResponseBuilder:
    """Gathers chunks into an `LLMResponse`."""

    def __init__(self, *, provider: str, model: str, is_local: bool) -> None:
        self._provider = provider
        self.tried: Sequence[str] = ()
        """Who was asked before and failed."""
        self._model = model
        self._is_local = is_local
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, ToolCallDelta] = {}
        self._finish: FinishReason | None = None
        self._usage = Usage()
        self._timing = Timing()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the answer has come yet."""
        return not (self._text or self._thinking or self._calls)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def thinking(self) -> str:
        """The thinking so far."""
        return "".join(self._thinking)

    def add(self, chunk: Chunk) -> None:
        """Take one chunk in."""
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.thinking:
            self._thinking.append(chunk.thinking)
        for delta in chunk.tool_calls:
            known = self._calls.get(delta.index, ToolCallDelta(delta.index))
            self._calls[delta.index] = ToolCallDelta(
                delta.index, known.id or delta.id, known.name or delta.name, known.arguments + delta.arguments
            )
        if chunk.finish_reason is not None:
            self._finish = chunk.finish_reason
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timing is not None:
            self._timing = chunk.timing
        if chunk.model:
            self._model = chunk.model

    def response(self, finish_reason: FinishReason | None = None, *, from_cache: bool = False) -> LLMResponse:
        """The answer as far as it came; `finish_reason` overrides what the server said."""
        return LLMResponse(
            text=self.text,
            thinking=self.thinking,
            tool_calls=tuple(
                ToolCall(call.id or f"call_{index}", call.name, call.arguments)
                for index, call in sorted(self._calls.items())
            ),
            finish_reason=finish_reason or self._finish or FinishReason.OTHER,
            usage=self._usage,
            timing=self._timing,
            model=self._model,
            provider=self._provider,
            is_local=self._is_local,
            from_cache=from_cache,
            tried=tuple(self.tried),
        )
