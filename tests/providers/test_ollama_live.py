"""What a real Ollama does with requests, and what is made of its failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from live import eventually
from servers.real_ollama import Ollama, computes, real_ollama

from llm_jupyter import errors
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import FinishReason, GenerationOptions, Image, Message, ToolDefinition

CONTEXT = 256
LONG = "Tell me a very long story about a ship. "
BRIEF = GenerationOptions(temperature=0.0, max_tokens=3)
MANY = GenerationOptions(temperature=0.0, max_tokens=150)


@pytest_asyncio.fixture
async def provider(ollama: Ollama) -> AsyncIterator[OllamaProvider]:
    async with OllamaProvider("ollama", ollama.url, context=CONTEXT) as provider:
        yield provider


async def test_the_same_options_give_the_same_answer_and_other_ones_another(
    provider: OllamaProvider, ollama: Ollama
) -> None:
    async def ask(seed: int) -> str:
        options = GenerationOptions(temperature=1.5, seed=seed, max_tokens=10, top_p=0.99, extra={"top_k": 1000})
        return (await provider.generate_completion("A", model=ollama.model, options=options)).text

    first, again, other = await ask(1), await ask(1), await ask(2)
    assert first == again != other


async def test_every_request_keeps_the_model_loaded_as_it_is(provider: OllamaProvider, ollama: Ollama) -> None:
    await provider.load_model(ollama.model)
    (runner,) = ollama.runners()
    await provider.generate_chat_completion("hi", model=ollama.model, options=BRIEF)
    await provider.generate_completion("hi", model=ollama.model, options=BRIEF)
    await provider.embed(["hi"], model=ollama.model)
    await provider.prepare(ollama.model)
    assert ollama.runners() == [runner]
    wider = OllamaProvider("wider", ollama.url, context=CONTEXT + 64)
    await wider.generate_chat_completion("hi", model=ollama.model, options=BRIEF)
    assert ollama.runners() != [runner]  # so that it can be seen that another window would have been noticed
    await wider.disconnect()


async def test_keep_alive_is_what_the_provider_was_told(ollama: Ollama) -> None:
    async with OllamaProvider("brief", ollama.url, context=CONTEXT, keep_alive=0) as provider:
        await provider.generate_chat_completion("hi", model=ollama.model, options=BRIEF)
        await eventually(lambda: not ollama.runners(), 10)
        assert (await provider.get_model_info(ollama.model)).loaded is False


async def test_what_the_model_cannot_do_is_refused_and_said(provider: OllamaProvider, ollama: Ollama) -> None:
    tools = GenerationOptions(tools=(ToolDefinition("weather"),))
    for options, what in ((GenerationOptions(think=True), "thinking"), (tools, "tools")):
        with pytest.raises(errors.RequestError, match=f"does not support {what}") as caught:
            await provider.generate_chat_completion("hi", model=ollama.model, options=options)
        assert caught.value.status == 400
        assert len(caught.value.lines()) == 2
    with pytest.raises(errors.InvalidInputError, match="cannot see pictures"):  # by itself Ollama leaves them out
        await provider.generate_chat_completion([Message.user("hi", [Image(b"1")])], model=ollama.model)


async def test_an_option_of_the_wrong_type_is_named(provider: OllamaProvider, ollama: Ollama) -> None:
    options = GenerationOptions(extra={"temperature": "hot"})
    with pytest.raises(errors.ServerError, match="temperature"):
        await provider.generate_chat_completion("hi", model=ollama.model, options=options)


@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving_stops_the_runner(provider: OllamaProvider, ollama: Ollama, streamed: bool) -> None:
    await provider.load_model(ollama.model)

    async def read() -> None:
        if not streamed:
            await provider.generate_completion(LONG, model=ollama.model, options=MANY)
            return
        async with provider.stream_completion(LONG, model=ollama.model, options=MANY) as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    deadline = time.monotonic() + 10
    while not await computes(ollama.runners()):
        assert time.monotonic() < deadline
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert provider.in_flight == 0
    left = time.monotonic()
    while await computes(ollama.runners()):
        assert time.monotonic() - left < 3  # a step under way is finished first; all the tokens would take longer


# -- servers and runners that die


@pytest.fixture(scope="module")
def mortal(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """A server of this module alone; the last test kills it."""
    with real_ollama(tmp_path_factory.mktemp("mortal"), weights) as server:
        yield server


async def to_the_end(stream: ChunkStream, pieces: list[str]) -> None:
    async for chunk in stream:
        pieces.append(chunk.text)  # noqa: PERF401 - what came before the error counts


async def still_answers(provider: OllamaProvider, server: Ollama) -> None:
    response = await provider.generate_chat_completion("hi", model=server.model, options=BRIEF)
    assert response.text
    assert response.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


async def test_a_runner_killed_before_the_first_token_is_a_server_error(mortal: Ollama) -> None:
    async with OllamaProvider("mortal", mortal.url, context=CONTEXT) as provider:
        await provider.load_model(mortal.model)
        prompt = "ship " * 150
        asking = asyncio.create_task(provider.generate_chat_completion(prompt, model=mortal.model, options=BRIEF))
        deadline = time.monotonic() + 10
        while not await computes(mortal.runners(), 0.05):
            assert time.monotonic() < deadline
        mortal.runners()[0].kill()
        with pytest.raises(errors.ServerError, match="the process that runs the model died") as caught:
            await asking
        assert caught.value.partial_text == ""
        assert 1 <= len(caught.value.lines()) <= 3
        await still_answers(provider, mortal)


async def test_a_runner_killed_in_mid_answer_is_a_server_error_with_the_text_so_far(mortal: Ollama) -> None:
    async with OllamaProvider("mortal", mortal.url, context=CONTEXT) as provider:
        await provider.load_model(mortal.model)
        pieces = []
        async with provider.stream_chat_completion(LONG, model=mortal.model, options=MANY) as stream:
            pieces.append((await anext(stream)).text)
            mortal.runners()[0].kill()
            with pytest.raises(errors.ServerError, match="the process that runs the model died"):
                await to_the_end(stream, pieces)
        assert "".join(pieces)
        await still_answers(provider, mortal)


async def test_a_server_killed_in_mid_answer_is_a_truncated_stream_and_then_nobody(mortal: Ollama) -> None:
    async with OllamaProvider("mortal", mortal.url, context=CONTEXT) as provider:
        async with provider.stream_chat_completion(LONG, model=mortal.model, options=MANY) as stream:
            assert (await anext(stream)).text
            mortal.stop(kill=True)
            with pytest.raises(errors.StreamTruncatedError) as caught:
                await to_the_end(stream, [])
        assert 1 <= len(caught.value.lines()) <= 3
        with pytest.raises(errors.LLMConnectionError, match="refused"):
            await provider.generate_chat_completion("hi", model=mortal.model, options=BRIEF)
        mortal.start()
        await still_answers(provider, mortal)
