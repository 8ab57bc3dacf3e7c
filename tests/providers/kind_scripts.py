"""The same few answers in the bytes of each kind of server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from servers.scripted import DONE, Script, answer, delta, finish, reply, sse

END = {"model": "m", "message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}


def ndjson(*objects: Any) -> Script:
    """A reply of Ollama's: one JSON text on each line."""
    return sse(*(json.dumps(one).encode() + b"\n" for one in objects), content_type="application/x-ndjson")


@dataclass
class Scripts:
    """A kind's protocol: the same three answers in its bytes, and where its requests hold what they were given."""

    calls_tool: Script
    thinks: Script
    embeds: Script
    answers: Callable[[str], Script]
    asides: dict[str, Any] = field(default_factory=dict)
    """Requests that are no questions: their paths, and the JSON that answers them."""


def _call(**fields: Any) -> bytes:
    return delta(tool_calls=[{"index": 0, **fields}])


OPENAI = Scripts(
    sse(
        _call(id="c1", type="function", function={"name": "weather", "arguments": ""}),
        *(_call(function={"arguments": piece}) for piece in ('{"ci', 'ty": "Ro', 'me"}')),
        finish("tool_calls"),
        DONE,
    ),
    sse(delta(reasoning_content="It is "), delta(reasoning_content="easy."), delta("Yes."), finish(), DONE),
    reply({"data": [{"index": 1, "embedding": [2.0, 0.5]}, {"index": 0, "embedding": [1.0, 0.0]}]}),
    answer,
)

OLLAMA = Scripts(
    ndjson({"message": {"tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]}}, END),
    ndjson(
        {"message": {"content": "", "thinking": "It is "}}, {"message": {"content": "", "thinking": "easy."}},
        {"message": {"content": "Yes."}}, END,
    ),
    reply({"model": "m", "embeddings": [[1.0, 0.0], [2.0, 0.5]]}),
    lambda text: ndjson({"message": {"content": text}}, END),
    {"/api/show": {"details": {}}, "/api/version": {"version": "0.12.6"}},
)  # fmt: skip

LMSTUDIO = replace(OPENAI, asides={"/api/v1/models": {"models": [{"key": "m", "type": "llm"}]}})
SCRIPTS = {"llamacpp": OPENAI, "lmstudio": LMSTUDIO, "ollama": OLLAMA, "openai-compatible": OPENAI}
