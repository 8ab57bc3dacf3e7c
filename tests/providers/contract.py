"""The shipped contract, with what is known of one small model besides: its very words, tokens and window.

`Subject` tells of a server what the shipped cases need not know. `covered_by` gathers which methods the cases cover.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from llm_jupyter import errors
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.testing import ServerContract
from llm_jupyter.testing import Subject as AnySubject
from llm_jupyter.testing.contract import covered_by as covered_by
from llm_jupyter.testing.contract import covers as covers
from llm_jupyter.testing.contract import leave, well_said, whole
from llm_jupyter.types import Capability, Chunk, FinishReason, GenerationOptions, LLMResponse, Message

EXACT = GenerationOptions(temperature=0.0, seed=1, max_tokens=24, extra={"cache_prompt": False})
BRIEF = GenerationOptions(temperature=0.0, max_tokens=2)
ENDLESS = GenerationOptions(max_tokens=400, extra={"ignore_eos": True})
QUESTION = "Name the capital of France."


@dataclass(kw_only=True)
class Subject(AnySubject):
    """A connected provider of SmolLM2, and what is known of the server behind it.

    `is_busy` tells whether that server computes, `rendered` what a conversation looks like to the model and how many
    tokens it is: both past the provider. `idles_within` is in seconds.
    """

    is_busy: Callable[[], Awaitable[bool]]
    rendered: Callable[[list[dict[str, Any]]], Awaitable[tuple[str, int]]]
    gives_advice: bool = False
    fetches: bool = False
    idles_within: float = 0.3
    question: str = QUESTION
    answer: str = "Paris"
    goes_on: str = " 6, 7, 8"
    exact: GenerationOptions = EXACT


@pytest.mark.asyncio(loop_scope="class")
class Contract(ServerContract):
    """The shipped cases, and those about this model."""

    def check_stream(self, subject: AnySubject, response: LLMResponse, chunks: list[Chunk]) -> None:
        super().check_stream(subject, response, chunks)
        # One chunk for each delta: as many as tokens, but for those that are no whole character, and the one that closes.
        assert len(chunks) >= (response.usage.completion_tokens or 0) - 3
        assert (response.model, response.is_local) == (subject.model, True)
        assert (response.timing.total or 0) < 60

    @covers("advice", "fetches", "get_model_info")
    async def test_it_tells_what_this_model_can_and_needs(self, subject: Subject) -> None:
        info = await subject.provider.get_model_info(subject.model)
        assert {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA} <= info.capabilities
        assert not {Capability.TOOLS, Capability.VISION, Capability.THINKING, Capability.EMBEDDING} & info.capabilities
        assert info.is_local
        assert (subject.provider.advice(subject.model) != "") == subject.gives_advice
        assert subject.provider.fetches(subject.model) == subject.fetches

    @pytest.mark.alone
    @covers("prepare")
    async def test_preparing_a_model_asks_it_nothing(self, subject: Subject) -> None:
        await subject.provider.prepare(subject.model)
        await subject.provider.prepare(subject.model)
        assert not await subject.is_busy()

    @covers("context_window", "count_tokens")
    async def test_window_and_length_are_told_truly_or_not_at_all(self, subject: Subject) -> None:
        provider = subject.provider
        await provider.prepare(subject.model)
        messages = [Message.system("Be brief."), Message.user(QUESTION)]
        window, count = (
            await provider.context_window(subject.model),
            await provider.count_tokens(messages, subject.model),
        )
        answer = await provider.generate_chat_completion(messages, model=subject.model, options=BRIEF)
        assert window is not None
        assert window.tokens == subject.knows["effective_context"]
        assert count in (None, answer.usage.prompt_tokens)
        assert (count is None) == (provider.kind == "ollama")
        assert await provider.context_window("no-such-model") in (None, window)
        assert await provider.count_tokens(messages, "no-such-model") in (None, count)

    @covers("generate_completion", "stream_completion")
    async def test_a_stop_sequence_ends_the_text_before_itself(self, subject: Subject) -> None:
        options = GenerationOptions(temperature=0.0, max_tokens=40, stop=("8", "never"))
        response = await subject.provider.generate_completion(subject.opening, model=subject.model, options=options)
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
    async def test_the_model_reads_what_the_template_makes_of_the_messages(self, subject: Subject) -> None:
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
        for attempt in (self._brief(subject.provider, subject.model, prompt), raw):
            with pytest.raises(errors.ContextExceededError) as caught:
                await attempt
            assert caught.value.context_length == window
            assert (caught.value.prompt_tokens or 0) >= window + 50
            assert well_said(caught.value)

    @covers("stream_chat_completion")
    @pytest.mark.parametrize("way", ["aclose", "exception", "cancel"])
    async def test_leaving_a_stream_stops_the_model(self, subject: Subject, way: str) -> None:
        async def look() -> None:
            while not await subject.is_busy():  # on a crowded machine the model may have to wait for its turn
                assert time.monotonic() - asked < 10

        asked = time.monotonic()
        stream = subject.provider.stream_chat_completion(QUESTION, model=subject.model, options=ENDLESS)
        await leave(stream, way, look)
        left = time.monotonic()
        while await subject.is_busy():
            assert time.monotonic() - left < subject.idles_within
        assert subject.provider.in_flight == 0

    async def _brief(self, provider: LLMProvider, model: str, prompt: str) -> LLMResponse:
        return await provider.generate_chat_completion(prompt, model=model, options=BRIEF)
