"""A model server on loopback: it lists its models and answers chats, as told or with an echo.

with ModelServer() as server:
    server.next(answer("Hel", "lo"))        # what the next chat gets, instead of an echo
    ...
    server.chats[-1]["messages"]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from servers.scripted import (
    DONE,
    End,
    Pause,
    Request,
    Script,
    ScriptedServer,
    Step,
    answer,
    delta,
    event,
    finish,
    reply,
    sse,
)


class ModelServer(ScriptedServer):
    """`/v1/models`, `/v1/chat/completions` and `/v1/completions`."""

    def __init__(self, models: Sequence[str] = ("m", "other-model")) -> None:
        self.models = tuple(models)
        self._queue: deque[Script] = deque()
        super().__init__(self._script)

    def next(self, *scripts: Script) -> None:
        """What the next chats get, one script each."""
        self._queue.extend(scripts)

    def forget(self) -> None:
        """Drop scripts that were not used and what was recorded."""
        self._queue.clear()
        self.visits.clear()

    def asked(self, path: str) -> list[Any]:
        """The bodies that arrived under a path, in order."""
        return [request.json() for request in self.requests if request.method == "POST" and request.path == path]

    @property
    def chats(self) -> list[Any]:
        return self.asked("/v1/chat/completions")

    @property
    def last_prompt(self) -> str:
        return str(self.chats[-1]["messages"][-1]["content"])

    def contents(self, number: int = -1) -> list[str]:
        """The messages of one chat, without their roles."""
        return [message["content"] for message in self.chats[number]["messages"]]

    def _script(self, request: Request) -> Script:
        if request.method == "GET":
            return reply({"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]})
        if self._queue:
            return self._queue.popleft()
        if request.path == "/v1/completions":
            return sse(event({"choices": [{"text": "continued", "finish_reason": "stop"}]}), DONE)
        return answer(f"Heard: {request.json()['messages'][-1]['content']}")


def paced(texts: Iterable[str], seconds: float, *, reason: str = "stop") -> Script:
    """An answer that comes piece by piece, with a pause after each."""
    steps: list[Step] = []
    for text in texts:
        steps += [delta(text), Pause(seconds)]
    return sse(*steps, finish(reason), DONE)


def endless(text: str, seconds: float = 0.02) -> Script:
    """An answer that comes piece by piece until the client leaves (or half a minute has passed)."""
    steps: list[Step] = []
    for _ in range(int(30 / seconds)):
        steps += [delta(text), Pause(seconds)]
    return sse(*steps, End.HOLD)
