"""What each kind of server says of itself, and the client that asks for it.

Sources of the shapes: Ollama's and LM Studio's REST documentation; llama.cpp's server (`/health`, `/v1/models` and the
`Loading model` error, which it gives with status 503); `ModelCard.owned_by` in the sources of vLLM and SGLang.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from llm_jupyter.providers._errors import UNDECODABLE
from llm_jupyter.providers._http import Here
from llm_jupyter.types import ProviderState

BODY_LIMIT = 2 * 1024 * 1024
"""Bytes; the list of a thousand models takes half of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the JSON of a reply; `json` is `None` for anything that is no JSON.

    `flaw` says in words why there is no answer to judge: nobody listens, it hung up, and so on.
    """

    status: int = 0
    json: Any = None
    flaw: str = ""


MODELS = "models"
"""OpenAI's list of models, wherever its protocol begins."""

Answers = Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is recognized: what it is asked, and what its answers say of its state (`None`: it is another).

    `is_particular`: no other server answers in that shape.
    """

    title: str
    paths: tuple[str, ...]
    state: Callable[[Answers], ProviderState | None]
    is_particular: bool = True


def _entries(answer: Answer | None, field: str, *texts: str, without: str) -> list[dict[str, Any]] | None:
    """The list under a field, if each entry has these texts and the field `without` is not beside it."""
    table = answer.json if answer is not None else None
    entries = table.get(field) if isinstance(table, dict) and without not in table else None
    if not isinstance(entries, list):
        return None
    good = all(isinstance(entry, dict) and all(isinstance(entry.get(text), str) for text in texts) for entry in entries)
    return entries if good else None


def _ollama(answers: Answers) -> ProviderState | None:
    version = answers["/api/version"].json
    number = version.get("version") if isinstance(version, dict) and "models" not in version else None
    is_version = isinstance(number, str) and re.match(r"\d+\.\d+", number) is not None
    # llama.cpp's server answers /api/tags too, with a `data` beside `models`.
    models = _entries(answers["/api/tags"], "models", "name", without="data")
    return ProviderState.CONNECTED if is_version and models is not None else None


def _lmstudio(answers: Answers) -> ProviderState | None:
    new, old = answers["/api/v1/models"], answers["/api/v0/models"]
    if new.json == old.json:
        return None  # whatever says the same to all questions
    is_new = _entries(new, "models", "key", "type", without="data") is not None
    is_old = bool(_entries(old, "data", "id", "type", "state", without="models"))
    return ProviderState.CONNECTED if is_new or is_old else None


def _llama_server(answers: Answers) -> ProviderState | None:
    table = answers[MODELS].json
    entries = table.get("data") if isinstance(table, dict) else None
    health = answers["/health"].json
    if not (isinstance(entries, list) and entries and isinstance(health, dict) and "data" not in health):
        return None
    if not all(isinstance(entry, dict) and entry.get("owned_by") == "llamacpp" for entry in entries):
        return None
    error = health.get("error")
    if isinstance(error, dict) and error.get("message") == "Loading model":
        return ProviderState.LOADING
    return ProviderState.CONNECTED if isinstance(health.get("status"), str) else None


def _openai(owner: str | None) -> Callable[[Answers], ProviderState | None]:
    """A server with OpenAI's list of models, each entry of it by that owner; with no owner the list may be anybody's."""

    def state(answers: Answers) -> ProviderState | None:
        listed = answers[MODELS]
        entries = _entries(listed, "data", "id", without="error")
        if entries is None or answers["/version"].json == listed.json:
            return None
        if owner is not None and not (entries and all(entry.get("owned_by") == owner for entry in entries)):
            return None
        return ProviderState.CONNECTED

    return state


OPENAI_PATHS = (MODELS, "/version")
SERVERS: dict[str, Server] = {
    "ollama": Server("Ollama", ("/api/version", "/api/tags"), _ollama),
    "lmstudio": Server("LM Studio", ("/api/v1/models", "/api/v0/models"), _lmstudio),
    "llama-server": Server("llama.cpp's server", (MODELS, "/health"), _llama_server),
    "vllm": Server("vLLM", OPENAI_PATHS, _openai("vllm")),
    "sglang": Server("SGLang", OPENAI_PATHS, _openai("sglang")),
    "openai-compatible": Server("a server with OpenAI's protocol", OPENAI_PATHS, _openai(None), is_particular=False),
}


class Asker:
    """Asks servers of this machine for small JSON texts: no proxy, no redirect, no cookie, no compression."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            connector=aiohttp.TCPConnector(force_close=True, resolver=Here(), limit=0),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, base_url: str, paths: Collection[str], key: str | None = None) -> dict[str, Answer]:
        """The answers of all paths, asked at once. Raises nothing; it waits for as long as the server does."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with asyncio.TaskGroup() as group:
            tasks = {path: group.create_task(self._answer(_url(base_url, path), headers)) for path in paths}
        return {path: task.result() for path, task in tasks.items()}

    async def _answer(self, url: str, headers: Mapping[str, str]) -> Answer:
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as reply:
                if 300 <= reply.status < 400:
                    return Answer(reply.status, flaw="what answers there sends us elsewhere, where we do not go")
                raw = bytearray()
                async for piece in reply.content.iter_any():
                    raw += piece
                    if len(raw) > BODY_LIMIT:
                        reply.close()
                        return Answer(reply.status, flaw="what answers there says more than a list of models")
                return Answer(reply.status, _decoded(bytes(raw)))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(flaw=_why(error))


def _url(base_url: str, path: str) -> str:
    """A path of a server's. Those of OpenAI's protocol (`MODELS`) stand below a base URL that may end otherwise than in
    `/v1`; all others below the root.
    """
    if path == MODELS:
        return f"{base_url}/models"
    return f"{base_url.removesuffix('/v1')}{path}"


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except UNDECODABLE:
        return None


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the secure connection failed"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what answers there does not speak HTTP"
    return "it hung up before it answered"
