"""A server's error replies, as typed errors: one function for every status, body and mid-stream error object."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    DiskFullError,
    InsufficientMemoryError,
    LLMConnectionError,
    LLMError,
    ModelLoadingError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
)

_MEMORY = re.compile(r"requires more system memory \(([\d.]+) (\w+)\) than is available \(([\d.]+) (\w+)\)")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON, of the wrong shape, no UTF-8, or nested without end."""

# Servers that give the counts only in prose: OpenAI, vLLM (four wordings), llama.cpp, LM Studio.
_LIMIT = re.compile(r"context (?:length (?:is|of)(?: only)? |size \()(\d+)")
_USED = re.compile(
    r"(\d+) (?:in the messages|in your prompt|(?:of text )?input)"
    r"|(?:resulted in|request \(|keep the first) ?(\d+) tokens"
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
    if "context" in kind or _LIMIT.search(words):
        return _context_exceeded(status, fields, message, where)
    if (lacking := _machine_error(message, where)) is not None:
        return lacking
    if status in (401, 403) or "authentication" in kind:
        return _refused(status, message, where)
    if "model_not_found" in kind or (status == 404 and "model" in words):
        return ModelNotFoundError(
            message or "the server does not know that model", where=where, next_step="%llm models lists what is there."
        )
    if status == 503 and "loading" in words:
        return ModelLoadingError(
            "the server is still loading the model", where=where, next_step="Ask again in a moment."
        )
    if status == 429:
        wait = f"in {retry_after:g} s" if retry_after else "in a moment"
        return RateLimitedError(
            f"too many requests{said}",
            where=where,
            status=status,
            retry_after=retry_after,
            next_step=f"Ask again {wait}.",
        )
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
            next_step="Is base_url right? That of an OpenAI-compatible server usually ends in /v1.",
        )
    return RequestError(f"the server refused the request (HTTP {status}){said}", where=where, status=status)


def _refused(status: int, message: str, where: str) -> LLMError:
    if status == 403 and not message:
        return LLMConnectionError(
            "the server refuses this host name (HTTP 403 with an empty reply)",
            where=where,
            next_step="Ollama answers so to names it does not expect: use 127.0.0.1 in base_url, or set OLLAMA_ORIGINS.",
        )
    code = "" if status == 200 else f" (HTTP {status})"
    return AuthenticationError(
        f"the server refused the key{code}{f': {message}' if message else ''}",
        where=where,
        next_step="Set api_key_env for this provider to the variable that holds a valid key.",
    )


def _machine_error(message: str, where: str) -> LLMError | None:
    """What the server's machine lacks, told only in words."""
    words = message.lower()
    if found := _MEMORY.search(message):
        needed, free = (round(float(found[n]) * _UNITS[found[n + 1]]) for n in (1, 3))
        return InsufficientMemoryError(
            f"the model does not fit into memory: it needs {found[1]} {found[2]}, {found[3]} {found[4]} are free",
            needed=needed,
            free=free,
            where=where,
            next_step="Choose a smaller model, or unload another: %llm unload MODEL",
        )
    if "no space left on device" in words:
        return DiskFullError("the server's disk is full", where=where, next_step="Make room, then try again.")
    died = "runner" in words and ("terminated" in words or "unexpectedly stopped" in words)
    if died or "unexpected eof" in words:
        return ServerError(
            f"the process that runs the model died: {message}",
            where=where,
            next_step="Ask again: the server starts it anew. If it dies again, memory is likely short.",
        )
    return None


def _context_exceeded(status: int, fields: Mapping[str, Any], message: str, where: str) -> ContextExceededError:
    used, limit = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if not isinstance(used, int) or not isinstance(limit, int):
        used, limit = _number(_USED.search(message)), _number(_LIMIT.search(message))
    if not (used and limit):
        what, next_step = f"the prompt is too long for the model: {message}", "Shorten it"
    elif used > limit:
        what = f"the prompt is too long for the model: {used} tokens do not fit into its window of {limit}"
        next_step = "Shorten it"
    else:
        what = f"no room is left for the answer: the prompt takes {used} of {limit} tokens, and more were asked for"
        next_step = "Ask for less with --max-tokens, shorten the prompt"
    return ContextExceededError(
        what,
        where=where,
        status=status,
        prompt_tokens=used,
        context_length=limit,
        next_step=f"{next_step}, or leave out the conversation so far: --no-history.",
    )


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[found.lastindex or 0]) if found else None


def _error_fields(raw: bytes) -> tuple[Mapping[str, Any], str]:
    """The error object of a body, and its message; bodies come as objects, as strings, as text and as HTML."""
    try:
        body = msgspec.json.decode(raw)
    except UNDECODABLE:
        return {}, excerpt(raw)
    return error_object(body.get("error", body) if isinstance(body, dict) else body)


def error_object(error: Any) -> tuple[Mapping[str, Any], str]:
    """An `error` field as a mapping and its message, cut at 200 characters."""
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error.get("error") or ""
        return error, one_line(str(message))
    return {}, one_line(str(error))


def excerpt(raw: bytes) -> str:
    """The first 200 characters of a body, on one line."""
    return one_line(raw[:1000].decode("utf-8", "replace"))


def one_line(text: str) -> str:
    """At most 200 characters, with nothing in them that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text[:1000].split())[:200])


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after) if retry_after else math.nan
    except ValueError:
        return None  # an HTTP date: rare from model servers, and no wait is better than a wrong one
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
