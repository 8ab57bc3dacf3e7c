"""The models of a real Ollama: listed, loaded, freed, copied, made, deleted, and fetched from a registry on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from contract import covers
from kind_scripts import ndjson
from servers.model_registry import ModelRegistry
from servers.real_ollama import Ollama, free_port
from servers.scripted import Request, Script, ScriptedServer, reply

from llm_jupyter import errors, events
from llm_jupyter.providers._ollama_pull import models_folder
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import Capability, PullProgress

LAYER = 98_362_432


@pytest_asyncio.fixture
async def provider(ollama: Ollama) -> AsyncIterator[OllamaProvider]:
    async with OllamaProvider("ollama", ollama.url, context=256) as provider:
        yield provider


def heard(provider: OllamaProvider) -> list[events.Event]:
    """The list that the provider's events go to from now on."""
    told: list[events.Event] = []
    provider.publish = told.append
    return told


@covers("load_model", "unload_model", "get_available_models", "get_model_info")
async def test_a_model_is_loaded_seen_and_freed(provider: OllamaProvider, ollama: Ollama) -> None:
    told = heard(provider)
    await provider.load_model(ollama.model)
    (info,) = await provider.get_available_models()
    assert (info.loaded, info.effective_context, info.context_length) == (True, 256, 8192)
    assert info == await provider.get_model_info(ollama.model)
    assert ollama.runners()
    await provider.unload_model(ollama.model)
    assert (await provider.get_model_info(ollama.model)).loaded is False
    assert [type(event) for event in told] == [events.ModelLoading, events.ModelLoaded, events.ModelUnloaded]
    await provider.prepare(ollama.model)
    await provider.prepare(ollama.model)
    assert [type(event) for event in told[3:]] == [events.ModelLoading, events.ModelLoaded]
    assert (await provider.get_model_info(ollama.model)).loaded is True


@covers("delete_model")
async def test_a_model_is_copied_made_of_another_and_deleted(provider: OllamaProvider, ollama: Ollama) -> None:
    told = heard(provider)
    await provider.copy_model(ollama.model, "copy")
    steps = [step.status async for step in provider.create_model("pirate", from_=ollama.model, system="Say arr.")]
    assert steps[-1] == "success"
    assert {model.id for model in await provider.get_available_models()} == {
        ollama.model,
        "copy:latest",
        "pirate:latest",
    }
    for name in ("copy", "pirate:latest"):
        assert (await provider.get_model_info(name)).name == name.removesuffix(":latest")
        await provider.delete_model(name)
        with pytest.raises(errors.ModelNotFoundError):
            await provider.get_model_info(name)
    assert [event.model for event in told if isinstance(event, events.ModelDeleted)] == ["copy", "pirate:latest"]


@covers("embed")
async def test_texts_become_vectors_of_one_length(provider: OllamaProvider, ollama: Ollama) -> None:
    one, two, again = await provider.embed(["a ship", "the moon", "a ship"], model=ollama.model)
    assert len(one) == len(two) == 576
    assert sum(x * x for x in one) == pytest.approx(1, abs=1e-3)
    assert sum(x * y for x, y in zip(one, again, strict=True)) == pytest.approx(1, abs=1e-3)
    assert sum(x * y for x, y in zip(one, two, strict=True)) < 0.999
    with pytest.raises(errors.ContextExceededError) as caught:
        await provider.embed(["sea " * 300], model=ollama.model)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (300, 256)


async def test_an_unknown_model_is_named_by_every_method(provider: OllamaProvider) -> None:
    attempts = [
        *(method("nobody:1b") for method in (provider.get_model_info, provider.load_model, provider.prepare)),
        *(
            provider.unload_model("nobody:1b"),
            provider.delete_model("nobody:1b"),
            provider.copy_model("nobody:1b", "x"),
        ),
        *(provider.embed(["a"], model="nobody:1b"), provider.generate_completion("a", model="nobody:1b")),
        provider.generate_chat_completion("a", model="nobody:1b"),
    ]
    for attempt in attempts:
        with pytest.raises(errors.ModelNotFoundError, match="nobody:1b") as caught:
            await attempt
        assert 1 <= len(caught.value.lines()) <= 3


# -- a pull


@pytest.fixture
def registry(ollama: Ollama) -> Iterator[ModelRegistry]:
    with ModelRegistry(ollama.folder / "models", delay=0.005) as registry:
        yield registry


@pytest_asyncio.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[OllamaProvider]:
    """The provider of a server that has no model yet."""
    server = Ollama(tmp_path / "ollama", free_port())
    server.start()
    try:
        async with OllamaProvider("fresh", server.url) as provider:
            yield provider
    finally:
        server.stop()


@covers("pull_model")
async def test_a_pull_is_interrupted_goes_on_where_it_was_and_completes(
    fresh: OllamaProvider, registry: ModelRegistry, ollama: Ollama
) -> None:
    name, told = registry.name(ollama.model), heard(fresh)
    first = fresh.pull_model(name)
    async for progress in first:
        if progress.completed > LAYER // 3:
            reached = progress.completed
            break
    await first.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert await fresh.get_available_models() == []
    steps = [progress async for progress in fresh.pull_model(name)]
    done = [step.completed for step in steps if step.total]
    assert done == sorted(done)
    assert reached <= done[0] < LAYER
    assert registry.starts[:1] == [0]
    assert reached <= registry.starts[1] < LAYER
    assert steps[-1].status == "success"
    assert steps[-1].completed == steps[-1].total > LAYER  # the small layers count too
    assert isinstance(told[-1], events.ModelPulled)
    assert {event.completed for event in told[:-1] if isinstance(event, events.ModelPulling)} >= set(done)
    (model,) = await fresh.get_available_models()
    assert (model.parameters, model.is_local) == (134_515_008, True)
    assert (await fresh.get_model_info(model.id)).quantization == "Q4_1"


async def test_a_pull_survives_a_registry_that_breaks_off_once(
    fresh: OllamaProvider, registry: ModelRegistry, ollama: Ollama
) -> None:
    registry.breaks_after = LAYER // 2
    steps = [progress async for progress in fresh.pull_model(registry.name(ollama.model))]
    assert steps[-1].status == "success"
    assert 0 < registry.starts[1] < LAYER


async def pull_failure(provider: OllamaProvider, model: str) -> errors.LLMError:
    with pytest.raises(errors.LLMError) as caught:
        async for _ in provider.pull_model(model):
            pass
    assert 1 <= len(caught.value.lines()) <= 3
    return caught.value


async def test_a_pull_of_an_unknown_model_says_so(provider: OllamaProvider, registry: ModelRegistry) -> None:
    error = await pull_failure(provider, registry.name("nobody:1b"))
    assert isinstance(error, errors.ModelNotFoundError)
    assert "ollama.com/library" in error.next_step


async def test_a_registry_that_is_not_there_is_a_connection_error_at_once(provider: OllamaProvider) -> None:
    started = time.monotonic()
    error = await pull_failure(provider, f"http://127.0.0.1:{free_port()}/library/smollm2:135m")
    assert isinstance(error, errors.LLMConnectionError)
    assert "connection refused" in error.what
    assert time.monotonic() - started < 5


PULLING = {"status": "pulling b179c9523d0e", "digest": "sha256:b1", "total": 98_362_432}


async def scripted_pull(*lines: object, listed: object = (), modelfile: str = "") -> tuple[list[PullProgress], object]:
    """The progress and the error of a pull from a scripted server."""
    replies = {"/api/tags": {"models": listed}, "/api/show": {"details": {}, "modelfile": modelfile}}

    def play(request: Request) -> Script:
        return reply(replies[request.path]) if request.path in replies else ndjson(*lines)

    async with ScriptedServer(play) as server:
        provider = OllamaProvider("ollama", server.origin)
        told = heard(provider)
        failure: errors.LLMError | None = None
        try:
            async for _ in provider.pull_model("m"):
                pass
        except errors.LLMError as error:
            failure = error
        await provider.disconnect()
    assert failure is None or 1 <= len(failure.lines()) <= 3
    assert (failure is None) == isinstance(told[-1] if told else None, events.ModelPulled)
    steps = [PullProgress(e.status, e.completed, e.total) for e in told if isinstance(e, events.ModelPulling)]
    return steps, failure


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("write /models/blobs/sha256-b179-partial: no space left on device", errors.DiskFullError),
        ('max retries exceeded: Get "http://localhost:1/raw": unexpected EOF', errors.LLMConnectionError),
        ('max retries exceeded: Get "http://x": dial tcp: lookup x: no such host', errors.LLMConnectionError),
        ("pull model manifest: 503: upstream", errors.ServerError),
        ("digest mismatch, file must be downloaded again", errors.ServerError),
    ],
)
async def test_what_stops_a_pull_midway_is_typed(message: str, kind: type[errors.LLMError]) -> None:
    steps, error = await scripted_pull({"status": "pulling manifest"}, {**PULLING, "completed": 7}, {"error": message})
    assert type(error) is kind
    assert [step.completed for step in steps] == [0, 7]


async def test_a_pull_that_just_ends_is_no_success() -> None:
    _, error = await scripted_pull({"status": "pulling manifest"}, {**PULLING, "completed": 7})
    assert isinstance(error, errors.StreamTruncatedError)
    assert "goes on where it stopped" in error.next_step


async def test_progress_never_goes_back_and_counts_all_layers() -> None:
    other = {**PULLING, "digest": "sha256:c2", "total": 568}
    lines = [PULLING, {**PULLING, "completed": 50}, PULLING, {**other, "completed": 568}, {"status": "success"}]
    steps, error = await scripted_pull(*lines)
    assert error is None
    assert [step.completed for step in steps] == [0, 50, 50, 618, 618]
    assert steps[-1].total == 98_363_000


async def test_a_layer_for_which_the_disk_has_no_room_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    huge = {**PULLING, "total": 10**16}
    modelfile = f"# a comment\nFROM {tmp_path}/blobs/sha256-b179\nTEMPLATE x"
    listed = [{"name": "other"}]
    steps, error = await scripted_pull(huge, {"status": "success"}, listed=listed, modelfile=modelfile)
    assert steps == []
    assert isinstance(error, errors.DiskFullError)
    assert str(tmp_path) in error.what
    assert "10,000,000,000 MB are needed" in error.what
    room = shutil.disk_usage(tmp_path).free - 2**30  # less than is free: the pull goes on
    steps, error = await scripted_pull(
        {**huge, "total": room}, {"status": "success"}, listed=listed, modelfile=modelfile
    )
    assert (steps[-1].total, error) == (room, None)


async def test_the_folder_of_the_models_is_what_the_server_itself_tells(
    ollama: Ollama, provider: OllamaProvider
) -> None:
    assert await provider._models_folder() == ollama.folder / "models"
    assert models_folder("FROM llama3.2\n") is None
    assert models_folder("FROM /not/on/this/machine/blobs/sha256-1") is None
    assert Capability.MODEL_MANAGEMENT in (await provider.get_model_info(ollama.model)).capabilities
