"""The settings: one TOML file, the environment over it, and what the caller says over both.

`LLM_JUPYTER_HOME` is the one folder (settings, store, cache, leases, weights); `config.toml` in it is the file. Every
setting can be given as `LLM_JUPYTER_<NAME>`, nested ones with a double underscore:
`LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from llm_jupyter.errors import ConfigurationError

PREFIX = "LLM_JUPYTER_"
FILE_NAME = "config.toml"


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of everything that is kept: `LLM_JUPYTER_HOME`, else the platform's folder for user data."""
    configured = environment.get(PREFIX + "HOME")
    return Path(configured).expanduser().absolute() if configured else platformdirs.user_data_path("llm_jupyter")


class ProviderSettings(BaseModel):
    """One `[providers.NAME]` table. Fields beyond these go to the provider's own constructor."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    kind: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    priority: int = 0
    enabled: bool = True

    @field_validator("base_url")
    @classmethod
    def _an_http_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if not _has_host(url):
            raise ValueError("names no host, or no valid port")  # the parser's own words could quote a password
        return url.rstrip("/")

    def secret(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key itself, from `api_key_env` or `api_key`; `None` where there is none."""
        if self.api_key_env:
            return environment.get(self.api_key_env)
        return self.api_key.get_secret_value() if self.api_key else None

    @property
    def options(self) -> dict[str, Any]:
        """The fields that only this kind of provider knows."""
        return dict(self.model_extra or {})


class LLMSettings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    home: Path = Field(default_factory=home_folder)
    default_model: str | None = None
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    local_only: bool = False
    stream: Literal["live", "final"] = "live"
    footer: Literal["on", "off"] = "on"
    metadata: Literal["stable", "full"] = "stable"
    timeout: float = Field(default=300.0, gt=0)

    @field_validator("footer", mode="before")
    @classmethod
    def _footer_as_a_word(cls, value: Any) -> Any:
        words = {"1": "on", "0": "off", "true": "on", "false": "off"}
        return words.get(str(value).lower(), value)

    @property
    def file(self) -> Path:
        """Where the settings file is, or would be."""
        return self.home / FILE_NAME


def load_settings(
    overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ
) -> LLMSettings:
    """Read the file and the environment. Raises `ConfigurationError` naming the place of what is wrong."""
    home = home_folder(environment)
    file = home / FILE_NAME
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        values = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    _merge(values, _from_environment(environment))
    _merge(values, overrides or {})
    try:
        return LLMSettings.model_validate({"home": home, **values})
    except ValidationError as error:
        raise _explained(error, file) from None


def write_default_model(file: Path, model: str) -> None:
    """Set `default_model` in the settings file; comments and all else in it stay as they are."""
    import tomlkit.exceptions  # only this one act needs it

    file = file.resolve()  # a link stays a link
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
        document["default_model"] = model
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.touch(mode=0o600)  # the file may hold keys
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        temporary.replace(file)
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise _no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX):
            continue
        *folders, name = variable.removeprefix(PREFIX).lower().split("__")
        if [*folders, name][0] not in LLMSettings.model_fields:
            continue  # a variable of another part of the project, or of a newer version
        table = values
        for folder in folders:
            table = table.setdefault(folder, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"{variable} sets a part of {folder!r}, and another variable all of it")
        table[name] = text
    values.pop("home", None)
    return values


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _no_toml(file: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{file} is not valid TOML: {error}", next_step="Mend that line, then try again.")


def _explained(error: ValidationError, file: Path) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"there is no setting {place!r}"
        names = ", ".join(sorted(LLMSettings.model_fields))
        return ConfigurationError(f"{what} (in {file})", next_step=f"The settings are: {names}.")
    variable = PREFIX + place.replace(".", "__").upper()
    return ConfigurationError(
        f"the setting {place!r} is wrong: {first['msg']}", next_step=f"It stands in {file} or in {variable}."
    )
