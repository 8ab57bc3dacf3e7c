"""A server with one model, which repeats what it is asked, word by word; it speaks OpenAI's protocol and wants a key.

with ScriptedServer(echo) as server:
    provider = OpenAICompatibleProvider("local", server.base_url, KEY)
"""

from __future__ import annotations

from servers.scripted import DONE, Request, Script, delta, event, finish, reply, sse

KEY = "sk-right-key"
ODD = "né🙂\u2028"
"""Stands in every answer: characters of two, four and three bytes, and one that some take for the end of a line."""


def echo(request: Request) -> Script:
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return reply({"error": {"message": "Invalid API Key"}}, 401)
    if request.path == "/api/v1/models":  # as LM Studio tells of it
        return reply({"models": [{"key": "m", "type": "llm", "loaded_instances": [{"id": "m", "config": {}}]}]})
    if request.method == "GET":
        return reply({"data": [{"id": "m", "object": "model"}]})
    body = request.json()
    if body["model"] != "m":
        return reply({"error": {"message": f"model {body['model']!r} not found"}}, 404)
    asked = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
    words = f"you said: {ODD} {asked[-1]}".split(" ")
    kept = words[: body.get("max_tokens", 99)]
    usage = {"prompt_tokens": sum(len(text.split()) + 2 for text in asked), "completion_tokens": len(kept)}
    said = [_spoken(word, "prompt" in body) for word in kept]
    reason = "stop" if kept == words else "length"
    return sse(*said, finish(reason), event({"choices": [], "usage": usage, "model": "m"}), DONE)


def _spoken(word: str, is_raw: bool) -> bytes:
    return event({"choices": [{"text": f"{word} "}]}) if is_raw else delta(f"{word} ")
