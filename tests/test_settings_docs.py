"""docs/settings.md is true: its files load, its variables mean what it says, and no setting is missing."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jupyter.settings import LLMSettings, load_settings
from llm_jupyter.settings.keys import NAMED, Key
from llm_jupyter.settings.schema import Schema

TEXT = (Path(__file__).parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
MENTIONED = {("home",), ("timeout",), ("session", "model")}
"""Settings that the text names beside the example: another name of one in it, or none of a file's."""
KEYS = {("providers", "local", "api_key"), ("providers", "local", "api_key_keyring")}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def load(folder: Path, person: str = "", system: str = "", **variables: str) -> LLMSettings:
    (folder / "config.toml").write_text(person)
    (folder / "system.toml").write_text(system)
    return load_settings(None, {"LLM_JUPYTER_HOME": str(folder), **variables}, system=[folder / "system.toml"])


def every_setting(settings: LLMSettings, key: Key = ()) -> Iterator[Key]:
    """All settings, with the names that the example configures."""
    schema = Schema(LLMSettings)
    names: list[Any] = list(getattr(settings, str(key[0]))) if len(key) == 1 and key[0] in NAMED else schema.names(key)
    for name in names:
        below = (*key, str(name))
        if schema.is_value(below):
            yield below
        else:
            yield from every_setting(settings, below)


def test_the_example_loads_and_shows_every_setting_there_is(tmp_path: Path) -> None:
    person, _ = blocks("toml")
    settings = load(tmp_path, person)
    assert settings.default_model == "ollama/qwen3:4b"
    assert settings.limits.host_memory == 4 * 2**30
    keys = set(every_setting(settings))
    assert len(keys) > 40
    left_out = {key for key in keys if settings.origin_of(key) == "default"}
    assert left_out <= MENTIONED | KEYS
    for key in left_out:
        assert str(key[-1]) in TEXT or key == ("home",)


def test_what_the_example_calls_a_default_is_one(tmp_path: Path) -> None:
    person, _ = blocks("toml")
    example, plain = load(tmp_path, person), load(tmp_path)
    assert example.connection == plain.connection
    for name in ("stream", "footer", "metadata", "event_log"):
        assert getattr(example, name) == getattr(plain, name)


def test_the_variables_set_what_they_name(tmp_path: Path) -> None:
    first, second = blocks("sh")
    person, _ = blocks("toml")
    variables = dict(line.split("=", 1) for line in shlex.split(first))
    settings = load(tmp_path, person.replace("temperature = 0.2", ""), **variables)
    assert settings.connection.retries == 0
    assert settings.fallback == ("ollama/qwen3:4b", "embedded/smollm2-135m")
    assert settings.for_model("ollama/qwen3:4b").temperature == 0.2
    assert settings.limits.host_memory is None
    (json,) = shlex.split(second)
    assert load(tmp_path, **dict([json.split("=", 1)])).for_model("ollama/qwen3:4b").temperature == 0.2


def test_the_hubs_file_locks_what_it_says(tmp_path: Path) -> None:
    _, system = blocks("toml")
    settings = load(tmp_path, "event_log = true\nfallback = []", system, LLM_JUPYTER_LIMITS__HOST_MEMORY="9 GiB")
    assert settings.event_log is False
    assert settings.limits.host_memory == 4 * 2**30
    assert settings.fallback == ()
    assert settings.is_locked("providers.shared.base_url")
    assert not settings.is_locked("providers.shared.kind")
