"""Whatever a server sends in place of an answer is one typed error with its beginning in it, and never an empty success."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from servers.scripted import End, Script, ScriptedServer, answer, head, reply, sse
from servers.spoken import OPENAI, Spoken, both, failing, hearing

from llm_jupyter.errors import (
    ContextExceededError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ResponseError,
    ServerError,
    StreamTruncatedError,
)
from llm_jupyter.providers._errors import error_from_reply
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider

PAGE = "<html><body><h1>Welcome to the portal</h1>" + "<p>please log in</p>" * 50 + "</body></html>"


def broken(spoken: Spoken, raw: bytes) -> Script:
    """A good beginning, a message of these bytes, and an end as if nothing had been."""
    return spoken.script(spoken.piece("Hel"), spoken.piece("lo"), spoken.message(raw), *spoken.end)


MALFORMED: dict[str, tuple[Callable[[Spoken], Script], str]] = {
    "JSON that is none": (lambda spoken: broken(spoken, b'{"choices": nonsense}'), '{"choices": nonsense}'),
    "JSON of another shape": (lambda spoken: broken(spoken, b'{"choices": 7, "message": 7}'), '{"choices": 7'),
    "JSON without an end": (lambda spoken: broken(spoken, b'{"x": ' + b"[" * 100_000), '{"x": [[[['),
    "a terminal's codes": (
        lambda spoken: broken(spoken, "no\x1b]0;owned\x07\x1b[31m\u202e\u2028".encode()),
        "no ]0;owned",
    ),
    "invalid UTF-8": (
        lambda spoken: broken(spoken, spoken.piece("x").removeprefix(b"data: ").strip().replace(b'"x"', b'"\xff\xfe"')),
        '{"',
    ),
    "HTML": (lambda spoken: spoken.script(PAGE.encode(), content_type="text/html; charset=utf-8"), PAGE[:200]),
    "HTML that claims to be a stream": (lambda spoken: spoken.script(PAGE.encode()), PAGE[:50]),
    "HTML without a type": (
        lambda spoken: spoken.script(PAGE.encode(), content_type=None, is_chunked=False),
        PAGE[:50],
    ),
    "HTML with a length": (lambda spoken: reply(PAGE, content_type="text/html"), PAGE[:200]),
    "a type that is no stream": (
        lambda spoken: spoken.script(spoken.answer("Hello"), content_type="text/plain"),
        "text/plain",
    ),
    "no type and no stream": (lambda spoken: [head(200, None), b"\x7fELF\x01\n\n\x02", End.CLOSE], ""),
    "an empty reply": (lambda spoken: reply(b"", content_type=spoken.content_type), ""),
    "an empty reply of another type": (lambda spoken: reply(b"", content_type="text/html"), "empty"),
    "nothing but line ends": (lambda spoken: spoken.script(b"\n\r\n\n"), ""),
}


@both
@pytest.mark.parametrize("fault", MALFORMED)
async def test_what_is_no_answer_is_named_with_its_beginning(spoken: Spoken, fault: str) -> None:
    script, shown = MALFORMED[fault]
    error = await failing(spoken, script(spoken))
    assert isinstance(error, MalformedResponseError if shown else ResponseError)
    assert shown in error.what
    assert error.what.isprintable()


async def test_another_protocols_stream_is_named_as_what_it_is() -> None:
    lines = sse(b'{"message": {"content": "a"}}\n' * 30, content_type="application/x-ndjson")
    error = await failing(OPENAI, lines)
    assert isinstance(error, MalformedResponseError)
    assert '{"message"' in error.what
    assert isinstance(await failing(OPENAI, reply({"choices": []})), MalformedResponseError)


@both
async def test_no_more_than_two_hundred_characters_of_it_are_shown(spoken: Spoken) -> None:
    error = await failing(spoken, reply("x" * 199 + "yz" + "x" * 800, content_type="text/html"))
    assert "x" * 199 + "y" in error.what
    assert "z" not in error.what.rpartition("x")[2]
    assert "yz" not in error.what


@both
async def test_what_came_before_a_malformed_message_is_kept(spoken: Spoken) -> None:
    error = await failing(spoken, broken(spoken, b"nonsense"))
    assert isinstance(error, MalformedResponseError)
    assert error.partial_text == "Hello"


@both
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"error": {"message": "out of memory", "type": "server_error", "code": 500}}, ServerError),
        ({"error": "out of memory"}, ServerError),
        ({"error": {"message": "x", "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}},
         ContextExceededError),
    ],
    ids=["object", "text", "context"],
)  # fmt: skip
async def test_an_error_object_in_mid_stream_ends_the_answer_with_that_error(
    spoken: Spoken, said: dict[str, object], kind: type[LLMError]
) -> None:
    error = await failing(spoken, spoken.script(spoken.piece("Hello"), spoken.message(said), *spoken.end))
    assert type(error) is kind
    assert error.partial_text == "Hello"


@both
async def test_chunks_that_arrived_with_an_error_are_handed_on_before_it(spoken: Spoken) -> None:
    script = spoken.script(
        spoken.piece("Hel") + spoken.piece("lo") + spoken.message({"error": {"message": "out of memory"}})
    )
    async with hearing(spoken, script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        with pytest.raises(ServerError, match="out of memory"):
            await anext(stream)


@both
@pytest.mark.parametrize("status", range(201, 600, 23))
async def test_no_status_but_200_is_ever_an_answer(spoken: Spoken, status: int) -> None:
    for body in (b"", b"{}", b"null", b"[]", spoken.answer("Hello")):
        assert isinstance(error_from_reply(status, body, {}, "p"), LLMError)
    script = [head(status, spoken.content_type), spoken.answer("Hello"), End.CLOSE]
    error = await failing(spoken, script)
    assert error.partial_text == ""


# -- before there is any answer


async def test_the_connection_to_nobody_fails_at_once() -> None:
    async with ScriptedServer(answer("x")) as server:
        url = server.base_url
    provider = OpenAICompatibleProvider("local", url)
    started = time.monotonic()
    with pytest.raises(LLMConnectionError, match="refused") as caught:
        await provider.generate_chat_completion("hi", model="m")
    assert time.monotonic() - started < 0.5
    await provider.disconnect()
    assert len(caught.value.lines()) == 2


@both
@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_server_that_hangs_up_before_it_answers_is_a_connection_error(spoken: Spoken, end: End) -> None:
    assert isinstance(await failing(spoken, [end]), LLMConnectionError)
    assert isinstance(await failing(spoken, [b"HTTP/1.1 200 OK\r\nContent-", end]), LLMConnectionError)


@both
async def test_what_is_no_http_server_is_said_to_be_none(spoken: Spoken) -> None:
    assert isinstance(await failing(spoken, [b"SSH-2.0-OpenSSH_9.2\r\n", End.HOLD]), MalformedResponseError)


@both
async def test_a_stream_of_signs_of_life_alone_is_no_answer(spoken: Spoken) -> None:
    assert isinstance(await failing(spoken, spoken.script(*[b"\n"] * 20)), StreamTruncatedError)
