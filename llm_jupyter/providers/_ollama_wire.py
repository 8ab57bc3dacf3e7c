"""Ollama's own protocol as types: what is sent, and what its lines mean.

Source: Ollama's API documentation (`docs/api.md` of its repository) and replies captured from version 0.9.3. Fields that
only newer servers send are optional.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_jupyter.errors import InvalidInputError, UnsupportedOperationError
from llm_jupyter.providers.base import parameter_count
from llm_jupyter.types import (
    Capability,
    GenerationOptions,
    LLMModelInfo,
    Message,
    ToolCall,
)

CAPABILITIES = {
    "completion": Capability.CHAT, "tools": Capability.TOOLS, "vision": Capability.VISION,
    "thinking": Capability.THINKING, "embedding": Capability.EMBEDDING,
}  # fmt: skip
TOP_LEVEL = frozenset(
    {"keep_alive", "think", "format", "truncate", "shift", "logprobs", "top_logprobs", "suffix", "template"}
)
"""Fields of `--option` that stand beside `options` in the request and not in it."""


class _Function(msgspec.Struct):
    name: str = ""
    arguments: dict[str, Any] = {}
    index: int | None = None


class AnswerToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str = ""
    thinking: str = ""
    tool_calls: list[AnswerToolCall] | None = None


class AnswerLine(msgspec.Struct):
    """One line of `/api/chat` or `/api/generate`; durations are in nanoseconds."""

    message: _Message | None = None
    response: str = ""
    thinking: str = ""
    model: str | None = None
    done: bool = False
    done_reason: str | None = None
    error: Any = None
    status: int | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class Details(msgspec.Struct):
    """What `/api/tags` and `/api/show` tell of a model file."""

    format: str | None = None
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int | None = None


class ModelEntry(msgspec.Struct):
    """One model of `/api/tags` or `/api/ps`."""

    name: str
    digest: str = ""
    size: int | None = None
    modified_at: str = ""
    expires_at: str = ""
    details: Details | None = None
    capabilities: list[str] | None = None
    context_length: int | None = None
    remote_host: str = ""
    remote_model: str = ""

    @property
    def has_expired(self) -> bool:
        """Whether its time in memory is over; the list still holds such a model for a moment."""
        try:
            expires = datetime.fromisoformat(self.expires_at)
        except ValueError:
            return False
        return expires.tzinfo is not None and expires.year > 2000 and expires < datetime.now(UTC)


class ModelList(msgspec.Struct):
    """What `/api/tags` and `/api/ps` answer; the field is required, so that any other JSON is refused."""

    models: list[ModelEntry]


class ShowReply(msgspec.Struct):
    """What `/api/show` answers."""

    details: Details
    model_info: dict[str, Any] = {}
    capabilities: list[str] | None = None
    license: str = ""
    modelfile: str = ""
    template: str = ""
    system: str = ""
    messages: list[_Message] | None = None
    remote_host: str = ""

    @property
    def most_tokens(self) -> int:
        """The most tokens that the model's own texts can add to a prompt."""
        texts = (self.template, self.system, *(message.content for message in self.messages or ()))
        return sum(len(text.encode()) for text in texts)

    @property
    def context_length(self) -> int | None:
        """The declared window in tokens."""
        found = next((v for k, v in self.model_info.items() if k.endswith(".context_length")), None)
        return found if isinstance(found, int) else self.details.context_length


class Version(msgspec.Struct):
    """What `/api/version` answers."""

    version: str


class EmbedReply(msgspec.Struct):
    """What `/api/embed` answers."""

    embeddings: list[list[float]]


class ProgressLine(msgspec.Struct):
    """One line of `/api/pull` or `/api/create`; sizes are in bytes, for the layer of that digest."""

    status: str = ""
    digest: str = ""
    total: int | None = None
    completed: int | None = None
    error: Any = None


def is_remote(name: str, remote_host: str) -> bool:
    """Whether the server only passes requests for this model on to somewhere else."""
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(remote_host) or tag == "cloud" or tag.endswith("-cloud")


def model_info(
    entry: ModelEntry, provider: str, is_local: bool, *, show: ShowReply | None = None, running: ModelEntry | None = None,
    window: int | None = None,
) -> LLMModelInfo:  # fmt: skip
    """A model as the server describes it; `window` is the most that is asked for as `num_ctx`."""
    details = entry.details or Details()
    named = (show.capabilities if show else None) or entry.capabilities
    is_empty = not named and details.format == ""  # what a creation leaves behind that failed
    can = {CAPABILITIES[name] for name in named or ["completion"] if name in CAPABILITIES and not is_empty}
    if Capability.CHAT in can:
        can |= {Capability.COMPLETION, Capability.JSON_SCHEMA}
    can.add(Capability.MODEL_MANAGEMENT)
    count = show.model_info.get("general.parameter_count") if show else None
    license_name = show.model_info.get("general.license") or show.license.strip().partition("\n")[0] if show else None
    is_away = is_remote(entry.name, entry.remote_host or (show.remote_host if show else ""))
    declared = (show.context_length if show else None) or details.context_length
    asked = min(declared or window, window) if window and not is_away else None
    return LLMModelInfo(
        id=entry.name,
        name=entry.name.removesuffix(":latest"),
        provider=provider,
        is_local=is_local and not is_away,
        capabilities=frozenset(can),
        parameters=count if isinstance(count, int) else parameter_count(details.parameter_size),
        context_length=declared,
        effective_context=(running.context_length if running else None) or asked,
        quantization=details.quantization_level or None,
        license=license_name or None,
        size=entry.size,
        loaded=running is not None,
        modified=entry.modified_at or None,
        digest=entry.digest or None,
    )


def chat_body(messages: Sequence[Message], model: str, options: GenerationOptions) -> dict[str, Any]:
    """The body of `/api/chat`."""
    body: dict[str, Any] = {"model": model, "messages": _messages(messages)}
    if options.tool_choice not in (None, "auto", "none"):
        raise UnsupportedOperationError(
            "Ollama has no way to ask for a certain tool", next_step="Leave tool_choice out, and the model chooses."
        )
    if options.tools and options.tool_choice != "none":
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in options.tools
        ]
    return with_options(body, options)


def completion_body(prompt: str, model: str, options: GenerationOptions) -> dict[str, Any]:
    """The body of `/api/generate`; raw, so that no template is put around the text."""
    return with_options({"model": model, "prompt": prompt, "raw": True}, options)


def with_options(body: dict[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """A body with the options in Ollama's places. Newer servers obey when a prompt shall not be cut, and when
    the room that an answer lacks shall not be made by forgetting the prompt.
    """
    inner: dict[str, Any] = {}
    for ours, theirs in (
        ("temperature", "temperature"),
        ("max_tokens", "num_predict"),
        ("top_p", "top_p"),
        ("seed", "seed"),
    ):
        if (value := getattr(options, ours)) is not None:
            inner[theirs] = value
    if options.stop:
        inner["stop"] = list(options.stop)
    inner.update({key: value for key, value in options.extra.items() if key not in TOP_LEVEL})
    body |= {"stream": True, "truncate": False, "shift": False, "options": inner}
    if options.think is not None:
        body["think"] = options.think
    if options.json_schema is not None:
        body["format"] = dict(options.json_schema)
    return body | {key: value for key, value in options.extra.items() if key in TOP_LEVEL}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in Ollama's form; what a tool returned carries that tool's name, which older servers go by."""
    tools = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_message(message, tools.get(message.tool_call_id or "")) for message in messages]


def _message(message: Message, tool: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.images:
        body["images"] = [base64.b64encode(image.data).decode() for image in message.images]
    if message.tool_calls:
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if name := message.name or tool:
        body["tool_name"] = name
    return body


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = call.parsed_arguments()
    except ValueError:
        raise InvalidInputError(f"the arguments of the call of {call.name!r} are no JSON object") from None
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def refuses_to_cut(version: str) -> bool:
    """Whether a server of that version obeys `truncate: false`; 0.12.6 was the first."""
    parts = version.partition("-")[0].split(".")
    try:
        return tuple(int(part) for part in parts) >= (0, 12, 6)
    except ValueError:
        return False


def model_entry(entries: Iterable[ModelEntry], model: str) -> ModelEntry | None:
    """The entry of a model; `:latest` may be left out of its name."""
    return next((entry for entry in entries if same_model(entry.name, model)), None)


def same_model(listed: str, asked: str) -> bool:
    """Whether two names mean one model: `:latest` may be left out."""
    return listed.removesuffix(":latest") == asked.removesuffix(":latest")
