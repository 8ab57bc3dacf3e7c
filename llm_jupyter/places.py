"""Where servers that nobody configured usually are, and what the environment says of them. Nothing is contacted here."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError

from llm_jupyter.providers._http import is_loopback
from llm_jupyter.selection import FOUND
from llm_jupyter.settings import ProviderSettings

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_PORT = "11434"
LMSTUDIO_PORT = 1234
LLAMA_PORT = "8080"
"""The default of `llama-server --port`, as its documentation says."""

VLLM_URL = "http://127.0.0.1:8000/v1"
SGLANG_URL = "http://127.0.0.1:30000/v1"
"""The defaults of `vllm serve` and of `sglang.launch_server`, as their documentation says."""

LMSTUDIO_FILES = (".lmstudio", ".cache/lm-studio")
"""LM Studio's folder in a person's home, now and before version 0.3.6."""

KINDS = {"llama-server": "llamacpp", "vllm": "openai-compatible", "sglang": "openai-compatible"}
"""The kind of provider that speaks with a server, where the two have different names."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server may be.

    `source` says in words how we know of it. `server` is the key of what should answer there (see `SERVERS`); it says more
    than the provider's kind, which is `openai-compatible` for many.
    """

    name: str
    settings: ProviderSettings
    source: str
    server: str

    @property
    def base_url(self) -> str:
        """The address; empty for the embedded model."""
        return self.settings.base_url or ""

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return not self.base_url or is_loopback(self.base_url)


def place_of(name: str, settings: ProviderSettings, source: str) -> Place:
    """A provider of the settings as a place to look at."""
    server = {"llamacpp": "llama-server", "lmstudio": "lmstudio", "ollama": "ollama"}.get(settings.kind)
    return Place(name, settings, source, server or "openai-compatible")


def settings_at(port: int, name: str, environment: Mapping[str, str]) -> ProviderSettings:
    """How to speak with the server that is started on a port of this machine under that name.

    One that has the name of a server that we know is spoken to as that one, with its key; any other as OpenAI's.
    """
    usual = next((place for place in places(environment) if place.name == name == place.server), None)
    if usual is None:
        return ProviderSettings(kind="openai-compatible", base_url=f"http://127.0.0.1:{port}/v1")
    known = usual.settings
    path = "/v1" if known.kind in KINDS.values() else ""
    return ProviderSettings(
        kind=known.kind, base_url=f"http://127.0.0.1:{port}{path}",
        api_key=known.api_key, api_key_env=known.api_key_env,
    )  # fmt: skip


def found_servers(
    environment: Mapping[str, str], home: Path | None = None
) -> Iterator[tuple[str, ProviderSettings, str]]:
    """Name, settings and source of every place of `places`. Nothing is contacted here."""
    for place in places(environment, home):
        yield place.name, place.settings, place.source


def places(environment: Mapping[str, str], home: Path | None = None) -> Iterator[Place]:
    """Where servers that nobody configured usually listen, and what the environment names.

    They rank below those of the settings and above the embedded model. `home` is the person's folder, in which LM Studio
    keeps its own settings. Nothing is contacted here; a variable that is no address is passed over with a warning.
    """
    host = environment.get("OLLAMA_HOST", "")
    source = "the environment (OLLAMA_HOST)" if host else "its usual port"
    yield from _place("ollama", "ollama", ollama_url(host), source, spare=ollama_url(""))
    port = lmstudio_port(home)
    source = "LM Studio's own settings" if port else "its usual port"
    url = f"http://127.0.0.1:{port or LMSTUDIO_PORT}"
    yield from _place("lmstudio", "lmstudio", url, source, api_key_env="LM_API_TOKEN")
    yield from _llama_server(environment)
    yield from _openai(environment)
    yield from _place("vllm", "vllm", VLLM_URL, "its usual port", api_key_env="VLLM_API_KEY")
    yield from _place("sglang", "sglang", SGLANG_URL, "its usual port")


def _place(
    name: str, server: str, url: str, source: str, *, spare: str | None = None, api_key_env: str | None = None,
    api_key: str | None = None,
) -> Iterator[Place]:  # fmt: skip
    key = SecretStr(api_key) if api_key else None
    kind = KINDS.get(server, server)
    try:
        settings = ProviderSettings(kind=kind, base_url=url, api_key_env=api_key_env, api_key=key, priority=FOUND)
    except ValidationError:
        logger.warning(
            "%s: %s names no address, and is passed over", name, source
        )  # not the text: it may hold a password
        if spare is not None:
            yield from _place(name, server, spare, "its usual port", api_key_env=api_key_env)
        return
    yield Place(name, settings, source, server)


def _llama_server(environment: Mapping[str, str]) -> Iterator[Place]:
    """llama.cpp's `llama-server`, by the variables that it takes its own address from (documented in its README)."""
    host, port = environment.get("LLAMA_ARG_HOST", "").strip(), environment.get("LLAMA_ARG_PORT", "").strip()
    prefix = environment.get("LLAMA_ARG_API_PREFIX", "").strip().strip("/")
    named = [name for name in ("LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_API_PREFIX") if environment.get(name)]
    if host.endswith(".sock"):
        return  # it listens on a file, where none of our providers can reach it
    place = f"{_reachable(host.strip('[]'))}:{port if _is_port(port) else LLAMA_PORT}"
    url = f"http://{place}{f'/{prefix}' if prefix else ''}/v1"
    source = f"the environment ({', '.join(named)})" if named else "its usual port"
    keys = environment.get("LLAMA_API_KEY", "")
    if "," in keys:  # the server takes several
        yield from _place("llama-server", "llama-server", url, source, api_key=keys.partition(",")[0].strip())
    else:
        yield from _place("llama-server", "llama-server", url, source, api_key_env="LLAMA_API_KEY")


def _openai(environment: Mapping[str, str]) -> Iterator[Place]:
    key, url = environment.get("OPENAI_API_KEY"), environment.get("OPENAI_BASE_URL", "").strip()
    if key or url:
        source = f"the environment ({'OPENAI_BASE_URL' if url else 'OPENAI_API_KEY'})"
        yield from _place("openai", "openai-compatible", url or OPENAI_URL, source, api_key_env="OPENAI_API_KEY")


def lmstudio_port(home: Path | None = None) -> int | None:
    """The port that LM Studio's own settings name; `None` where there are none or they cannot be read."""
    for folder in LMSTUDIO_FILES:
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            text = ((home or Path.home()) / folder / ".internal" / "http-server-config.json").read_text("utf-8")
            port = json.loads(text).get("port")
            if isinstance(port, int) and not isinstance(port, bool) and 0 < port <= 65535:
                return port
    return None


def ollama_url(host: str) -> str:
    """The address that `OLLAMA_HOST` means: a host, a port, both, or a URL, in quotes or not.

    Read as Ollama itself reads it (`envconfig` of its repository), except that `0.0.0.0` is where a server listens and
    not where it is, and that what cannot be a host is the usual place.
    """
    text = host.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if text == "ollama.com":
        scheme, separator, rest = "https", "://", text
    elif not separator:
        scheme, rest = "http", text
    usual = {"http": "80", "https": "443"}.get(scheme, OLLAMA_PORT) if separator else OLLAMA_PORT
    place, _, path = rest.partition("/")
    name, port = _name_and_port(place)
    if not _is_port(port):
        port = usual
    scheme = scheme if scheme in ("http", "https") else "http"
    return f"{scheme}://{_reachable(name)}:{port}/{path}".rstrip("/")


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 0 < int(text) <= 65535


def _name_and_port(place: str) -> tuple[str, str]:
    if _address(place.strip("[]")) is not None:
        return place.strip("[]"), ""
    name, colon, port = place.rpartition(":")
    return (name.strip("[]"), port) if colon else (place, "")


def _reachable(name: str) -> str:
    address = _address(name)
    if address is None:
        return name if re.fullmatch(r"[\w.-]+", name) else "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{name}]" if address.version == 6 else name


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
