"""A prompt that does not fit is an error with both counts, on a real Ollama that would cut it without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from kind_scripts import ndjson
from servers.real_ollama import Ollama
from servers.scripted import Request, Script, ScriptedServer, reply

from llm_jupyter.errors import ContextExceededError
from llm_jupyter.providers._ollama_window import least_tokens, most_tokens
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import GenerationOptions, Message

WINDOW = 48
BRIEF = GenerationOptions(temperature=0.0, max_tokens=2)
user, assistant = Message.user, Message.assistant


@pytest_asyncio.fixture
async def provider(ollama: Ollama) -> AsyncIterator[OllamaProvider]:
    async with OllamaProvider("ollama", ollama.url, context=WINDOW) as provider:
        yield provider


async def refused(provider: OllamaProvider, model: str, prompt: Any) -> ContextExceededError:
    with pytest.raises(ContextExceededError) as caught:
        await provider.generate_chat_completion(prompt, model=model, options=BRIEF)
    assert caught.value.partial_text == ""
    assert caught.value.context_length == WINDOW
    assert caught.value.prompt_tokens is not None
    assert caught.value.prompt_tokens >= WINDOW
    assert 1 <= len(caught.value.lines()) <= 3
    return caught.value


async def test_three_windows_of_words_are_refused_with_both_counts(provider: OllamaProvider, ollama: Ollama) -> None:
    error = await refused(provider, ollama.model, "ship " * (3 * WINDOW))
    assert error.prompt_tokens == 3 * WINDOW
    with pytest.raises(ContextExceededError):
        await provider.generate_completion("ship " * (3 * WINDOW), model=ollama.model, options=BRIEF)


async def test_three_windows_without_a_blank_are_known_by_what_the_server_read(
    provider: OllamaProvider, ollama: Ollama
) -> None:
    await refused(provider, ollama.model, "a1b2" * WINDOW)
    with pytest.raises(ContextExceededError, match="whole window of 48"):
        await provider.generate_completion("船在海上。" * WINDOW, model=ollama.model, options=BRIEF)


async def test_a_conversation_whose_oldest_message_would_be_dropped_is_refused(
    provider: OllamaProvider, ollama: Ollama
) -> None:
    grown = [user("ship " * 14), assistant("sea " * 12), user("ship " * 14), assistant("Yes."), user("Why?")]
    error = await refused(provider, ollama.model, grown)
    assert error.prompt_tokens == WINDOW + 1
    system = [Message.system("You are a sailor."), *grown]
    await refused(provider, ollama.model, system)


async def test_what_fits_closely_is_answered(provider: OllamaProvider, ollama: Ollama) -> None:
    fits = [user("ship " * 9), assistant("sea " * 6), user("ship " * 5)]
    answer = await provider.generate_chat_completion(fits, model=ollama.model, options=BRIEF)
    assert answer.usage.prompt_tokens
    assert WINDOW - 12 < answer.usage.prompt_tokens < WINDOW
    single = await provider.generate_chat_completion(" ship" * (WINDOW - 10), model=ollama.model, options=BRIEF)
    assert single.usage.prompt_tokens == WINDOW - 1


BLANKS = {
    "spaces": " " * 2000 + "hi",
    "lines": "hi" + "\n" * 60,
    "dashes": "-" * 200,
    "marks": "हिन्दी",
    "one piece": "ab" * 20,
}


@pytest.mark.parametrize("text", BLANKS.values(), ids=BLANKS)
async def test_much_white_space_and_long_pieces_are_no_false_alarm(
    provider: OllamaProvider, ollama: Ollama, text: str
) -> None:
    answer = await provider.generate_chat_completion(text, model=ollama.model, options=BRIEF)
    assert answer.usage.prompt_tokens
    assert answer.usage.prompt_tokens < WINDOW


@given(st.text(max_size=200))
def test_the_bounds_are_in_order(text: str) -> None:
    assert 0 <= least_tokens([user(text)]) <= len(text) <= most_tokens(user(text))


# -- what is sent: on scripted servers


class Server:
    """A scripted Ollama that reads every request as so many tokens as `reads` says, and remembers what it was asked."""

    def __init__(self, reads: Any, version: str = "0.9.3", declared: int = 4096) -> None:
        self.asked: list[dict[str, Any]] = []
        self._reads = reads
        self._asides = {
            "/api/show": {"details": {}, "model_info": {"llama.context_length": declared}},
            "/api/version": {"version": version},
        }

    def __call__(self, request: Request) -> Script:
        if request.path in self._asides:
            return reply(self._asides[request.path])
        self.asked.append(request.json())
        count = self._reads(self.asked[-1])
        if isinstance(count, str):
            return reply({"error": count}, 400)
        return ndjson({"message": {"content": "ok"}}, {"done": True, "prompt_eval_count": count, "eval_count": 1})


def in_words(body: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) + 5 for message in body["messages"])


async def ask(server: Server, *prompts: Any, context: int | None = 500) -> None:
    async with ScriptedServer(server) as scripted:
        provider = OllamaProvider("ollama", scripted.origin, context=context)
        try:
            for prompt in prompts:
                await provider.generate_chat_completion(prompt, model="m", options=BRIEF)
        finally:
            await provider.disconnect()


async def test_words_that_are_too_many_are_never_sent() -> None:
    server = Server(in_words)
    with pytest.raises(ContextExceededError, match="at least 501 tokens do not fit into its window of 500"):
        await ask(server, "a " * 501)
    assert server.asked == []


async def test_a_short_prompt_is_sent_once_and_a_long_one_is_measured_first() -> None:
    server = Server(in_words)
    await ask(server, "short", "seven letters " * 50)
    assert [body["options"]["num_predict"] for body in server.asked] == [2, 1, 2]
    assert {body["options"]["num_ctx"] for body in server.asked} == {500}


async def test_a_conversation_that_grows_is_measured_once() -> None:
    server = Server(in_words)
    first = user("seven letters " * 50)
    await ask(server, [first], [first, assistant("ok"), user("More?")])
    assert [body["options"]["num_predict"] for body in server.asked] == [1, 2, 2]


async def test_a_server_that_obeys_is_not_measured_and_its_refusal_has_both_counts() -> None:
    server = Server(in_words, version="0.12.6")
    await ask(server, "seven letters " * 50)
    assert len(server.asked) == 1
    assert (server.asked[0]["truncate"], server.asked[0]["shift"]) == (False, False)
    server = Server(lambda body: "the input length exceeds the context length", version="0.30.0-rc1")
    with pytest.raises(ContextExceededError) as caught:
        await ask(server, "seven letters " * 100)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (501, 500)


async def test_a_count_that_fills_the_window_is_an_error_even_where_it_comes_late() -> None:
    with pytest.raises(ContextExceededError, match="whole window of 500"):
        await ask(Server(lambda body: 500), "short")


async def test_old_messages_that_were_dropped_are_noticed() -> None:
    talk = [user("a " * 200), assistant("b " * 200), user("c " * 80), assistant("d"), user("e")]
    kept = sum(len(m.content.split()) + 5 for m in talk[1:])
    server = Server(lambda body: min(in_words(body), kept))
    with pytest.raises(ContextExceededError, match="at least 501"):
        await ask(server, talk)
    assert [len(body["messages"]) for body in server.asked] == [5, 4]
    assert all(body["options"]["num_predict"] == 1 for body in server.asked)


@pytest.mark.parametrize(
    ("context", "declared", "asked"), [(None, 131072, 8192), (None, 2048, 2048), (9000, 2048, 2048)]
)
async def test_the_window_asked_for_is_one_that_the_model_has(context: int | None, declared: int, asked: int) -> None:
    server = Server(in_words, declared=declared)
    await ask(server, "short", "shorter", context=context)
    assert [body["options"]["num_ctx"] for body in server.asked] == [asked, asked]
