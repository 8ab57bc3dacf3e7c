"""LM Studio: its catalogue and model management by its own REST API, answers by its OpenAI-compatible one.

Source: LM Studio's REST documentation, `/api/v1` (0.4 and newer) and `/api/v0` (0.3.6 and newer). Answers go through
`/v1/chat/completions`, because `/api/v1/chat` takes no custom tools. A server answers unknown addresses with status 200, so
everything is judged by the shape of the reply. LM Studio itself was not run in the making of this: its replies are
scripted from the documentation and from public bug reports.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec

from llm_jupyter.errors import (
    LLMConnectionError,
    MalformedResponseError,
    ModelLoadError,
    ModelNotFoundError,
    RequestError,
    UnsupportedOperationError,
)
from llm_jupyter.events import ModelLoaded, ModelLoading, ModelPulled, ModelPulling, ModelUnloaded
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.providers.base import Pace, Window, parameter_count
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import Capability, Chunk, GenerationOptions, LLMModelInfo, Message, PullProgress

LOAD_TIMEOUT = 600.0
"""Seconds for reading a large model from a slow disk; a first request may load its model too."""

POLL_INTERVAL = 0.5
"""Seconds between two looks at a download."""

NEEDS_0_4 = "It needs LM Studio 0.4 or newer."


class _Quantization(msgspec.Struct):
    name: str | None = None


class _InstanceConfig(msgspec.Struct, frozen=True):
    context_length: int | None = None


class _Instance(msgspec.Struct):
    id: str
    config: _InstanceConfig = _InstanceConfig()


class _Abilities(msgspec.Struct):
    vision: bool = False
    trained_for_tool_use: bool = False
    reasoning: Any = None


class _ModelV1(msgspec.Struct):
    key: str
    type: str
    display_name: str = ""
    quantization: _Quantization | None = None
    size_bytes: int | None = None
    params_string: str | None = None
    loaded_instances: list[_Instance] = []
    max_context_length: int | None = None
    capabilities: _Abilities | None = None


class _ListV1(msgspec.Struct):
    models: list[_ModelV1]


class _ModelV0(msgspec.Struct):
    id: str
    type: str
    state: str
    quantization: str | None = None
    max_context_length: int | None = None
    loaded_context_length: int | None = None
    capabilities: list[str] = []


class _ListV0(msgspec.Struct):
    data: list[_ModelV0]


class _Loaded(msgspec.Struct):
    status: str
    instance_id: str
    load_time_seconds: float | None = None


class _Unloaded(msgspec.Struct):
    instance_id: str


class _Job(msgspec.Struct):
    status: str
    job_id: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None


class LMStudioProvider(OpenAICompatibleProvider):
    """A running LM Studio at `base_url`; `api_key` is its API token, if it asks for one.

    `context` is the window in tokens that a model is loaded with on request. A first request may load its model
    (`first_token_timeout`, in seconds, allows for that).
    """

    kind: ClassVar[str] = "lmstudio"

    def __init__(
        self,
        name: str = "lmstudio",
        base_url: str = "http://127.0.0.1:1234",
        api_key: str | None = None,
        *,
        context: int | None = None,
        first_token_timeout: float = LOAD_TIMEOUT,
        idle_timeout: float = 60.0,
    ) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        super().__init__(
            name, f"{root}/v1", api_key, first_token_timeout=first_token_timeout, idle_timeout=idle_timeout
        )
        self._context = context
        self._models: dict[str, LLMModelInfo] = {}
        self._instances: dict[str, list[str]] = {}
        self._windows: dict[str, int] = {}
        self._has_v1 = False

    # -- models

    async def get_available_models(self) -> list[LLMModelInfo]:
        client = await self._ready()
        try:
            listed = (await client.json("GET", "//api/v1/models", _ListV1)).models
            self._has_v1 = True
            self._instances = {model.key: [one.id for one in model.loaded_instances] for model in listed}
            self._windows = _windows(listed)
            models = [self._from_v1(model) for model in listed]
        except (MalformedResponseError, RequestError, ModelNotFoundError):
            self._has_v1 = False
            self._instances = {}
            models = await self._listed_v0(client)
        self._models = {model.id: model for model in models}
        return models

    async def get_model_info(self, model: str) -> LLMModelInfo:
        await self.get_available_models()
        key = next((key for key, instances in self._instances.items() if model in instances), model)
        if key not in self._models:
            raise ModelNotFoundError(
                f"there is no model {model!r}", where=self.where, next_step="%llm models lists what is there."
            )
        return self._models[key]

    async def load_model(self, model: str) -> None:
        body: dict[str, Any] = {"model": model}
        if self._context is not None:
            body["context_length"] = self._context
        info = await self.get_model_info(model)
        self._require_v1("load models on request")
        self.publish(ModelLoading(provider=self.name, model=model, size=info.size))
        started = time.monotonic()
        client = await self._ready()
        loaded = await client.json("POST", "//api/v1/models/load", _Loaded, body, timeout=LOAD_TIMEOUT)
        if loaded.status != "loaded":
            raise ModelLoadError(f"LM Studio did not load {model}: it is {loaded.status[:50]}", where=self.where)
        self.publish(ModelLoaded(provider=self.name, model=model, seconds=time.monotonic() - started))

    async def unload_model(self, model: str) -> None:
        info = await self.get_model_info(model)
        self._require_v1("unload models on request")
        client = await self._ready()
        for instance in self._instances[info.id] if info.id == model else [model]:
            await client.json("POST", "//api/v1/models/unload", _Unloaded, {"instance_id": instance})
        self.publish(ModelUnloaded(provider=self.name, model=model))

    def fetches(self, model: str) -> bool:
        """Names of its hub, which have a publisher: `publisher/model`."""
        return "/" in model and ".gguf" not in model

    async def pull_model(self, model: str) -> AsyncIterator[PullProgress]:
        """Let LM Studio download a model. It goes on by itself if the watching is stopped; asking again watches again."""
        await self.get_available_models()
        self._require_v1("fetch models")
        client = await self._ready()
        job = await client.json("POST", "//api/v1/models/download", _Job, {"model": model})
        completed = 0
        while True:
            total = job.total_size_bytes
            is_there = job.status in ("completed", "already_downloaded")
            completed = max(completed, (total if is_there else job.downloaded_bytes) or 0)
            self.publish(
                ModelPulling(
                    provider=self.name,
                    model=model,
                    status=job.status,
                    completed=completed,
                    total=total,
                    folder=self.where,
                )
            )
            yield PullProgress(job.status, completed, total)
            if is_there:
                break
            if job.status == "failed" or job.job_id is None:
                raise RequestError(
                    f"LM Studio could not download {model}", where=self.where, next_step="Its own window says why."
                )
            await asyncio.sleep(POLL_INTERVAL)
            latest = await client.json("GET", f"//api/v1/models/download/status/{job.job_id}", _Job)
            job = msgspec.structs.replace(latest, job_id=job.job_id, total_size_bytes=latest.total_size_bytes or total)
        self.publish(ModelPulled(provider=self.name, model=model))

    # -- answers

    async def prepare(self, model: str) -> None:
        """Look whether the model is there, and whether the request will have to load it."""
        await self.get_model_info(model)

    async def _batches(
        self, path: str, body: dict[str, Any], options: GenerationOptions, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        """The answer; where the request loads its model first, that is told, since nothing is sent until it is done."""
        model, started = str(body["model"]), time.monotonic()
        if model not in self._models:
            await self.prepare(model)
        known = self._models.get(model)
        is_loading = known is not None and known.loaded is False
        if known is not None and is_loading:
            self.publish(ModelLoading(provider=self.name, model=model, size=known.size))
        async with aclosing(super()._batches(path, body, options, pace)) as batches:
            async for chunks in batches:
                if known is not None and is_loading:
                    is_loading = False
                    self._models[model] = msgspec.structs.replace(known, loaded=True)
                    self.publish(ModelLoaded(provider=self.name, model=model, seconds=time.monotonic() - started))
                yield chunks

    def _check_model(self, asked: str, answering: str) -> None:
        """Raise where another model answers than was asked: 0.3.14 does that when exactly one is loaded."""
        instances = self._instances.get(asked, ())
        key = next((key for key, names in self._instances.items() if asked in names), asked)
        if (
            answering in (asked, key, *instances)
            or answering.startswith(f"{asked}:")
            or asked.startswith(f"{answering}@")
        ):
            return  # a second copy is called `key:2`, a quantization is asked for as `key@q4_k_m`
        raise ModelNotFoundError(
            f"LM Studio answers with {answering!r} instead of {asked!r}", where=self.where,
            next_step="Load the model there, or name the one that is loaded: %llm models.",
        )  # fmt: skip

    # -- the window

    async def _find_window(self, model: str, options: GenerationOptions) -> Window | None:
        """That of a model that is loaded: with which one another will be loaded, nobody tells before."""
        if self._models and not self._has_v1:
            await self._listed_v0(await self._ready())  # one request, where the catalogue needs two
        else:
            await self.get_available_models()
        tokens = self._windows.get(model)
        return Window(tokens, "as it is loaded") if tokens else None

    async def _count(self, messages: Sequence[Message], model: str, options: GenerationOptions) -> int | None:
        return None  # it shows its tokenizer to nobody

    # -- the REST API

    async def _listed_v0(self, client: HttpClient) -> list[LLMModelInfo]:
        listed = await self._list_v0(client)
        self._windows = {model.id: model.loaded_context_length for model in listed if model.loaded_context_length}
        return [self._from_v0(model) for model in listed]

    async def _list_v0(self, client: HttpClient) -> list[_ModelV0]:
        try:
            return (await client.json("GET", "//api/v0/models", _ListV0)).data
        except (MalformedResponseError, RequestError, ModelNotFoundError):
            raise LLMConnectionError(
                "what answers there is not LM Studio",
                where=self.where,
                next_step="Is base_url right? LM Studio's is http://127.0.0.1:1234.",
            ) from None

    def _require_v1(self, what: str) -> None:
        """Raise where the catalogue has just shown that the server is too old; nothing more is sent."""
        if not self._has_v1:
            raise UnsupportedOperationError(f"this LM Studio cannot {what}", where=self.where, next_step=NEEDS_0_4)

    def _from_v1(self, model: _ModelV1) -> LLMModelInfo:
        can = _abilities(model.type)
        told = model.capabilities or _Abilities()
        can |= {Capability.VISION} if told.vision else set()
        can |= {Capability.TOOLS} if told.trained_for_tool_use else set()
        can |= {Capability.THINKING} if told.reasoning else set()
        effective = next((one.config.context_length for one in model.loaded_instances), None)
        return LLMModelInfo(
            id=model.key,
            name=model.display_name or model.key,
            provider=self.name,
            is_local=self.is_local,
            capabilities=frozenset(can),
            parameters=parameter_count(model.params_string or ""),
            context_length=model.max_context_length,
            effective_context=effective,
            quantization=model.quantization.name if model.quantization else None,
            size=model.size_bytes,
            loaded=bool(model.loaded_instances),
        )

    def _from_v0(self, model: _ModelV0) -> LLMModelInfo:
        can = _abilities(model.type)
        can |= {Capability.TOOLS} if "tool_use" in model.capabilities else set()
        return LLMModelInfo(
            id=model.id,
            name=model.id,
            provider=self.name,
            is_local=self.is_local,
            capabilities=frozenset(can),
            context_length=model.max_context_length,
            effective_context=model.loaded_context_length,
            quantization=model.quantization,
            loaded=model.state == "loaded",
        )


def _windows(models: Iterable[_ModelV1]) -> dict[str, int]:
    """The windows of what is loaded, by the names of models and of their instances, any of which may answer."""
    windows: dict[str, int] = {}
    for model in models:
        own = {one.id: tokens for one in model.loaded_instances if (tokens := one.config.context_length)}
        if own:
            windows |= {model.key: min(own.values()), **own}
    return windows


def _abilities(kind: str) -> set[Capability]:
    if kind in ("embedding", "embeddings"):
        return {Capability.EMBEDDING}
    can = {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA, Capability.MODEL_MANAGEMENT}
    return can | {Capability.VISION} if kind == "vlm" else can
