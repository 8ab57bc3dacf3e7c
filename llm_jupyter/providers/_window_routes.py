"""Windows and tokens at servers of OpenAI's protocol, which itself knows neither.

llama.cpp's server tells both at addresses of its own: `/props` and `/slots`, `/apply-template` and `/tokenize`. Others
give the window in their list of models. What a server is shows in the shape of its replies: some answer every address
with status 200. A prompt is posted for counting only to what has shown itself to be llama.cpp.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from llm_jupyter.errors import (
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ModelLoadingError,
    RequestError,
)
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.providers._openai_wire import ModelList, Props
from llm_jupyter.providers.base import Window

T = TypeVar("T")
PROPS, SLOTS = ROUTES = "//props", "//slots"


class _Slot(msgspec.Struct):
    n_ctx: int


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


class WindowRoutes:
    """What is known of one server; what it lacks is asked for once.

    llama.cpp on this machine is asked for its window each time, since it may have been started anew with another one. Of
    other servers the first answer holds until `forget`.
    """

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self.forget()

    def forget(self) -> None:
        """Another server may answer there from now on."""
        self._routes: tuple[str, ...] = ROUTES  # those that may tell: one at llama.cpp's server, none at others
        self._counts = True
        self._windows: dict[str, Window | None] = {}

    async def window(self, client: HttpClient, model: str) -> Window | None:
        """The window that the model is served with. Raises where the server does not answer."""
        if model in self._windows:
            return self._windows[model]
        if (window := await self._of_llama(client)) is not None and self._is_local:
            return window
        self._windows[model] = window or await _listed(client, model)
        return self._windows[model]

    async def count(self, client: HttpClient, body: dict[str, Any]) -> int | None:
        """The tokens of a chat request's prompt. Raises where the server does not answer."""
        if self._routes == ROUTES:
            await self._of_llama(client)
        if not (self._routes and self._counts):
            return None
        try:
            prompt = (await client.json("POST", "//apply-template", _Prompt, body)).prompt
            text = {"model": body["model"], "content": prompt, "add_special": True, "parse_special": True}
            return len((await client.json("POST", "//tokenize", _Tokens, text)).tokens)
        except (MalformedResponseError, RequestError) as error:
            self._counts = isinstance(error, RequestError) and error.status != 404  # else it knows no such address
            return None

    async def _of_llama(self, client: HttpClient) -> Window | None:
        for route in self._routes:
            if tokens := await _n_ctx(client, route):
                self._routes = (route,)
                return Window(tokens, route.removeprefix("/"))
        self._routes = ()
        return None


async def _n_ctx(client: HttpClient, route: str) -> int | None:
    """The tokens that one request can have: each slot has a window of its own."""
    if route == SLOTS:
        slots = await _asked(client, SLOTS, list[_Slot])
        return min((slot.n_ctx for slot in slots), default=None) if slots else None
    props = await _asked(client, PROPS, Props)
    settings = props.default_generation_settings if props is not None else None
    return settings.n_ctx if settings is not None else None


async def _listed(client: HttpClient, model: str) -> Window | None:
    listed = await _asked(client, "/models", ModelList)
    entry = listed.entry(model) if listed is not None else None
    if entry is None:
        return None
    if loaded := (entry.meta.n_ctx if entry.meta is not None else None) or entry.max_model_len:
        return Window(loaded, "as its list of models says")
    return Window(entry.context_length, "as the model declares") if entry.context_length else None


async def _asked(client: HttpClient, path: str, shape: type[T]) -> T | None:
    """The reply, or `None` where the server has something else to say. Raises where it does not answer, or not yet."""
    try:
        return await client.json("GET", path, shape)
    except (LLMConnectionError, ModelLoadingError):
        raise
    except LLMError:
        return None
