"""All settings as one value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import ALIASES, NAMED, PREFIX, Key, read
from llm_jupyter.settings.provenance import Provenance
from llm_jupyter.settings.schema import Schema
from llm_jupyter.settings.sections import (
    CREDENTIALS,
    FIRST_TOKEN_TIMEOUT,
    ConnectionSettings,
    HostSettings,
    LimitSettings,
    ModelSettings,
    ProviderSettings,
    Section,
    SessionSettings,
)
from llm_jupyter.settings.values import FullModelName, Names, OptionalSeconds, Seconds, YesNoOrPath

FILE_NAME = "config.toml"

AS_FOUND = "(as found)"
"""The kind in a table that locks parts of a provider which nobody has set up."""

BUILT_IN_HOST = "embedded"
"""The host whose command is ours: its table sets its limits."""

ITS_LIMITS = frozenset({"memory_limit", "on_memory", "idle_unload"})


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of everything that is kept: `LLM_JUPYTER_HOME`, else the platform's folder for user data.

    Raises `ConfigurationError` for a user who has no home folder: Jupyter cannot do without, wherever ours is.
    """
    configured = environment.get(PREFIX + "HOME")
    try:
        Path.home()
        return Path(configured).expanduser().absolute() if configured else platformdirs.user_data_path("llm_jupyter")
    except RuntimeError:  # no HOME, and none in the list of users
        raise ConfigurationError(
            "this user has no home folder, and Jupyter needs one", next_step="Set HOME to a folder of your own."
        ) from None


class LLMSettings(Section):
    """Everything that can be set. Two are equal if they say the same, wherever it came from.

    `timeout` and `connection.first_token_timeout` are one setting under two names, and so are `default_model` and
    `session.model`: whichever is given, both have its value.
    """

    home: Path = Field(
        default_factory=home_folder, description="The folder of everything that is kept; LLM_JUPYTER_HOME moves it."
    )
    default_model: str | None = Field(default=None, description="provider/model that answers when none is named.")
    fallback: Names = Field(default=(), description="Models that may answer, in this order, while another cannot.")
    local_only: bool = Field(default=False, description="true refuses every provider and model that is not local.")
    stream: Literal["live", "final"] = Field(
        default="live", description="live: an answer shows while it comes; final: once, when it is whole."
    )
    footer: Literal["on", "off"] = Field(default="on", description="Whether a line below an answer says who answered.")
    metadata: Literal["stable", "full"] = Field(
        default="stable", description="full: usage and timing are saved in the notebook too."
    )
    timeout: Seconds = Field(default=FIRST_TOKEN_TIMEOUT, description="Seconds to an answer's first token.")
    event_log: YesNoOrPath = Field(
        default=False, description="Whether events are written to a file as JSON lines, or the file's path."
    )
    offline: Literal["off", "auto", "record", "replay"] = Field(
        default="off",
        description="record keeps answers; replay answers from what was kept; auto does so where nobody else can.",
    )
    recording: str | None = Field(
        default=None, description="The file that is recorded to and replayed from; else NAME.recording.jsonl."
    )
    replay_pace: OptionalSeconds = Field(default=None, description="Seconds between two pieces of a replayed answer.")
    session: SessionSettings = Field(default_factory=SessionSettings, description="What a conversation begins with.")
    connection: ConnectionSettings = Field(
        default_factory=ConnectionSettings, description="How long to wait for servers, how often to look at them."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="What may be used.")
    providers: dict[str, ProviderSettings] = Field(
        default_factory=dict, description="Servers and other sources of models, by name."
    )
    models: dict[FullModelName, ModelSettings] = Field(
        default_factory=dict, description='How a model is asked, by "provider/model".'
    )
    hosts: dict[str, HostSettings] = Field(
        default_factory=dict, description="Model servers to start and watch, by name."
    )

    _provenance: Provenance = PrivateAttr(default_factory=Provenance)
    _held: dict[str, ProviderSettings] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _one_value_under_both_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        values = dict(given)
        for (section, field), (top,) in ALIASES.items():
            inner = _fields(values.get(str(section), {}))
            if inner is None:
                continue  # no table: its own check says so
            if top in values and field in inner and not same(values[str(top)], inner[str(field)]):
                raise ValueError(f"{section}.{field} and {top} are one setting: give one of them, or both the same")
            if top in values or field in inner:
                values[str(top)] = values.get(str(top), inner.get(str(field)))
                values[str(section)] = {**inner, field: values[str(top)]}
        return values

    @field_validator("footer", mode="before")
    @classmethod
    def _footer_as_a_word(cls, value: Any) -> Any:
        words = {"1": "on", "0": "off", "true": "on", "false": "off"}
        return words.get(str(value).lower(), value)

    @field_validator("offline", mode="before")
    @classmethod
    def _offline_as_a_word(cls, value: Any) -> Any:
        words = {"on": "replay", "1": "replay", "true": "replay", "0": "off", "false": "off"}
        return words.get(str(value).lower(), value)

    @field_validator("providers")
    @classmethod
    def _providers_know_their_names(cls, providers: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        return {name: provider.named(name) for name, provider in providers.items()}

    @field_validator("hosts")
    @classmethod
    def _hosts_have_commands(cls, hosts: dict[str, HostSettings]) -> dict[str, HostSettings]:
        missing = [name for name, host in hosts.items() if not host.command and name != BUILT_IN_HOST]
        faults = [InitErrorDetails(type="missing", loc=(name, "command"), input=None) for name in missing]
        if (built_in := hosts.get(BUILT_IN_HOST)) is not None:
            ours = PydanticCustomError("value_error", "must not be given: how that one runs is not for the settings")
            given = sorted(built_in.model_fields_set - ITS_LIMITS)
            faults += [InitErrorDetails(type=ours, loc=(BUILT_IN_HOST, field), input=None) for field in given]
        if faults:
            raise ValidationError.from_exception_data("hosts", faults)
        return hosts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LLMSettings) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # it holds dictionaries

    @property
    def file(self) -> Path:
        """Where the person's settings file is, or would be."""
        return self.home / FILE_NAME

    @property
    def provenance(self) -> Provenance:
        """Where every value came from."""
        return self._provenance

    def key(self, name: str) -> Key:
        """The parts of a written name such as `connection.retries` or `models.ollama/qwen3:4b.seed`."""
        return read(name, {section: getattr(self, section) for section in NAMED})

    def origin(self, name: str) -> str:
        """Where the value of a setting came from: "default", a file, a variable, "%config", or "locked by FILE".

        A table has the origins of everything that is set in it. Raises `ConfigurationError` for an unknown name.
        """
        key = self.key(name)
        Schema(type(self)).check(key)
        return self.origin_of(key)

    def origin_of(self, key: Key) -> str:
        """`origin` of a key in parts."""
        return self._provenance.origin(key) if self._provenance.layers else self._origin_in_code(key)

    def is_locked(self, name: str) -> bool:
        """Whether the system's file fixes this setting, or something in this table, so that nothing else may change it."""
        return self._provenance.lock(self.key(name)) is not None

    @property
    def held(self) -> Mapping[str, ProviderSettings]:
        """What the system's file locks of providers that nobody has set up, by name. They are no providers of the settings."""
        return self._held

    def as_locked(self, name: str, found: ProviderSettings) -> ProviderSettings:
        """How a provider may be made that is built in or found, and has no table in the settings: as the locks say."""
        if (lock := self._held.get(name)) is None:
            return found
        fixed = {field: getattr(lock, field) for field in lock.model_fields_set if field != "kind"}
        if any(way in fixed for way in CREDENTIALS):  # who says how its key is got says all of it
            fixed = {**dict.fromkeys(CREDENTIALS), **fixed}
        return found.model_copy(update=fixed).named(name)

    def for_model(self, model: str) -> ModelSettings:
        """What is set for `provider/model`; nothing where its table is not there."""
        return self.models.get(model, ModelSettings())

    def _origin_in_code(self, key: Key) -> str:
        value: Any = self
        for part in key:
            if isinstance(value, BaseModel) and part not in value.model_fields_set:
                return "default"
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, str(part), None)
        return "the program"


def same(one: Any, other: Any) -> bool:
    """Whether two values that are not checked yet mean the same: a variable's "30" and a file's 30."""
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False


def _fields(table: Any) -> dict[str, Any] | None:
    if isinstance(table, BaseModel):
        return {name: getattr(table, name) for name in table.model_fields_set}
    return dict(table) if isinstance(table, Mapping) else None
