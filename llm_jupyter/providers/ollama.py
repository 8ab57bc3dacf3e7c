"""Ollama, by its own protocol.

Through its OpenAI-compatible side door the window, `keep_alive`, thinking and the management of models are lost, and a
prompt that is too long is cut without a word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from llm_jupyter.errors import (
    AuthenticationError,
    InvalidInputError,
    LLMError,
    MalformedResponseError,
    RequestError,
)
from llm_jupyter.events import ModelDeleted, ModelLoaded, ModelLoading, ModelPulled, ModelPulling, ModelUnloaded
from llm_jupyter.providers._http import HttpClient, StreamLimits, is_loopback, without_secrets
from llm_jupyter.providers._ollama_pull import PullTally, models_folder
from llm_jupyter.providers._ollama_stream import LOAD_TIMEOUT, NDJSON, LineReader, read_answer, read_progress
from llm_jupyter.providers._ollama_window import Prompt, WindowGuard
from llm_jupyter.providers._ollama_wire import (
    AnswerLine,
    EmbedReply,
    ModelEntry,
    ModelList,
    ShowReply,
    Version,
    chat_body,
    completion_body,
    is_remote,
    model_entry,
    model_info,
    refuses_to_cut,
    same_model,
    with_options,
)
from llm_jupyter.providers._wire import NDJSONDecoder
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ChunkStream, LLMProvider, Pace, Window, checked_messages
from llm_jupyter.types import (
    Chunk,
    GenerationOptions,
    LLMModelInfo,
    LLMResponse,
    Message,
    MessageLike,
    ProviderState,
    PullProgress,
)

DEFAULT_WINDOW = 8192
"""Tokens; the window that is asked for where the model declares more."""


class OllamaProvider(LLMProvider):
    """An Ollama server at `base_url`.

    `context` is the window in tokens that every request asks for (8192 by default, never more than the model declares):
    one value for each model, since a change makes the server load it anew. `keep_alive` is how long a model stays loaded
    (seconds, or text such as `"10m"`; the server's default is five minutes).
    """

    kind: ClassVar[str] = "ollama"
    own_options: ClassVar[frozenset[str]] = frozenset({"num_ctx", "keep_alive"})

    def __init__(
        self,
        name: str = "ollama",
        base_url: str = "http://127.0.0.1:11434",
        api_key: str | None = None,
        *,
        context: int | None = None,
        keep_alive: str | int | None = None,
        first_token_timeout: float = 300.0,
        idle_timeout: float = 60.0,
    ) -> None:
        super().__init__(name)
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._client = HttpClient(self._base_url, name=name, api_key=api_key, gate=lambda: self.gate())
        self._limits = StreamLimits(first_token_timeout, idle_timeout)
        self._context = context
        self._keep_alive = keep_alive
        self._shown: dict[str, ShowReply] = {}
        self._digests: dict[str, str] = {}
        self._refuses_to_cut: bool | None = None
        self._guard = WindowGuard(self.where, name)

    @property
    def is_local(self) -> bool:
        return is_loopback(self._base_url)

    def keeps(self, model: str) -> bool:
        return self.is_local and not is_remote(model, "")

    @property
    def url(self) -> str | None:
        return without_secrets(self._base_url)

    async def is_available(self) -> bool:
        try:
            await self._list()
        except LLMError:
            return False
        return True

    async def disconnect(self) -> None:
        self._refuses_to_cut = None
        await self._client.close()
        self._enter(ProviderState.DISCONNECTED)

    async def get_version(self) -> str:
        """The server's version."""
        return (await self._client.json("GET", "/api/version", Version)).version

    # -- models

    async def prepare(self, model: str) -> None:
        """Load the model, where it is not loaded: by itself the server would do it silently with the first request."""
        if not self._remote(model) and model_entry((await self._running()).values(), model) is None:
            await self.load_model(model)

    async def get_available_models(self) -> list[LLMModelInfo]:
        listed, running = await asyncio.gather(self._list(), self._running())
        shown = await asyncio.gather(*(self._shown_if_needed(entry) for entry in listed))
        return [self._info(entry, show, running.get(entry.name)) for entry, show in zip(listed, shown, strict=True)]

    async def get_model_info(self, model: str) -> LLMModelInfo:
        listed, running = await asyncio.gather(self._list(), self._running())
        show = await self._show(model)
        entry = model_entry(listed, model) or ModelEntry(model, details=show.details)
        return self._info(entry, show, running.get(entry.name))

    def fetches(self, model: str) -> bool:
        return ".gguf" not in model

    async def pull_model(self, model: str) -> AsyncIterator[PullProgress]:
        body: dict[str, Any] = {"model": model}
        if model.startswith("http://") and is_loopback(model):
            body["insecure"] = True  # a registry on this machine
        tally = PullTally(self.where, await self._models_folder())
        async with aclosing(read_progress(self._client, "/api/pull", body)) as lines:
            async for line in lines:
                progress = tally.add(line)
                self.publish(
                    ModelPulling(
                        provider=self.name,
                        model=model,
                        status=progress.status,
                        completed=progress.completed,
                        total=progress.total,
                        folder=self.where,
                    )
                )
                yield progress
        self._forget(model)
        self.publish(ModelPulled(provider=self.name, model=model))

    async def delete_model(self, model: str) -> None:
        await self._client.send("DELETE", "/api/delete", {"model": model})
        self._forget(model)
        self.publish(ModelDeleted(provider=self.name, model=model))

    async def copy_model(self, model: str, target: str) -> None:
        """Give a model a second name."""
        await self._client.send("POST", "/api/copy", {"source": model, "destination": target})

    async def create_model(self, model: str, **definition: Any) -> AsyncIterator[PullProgress]:
        """Make a model of another: `from_="m"`, `system="..."`, `parameters={...}` and the other fields of `/api/create`."""
        fields = {name.rstrip("_"): value for name, value in definition.items()}
        async with aclosing(read_progress(self._client, "/api/create", {"model": model, **fields})) as lines:
            async for line in lines:
                yield PullProgress(line.status, line.completed or 0, line.total)
        self._forget(model)

    async def load_model(self, model: str) -> None:
        body = await self._stable(model, {"model": model, "stream": False})
        self.publish(ModelLoading(provider=self.name, model=model))
        started = time.monotonic()
        await self._client.json("POST", "/api/generate", AnswerLine, body, timeout=LOAD_TIMEOUT)
        self.publish(ModelLoaded(provider=self.name, model=model, seconds=time.monotonic() - started))

    async def unload_model(self, model: str) -> None:
        await self._client.json("POST", "/api/generate", AnswerLine, {"model": model, "keep_alive": 0, "stream": False})
        self.publish(ModelUnloaded(provider=self.name, model=model))

    async def embed(self, texts: Sequence[str], *, model: str) -> list[list[float]]:
        body = await self._stable(model, {"model": model, "input": list(texts), "truncate": False})
        try:
            reply = await self._client.json("POST", "/api/embed", EmbedReply, body, timeout=LOAD_TIMEOUT)
        except RequestError as error:
            if "context length" not in error.what:
                raise
            prompt = Prompt(body, tuple(Message.user(text) for text in texts), await self._window(model) or 0)
            raise self._guard.too_long(prompt, prompt.window + 1) from None
        return reply.embeddings

    # -- answers

    def stream_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        sent = checked_messages(messages)
        return self._stream("/api/chat", chat_body(sent, model, options), sent, options)

    def stream_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return self._stream("/api/generate", completion_body(prompt, model, options), [Message.user(prompt)], options)

    def _stream(
        self, path: str, body: dict[str, Any], sent: Sequence[Message], options: GenerationOptions
    ) -> ChunkStream:
        pace = Pace()
        limits = StreamLimits(options.timeout or self._limits.first_token, self._limits.idle)
        return ChunkStream(self._batches(path, body, tuple(sent), limits, pace), pace)

    async def _batches(
        self, path: str, body: dict[str, Any], sent: tuple[Message, ...], limits: StreamLimits, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        reader = LineReader(time.perf_counter())
        self.in_flight += 1
        try:
            prompt = await self._prompt(body, sent)
            if prompt is not None:
                await self._refuse_what_does_not_fit(path, prompt, limits)
            async with aclosing(self._answer(path, body, limits, pace, reader)) as batches:
                async for chunks in batches:
                    if reader.done and prompt is not None:
                        self._guard.answered(prompt, reader.prompt_tokens, reader.written_tokens, reader.text)
                    yield chunks
        except LLMError as error:
            raise self._explained(error, body) from None
        finally:
            self.in_flight -= 1

    async def _answer(
        self, path: str, body: dict[str, Any], limits: StreamLimits, pace: Pace, reader: LineReader
    ) -> AsyncGenerator[list[Chunk], None]:
        stream = await self._client.open_stream(
            path, body, NDJSONDecoder(), content_type=NDJSON, limits=limits, pace=pace
        )
        try:
            async for chunks in read_answer(stream, reader, self.where):
                yield chunks
        finally:
            stream.close()

    # -- the window

    async def _find_window(self, model: str, options: GenerationOptions) -> Window | None:
        body = await self._stable(model, with_options({"model": model}, options))
        if isinstance(sent := body["options"].get("num_ctx"), int):
            return Window(sent, "num_ctx that is sent")
        declared = (await self._show(model)).context_length  # a remote model: its window is its server's affair
        return Window(declared, "as the model declares") if declared else None

    async def _window(self, model: str) -> int | None:
        """The window to ask for: always the same for one model. A remote one has its own."""
        show = await self._show(model)
        if self._remote(model):
            return None
        wanted = self._context or DEFAULT_WINDOW
        return min(show.context_length or wanted, wanted)

    async def _stable(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """A body with what every request of this model says alike: its window, and how long it stays loaded."""
        options = body.setdefault("options", {})
        if (window := await self._window(model)) is not None:
            wanted = options.get("num_ctx")
            declared = (await self._show(model)).context_length
            options["num_ctx"] = min(wanted, declared or wanted) if isinstance(wanted, int) else window
        if self._keep_alive is not None:
            body.setdefault("keep_alive", self._keep_alive)
        return body

    async def _prompt(self, body: dict[str, Any], sent: tuple[Message, ...]) -> Prompt | None:
        """Complete the body; what is known of its size, where there is a window to fit into."""
        model = body["model"]
        await self._stable(model, body)
        show = await self._show(model)
        if show.capabilities and "vision" not in show.capabilities and any(message.images for message in sent):
            raise InvalidInputError(
                f"{model} cannot see pictures", where=self.where, next_step="%llm models tells which models can."
            )
        window = body["options"].get("num_ctx")
        rest = show.most_tokens + 2 * len(msgspec.json.encode(body.get("tools", "")))
        return Prompt(body, sent, window, rest) if isinstance(window, int) else None

    async def _refuse_what_does_not_fit(self, path: str, prompt: Prompt, limits: StreamLimits) -> None:
        self._guard.refuse_what_cannot_fit(prompt)
        if not self._guard.may_be_cut(prompt) or await self._server_refuses_to_cut():
            return

        async def count(body: dict[str, Any]) -> int | None:
            reader = LineReader(time.perf_counter())
            brief = {**body, "options": {**body["options"], "num_predict": 1}}
            brief.pop("keep_alive", None)  # the answer that follows says how long the model stays
            async with aclosing(self._answer(path, brief, limits, Pace(), reader)) as batches:
                async for _ in batches:
                    pass
            return reader.prompt_tokens

        await self._guard.refuse_what_is_cut(prompt, count)

    async def _server_refuses_to_cut(self) -> bool:
        if self._refuses_to_cut is None:
            try:
                self._refuses_to_cut = refuses_to_cut(await self.get_version())
            except MalformedResponseError:  # what speaks Ollama's protocol need not be Ollama
                self._refuses_to_cut = False
        return self._refuses_to_cut

    # -- small things

    async def _look(self) -> None:
        await self._list()

    async def _list(self) -> list[ModelEntry]:
        listed = (await self._client.json("GET", "/api/tags", ModelList)).models
        for entry in listed:
            if self._digests.setdefault(entry.name, entry.digest) != entry.digest:  # someone else has changed it
                self._forget(entry.name)
                self._digests[entry.name] = entry.digest
        return listed

    async def _running(self) -> Mapping[str, ModelEntry]:
        listed = (await self._client.json("GET", "/api/ps", ModelList)).models
        return {entry.name: entry for entry in listed if not entry.has_expired}

    async def _show(self, model: str) -> ShowReply:
        if model not in self._shown:
            self._shown[model] = await self._client.json("POST", "/api/show", ShowReply, {"model": model})
        return self._shown[model]

    async def _shown_if_needed(self, entry: ModelEntry) -> ShowReply | None:
        """What older servers do not tell in their list."""
        if entry.capabilities is not None and entry.details is not None and entry.details.context_length:
            return None
        try:
            return await self._show(entry.name)
        except LLMError:
            return None  # it was removed in the meantime, or is broken: it is listed all the same

    def _info(self, entry: ModelEntry, show: ShowReply | None, running: ModelEntry | None) -> LLMModelInfo:
        return model_info(
            entry, self.name, self.is_local, show=show, running=running, window=self._context or DEFAULT_WINDOW
        )

    def _forget(self, model: str) -> None:
        for known in [known for known in self._shown if same_model(known, model)]:
            del self._shown[known]
        self._guard.forget()

    def _remote(self, model: str) -> bool:
        """Whether the server passes this model's requests on, as far as that is known yet."""
        show = self._shown.get(model)
        return is_remote(model, show.remote_host if show else "")

    async def _collected(self, stream: ChunkStream, model: str) -> LLMResponse:
        response = await super()._collected(stream, model)
        return msgspec.structs.replace(response, is_local=self.is_local and not self._remote(model))

    async def _models_folder(self) -> Path | None:
        """Where a pull will put its files, if that is on this machine and can be known."""
        if not self.is_local:
            return None
        local = [entry for entry in await self._list() if not is_remote(entry.name, entry.remote_host)]
        largest = max(local, key=lambda entry: entry.size or 0, default=None)
        show = await self._shown_if_needed(msgspec.structs.replace(largest, capabilities=None)) if largest else None
        return models_folder(show.modelfile if show else None)

    def _explained(self, error: LLMError, body: dict[str, Any]) -> LLMError:
        """The error with what only Ollama's provider knows about it."""
        if isinstance(error, RequestError) and "context length" in error.what and "num_ctx" in body["options"]:
            window = body["options"]["num_ctx"]
            return self._guard.too_long(Prompt(body, (), window), window + 1)
        if isinstance(error, RequestError) and "does not support" in error.what:
            error.next_step = "%llm models tells what each model can."
        if isinstance(error, AuthenticationError) and self._remote(body["model"]):
            error.next_step = "Sign in on the machine where Ollama runs: ollama signin"
        return error
