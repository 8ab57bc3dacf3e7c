"""A server's error replies, as typed errors: one function for every status, body and mid-stream error object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    LLMError,
    ModelLoadingError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
)

# The words of servers that give the counts only in prose: OpenAI and vLLM, then llama.cpp.
_CONTEXT_WORDS = re.compile(
    r"maximum context length is (?P<limit>\d+) tokens.*?(?P<used>\d+) (?:tokens|input tokens|in the messages)"
    r"|request \((?P<used2>\d+) tokens\) exceeds the available context size \((?P<limit2>\d+) tokens\)",
    re.DOTALL,
)


def error_from_reply(status: int, raw: bytes, headers: Mapping[str, str], where: str) -> LLMError:
    """The error that a reply with an error status means."""
    fields, message = _error_fields(raw)
    return error_from_fields(status, fields, message, where, retry_after=_seconds(headers.get("Retry-After")))


def error_from_fields(
    status: int, fields: Mapping[str, Any], message: str, where: str, *, retry_after: float | None = None
) -> LLMError:
    """The error that a status with an error object means; also for objects in mid-stream, whose status is 200."""
    kind = f"{fields.get('type', '')} {fields.get('code', '')}".lower()
    words = message.lower()
    said = f": {message}" if message else ""
    if "context" in kind or "exceeds the available context" in words or "maximum context length" in words:
        return _context_exceeded(status, fields, message, where)
    if status in (401, 403) or "authentication" in kind:
        return AuthenticationError(
            f"the server refused the key (HTTP {status}){said}"
            if status != 200
            else f"the server refused the key{said}",
            where=where,
            next_step="Set api_key_env for this provider to the variable that holds a valid key.",
        )
    if "model_not_found" in kind or (status == 404 and "model" in words):
        return ModelNotFoundError(
            message or "the server does not know that model", where=where, next_step="%llm models lists what is there."
        )
    if status == 503 and "loading" in words:
        return ModelLoadingError(
            "the server is still loading the model", where=where, next_step="Ask again in a moment."
        )
    if status == 429:
        wait = f" It asks to wait {retry_after:g} s." if retry_after else ""
        return RateLimitedError(f"too many requests{said}.{wait}", where=where, status=status, retry_after=retry_after)
    if status >= 500 or status == 200:
        return ServerError(
            f"the server failed{said}" if status == 200 else f"the server failed (HTTP {status}){said}",
            where=where,
            status=status,
        )
    if status == 404:
        return RequestError(
            f"the server has no such address (HTTP 404){said}",
            where=where,
            status=status,
            next_step="Is base_url right? It usually ends in /v1.",
        )
    return RequestError(f"the server refused the request (HTTP {status}){said}", where=where, status=status)


def _context_exceeded(status: int, fields: Mapping[str, Any], message: str, where: str) -> ContextExceededError:
    used, limit = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if not isinstance(used, int) or not isinstance(limit, int):
        found = _CONTEXT_WORDS.search(message)
        used = int(found["used"] or found["used2"]) if found else None
        limit = int(found["limit"] or found["limit2"]) if found else None
    counts = f"{used} tokens do not fit into its window of {limit}" if used and limit else message
    return ContextExceededError(
        f"the prompt is too long for the model: {counts}",
        where=where,
        status=status,
        prompt_tokens=used,
        context_length=limit,
        next_step="Shorten it, or start a fresh conversation: %llm reset.",
    )


def _error_fields(raw: bytes) -> tuple[Mapping[str, Any], str]:
    """The error object of a body, and its message; bodies come as objects, as strings, as text and as HTML."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}, excerpt(raw)
    return error_object(body.get("error", body) if isinstance(body, dict) else body)


def error_object(error: Any) -> tuple[Mapping[str, Any], str]:
    """An `error` field as a mapping and its message, cut at 200 characters."""
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error.get("error") or ""
        return error, " ".join(str(message).split())[:200]
    return {}, " ".join(str(error).split())[:200]


def excerpt(raw: bytes) -> str:
    """The first 200 characters of a body, on one line."""
    return " ".join(raw[:1000].decode("utf-8", "replace").split())[:200]


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None  # an HTTP date: rare from model servers, and no wait is better than a wrong one
