"""Error replies: one typed error each, in words that fit into a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.asking import asking, failure
from servers.scripted import reply

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    LLMError,
    MalformedResponseError,
    ModelLoadingError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
)

RECORDINGS = Path(__file__).parent / "recordings"


def said(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


TABLE: list[tuple[int, Any, type[LLMError]]] = [
    (401, said("Invalid API Key", type="authentication_error"), AuthenticationError),
    (401, "", AuthenticationError),
    (403, "<html>Forbidden</html>", AuthenticationError),
    (404, said('model "nope" not found, try pulling it first', type="api_error"), ModelNotFoundError),
    (404, said("The model `gpt-9` does not exist", code="model_not_found"), ModelNotFoundError),
    (400, said("No models loaded.", type="invalid_request_error", code="model_not_found"), ModelNotFoundError),
    (404, said("File Not Found", type="not_found_error", code=404), RequestError),
    (404, {"detail": "Not Found"}, RequestError),
    (404, "404 page not found", RequestError),
    (429, said("Rate limit reached for requests"), RateLimitedError),
    (503, said("Loading model", type="unavailable_error", code=503), ModelLoadingError),
    (503, "upstream connect error", ServerError),
    (500, said("image input is not supported"), ServerError),
    (502, "<html><h1>Bad Gateway</h1></html>", ServerError),
    (504, "", ServerError),
    (400, said("'messages' is required"), RequestError),
    (400, "[" * 100_000, RequestError),
    (400, b"\xff\xfe", RequestError),
    (422, {"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, RequestError),
    (418, "\x1b]0;owned\x07\x1b[31mteapot\u2028\u0085\n\n\n" + "x" * 5000, RequestError),
]


@pytest.mark.parametrize(("status", "body", "kind"), TABLE)
async def test_an_error_reply_is_one_typed_error_of_few_lines(status: int, body: Any, kind: type[LLMError]) -> None:
    error = await failure(reply(body, status))
    assert type(error) is kind
    assert all(line.isprintable() for line in error.lines())
    if isinstance(error, RequestError):
        assert error.status == status
    if isinstance(body, dict) and "error" in body and kind is not ModelLoadingError:
        assert body["error"]["message"] in error.what


async def test_the_wait_that_a_server_asks_for_is_told() -> None:
    for header, seconds in (("7", 7.0), ("1.5", 1.5), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("", None)):
        error = await failure(reply(said("slow down"), 429, headers=[("Retry-After", header)]))
        assert isinstance(error, RateLimitedError)
        assert error.retry_after == seconds
        assert (f"{seconds:g} s" in error.next_step) if seconds else error.next_step


WINDOW = "This model's maximum context length is 8192 tokens"
TOO_LONG: list[tuple[str, Any, int | None, int | None]] = [
    (
        "llama.cpp's counts",
        said("too long", code=400, type="exceed_context_size_error", n_prompt_tokens=9000, n_ctx=8192),
        9000,
        8192,
    ),
    (
        "llama.cpp's words",
        said("request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"),
        9000,
        8192,
    ),
    (
        "OpenAI",
        said(f"{WINDOW}. However, your messages resulted in 9000 tokens.", code="context_length_exceeded"),
        9000,
        8192,
    ),
    (
        "OpenAI with an answer's room",
        said(f"{WINDOW}. However, you requested 9100 tokens (8100 in the messages, 1000 in the completion)."),
        8100,
        8192,
    ),
    (
        "vLLM",
        {"object": "error", "message": f"{WINDOW}. However, your request has 9000 input tokens.", "code": 400},
        9000,
        8192,
    ),
    (
        "vLLM on the answer's room",
        said(f"'max_tokens' is too large: 4096. {WINDOW} and your request has 20 input tokens (4096 > 8192 - 20)."),
        20,
        8192,
    ),
    (
        "vLLM now",
        said("You passed 9000 input tokens and requested 0 output tokens. However, the model's context length is only "
             "8192 tokens, resulting in a maximum input length of 8192 tokens."),
        9000,
        8192,
    ),
    ("only a code", said("Too many tokens", code="context_length_exceeded"), None, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "used", "window"), [row[1:] for row in TOO_LONG], ids=[row[0] for row in TOO_LONG])
async def test_a_prompt_that_does_not_fit_is_told_with_both_counts(
    body: Any, used: int | None, window: int | None
) -> None:
    error = await failure(reply(body, 400))
    assert isinstance(error, ContextExceededError)
    assert (error.prompt_tokens, error.context_length, error.status) == (used, window, 400)
    for count in (used, window):
        assert count is None or str(count) in error.what
    assert ("no room" in error.what) == (used is not None and window is not None and used < window)


RECORDED = {
    "error_wrong_key": AuthenticationError,
    "error_unknown_address": RequestError,
    "error_no_messages": RequestError,
    "error_image": ServerError,
    "error_context": ContextExceededError,
}


def test_every_recorded_error_is_looked_at() -> None:
    assert {path.stem for path in RECORDINGS.glob("*.http")} == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
async def test_the_error_replies_of_a_real_server_are_understood(name: str) -> None:
    error = await failure([(RECORDINGS / f"{name}.http").read_bytes()])
    assert type(error) is RECORDED[name]
    if isinstance(error, ContextExceededError):
        assert error.prompt_tokens == 631
        assert error.context_length == 512


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"<html>login</html>", b'{"models": []}', b"[1]", b'{"data": "\xff"}', b"[" * 100_000]
)
async def test_a_list_of_models_that_is_none_is_an_error(body: bytes) -> None:
    async with asking(reply(body)) as (provider, _):
        assert not await provider.is_available()
        with pytest.raises(MalformedResponseError) as caught:
            await provider.get_available_models()
    assert 1 <= len(caught.value.lines()) <= 3
