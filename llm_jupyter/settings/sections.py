"""The sections of the settings, each a frozen value; what a field means and what it may be stands beside it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator

from llm_jupyter.settings.secrets import KEYRING_SERVICE, read_keyring, without_secrets
from llm_jupyter.settings.values import (
    Command,
    Count,
    Duration,
    MemorySize,
    OptionalCommand,
    OptionalCount,
    OptionalSeconds,
    OptionalWhole,
    Port,
    Seconds,
    Share,
    Temperature,
    Whole,
)

FIRST_TOKEN_TIMEOUT = 300.0
"""Seconds; a large model that is read from a slow disk may need minutes before it says a word."""

CREDENTIALS = ("api_key_env", "api_key", "api_key_keyring")
"""The three ways to a provider's key: the first that is given is the one that is asked."""


class Section(BaseModel):
    """One table of the settings. Its `repr` shows no secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, without_secrets(name or "", value)


class ProviderSettings(Section):
    """One `[providers.NAME]` table. Fields beyond these go to the provider's own constructor."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(
        description="What speaks there: ollama, lmstudio, openai-compatible, llamacpp, or an entry point's name."
    )
    base_url: str | None = Field(default=None, description="The server's address.")
    api_key: SecretStr | None = Field(
        default=None, description="The key itself; better name the variable that holds it."
    )
    api_key_env: str | None = Field(default=None, description="The environment variable that holds the key.")
    api_key_keyring: str | None = Field(
        default=None,
        description="The keyring's service that holds the key under the provider's name; true means llm_jupyter.",
    )
    priority: Whole = Field(default=0, description="Higher is asked first.")
    enabled: bool = Field(default=True, description="Whether it may answer at all.")

    _name: str = PrivateAttr(default="")

    @field_validator("base_url")
    @classmethod
    def _an_http_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if not _has_host(url):
            raise ValueError("names no host, or no valid port")  # the parser's own words could quote a password
        return _with_whole_number(url.rstrip("/"))

    @field_validator("api_key_keyring", mode="before")
    @classmethod
    def _a_service(cls, value: Any) -> Any:
        words = {"true": KEYRING_SERVICE, "false": None, "": None}
        return words.get(str(value).lower(), value)

    def named(self, name: str) -> Self:
        """The same settings, which know the provider's name: the keyring is asked with it."""
        if self.api_key_keyring is None or self._name == name:
            return self
        copy = self.model_copy()
        copy._name = name
        return copy

    def secret(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key itself, from `api_key_env`, else `api_key`, else `api_key_keyring`; `None` where there is none."""
        return self._secret(environment)[0]

    def secret_problem(self, environment: Mapping[str, str] = os.environ) -> str:
        """Why the key that the settings name cannot be had, in one sentence; empty where nothing is wrong."""
        return self._secret(environment)[1]

    def _secret(self, environment: Mapping[str, str]) -> tuple[str | None, str]:
        if self.api_key_env:
            key = environment.get(self.api_key_env) or None
            return key, "" if key else f"the variable {self.api_key_env} is not set"
        if self.api_key:
            return self.api_key.get_secret_value(), ""
        if self.api_key_keyring:
            return read_keyring(self.api_key_keyring, self._name)
        return None, ""

    @property
    def options(self) -> dict[str, Any]:
        """The fields that only this kind of provider knows."""
        return dict(self.model_extra or {})


class SessionSettings(Section):
    """`[session]`: what a new conversation begins with."""

    model: str | None = Field(default=None, description="provider/model that answers; the same as default_model.")
    system: str | None = Field(default=None, description="Instructions that stand before every conversation.")
    context: Literal["window", "strict"] = Field(
        default="window",
        description="When a conversation outgrows the model's window: leave out the oldest turns, or refuse (strict).",
    )
    private: bool = Field(default=False, description="true keeps conversations in memory only; nothing is stored.")
    save_prompt: bool = Field(
        default=False, description="Whether values that were filled into a prompt are saved in the notebook too."
    )


class ModelSettings(Section):
    """`[models."provider/model"]`: how one model is asked, unless the question says otherwise."""

    temperature: Temperature = Field(default=None, description="0 for the likeliest words, more for more variety.")
    max_tokens: OptionalCount = Field(default=None, description="The longest answer, in tokens.")
    top_p: Share = Field(default=None, description="Only words within this share of the probability.")
    seed: OptionalWhole = Field(default=None, description="The same seed gives the same answer, where the server can.")
    num_ctx: OptionalCount = Field(default=None, description="The window that it is loaded with, in tokens (Ollama).")
    keep_alive: Duration = Field(default=None, description="How long it stays loaded after an answer (Ollama).")
    system: str | None = Field(default=None, description="Instructions for this model, in place of the session's.")


class ConnectionSettings(Section):
    """`[connection]`: how long to wait for a server, and how often to look at it. All times are in seconds."""

    first_token_timeout: Seconds = Field(
        default=FIRST_TOKEN_TIMEOUT, description="Seconds to an answer's first token; the same as timeout."
    )
    idle_timeout: Seconds = Field(default=60.0, description="Seconds without a byte after which an answer has stalled.")
    retries: Count = Field(default=2, description="How often a request is tried again before its first token.")
    health_interval: Seconds = Field(default=5.0, description="Seconds between two looks at a server.")
    discovery_timeout: Seconds = Field(
        default=0.3, description="Seconds in which a server at a known port must answer."
    )


class LimitSettings(Section):
    """`[limits]`: what may be used. A limit that is not given does not hold."""

    host_memory: MemorySize = Field(
        default=None, description="Memory of each model server that llm_jupyter starts, in bytes."
    )
    parallel_requests: OptionalCount = Field(default=None, description="Requests that run at the same time.")
    max_tokens: OptionalCount = Field(default=None, description="The longest answer of any model, in tokens.")


class HostSettings(Section):
    """One `[hosts.NAME]` table: a model server that llm_jupyter starts and watches."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # ["--port", 8080] and CUDA_VISIBLE_DEVICES = 0

    command: Command = Field(default=(), description="The program that is the server, with its arguments.")
    environment: dict[str, str] = Field(default_factory=dict, description="Variables that are set for it.")
    port: Port = Field(default=None, description="Where it listens on this machine.")
    ready: str = Field(default="/health", description="The path that answers once it is ready, asked on its port.")
    memory_limit: MemorySize = Field(
        default=None, description="Bytes from which on_memory applies; else limits.host_memory."
    )
    on_memory: Literal["warn", "restart", "stop"] = Field(
        default="warn", description="What happens when it uses more memory than it may."
    )
    idle_unload: OptionalSeconds = Field(default=None, description="Seconds without a request after which it stops.")
    autostart: bool = Field(default=False, description="Whether it is started when one of its models is asked.")
    stop_command: OptionalCommand = Field(
        default=None, description="The command that stops it, where ending the process does not."
    )
    start_timeout: Seconds = Field(default=60.0, description="Seconds in which it must be ready after its start.")

    @field_validator("ready")
    @classmethod
    def _a_path(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("must be a path that starts with /")
        return path


def _with_whole_number(url: str) -> str:
    """The URL with `127.0.0.1` for `127.1`: the system reads an address with parts left out, the HTTP client does not."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not re.fullmatch(r"[\d.]+", host):
        return url
    try:
        number = socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return url
    before, at, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{before}{at}{number}{place[len(host) :]}"))


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
