"""What every provider must do, as cases that run against a real server.

A test module makes a `Subject` for each kind of provider, offers it as the fixture `subject`, and inherits `Contract`.
Each case says which methods of `LLMProvider` it covers; `covered_by` gathers them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from llm_jupyter import errors
from llm_jupyter.errors import LLMError
from llm_jupyter.events import ConnectionStateChanged
from llm_jupyter.providers import provider_class
from llm_jupyter.providers.base import ChunkStream, LLMProvider
from llm_jupyter.types import Capability, Chunk, FinishReason, GenerationOptions, LLMResponse, Message, ProviderState

Case = TypeVar("Case", bound=Callable[..., Any])

EXACT = GenerationOptions(temperature=0.0, seed=1, max_tokens=24, extra={"cache_prompt": False})
BRIEF = GenerationOptions(temperature=0.0, max_tokens=2)
ENDLESS = GenerationOptions(max_tokens=400, extra={"ignore_eos": True})
QUESTION = "Name the capital of France."
OPENING = "Count: 1, 2, 3, 4, 5,"


@dataclass
class Subject:
    """A connected provider, and what is known of the server behind it.

    `is_busy` tells whether that server computes, `rendered` what a conversation looks like to the model and how many
    tokens it is: both past the provider. `knows` is what the server tells of the model, by the fields of `LLMModelInfo`.
    `stops_within` is in seconds.
    """

    provider: LLMProvider
    model: str
    base_url: str
    is_busy: Callable[[], Awaitable[bool]]
    rendered: Callable[[list[dict[str, Any]]], Awaitable[tuple[str, int]]]
    knows: dict[str, Any]
    refuses_unknown_models: bool
    checks_keys: bool = True
    gives_advice: bool = False
    fetches: bool = False
    stops_within: float = 0.3

    def at(self, base_url: str, api_key: str | None = "wrong") -> LLMProvider:
        """A provider of the same kind at another address."""
        return provider_class(self.provider.kind)("other", base_url, api_key)  # type: ignore[call-arg]


def covers(*methods: str) -> Callable[[Case], Case]:
    """Marks a case with the methods of `LLMProvider` that it is about."""

    def mark(case: Case) -> Case:
        case.covers = methods  # type: ignore[attr-defined]
        return case

    return mark


def covered_by(*cases: Any) -> set[str]:
    """The methods that these functions, and the functions of these classes and modules, cover."""
    functions = [getattr(case, name) for case in cases for name in dir(case) if name.startswith("test_")]
    marked = [getattr(function, "covers", ()) for function in (*cases, *functions)]
    return {method for methods in marked if isinstance(methods, tuple) for method in methods}


async def whole(stream: ChunkStream) -> list[Chunk]:
    async with stream:
        return [chunk async for chunk in stream]


def closed_port() -> str:  # where nobody listens
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def well_said(error: LLMError) -> bool:
    return 1 <= len(error.lines()) <= 3 and all(error.lines())


def check_figures(response: LLMResponse, options: GenerationOptions) -> None:
    usage, timing = response.usage, response.timing
    assert usage.prompt_tokens
    assert usage.prompt_tokens > 3
    assert usage.completion_tokens
    assert 0 < usage.completion_tokens <= (options.max_tokens or 0)
    assert timing.first_token
    assert timing.total
    assert timing.first_token <= timing.total < 60
    assert timing.tokens_per_second
    assert timing.tokens_per_second > 1


@pytest.mark.asyncio(loop_scope="module")
class Contract:
    """The cases."""

    # -- the connection

    @covers("is_available", "get_status", "connect", "disconnect")
    async def test_it_connects_and_disconnects_as_often_as_one_likes(self, subject: Subject) -> None:
        provider = subject.provider
        assert await provider.is_available()
        await provider.connect()
        await provider.connect()
        status = await provider.get_status()
        assert (status.name, status.state, status.is_local) == (provider.name, ProviderState.CONNECTED, True)
        assert status.since <= time.time()
        await provider.disconnect()
        await provider.disconnect()
        await provider.connect()
        assert (await provider.generate_completion("a", model=subject.model, options=BRIEF)).text

    @covers("connect", "is_available", "get_status", "generate_chat_completion", "get_available_models")
    async def test_a_server_that_is_down_is_a_connection_error_at_once(self, subject: Subject) -> None:
        provider = subject.at(closed_port())
        started = time.perf_counter()
        for attempt in (provider.connect(), provider.get_available_models(), self._chat(provider, subject.model)):
            with pytest.raises(errors.LLMConnectionError) as caught:
                await attempt
            assert well_said(caught.value)
        assert not await provider.is_available()
        status = await provider.get_status()
        assert status.state is ProviderState.FAILED
        assert "refused" in status.reason
        assert time.perf_counter() - started < 1
        await provider.disconnect()

    @covers("connect", "is_available", "generate_chat_completion", "stream_completion")
    async def test_a_wrong_key_is_an_authentication_error_that_does_not_show_it(self, subject: Subject) -> None:
        provider = subject.at(subject.base_url, "sk-wrong-key")
        if not subject.checks_keys:
            return  # Ollama takes any
        streaming = whole(provider.stream_completion("a", model=subject.model, options=BRIEF))
        for attempt in (provider.connect(), self._chat(provider, subject.model), streaming):
            with pytest.raises(errors.AuthenticationError) as caught:
                await attempt
            assert well_said(caught.value)
            assert "sk-wrong-key" not in str(caught.value)
        assert not await provider.is_available()
        await provider.disconnect()

    @covers("observed")
    async def test_the_state_follows_what_a_request_has_shown(self, subject: Subject) -> None:
        provider = subject.at(subject.base_url)
        states: list[ProviderState] = []
        provider.publish = lambda event: isinstance(event, ConnectionStateChanged) and states.append(event.new)
        provider.observed(None)
        provider.observed(errors.ModelNotFoundError("no such model"))
        provider.observed(errors.LLMConnectionError("gone"))
        assert states == [ProviderState.CONNECTED, ProviderState.FAILED]
        await provider.disconnect()

    # -- models

    @covers("get_available_models", "get_model_info", "advice", "fetches")
    async def test_it_tells_all_that_is_known_of_its_model(self, subject: Subject) -> None:
        await subject.provider.prepare(subject.model)
        assert subject.model in [model.id for model in await subject.provider.get_available_models()]
        info = await subject.provider.get_model_info(subject.model)
        assert (info.id, info.provider, info.is_local) == (subject.model, subject.provider.name, True)
        assert info.full_name == f"{subject.provider.name}/{subject.model}"
        assert {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA} <= info.capabilities
        assert not {Capability.TOOLS, Capability.VISION, Capability.THINKING, Capability.EMBEDDING} & info.capabilities
        told = {name: getattr(info, name) for name in subject.knows}
        assert told == subject.knows
        assert (subject.provider.advice(subject.model) != "") == subject.gives_advice
        assert subject.provider.fetches(subject.model) == subject.fetches

    @covers("prepare")
    async def test_preparing_a_model_twice_is_as_good_as_once(self, subject: Subject) -> None:
        await subject.provider.prepare(subject.model)
        await subject.provider.prepare(subject.model)
        assert not await subject.is_busy()

    @covers("get_model_info", "generate_chat_completion")
    async def test_an_unknown_model_is_named_or_the_answer_says_who_answered(self, subject: Subject) -> None:
        with pytest.raises(errors.ModelNotFoundError, match="no-such-model") as caught:
            await subject.provider.get_model_info("no-such-model")
        assert well_said(caught.value)
        if subject.refuses_unknown_models:
            with pytest.raises(errors.ModelNotFoundError, match="no-such-model"):
                await self._chat(subject.provider, "no-such-model")
        else:  # llama.cpp's server answers with what it has
            assert (await self._chat(subject.provider, "no-such-model")).model == subject.model

    # -- answers

    @covers("generate_chat_completion", "stream_chat_completion")
    async def test_chat_says_the_same_whole_and_streamed(self, subject: Subject) -> None:
        ask = subject.provider
        response = await ask.generate_chat_completion(QUESTION, model=subject.model, options=EXACT)
        chunks = await whole(ask.stream_chat_completion(QUESTION, model=subject.model, options=EXACT))
        assert "Paris" in response.text
        self._same(subject, response, chunks)

    @covers("generate_completion", "stream_completion")
    async def test_raw_text_goes_on_the_same_whole_and_streamed(self, subject: Subject) -> None:
        ask = subject.provider
        response = await ask.generate_completion(OPENING, model=subject.model, options=EXACT)
        chunks = await whole(ask.stream_completion(OPENING, model=subject.model, options=EXACT))
        assert response.text.startswith(" 6, 7, 8")
        assert response.finish_reason is FinishReason.LENGTH
        assert response.usage.completion_tokens == EXACT.max_tokens
        self._same(subject, response, chunks)

    @covers("generate_completion", "stream_completion")
    async def test_a_stop_sequence_ends_the_text_before_itself(self, subject: Subject) -> None:
        options = GenerationOptions(temperature=0.0, max_tokens=40, stop=("8", "never"))
        response = await subject.provider.generate_completion(OPENING, model=subject.model, options=options)
        assert response.text.rstrip() == " 6, 7,"
        assert response.finish_reason is FinishReason.STOP

    @covers("generate_chat_completion")
    async def test_an_answer_follows_a_json_schema(self, subject: Subject) -> None:
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
            "required": ["city", "big"],
            "additionalProperties": False,
        }
        options = GenerationOptions(temperature=0.0, max_tokens=64, json_schema=schema)
        response = await subject.provider.generate_chat_completion(QUESTION, model=subject.model, options=options)
        answer = response.json()
        assert set(answer) == {"city", "big"}
        assert (type(answer["city"]), type(answer["big"])) == (str, bool)
        assert answer == json.loads(response.text)

    @covers("generate_chat_completion")
    async def test_every_message_reaches_the_model(self, subject: Subject) -> None:
        """Counted in tokens: the server's own template over these messages is as long as the prompt that it read."""
        system = "You are Zanzibar-4711, and you speak of nothing but ships, their captains and the sea."
        plain = [{"role": "user", "content": "Who are you?"}]
        told: list[Any] = [Message.system(system), *plain]
        talked = [*told, Message.assistant("A ship."), {"role": "user", "content": "Why?"}]
        counts = []
        for messages in (plain, told, talked):
            answer = await subject.provider.generate_chat_completion(messages, model=subject.model, options=BRIEF)
            sent = [m if isinstance(m, dict) else {"role": m.role, "content": m.content} for m in messages]
            prompt, tokens = await subject.rendered(sent)
            assert (system in prompt) == (messages is not plain)
            assert answer.usage.prompt_tokens == tokens
            counts.append(tokens)
        assert len(set(counts)) == 3

    @covers("generate_chat_completion", "stream_completion")
    async def test_a_prompt_beyond_the_window_is_refused_with_both_counts(self, subject: Subject) -> None:
        window = subject.knows["effective_context"]
        prompt = "ship " * (window + 50)
        raw = whole(subject.provider.stream_completion(prompt, model=subject.model, options=BRIEF))
        for attempt in (self._chat(subject.provider, subject.model, prompt), raw):
            with pytest.raises(errors.ContextExceededError) as caught:
                await attempt
            assert caught.value.context_length == window
            assert (caught.value.prompt_tokens or 0) >= window + 50
            assert well_said(caught.value)

    @covers("stream_chat_completion", "stream_completion")
    @pytest.mark.parametrize("way", ["aclose", "exception", "cancel"])
    async def test_leaving_a_stream_stops_the_server(self, subject: Subject, way: str) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            ask = subject.provider.stream_chat_completion
            async with ask(QUESTION, model=subject.model, options=ENDLESS) as stream:
                async for chunk in stream:
                    if chunk.text and not begun.is_set():
                        assert await subject.is_busy()
                        begun.set()
                        if way == "aclose":
                            await stream.aclose()
                        elif way == "exception":
                            raise RuntimeError("on purpose")

        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 20)
        left = time.monotonic()
        if way == "cancel":
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() == (way == "cancel")
        while await subject.is_busy():
            assert time.monotonic() - left < subject.stops_within
        assert subject.provider.in_flight == 0

    async def _chat(self, provider: LLMProvider, model: str, prompt: str = "hi") -> LLMResponse:
        return await provider.generate_chat_completion(prompt, model=model, options=BRIEF)

    def _same(self, subject: Subject, response: LLMResponse, chunks: list[Chunk]) -> None:
        assert "".join(chunk.text for chunk in chunks) == response.text
        assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
        last = chunks[-1]
        assert last.finish_reason is response.finish_reason
        assert last.usage is not None
        assert last.usage.completion_tokens == response.usage.completion_tokens
        assert last.timing is not None
        # One chunk for each delta: as many as tokens, but for those that are no whole character, and the one that closes.
        assert len(chunks) >= (response.usage.completion_tokens or 0) - 3
        assert (response.provider, response.model, response.is_local) == (subject.provider.name, subject.model, True)
        check_figures(response, EXACT)
