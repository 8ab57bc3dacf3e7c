"""The values that travel through llm_jupyter.

They are frozen, compare by content, and know nothing of storage, network or display. They are `msgspec.Struct`s: a
`Chunk` is made for every token, and a struct costs a tenth of a dataclass with validation; `msgspec.json` encodes them.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec


class Role(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Capability(StrEnum):
    """What a model or a provider can do."""

    CHAT = "chat"
    COMPLETION = "completion"
    TOOLS = "tools"
    VISION = "vision"
    THINKING = "thinking"
    EMBEDDING = "embedding"
    JSON_SCHEMA = "json-schema"
    MODEL_MANAGEMENT = "model-management"


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    INTERRUPTED = "interrupted"
    OTHER = "other"


class Image(msgspec.Struct, frozen=True):
    """A picture in a message: its bytes and media type (`image/png`, ...)."""

    data: bytes
    media_type: str = "image/png"

    @classmethod
    def from_file(cls, path: str | Path) -> Image:
        """Read a picture from disk. Raises `OSError` if it cannot be read, `ValueError` if its name is no image's."""
        media_type, _ = mimetypes.guess_type(str(path))
        if media_type is None or not media_type.startswith("image/"):
            raise ValueError(f"{path} does not look like an image")
        return cls(Path(path).read_bytes(), media_type)

    @property
    def data_url(self) -> str:
        """The picture as a `data:` URL, as the OpenAI protocol carries it."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asks for; `arguments` is JSON text, whole once the answer is complete."""

    id: str
    name: str
    arguments: str

    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments as a dictionary. Raises `ValueError` if the model wrote no valid JSON object."""
        return msgspec.json.decode(self.arguments or "{}", type=dict[str, Any])


class ToolCallDelta(msgspec.Struct, frozen=True):
    """One piece of a tool call as a stream delivers it: pieces with one `index` belong together."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Role
    content: str = ""
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @classmethod
    def system(cls, content: str) -> Message:
        """The instructions that stand before a conversation."""
        return cls(Role.SYSTEM, content)

    @classmethod
    def user(cls, content: str, images: Sequence[Image] = ()) -> Message:
        """What the person says."""
        return cls(Role.USER, content, images=tuple(images))

    @classmethod
    def assistant(cls, content: str, tool_calls: Sequence[ToolCall] = ()) -> Message:
        """What the model said."""
        return cls(Role.ASSISTANT, content, tool_calls=tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, tool_call_id: str) -> Message:
        """What a tool returned for the call with that id."""
        return cls(Role.TOOL, content, tool_call_id=tool_call_id)


MessageLike = Message | Mapping[str, Any]


def as_messages(messages: Sequence[MessageLike] | str) -> list[Message]:
    """Messages from a string (one user message), `Message`s or mappings with `role` and `content`.

    Raises `ValueError` for anything else, naming the offending entry.
    """
    if isinstance(messages, str):
        return [Message.user(messages)]
    result: list[Message] = []
    for position, entry in enumerate(messages):
        if isinstance(entry, Message):
            result.append(entry)
            continue
        try:
            result.append(msgspec.convert(dict(entry), Message))
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise ValueError(f"message {position} is not {{'role': ..., 'content': ...}}: {error}") from None
    if not result:
        raise ValueError("there is no message to send")
    return result


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the server reported them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    thinking_tokens: int | None = None


class Timing(msgspec.Struct, frozen=True):
    """Seconds, measured by the client unless the field says otherwise.

    `first_token` and `total` count from the request; `prompt` and `generation` are the server's own figures where it
    reports them; `tokens_per_second` is the server's, else computed from usage and the time after the first token.
    """

    first_token: float | None = None
    total: float | None = None
    prompt: float | None = None
    generation: float | None = None
    tokens_per_second: float | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """What one server delta brought. The last chunk of a stream carries `finish_reason`, `usage` and `timing`."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timing: Timing | None = None
    model: str | None = None


class LLMResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    `provider/model` answered; `tried` names those that were asked before and failed; `from_cache` is true for a
    replayed answer, whose `timing` is what was measured when it was recorded. `finish_reason` is `interrupted` where the
    person stopped it: `text` is then what had arrived.
    """

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    usage: Usage = Usage()
    timing: Timing = Timing()
    model: str = ""
    provider: str = ""
    is_local: bool = True
    from_cache: bool = False
    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> Message:
        """The answer as the assistant's message of the next request. Thinking is not sent back."""
        return Message.assistant(self.text, self.tool_calls)

    def json(self) -> Any:
        """The text parsed as JSON, for answers asked for with `json_schema`. Raises `ValueError` if it is none."""
        return msgspec.json.decode(self.text)


class ToolDefinition(msgspec.Struct, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = {}


class GenerationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to generate; `None` leaves the server's default.

    `timeout` is in seconds to the first token (default 300); `think` asks for or forbids thinking where the model
    can; `json_schema` makes the answer follow a schema; `extra` goes into the request body as it stands.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    timeout: float | None = None
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: str | None = None
    json_schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = {}

    def merged_over(self, other: GenerationOptions) -> GenerationOptions:
        """These options, with `other`'s values where these say nothing."""
        defaults = GenerationOptions()
        ours = {
            field: value
            for field in self.__struct_fields__
            if (value := getattr(self, field)) != getattr(defaults, field)
        }
        if self.extra and other.extra:
            ours["extra"] = {**other.extra, **self.extra}
        return msgspec.structs.replace(other, **ours)


class LLMModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model; `None` where the server does not tell.

    `context_length` is the declared window in tokens, `effective_context` the one it is loaded with, `parameters` the
    number of weights, `size` bytes on disk or in memory, `modified` when it last changed on its server (ISO 8601), `digest` what stands for its weights.
    """

    id: str
    name: str
    provider: str
    is_local: bool
    capabilities: frozenset[Capability] = frozenset()
    parameters: int | None = None
    context_length: int | None = None
    effective_context: int | None = None
    quantization: str | None = None
    license: str | None = None
    size: int | None = None
    loaded: bool | None = None
    modified: str | None = None
    digest: str | None = None

    @property
    def full_name(self) -> str:
        """`provider/model`, as people type it."""
        return f"{self.provider}/{self.id}"


class ProviderState(StrEnum):
    """What a provider's connection is doing."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    LOADING = "loading"
    CONNECTED = "connected"
    DEGRADED = "degraded"
    FAILED = "failed"


class LLMProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's state; `since` is seconds since the epoch, `latency` the last round trip in seconds.

    Being there, being ready and being live are three things: `state` tells of the first two, and `is_live` whether a
    model answered the last request (`None` before the first one).
    """

    name: str
    state: ProviderState
    since: float
    is_local: bool
    reason: str = ""
    latency: float | None = None
    base_url: str | None = None
    is_live: bool | None = None


class PullProgress(msgspec.Struct, frozen=True):
    """How far a download of a model is, in bytes; `total` is `None` until the server has told."""

    status: str
    completed: int = 0
    total: int | None = None
