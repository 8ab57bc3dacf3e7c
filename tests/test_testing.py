"""The doubles and the contract cases that are shipped; and that each case fails for a provider that breaks its rule."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import aiohttp
import msgspec
import pytest
from servers.echoing import KEY, ODD, echo
from servers.scripted import ScriptedServer

from llm_jupyter.errors import LLMConnectionError, LLMError, MalformedResponseError, StreamTruncatedError
from llm_jupyter.events import EventBus, FactoryClosed, FactoryOpened, ModelPulled
from llm_jupyter.providers._openai_wire import CompletionEvent, StreamReader
from llm_jupyter.providers.base import ChunkStream, LLMProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.testing import ProviderContract, ScriptedProvider, ServerContract, Subject, record_events
from llm_jupyter.testing.contract import covered_by
from llm_jupyter.types import Chunk, FinishReason, GenerationOptions, LLMModelInfo, Message, Usage

# -- the scripted provider


async def test_answers_come_in_turn_word_by_word_and_the_last_one_stays() -> None:
    provider = ScriptedProvider("one two", "three")
    async with provider.stream_chat_completion("a", model="m") as stream:
        texts = [chunk.text async for chunk in stream]
    assert texts == ["one", " two", ""]
    said = [(await provider.generate_chat_completion(text, model="m")).text for text in ("b", "c")]
    assert said == ["three", "three"]
    assert [asked.prompt for asked in provider.asked] == ["a", "b", "c"]


async def test_without_a_script_it_repeats_what_it_is_asked() -> None:
    provider = ScriptedProvider()
    options = GenerationOptions(max_tokens=3)
    response = await provider.generate_chat_completion([Message.user("hello there")], model="m", options=options)
    assert (response.text, response.finish_reason) == ("You said: hello", FinishReason.LENGTH)
    assert response.usage == Usage(4, 3)
    assert (provider.asked[0].options, provider.asked[0].is_raw) == (options, False)
    await provider.generate_completion("Once", model="m")
    assert provider.asked[1].is_raw


async def test_a_script_may_hold_an_answer_back_think_and_break_off() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([Chunk(thinking="hm"), "Half", gate.wait, StreamTruncatedError("the line was cut")])
    stream = provider.stream_chat_completion("a", model="m")
    assert ((await anext(stream)).thinking, (await anext(stream)).text) == ("hm", "Half")
    rest = asyncio.create_task(anext(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not rest.done()
    assert provider.in_flight == 1
    gate.set()
    with pytest.raises(StreamTruncatedError, match="the line was cut"):
        await rest
    assert provider.in_flight == 0
    with pytest.raises(StreamTruncatedError) as caught:
        await provider.generate_chat_completion("a", model="m")
    assert caught.value.partial_text == "Half"


async def test_a_chunk_of_the_script_may_say_why_the_answer_ended() -> None:
    provider = ScriptedProvider([Chunk("x", finish_reason=FinishReason.CONTENT_FILTER)])
    response = await provider.generate_chat_completion("a", model="m")
    assert (response.text, response.finish_reason) == ("x", FinishReason.CONTENT_FILTER)


async def test_an_outage_is_every_requests_error_until_it_is_over() -> None:
    provider = ScriptedProvider("fine")
    provider.outage = LLMConnectionError("nobody answers")
    for attempt in (provider.connect(), provider.get_model_info("m"), provider.generate_completion("a", model="m")):
        with pytest.raises(LLMConnectionError, match="nobody answers"):
            await attempt
    assert not await provider.is_available()
    assert provider.asked == []
    provider.outage = None
    await provider.connect()
    assert (await provider.generate_completion("a", model="m")).text == "fine"


# -- events


def test_a_record_holds_what_happens_from_its_beginning_on() -> None:
    bus = EventBus()
    bus.publish(FactoryOpened(home="before"))
    everything, pulls = record_events(bus), record_events(bus, ModelPulled)
    assert (len(everything), list(pulls)) == (0, [])
    bus.publish(FactoryOpened(home="h"))
    bus.publish(ModelPulled(provider="p", model="m"))
    assert everything.names == ["FactoryOpened", "ModelPulled"]
    assert [event.model for event in pulls.of(ModelPulled)] == ["m"]
    bus.publish(FactoryClosed())
    assert isinstance(everything[-1], FactoryClosed)
    assert [type(event) for event in everything[:2]] == [FactoryOpened, ModelPulled]
    assert (len(everything), len(pulls)) == (3, 1)


# -- what importing costs


@pytest.mark.parametrize("statement", ["import llm_jupyter", "from llm_jupyter.testing import ScriptedProvider"])
def test_doubles_need_no_pytest(statement: str) -> None:
    script = f"{statement}\nimport sys; print([name for name in sys.modules if 'pytest' in name])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_list_of_names_is_what_can_be_had() -> None:
    import llm_jupyter.testing as testing

    assert testing.__all__ == dir(testing) == sorted(testing.__all__)
    assert all(getattr(testing, name).__name__ == name for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        testing.Nothing  # noqa: B018


# -- the contract passes good providers


class TestTheScriptedProvider(ProviderContract):
    def describe(self) -> Subject:
        return Subject(ScriptedProvider(), "m", answer="You said: Count", goes_on="You said: Count")


@asynccontextmanager
async def serving(kind: type[OpenAICompatibleProvider]) -> AsyncIterator[Subject]:
    async with ScriptedServer(echo) as server, kind("local", server.base_url, KEY) as provider:
        yield Subject(provider, "m", server.base_url, KEY, answer=ODD)


class TestAProviderWithAServer(ServerContract):
    server: ScriptedServer

    @pytest.fixture(autouse=True)
    def _server(self) -> Any:
        with ScriptedServer(echo) as self.server:
            yield

    def describe(self) -> Subject:
        provider = OpenAICompatibleProvider("local", self.server.base_url, KEY)
        return Subject(provider, "m", self.server.base_url, KEY, answer=ODD, goes_on="you said:")


async def test_a_class_without_a_subject_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match="describe"):
        ProviderContract().describe()


def test_the_cases_are_about_every_method_that_every_provider_must_write() -> None:
    abstract = {name for name in LLMProvider.__abstractmethods__ if name != "is_local"}
    assert covered_by(ServerContract) >= abstract | {"connect", "is_available", "get_status", "observed", "prepare"}


# -- and each case fails for a provider that breaks its rule


class StaysConnected(ScriptedProvider):
    async def disconnect(self) -> None:
        pass


class CannotReconnect(ScriptedProvider):
    async def disconnect(self) -> None:
        await super().disconnect()
        self.models.clear()


class UnderAnotherName(ScriptedProvider):
    def _info(self, model: str) -> LLMModelInfo:
        return msgspec.structs.replace(super()._info(model), provider="openai")


class PreparesOnce(ScriptedProvider):
    prepared = False

    async def prepare(self, model: str) -> None:
        if self.prepared:
            raise LLMError("it is prepared")
        self.prepared = True


class KnowsEveryModel(ScriptedProvider):
    def _check_model(self, model: str) -> None:
        pass


class SaysNoUsage(ScriptedProvider):
    def _last(self, *arguments: Any) -> Chunk:
        return msgspec.structs.replace(super()._last(*arguments), usage=None)


class SaysNoEnd(ScriptedProvider):
    def _last(self, *arguments: Any) -> Chunk:
        return msgspec.structs.replace(super()._last(*arguments), finish_reason=None)


class AnswersInOnePiece(ScriptedProvider):
    def _next_answer(self, asked: Any) -> Any:
        return [str(super()._next_answer(asked))]


class LosesTheEndOfRawText(ScriptedProvider):
    def stream_completion(self, *arguments: Any, **options: Any) -> ChunkStream:
        return ChunkStream(self._shortened(super().stream_completion(*arguments, **options)))

    async def _shortened(self, stream: ChunkStream) -> AsyncGenerator[list[Chunk], None]:
        async for chunk in stream:
            if not chunk.finish_reason:
                yield [chunk]


class WritesOnAndOn(ScriptedProvider):
    def stream_chat_completion(self, *arguments: Any, **options: Any) -> ChunkStream:
        return super().stream_chat_completion(*arguments, model=options["model"])


class SendsTheLastMessage(ScriptedProvider):
    def stream_chat_completion(self, messages: Any, **options: Any) -> ChunkStream:
        return super().stream_chat_completion(messages if isinstance(messages, str) else messages[-1:], **options)


class TakesAnything(ScriptedProvider):
    def stream_chat_completion(self, messages: Any, **options: Any) -> ChunkStream:
        return super().stream_chat_completion(str(messages), **options)


class MixesAnswers(ScriptedProvider):
    """It keeps what belongs to one answer where all answers find it."""

    def _next_answer(self, asked: Any) -> Any:
        self.current = asked.prompt.split()

        async def hold() -> None:
            await asyncio.sleep(0.01)
            words.extend(Chunk(f"{word} ") for word in self.current)

        words: list[Any] = ["so: ", hold]
        return words


class ForgetsThatItWasLeft(ScriptedProvider):
    async def _batches(self, asked: Any) -> AsyncGenerator[list[Chunk], None]:
        self.in_flight += 1
        async for chunks in super()._batches(asked):
            yield chunks
        self.in_flight -= 1


class HearsNobodyAsNothing(OpenAICompatibleProvider):
    async def get_available_models(self) -> list[LLMModelInfo]:
        try:
            return await super().get_available_models()
        except LLMConnectionError:
            return []


class ShowsItsKey(OpenAICompatibleProvider):
    def __init__(self, name: str, base_url: str, api_key: str = "") -> None:
        super().__init__(name, base_url, api_key)
        self.key = api_key

    @property
    def where(self) -> str:
        return f"{super().where} with {self.key}"


class SeesNothing(OpenAICompatibleProvider):
    def observed(self, error: LLMError | None, *, answered: bool = False) -> None:
        pass


class FailsForAnything(OpenAICompatibleProvider):
    def observed(self, error: LLMError | None, *, answered: bool = False) -> None:
        super().observed(LLMConnectionError("gone") if error else None)


class TakesAPageForAnEmptyList(OpenAICompatibleProvider):
    async def get_available_models(self) -> list[LLMModelInfo]:
        try:
            return await super().get_available_models()
        except MalformedResponseError:
            return []


class Hasty(OpenAICompatibleProvider):
    """An answer as one reads it who thinks of good days only; each of its sins can be switched on."""

    cuts_blocks: ClassVar[bool] = False
    takes_any_end: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    stays: ClassVar[bool] = False
    forgets: ClassVar[bool] = False

    async def _batches(self, path: str, body: Any, options: Any, pace: Any) -> AsyncGenerator[list[Chunk], None]:
        self.in_flight += 1
        headers = {"Authorization": f"Bearer {KEY}"}
        session = aiohttp.ClientSession(headers=headers)
        try:
            response = await session.post(self._base_url + path, json=body, allow_redirects=self.follows)
            if response.status != 200:
                raise LLMError(f"status {response.status}")
            async for chunk in self._chunks(response):
                yield [chunk]
        except aiohttp.ClientError as error:
            if not self.takes_any_end:
                raise StreamTruncatedError(str(error)) from None
        finally:
            self.in_flight -= 1
            if self.stays:
                LEFT_OPEN.append(session)
            else:
                await session.close()

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[Chunk]:
        reader, rest = StreamReader(0.0), b""
        async for block in response.content.iter_any():
            lines = (rest + block).split(b"\n")
            rest = b"" if self.cuts_blocks else lines.pop()
            for line in lines:
                if line == b"data: [DONE]":
                    for chunk in reader.last():
                        yield chunk
                    return
                if line.startswith(b"data: ") and (chunk := self._chunk(reader, line)) is not None:
                    yield chunk
        if not self.takes_any_end:
            raise StreamTruncatedError("no end")

    def _chunk(self, reader: StreamReader, line: bytes) -> Chunk | None:
        try:
            return reader.chunk(msgspec.json.decode(line[6:], type=CompletionEvent))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    async def _collected(self, stream: ChunkStream, model: str) -> Any:
        try:
            return await super()._collected(stream, model)
        except LLMError as error:
            if self.forgets:
                error.partial_text = ""
            raise


LEFT_OPEN: list[aiohttp.ClientSession] = []


def hasty(*sins: str) -> type[Hasty]:
    return type("_".join(("Hasty", *sins)), (Hasty,), dict.fromkeys(sins, True))


BREAKS: dict[str, list[type[LLMProvider]]] = {
    "test_it_connects_and_disconnects_as_often_as_one_likes": [StaysConnected, CannotReconnect],
    "test_it_tells_all_that_is_known_of_its_model": [UnderAnotherName],
    "test_preparing_a_model_twice_is_as_good_as_once": [PreparesOnce],
    "test_an_unknown_model_is_named_or_the_answer_says_who_answered": [KnowsEveryModel],
    "test_chat_says_the_same_whole_and_streamed": [SaysNoUsage, SaysNoEnd, AnswersInOnePiece],
    "test_raw_text_goes_on_the_same_whole_and_streamed": [LosesTheEndOfRawText],
    "test_an_answer_is_no_longer_than_was_asked_for": [WritesOnAndOn],
    "test_every_message_reaches_the_model": [SendsTheLastMessage],
    "test_what_is_no_conversation_is_refused_before_it_is_sent": [TakesAnything],
    "test_two_answers_at_once_do_not_mix": [MixesAnswers],
    "test_a_stream_that_is_left_is_over": [ForgetsThatItWasLeft],
    "test_a_server_that_is_down_is_a_connection_error_at_once": [HearsNobodyAsNothing],
    "test_a_wrong_key_is_an_authentication_error_and_is_never_shown": [ShowsItsKey],
    "test_the_state_follows_what_a_request_has_shown": [SeesNothing, FailsForAnything],
    "test_any_slicing_of_the_reply_gives_the_same_chunks": [hasty("cuts_blocks")],
    "test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one": [hasty("takes_any_end"), hasty("forgets")],
    "test_a_page_is_no_answer": [TakesAPageForAnEmptyList],
    "test_no_redirect_is_followed_and_no_key_leaves_its_server": [hasty("follows")],
    "test_leaving_a_stream_closes_its_connection": [hasty("stays")],
}
PARAMETERS: dict[str, dict[str, Any]] = {"way": {"way": "aclose"}, "size": {"size": 7}}


def test_every_case_has_a_provider_that_breaks_its_rule() -> None:
    assert set(BREAKS) == {name for name in dir(ServerContract) if name.startswith("test_")}


async def run_case(name: str, kind: type[LLMProvider]) -> None:
    """One case on one kind of provider, as pytest would run it."""
    case: Callable[..., Any] = getattr(ServerContract(), name)
    arguments = [PARAMETERS[known] for known in PARAMETERS if known in inspect.signature(case).parameters]
    more = {key: value for argument in arguments for key, value in argument.items()}
    if issubclass(kind, OpenAICompatibleProvider):
        async with serving(kind) as subject:
            await case(subject, **more)
    else:
        async with kind() as provider:  # type: ignore[call-arg]
            await case(Subject(provider, "m"), **more)


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(name, kind, id=f"{kind.__name__} {name}") for name, kinds in BREAKS.items() for kind in kinds],
)
async def test_a_provider_that_breaks_a_rule_fails_the_case_of_that_rule(name: str, kind: type[LLMProvider]) -> None:
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception, LLMError, TimeoutError)):
            await run_case(name, kind)
    finally:
        await closed(LEFT_OPEN)
    await run_case(name, Good if issubclass(kind, OpenAICompatibleProvider) else ScriptedProvider)


async def closed(sessions: Sequence[aiohttp.ClientSession]) -> None:
    for session in sessions:
        await session.close()
    LEFT_OPEN.clear()


class Good(OpenAICompatibleProvider):
    """One that breaks no rule: what fails above is the rule's doing."""
