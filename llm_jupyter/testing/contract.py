"""What every provider must do, as cases for pytest.

An author's test module has a class that inherits the cases and says what they are about:

    class TestMine(ProviderContract):
        def describe(self) -> Subject:
            return Subject(MyProvider("mine"), model="m")

The provider is connected before each case and disconnected after it. Where connecting is costly, give the class a fixture
`subject` of its own instead. Every case says by `covers` which methods of `LLMProvider` it is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio

from llm_jupyter.errors import InvalidInputError, LLMError, ModelNotFoundError
from llm_jupyter.providers.base import ChunkStream, LLMProvider
from llm_jupyter.types import Capability, Chunk, FinishReason, GenerationOptions, LLMResponse, Message, ProviderState

Case = TypeVar("Case", bound=Callable[..., Any])

EXACT = GenerationOptions(temperature=0.0, seed=1, max_tokens=24)
BRIEF = GenerationOptions(temperature=0.0, max_tokens=2)
LONG = GenerationOptions(temperature=0.0, max_tokens=200)
UNKNOWN = "no-such-model"


@dataclass
class Subject:
    """A provider, and what is known of the server behind it.

    `question` is one to which the model answers in more than two tokens, and `answer` something that the answer holds;
    `opening` is raw text to continue, and `goes_on` how the continuation begins. `knows` is what the server tells of the
    model, by the fields of `LLMModelInfo`. `exact` are options with which the same question gets the same answer twice.

    For `ServerContract`: `base_url` and `api_key` of the server, whether it `checks_keys`, and `stops_within` how many
    seconds a connection is gone after its reader left.
    """

    provider: LLMProvider
    model: str
    base_url: str = ""
    api_key: str | None = None
    question: str = "Count from one to twenty."
    answer: str = ""
    opening: str = "Count: 1, 2, 3, 4, 5,"
    goes_on: str = ""
    knows: Mapping[str, Any] = field(default_factory=dict)
    exact: GenerationOptions = EXACT
    refuses_unknown_models: bool = True
    checks_keys: bool = True
    stops_within: float = 0.3

    def at(self, base_url: str, api_key: str | None = None) -> LLMProvider:
        """A provider of the same kind at another address, made as the settings make one."""
        arguments: dict[str, Any] = {"name": "other", "base_url": base_url}
        return type(self.provider)(**arguments, **({} if api_key is None else {"api_key": api_key}))


def covers(*methods: str) -> Callable[[Case], Case]:
    """Marks a case with the methods of `LLMProvider` that it is about."""

    def mark(case: Case) -> Case:
        case.covers = methods  # type: ignore[attr-defined]  # a function may carry what one likes
        return case

    return mark


def covered_by(*cases: Any) -> set[str]:
    """The methods that these functions, and the functions of these classes and modules, cover."""
    functions = [getattr(case, name) for case in cases for name in dir(case) if name.startswith("test_")]
    marked = [getattr(function, "covers", ()) for function in (*cases, *functions)]
    return {method for methods in marked if isinstance(methods, tuple) for method in methods}


def well_said(error: LLMError) -> bool:
    """Whether an error is one to three lines, none of them empty."""
    return 1 <= len(error.lines()) <= 3 and all(error.lines())


async def whole(stream: ChunkStream) -> list[Chunk]:
    """All chunks of a stream, which is closed."""
    async with stream:
        return [chunk async for chunk in stream]


@pytest.mark.asyncio(loop_scope="class")
class ProviderContract:
    """The cases for every provider."""

    def describe(self) -> Subject:
        """What the cases are about; yours to write."""
        raise NotImplementedError("a class of contract cases needs a method `describe` that returns a Subject")

    @pytest_asyncio.fixture(loop_scope="class")
    async def subject(self) -> AsyncIterator[Subject]:
        """The subject, connected."""
        subject = self.describe()
        async with subject.provider:
            yield subject

    def check_stream(self, subject: Subject, response: LLMResponse, chunks: list[Chunk]) -> None:
        """Whether a whole answer and a stream are the same answer, and each complete. May be made stricter."""
        assert "".join(chunk.text for chunk in chunks) == response.text
        assert sum(bool(chunk.text) for chunk in chunks) > 1, "the answer came in one piece"
        assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
        last = chunks[-1]
        assert last.finish_reason is response.finish_reason is not None
        assert last.usage is not None
        assert last.usage.completion_tokens == response.usage.completion_tokens
        assert last.timing is not None
        assert response.provider == subject.provider.name
        assert response.model
        assert response.is_local in (False, subject.provider.is_local)
        check_figures(response, subject.exact)

    # -- the connection

    @covers("is_available", "get_status", "status", "connect", "disconnect", "probe", "measured")
    async def test_it_connects_and_disconnects_as_often_as_one_likes(self, subject: Subject) -> None:
        provider = subject.provider
        assert await provider.is_available()
        await provider.connect()
        await provider.connect()
        await provider.probe()
        status = await provider.get_status()
        assert (status.name, status.state, status.is_local) == (
            provider.name, ProviderState.CONNECTED, provider.is_local
        )  # fmt: skip
        assert provider.status() == status
        assert status.since <= time.time()
        provider.measured(0.25)
        assert provider.status().latency == 0.25
        await provider.disconnect()
        await provider.disconnect()
        assert provider.status().state is ProviderState.DISCONNECTED
        await provider.connect()
        assert (await provider.generate_chat_completion("a", model=subject.model, options=BRIEF)).text

    # -- models

    @covers("get_available_models", "get_model_info", "keeps", "prepare")
    async def test_it_tells_all_that_is_known_of_its_model(self, subject: Subject) -> None:
        provider = subject.provider
        await provider.prepare(subject.model)
        listed = await provider.get_available_models()
        assert subject.model in [model.id for model in listed]
        assert {model.provider for model in listed} == {provider.name}
        assert provider.is_local or not any(model.is_local for model in listed)
        info = await provider.get_model_info(subject.model)
        assert (info.id, info.provider, info.full_name) == (
            subject.model, provider.name, f"{provider.name}/{subject.model}"
        )  # fmt: skip
        assert info.is_local == provider.keeps(subject.model)
        assert {Capability.CHAT, Capability.COMPLETION} & info.capabilities
        assert {name: getattr(info, name) for name in subject.knows} == dict(subject.knows)

    @covers("prepare")
    async def test_preparing_a_model_twice_is_as_good_as_once(self, subject: Subject) -> None:
        await subject.provider.prepare(subject.model)
        await subject.provider.prepare(subject.model)
        assert (await self._chat(subject, subject.question)).text

    @covers("get_model_info", "generate_chat_completion")
    async def test_an_unknown_model_is_named_or_the_answer_says_who_answered(self, subject: Subject) -> None:
        with pytest.raises(ModelNotFoundError, match=UNKNOWN) as caught:
            await subject.provider.get_model_info(UNKNOWN)
        assert well_said(caught.value)
        asked = subject.provider.generate_chat_completion("hi", model=UNKNOWN, options=BRIEF)
        if subject.refuses_unknown_models:
            with pytest.raises(ModelNotFoundError, match=UNKNOWN):
                await asked
        else:
            assert (await asked).model not in ("", UNKNOWN)

    # -- answers

    @covers("generate_chat_completion", "stream_chat_completion")
    async def test_chat_says_the_same_whole_and_streamed(self, subject: Subject) -> None:
        response = await self._chat(subject, subject.question)
        chunks = await whole(
            subject.provider.stream_chat_completion(subject.question, model=subject.model, options=subject.exact)
        )
        assert subject.answer in response.text
        self.check_stream(subject, response, chunks)

    @covers("generate_completion", "stream_completion")
    async def test_raw_text_goes_on_the_same_whole_and_streamed(self, subject: Subject) -> None:
        asked: dict[str, Any] = {"model": subject.model, "options": subject.exact}
        response = await subject.provider.generate_completion(subject.opening, **asked)
        chunks = await whole(subject.provider.stream_completion(subject.opening, **asked))
        assert response.text.startswith(subject.goes_on)
        self.check_stream(subject, response, chunks)

    @covers("generate_chat_completion")
    async def test_an_answer_is_no_longer_than_was_asked_for(self, subject: Subject) -> None:
        brief = msgspec.structs.replace(subject.exact, max_tokens=2)
        response = await self._chat(subject, subject.question, brief)
        assert response.finish_reason is FinishReason.LENGTH
        assert response.usage.completion_tokens == 2

    @covers("generate_chat_completion")
    async def test_every_message_reaches_the_model(self, subject: Subject) -> None:
        # Each has a system message of its own: of templates, some add one where there is none.
        plain = [Message.system("Be brief."), Message.user("Who are you?")]
        told: list[Any] = [Message.system("You are a sailor, and you speak of nothing but ships."), plain[1]]
        talked = [*told, {"role": "assistant", "content": "A sailor."}, {"role": "user", "content": "Who are you?"}]
        counts = []
        for messages in (plain, told, talked):
            answer = await subject.provider.generate_chat_completion(messages, model=subject.model, options=BRIEF)
            counts.append(answer.usage.prompt_tokens or 0)
        assert 0 < counts[0] < counts[1] < counts[2]

    @covers("generate_chat_completion", "stream_chat_completion")
    async def test_what_is_no_conversation_is_refused_before_it_is_sent(self, subject: Subject) -> None:
        nonsense: list[Any] = [[], [{"role": "nobody", "content": "hi"}], [{"content": "hi"}], [7]]
        for messages in nonsense:
            with pytest.raises(InvalidInputError) as caught:
                await subject.provider.generate_chat_completion(messages, model=subject.model, options=BRIEF)
            assert well_said(caught.value)

    @covers("generate_chat_completion")
    async def test_two_answers_at_once_do_not_mix(self, subject: Subject) -> None:
        questions = (subject.question, "Say something quite different, about the sea.")
        alone = [(await self._chat(subject, question)).text for question in questions]
        together = await asyncio.gather(*(self._chat(subject, question) for question in questions))
        assert [response.text for response in together] == alone
        assert alone[0] != alone[1]

    @covers("stream_chat_completion")
    @pytest.mark.parametrize("way", ["aclose", "exception", "cancel"])
    async def test_a_stream_that_is_left_is_over(self, subject: Subject, way: str) -> None:
        stream = subject.provider.stream_chat_completion(subject.question, model=subject.model, options=LONG)
        await leave(stream, way)
        async with asyncio.timeout(1):
            async for _ in stream:
                pass  # what had arrived may still be read, but nothing more comes
        assert subject.provider.in_flight == 0

    async def _chat(self, subject: Subject, question: str, options: GenerationOptions | None = None) -> LLMResponse:
        return await subject.provider.generate_chat_completion(
            question, model=subject.model, options=options or subject.exact
        )


async def leave(stream: ChunkStream, way: str, then: Callable[[], Awaitable[object]] | None = None) -> None:
    """Read a stream to its first text, do something there, and leave it: by `aclose`, an `exception` or a `cancel`."""
    begun = asyncio.Event()

    async def read() -> None:
        async with stream:
            async for chunk in stream:
                if not chunk.text or begun.is_set():
                    continue
                if then is not None:
                    await then()
                begun.set()
                if way == "aclose":
                    await stream.aclose()
                    return
                if way == "exception":
                    raise ZeroDivisionError
            if begun.is_set():
                await asyncio.Event().wait()  # the answer was quicker than the one who leaves it

    task, waiting = asyncio.create_task(read()), asyncio.create_task(begun.wait())
    await asyncio.wait([task, waiting], timeout=60, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if way == "cancel":
        task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    expected = {"aclose": type(None), "exception": ZeroDivisionError, "cancel": asyncio.CancelledError}[way]
    assert isinstance(outcome, expected), outcome
    assert begun.is_set()


def check_figures(response: LLMResponse, options: GenerationOptions) -> None:
    """Whether the counts and times of an answer can be true."""
    usage, timing = response.usage, response.timing
    assert (usage.prompt_tokens or 0) > 3
    assert 0 < (usage.completion_tokens or 0) <= (options.max_tokens or 0)
    assert timing.first_token is not None
    assert timing.total is not None
    assert 0 < timing.first_token <= timing.total
    assert (timing.tokens_per_second or 0) > 1
