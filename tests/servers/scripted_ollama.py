"""An Ollama that has the models that a test gives it, in the words of newer servers than the one that really runs.

with ScriptedOllama(entry("big:70b", size=10**15), entry("far:cloud")) as server:
    environment = {"OLLAMA_HOST": server.origin}
"""

from __future__ import annotations

import json
from typing import Any

from servers.scripted import Pause, Request, Script, ScriptedServer, reply, sse

CHAT = ("completion",)


def entry(name: str, **fields: Any) -> dict[str, Any]:
    """One model as `/api/tags` lists it; `fields` replace what is usual."""
    usual = {
        "name": name, "model": name, "modified_at": "2026-01-01T00:00:00Z", "size": 98_363_007, "digest": name,
        "details": {"parameter_size": "134.52M", "quantization_level": "Q4_1", "context_length": 8192},
        "capabilities": list(CHAT),
    }  # fmt: skip
    return {**usual, **fields}


class ScriptedOllama(ScriptedServer):
    """`/api/tags ps show version generate chat`. `loaded`: what `/api/ps` says of models that are in memory."""

    def __init__(self, *models: dict[str, Any], slow_show: float = 0.0) -> None:
        self.models = list(models)
        self.loaded: dict[str, dict[str, Any]] = {}
        self._slow_show = slow_show
        super().__init__(self._script)

    @property
    def chats(self) -> list[str]:
        """The models that were asked."""
        return [request.json()["model"] for request in self.requests if request.path == "/api/chat"]

    def _script(self, request: Request) -> Script:
        if request.path == "/api/tags":
            return reply({"models": self.models})
        if request.path == "/api/ps":
            running = [{**model, **self.loaded[model["name"]]} for model in self.models if model["name"] in self.loaded]
            return reply({"models": running})
        if request.path == "/api/version":
            return reply({"version": "0.33.0"})
        body = request.json() if request.body else {}
        model = next((model for model in self.models if model["name"] == body.get("model")), None)
        if model is None:
            return reply({"error": f"model '{body.get('model')}' not found"}, 404)
        if request.path == "/api/show":
            shown = {key: model[key] for key in ("details", "capabilities", "remote_host") if key in model}
            return [Pause(self._slow_show), *reply({"details": {}, "model_info": {}, **shown})]
        if request.path == "/api/generate":
            return reply({"model": model["name"], "response": "", "done": True, "done_reason": "load"})
        end = {"model": model["name"], "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1}
        lines = [{"message": {"content": f"I am {model['name']}"}}, {**end, "message": {"content": ""}}]
        return sse(*(json.dumps(line).encode() + b"\n" for line in lines), content_type="application/x-ndjson")
