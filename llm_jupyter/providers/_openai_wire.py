"""OpenAI's protocol as types: what is sent, and what the deltas of a stream mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_jupyter.types import (
    Capability,
    Chunk,
    FinishReason,
    GenerationOptions,
    LLMModelInfo,
    Message,
    Timing,
    ToolCallDelta,
    Usage,
)

OPENING, CLOSING = "<think>", "</think>"

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Timings(msgspec.Struct):
    """llama.cpp's own figures, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None
    predicted_per_second: float | None = None
    cache_n: int | None = None


class CompletionEvent(msgspec.Struct):
    """One event of a streamed completion, of chat or of raw text."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    model: str | None = None
    error: Any = None


class _ModelMeta(msgspec.Struct):
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    n_params: int | None = None
    size: int | None = None
    ftype: str | None = None


class _Architecture(msgspec.Struct):
    input_modalities: list[str] = []


class ModelEntry(msgspec.Struct):
    """One entry of `/v1/models`, with the fields that llama.cpp, vLLM and others add."""

    id: str
    aliases: list[str] = []
    owned_by: str | None = None
    meta: _ModelMeta | None = None
    architecture: _Architecture | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    license: str | None = None


class ModelList(msgspec.Struct):
    """What `/v1/models` answers; the field is required, so that any other JSON is refused."""

    data: list[ModelEntry]

    def entry(self, model: str) -> ModelEntry | None:
        """The entry of a model, by its name or an alias."""
        return next((entry for entry in self.data if model == entry.id or model in entry.aliases), None)


class _GenerationSettings(msgspec.Struct):
    n_ctx: int | None = None


class Props(msgspec.Struct):
    """llama.cpp's `/props`."""

    default_generation_settings: _GenerationSettings | None = None
    chat_template_caps: dict[str, Any] = {}
    modalities: dict[str, bool] = {}


def model_info(entry: ModelEntry, provider: str, is_local: bool, props: Props | None = None) -> LLMModelInfo:
    """A model as the server describes it."""
    meta = entry.meta or _ModelMeta()
    # An OpenAI-compatible server does not say what its models can do; what llama.cpp tells is used.
    can = {Capability.CHAT, Capability.COMPLETION}
    if entry.owned_by == "llamacpp":
        can.add(Capability.JSON_SCHEMA)
    if (entry.architecture and "image" in entry.architecture.input_modalities) or (
        props and props.modalities.get("vision")
    ):
        can.add(Capability.VISION)
    if props and props.chat_template_caps.get("supports_tools"):
        can.add(Capability.TOOLS)
    loaded_with = props.default_generation_settings.n_ctx if props and props.default_generation_settings else None
    return LLMModelInfo(
        id=entry.id,
        name=entry.id.rsplit("/", 1)[-1],
        provider=provider,
        is_local=is_local,
        capabilities=frozenset(can),
        parameters=meta.n_params,
        context_length=meta.n_ctx_train or entry.context_length or entry.max_model_len,
        effective_context=loaded_with or meta.n_ctx or entry.max_model_len,
        quantization=meta.ftype,
        license=entry.license,
        size=meta.size,
        loaded=True if meta.n_ctx else None,
    )


def chat_body(messages: Sequence[Message], model: str, options: GenerationOptions) -> dict[str, Any]:
    """The body of `/v1/chat/completions`."""
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in messages]}
    if options.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in options.tools
        ]
        if options.tool_choice:
            named = {"type": "function", "function": {"name": options.tool_choice}}
            body["tool_choice"] = options.tool_choice if options.tool_choice in ("auto", "none", "required") else named
    if options.json_schema is not None:
        schema = {"name": "answer", "schema": dict(options.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if options.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": options.think}
    return _with_options(body, options)


def completion_body(prompt: str, model: str, options: GenerationOptions) -> dict[str, Any]:
    """The body of `/v1/completions`."""
    return _with_options({"model": model, "prompt": prompt}, options)


def _with_options(body: dict[str, Any], options: GenerationOptions) -> dict[str, Any]:
    for field in ("temperature", "max_tokens", "top_p", "seed"):
        if (value := getattr(options, field)) is not None:
            body[field] = value
    if options.stop:
        body["stop"] = list(options.stop)
    return {**body, "stream": True, "stream_options": {"include_usage": True}, **options.extra}


def _message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if message.images:
        pictures = [{"type": "image_url", "image_url": {"url": image.data_url}} for image in message.images]
        content = [{"type": "text", "text": message.content}, *pictures]
    body: dict[str, Any] = {"role": message.role.value, "content": content}
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        body["name"] = message.name
    return body


class ThinkSplitter:
    """Takes the thinking out of text that opens with `<think>`, for servers that leave it in.

    Only an answer's very beginning can open thinking, so that a later mention of the tag stays text. Pieces are cut
    anywhere; what may still become a tag waits for the next piece.
    """

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    @property
    def passes_all(self) -> bool:
        """Whether everything from here on is text: the reader may then leave this splitter out."""
        return self._state == "text"

    def feed(self, piece: str) -> tuple[str, str]:
        """The text and the thinking that this piece settles."""
        held, self._held = self._held + piece, ""
        if self._state == "start":
            opened = held.lstrip()
            if opened.startswith(OPENING):
                self._state, held = "thinking", opened[len(OPENING) :]
            elif OPENING.startswith(opened):
                self._held = held
                return "", ""
            else:
                self._state = "text"
        if self._state == "text":
            return held, ""
        thought = ""
        if self._state == "thinking":
            thought, tag, rest = held.partition(CLOSING)
            if tag:
                self._state, held = "between", rest
        if self._state == "between":
            text = held.lstrip("\n")
            if text:
                self._state = "text"
            return text, thought
        kept = next((n for n in range(len(CLOSING) - 1, 0, -1) if thought.endswith(CLOSING[:n])), 0)
        self._held = thought[len(thought) - kept :]
        return "", thought[: len(thought) - kept]

    def finish(self) -> tuple[str, str]:
        """What was still waiting, at the end of the answer."""
        held, self._held = self._held, ""
        return ("", held) if self._state == "thinking" else (held, "")


class StreamReader:
    """Turns a stream's events into chunks, one for each delta, and gathers what the last chunk carries.

    `started` is when the request was made, on `time.perf_counter`'s clock.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._first: float | None = None
        self._splitter: ThinkSplitter | None = ThinkSplitter()
        self._usage: _Usage | None = None
        self._timings: _Timings | None = None
        self._model: str | None = None
        self.finish_reason: FinishReason | None = None

    @property
    def has_first_token(self) -> bool:
        """Whether anything of the answer itself has come."""
        return self._first is not None

    def chunk(self, event: CompletionEvent) -> Chunk | None:
        """The chunk that an event means; `None` for one that only carries figures."""
        if event.usage is not None:
            self._usage = event.usage
        if event.timings is not None:
            self._timings = event.timings
        if not event.choices:
            return None
        choice = event.choices[0]
        if choice.finish_reason:
            self.finish_reason = FINISH_REASONS.get(choice.finish_reason, FinishReason.OTHER)
        if self._model is None and event.model:
            self._model = event.model
        delta = choice.delta
        text, thinking = choice.text or "", ""
        calls: tuple[ToolCallDelta, ...] = ()
        if delta is not None:
            text = delta.content or text
            thinking = delta.reasoning_content or delta.reasoning or ""
            if delta.tool_calls:
                calls = _tool_deltas(delta.tool_calls)
        if not (text or thinking or calls):
            return None
        if self._first is None:
            self._first = time.perf_counter() - self._started
        if text and self._splitter is not None:
            text, thought = self._splitter.feed(text)
            thinking += thought
            if self._splitter.passes_all:
                self._splitter = None
        return Chunk(text, thinking, calls)

    def last(self) -> list[Chunk]:
        """The chunk that closes the answer, with what the whole stream told."""
        text, thinking = self._splitter.finish() if self._splitter else ("", "")
        usage = self._usage or _Usage()
        timings = self._timings or _Timings()
        total = time.perf_counter() - self._started
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else timings.cache_n
        details = usage.completion_tokens_details
        rate = timings.predicted_per_second
        if rate is None and usage.completion_tokens and self._first is not None and total > self._first:
            rate = usage.completion_tokens / (total - self._first)
        return [
            Chunk(
                text,
                thinking,
                finish_reason=self.finish_reason or FinishReason.OTHER,
                usage=Usage(
                    usage.prompt_tokens, usage.completion_tokens, cached, details.reasoning_tokens if details else None
                ),
                timing=Timing(self._first, total, _from_ms(timings.prompt_ms), _from_ms(timings.predicted_ms), rate),
                model=self._model,
            )
        ]


def _tool_deltas(calls: list[_ToolCall]) -> tuple[ToolCallDelta, ...]:
    result = []
    for position, call in enumerate(calls):
        function = call.function or _Function()
        index = position if call.index is None else call.index  # some servers send calls whole and do not number them
        result.append(ToolCallDelta(index, call.id or "", function.name or "", function.arguments or ""))
    return tuple(result)


def _from_ms(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
