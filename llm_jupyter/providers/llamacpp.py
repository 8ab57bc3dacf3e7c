"""llama.cpp: embedded in a child process, or a `llama-server` that already runs.

Without `base_url` the provider starts llama.cpp itself on first need, with the small model that it can fetch or with any
GGUF file; with `base_url` it is an OpenAI-compatible provider of that server and starts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from llm_jupyter.errors import LLMError, ModelNotFoundError, UnsupportedOperationError
from llm_jupyter.events import ModelDeleted, ModelPulled, ModelPulling
from llm_jupyter.providers._download import disk_error, remove
from llm_jupyter.providers._embedded_process import EmbeddedProcess
from llm_jupyter.providers._gguf import read_header
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.providers._llama_process import ChildLauncher, Launcher, LaunchPlan
from llm_jupyter.providers._weights import MODEL_ID, SIZE, WeightsFolder
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ChunkStream, Window
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.settings import home_folder
from llm_jupyter.types import (
    Capability,
    GenerationOptions,
    LLMModelInfo,
    LLMProviderStatus,
    MessageLike,
    ProviderState,
    PullProgress,
)

DEMONSTRATION_TOKENS = 512
"""Tokens of an answer of the demonstration model when nothing else is asked: it tends to go on and on."""

ADVICE = (
    f"{MODEL_ID} is a tiny demonstration model: it writes well and knows little. "
    "For a better one: start Ollama or LM Studio, then %llm models and %llm use MODEL; or %llm use /path/to/model.gguf."
)


class LlamaCppProvider(OpenAICompatibleProvider):
    """The embedded model.

    Models are the built-in `smollm2-135m`, GGUF files in the `models` folder of `LLM_JUPYTER_HOME` or of any Jupyter data
    path (named by file name), and any GGUF file by its path. One is loaded at a time. `context` is in tokens, for each
    of `slots` requests at once; `threads` defaults to one less than the usable cores, at most 8. `prompt_log` is a folder
    into which llama.cpp writes each prompt as it reaches the model, for seeing what the chat template made of it.
    `launcher` starts the process: a child for this provider alone, unless it is given one that shares.
    """

    kind: ClassVar[str] = "llamacpp"

    def __init__(
        self,
        name: str = "embedded",
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        home: Path | None = None,
        context: int = 4096,
        slots: int = 1,
        threads: int | None = None,
        prompt_log: str | Path | None = None,
        launcher: Launcher | None = None,
        first_token_timeout: float = 300.0,
        idle_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            name,
            base_url or "http://127.0.0.1",
            api_key,
            first_token_timeout=first_token_timeout,
            idle_timeout=idle_timeout,
        )
        self._embedded = base_url is None
        self._weights = WeightsFolder(home or home_folder())
        self._plan = LaunchPlan(context, slots, threads, str(prompt_log) if prompt_log else None)
        self._process = EmbeddedProcess(
            self, launcher or ChildLauncher(), self._plan, enter=self._enter, file_of=self._file
        )
        if self._embedded:
            self._client = None
            self.slots = slots

    @property
    def url(self) -> str | None:
        return None if self._embedded else super().url

    @property
    def where(self) -> str:
        return f"{self.name}, llama.cpp beside this kernel" if self._embedded else super().where

    @property
    def process_id(self) -> int | None:
        """The id of the process that has the model, if one runs."""
        return self._process.pid

    def advice(self, model: str) -> str:
        return ADVICE if self._embedded and model == MODEL_ID else ""

    async def connect(self) -> None:
        if not self._embedded:
            return await super().connect()
        self._process.follow()
        if not self._process.is_coming_back:
            self._enter(ProviderState.CONNECTED)
        return None

    async def get_status(self) -> LLMProviderStatus:
        if not self._embedded:
            return await super().get_status()
        await self.connect()
        return self.status()

    def observed(self, error: LLMError | None, *, answered: bool = False) -> None:
        if not self._embedded:  # the embedded one's state is that of its process
            super().observed(error, answered=answered)

    async def disconnect(self) -> None:
        await self._process.stop()
        await super().disconnect()
        self._enter(ProviderState.DISCONNECTED)

    async def prepare(self, model: str) -> None:
        """Fetch the weights if they are missing, start llama.cpp if it does not run, load the model."""
        await self._ready(model)

    # -- models

    async def get_available_models(self) -> list[LLMModelInfo]:
        if not self._embedded:
            return await super().get_available_models()
        self._process.follow()
        files = self._weights.files()
        return [await self._describe(model, files.get(model)) for model in dict.fromkeys((MODEL_ID, *files))]

    async def get_model_info(self, model: str) -> LLMModelInfo:
        if not self._embedded:
            return await super().get_model_info(model)
        file = self._weights.files().get(model) or _existing_path(model)
        if file is None and model != MODEL_ID:
            raise self._unknown(model)
        return await self._describe(model, file)

    def fetches(self, model: str) -> bool:
        """The built-in model, and GGUF files by their URL."""
        return self._embedded and (model == MODEL_ID or ".gguf" in model)

    async def pull_model(self, model: str) -> AsyncIterator[PullProgress]:
        """Fetch the built-in model by its name, or a GGUF file by `https://.../NAME.gguf#sha256=HEX`."""
        if not self._embedded:
            self._unsupported("fetch models")
        folder = str(self._weights.path)
        source = self._weights.fetch() if model == MODEL_ID else self._weights.fetch_from(model)
        async for progress in source:
            self.publish(
                ModelPulling(
                    provider=self.name,
                    model=model,
                    status=progress.status,
                    completed=progress.completed,
                    total=progress.total,
                    folder=folder,
                )
            )
            yield progress
        self.publish(ModelPulled(provider=self.name, model=model))

    async def delete_model(self, model: str) -> None:
        if not self._embedded:
            self._unsupported("delete models")
        file = self._weights.files().get(model)
        if file is None:
            raise self._unknown(model)
        if file.parent != self._weights.path:
            raise UnsupportedOperationError(f"{file} was not put there by llm_jupyter, so it is not removed")
        if self._process.model == model:
            await self.unload_model(model)
        try:
            remove(file)
        except OSError as error:
            raise disk_error(error, file.parent) from None
        self.publish(ModelDeleted(provider=self.name, model=model))

    async def load_model(self, model: str) -> None:
        if not self._embedded:
            self._unsupported("load models on request")
        await self._ready(model)

    async def unload_model(self, model: str) -> None:
        if not self._embedded:
            self._unsupported("unload models on request")
        await self._process.stop(model)

    async def embed(self, texts: Sequence[str], *, model: str) -> list[list[float]]:
        if self._embedded:
            self._unsupported("embed texts")
        return await super().embed(texts, model=model)

    # -- answers

    def stream_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return super().stream_chat_completion(messages, model=model, options=self._limited(model, options))

    def stream_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return super().stream_completion(prompt, model=model, options=self._limited(model, options))

    # -- the process

    def _limited(self, model: str, options: GenerationOptions) -> GenerationOptions:
        if not self._embedded or model != MODEL_ID or options.max_tokens is not None:
            return options
        return msgspec.structs.replace(options, max_tokens=DEMONSTRATION_TOKENS)

    async def probe(self) -> None:
        if not self._embedded:
            await super().probe()
        self._process.follow()

    async def _ready(self, model: str | None = None) -> HttpClient:
        if not self._embedded:
            return await super()._ready(model)
        return await self._process.ready(model or self._process.model or MODEL_ID)

    def _reachable(self, model: str) -> HttpClient | None:
        return self._process.reachable(model) if self._embedded else super()._reachable(model)

    async def _find_window(self, model: str, options: GenerationOptions) -> Window | None:
        if self._embedded and self._reachable(model) is None:
            info = await self.get_model_info(model)
            return Window(info.effective_context or self._plan.context, "as it will be loaded")
        return await super()._find_window(model, options)

    # -- the files

    async def _file(self, model: str) -> Path:
        if model == MODEL_ID:
            file = await asyncio.to_thread(self._weights.verified)
            if file is None:
                async for _ in self.pull_model(MODEL_ID):
                    pass
                file = await asyncio.to_thread(self._weights.verified)
        else:
            file = self._weights.files().get(model) or _existing_path(model)
        if file is None:
            raise self._unknown(model)
        return file

    async def _describe(self, model: str, file: Path | None) -> LLMModelInfo:
        can = {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA, Capability.MODEL_MANAGEMENT}
        if file is None:  # the built-in model before its first use
            return LLMModelInfo(
                id=model,
                name="SmolLM2 135M Instruct",
                provider=self.name,
                is_local=True,
                capabilities=frozenset(can),
                size=SIZE,
                loaded=False,
            )
        header = await asyncio.to_thread(read_header, file)
        if "tools" in header.chat_template:
            can.add(Capability.TOOLS)
        if "<think>" in header.chat_template:
            can.add(Capability.THINKING)
        declared = header.context_length
        return LLMModelInfo(
            id=model,
            name=header.name,
            provider=self.name,
            is_local=True,
            capabilities=frozenset(can),
            parameters=header.parameters,
            context_length=declared,
            effective_context=min(self._plan.context, declared or self._plan.context),
            quantization=header.quantization,
            license=header.license,
            size=header.size,
            loaded=model == self._process.model and self.process_id is not None,
        )

    def _unknown(self, model: str) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"there is no model {model!r}",
            where=self.where,
            next_step="%llm models lists what is there; a file is named by its path.",
        )


def _existing_path(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
        return path if path.suffix == ".gguf" and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, nobody's home folder, a zero byte
        return None
