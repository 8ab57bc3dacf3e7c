"""Which layer of the settings wins, what a lock holds, and where each value is said to come from."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import kernel_environment
from pydantic import SecretStr

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import (
    ConnectionSettings,
    HostSettings,
    LimitSettings,
    LLMSettings,
    ModelSettings,
    ProviderSettings,
    SessionSettings,
    entries,
    load_settings,
    write_default_model,
)

QWEN = "ollama/qwen2.5:7b"


class Places:
    """A person's file and two of the system, the environment and %config, all of them empty at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.person = folder / "config.toml"
        self.near, self.far = folder / "near.toml", folder / "far.toml"
        for file in (self.person, self.near, self.far):
            file.write_text("")

    def load(self, config: Mapping[str, Any] | None = None, **variables: str) -> LLMSettings:
        environment = {"LLM_JUPYTER_HOME": str(self.folder)}
        environment |= {f"LLM_JUPYTER_{name}": value for name, value in variables.items()}
        return load_settings(config, environment, system=[self.near, self.far])

    def refusal(self, config: Mapping[str, Any] | None = None, **variables: str) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            self.load(config, **variables)
        assert 1 <= len(caught.value.lines()) <= 3
        return caught.value


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


# -- which layer wins

KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "connection.retries": (("connection", "retries"),),
    "limits.parallel_requests": (("limits", "parallel_requests"),),
    "providers.p-1.priority": (("providers", "p-1", "priority"),),
    f'models."{QWEN}".seed': (("models", QWEN, "seed"),),
    "hosts.h.port": (("hosts", "h", "port"),),
    "timeout": (("timeout",), ("connection", "first_token_timeout")),
}
"""Settings that take a number, with every way to write each."""

SERVES = "command = ['srv']"
LAYERS = ("lock of far", "lock of near", "config", "environment", "person", "near", "far")
"""The strongest first."""


def nested(parts: tuple[str, ...], value: Any) -> dict[str, Any]:
    return nested(parts[:-1], {parts[-1]: value}) if parts else value


def joined(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        below[key] = joined(below.get(key, {}), value) if isinstance(value, Mapping) else value
    return below


def variable(parts: tuple[str, ...]) -> str:
    return "__".join("".join(sign if sign.isalnum() or sign == "_" else "_" for sign in part) for part in parts).upper()


@given(data=st.data(), name=st.sampled_from(sorted(KEYS)), chosen=st.sets(st.sampled_from(LAYERS)))
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_strongest_layer_wins_and_a_lock_beats_all(
    places: Places, data: st.DataObject, name: str, chosen: set[str]
) -> None:
    values = {layer: 11 + number for number, layer in enumerate(LAYERS)}
    files: dict[str, dict[str, Any]] = {"person": {}, "near": {}, "far": {}}
    joined(files["far"], {"providers": {"p-1": {"kind": "x"}}, "models": {QWEN: {"top_p": 0.5}}})
    joined(files["far"], {"hosts": {"h": {"command": ["srv"]}}})
    config: dict[str, Any] = {}
    variables: dict[str, str] = {}
    origins = {"config": "%config"}
    for layer in sorted(chosen):
        parts = data.draw(st.sampled_from(KEYS[name]))
        tree = nested(parts, values[layer])
        if layer == "config":
            config = tree
        elif layer == "environment":
            variables[variable(parts)] = str(values[layer])
            origins[layer] = f"LLM_JUPYTER_{variable(parts)}"
        elif layer.startswith("lock of "):
            file = layer.removeprefix("lock of ")
            joined(files[file], {"locked": tree})
            origins[layer] = f"locked by {getattr(places, file)}"
        else:
            joined(files[layer], tree)
            origins[layer] = str(getattr(places, layer))
    for file, tree in files.items():
        getattr(places, file).write_text(tomlkit.dumps(tree))
    loaded = places.load(config, **variables)

    winner = next((layer for layer in LAYERS if layer in chosen), None)
    assert loaded.origin(name) == ("default" if winner is None else origins[winner])
    assert loaded.is_locked(name) == (winner is not None and winner.startswith("lock"))
    for parts in KEYS[name]:
        value: Any = loaded
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if winner is not None:
            assert value == values[winner]
        else:
            assert value not in values.values()


def test_every_section_has_its_defaults_and_a_table_sets_one_of_them(places: Places) -> None:
    loaded = places.load()
    assert loaded.connection == ConnectionSettings()
    assert (loaded.connection.retries, loaded.connection.idle_timeout, loaded.connection.health_interval) == (2, 60, 5)
    assert (loaded.limits, loaded.session) == (LimitSettings(), SessionSettings())
    assert (loaded.fallback, loaded.models, loaded.hosts, loaded.event_log) == ((), {}, {}, False)
    places.person.write_text("[connection]\nretries = 0\n[limits]\nmax_tokens = 5\n[session]\ncontext = 'strict'")
    loaded = places.load()
    assert loaded.connection == ConnectionSettings(retries=0)
    assert loaded.limits == LimitSettings(max_tokens=5)
    assert loaded.session.context == "strict"


def test_models_and_hosts_are_read_as_they_are_written(places: Places) -> None:
    places.person.write_text(f"""
        fallback = ["ollama/qwen3:4b", "embedded/smollm2-135m"]
        event_log = "events.jsonl"
        [models."{QWEN}"]
        num_ctx = 4096
        keep_alive = "10m"
        system = "Be brief."
        [hosts.mine]
        command = ["llama-server", "--port", 8080]
        environment = {{ CUDA_VISIBLE_DEVICES = 0 }}
        port = 8080
        memory_limit = "1.5 GiB"
        on_memory = "restart"
    """)
    loaded = places.load()
    assert loaded.fallback == ("ollama/qwen3:4b", "embedded/smollm2-135m")
    assert loaded.event_log == "events.jsonl"
    assert loaded.for_model(QWEN) == ModelSettings(num_ctx=4096, keep_alive="10m", system="Be brief.")
    assert loaded.for_model("ollama/other") == ModelSettings()
    assert loaded.hosts["mine"] == HostSettings(
        command=("llama-server", "--port", "8080"),
        environment={"CUDA_VISIBLE_DEVICES": "0"},
        port=8080,
        memory_limit=3 * 2**29,
        on_memory="restart",
    )


# -- the environment


@pytest.mark.parametrize("text", ["a/b, c/d:e", '["a/b", "c/d:e"]', "a/b,c/d:e,"])
def test_a_list_in_a_variable_is_json_or_words_between_commas(places: Places, text: str) -> None:
    assert places.load(FALLBACK=text).fallback == ("a/b", "c/d:e")


@pytest.mark.parametrize("text", ["srv --name 'two words'", '["srv", "--name", "two words"]'])
def test_a_command_in_a_variable_is_json_or_a_line_as_one_types_it(places: Places, text: str) -> None:
    assert places.load(HOSTS__MINE__COMMAND=text).hosts["mine"].command == ("srv", "--name", "two words")


def test_a_variable_means_the_name_that_a_file_knows(places: Places) -> None:
    host = "[hosts.a__b]\ncommand = ['srv']"
    places.person.write_text(f'[models."{QWEN}"]\nseed = 1\n[providers.My-Server]\nkind = "x"\n{host}')
    loaded = places.load(MODELS__OLLAMA_QWEN2_5_7B__SEED="2", PROVIDERS__MY_SERVER__PRIORITY="3", HOSTS__A__B__PORT="4")
    assert loaded.models == {QWEN: ModelSettings(seed=2)}
    assert list(loaded.providers) == ["My-Server"]
    assert loaded.providers["My-Server"].priority == 3
    assert loaded.hosts == {"a__b": HostSettings(command=("srv",), port=4)}
    assert loaded.origin(f"models.{QWEN}.seed") == "LLM_JUPYTER_MODELS__OLLAMA_QWEN2_5_7B__SEED"


def test_a_variable_that_could_mean_two_names_is_refused_unless_one_is_written_so(places: Places) -> None:
    places.person.write_text("[hosts.a-b]\nport = 1\n[hosts.'a.b']\nport = 1")
    assert "'a-b' or 'a.b'" in str(places.refusal(HOSTS__A_B__PORT="2"))
    places.person.write_text(f"[hosts.a-b]\nport = 1\n{SERVES}\n[hosts.a_b]\nport = 1\n{SERVES}")
    assert {name: host.port for name, host in places.load(HOSTS__A_B__PORT="2").hosts.items()} == {"a-b": 1, "a_b": 2}


def test_the_longest_name_that_a_variable_can_mean_is_meant(places: Places) -> None:
    places.person.write_text(f"[hosts.a]\nport = 1\n{SERVES}\n[hosts.a__b]\nport = 1\n{SERVES}")
    assert {name: host.port for name, host in places.load(HOSTS__A__B__PORT="2").hosts.items()} == {"a": 1, "a__b": 2}


def test_a_model_that_no_file_knows_is_named_in_json(places: Places) -> None:
    refusal = places.refusal(MODELS__OLLAMA_QWEN3__SEED="2")
    assert "LLM_JUPYTER_MODELS__OLLAMA_QWEN3__SEED" in refusal.what
    example = refusal.next_step.split("'")[1]
    loaded = places.load(MODELS=example)
    assert loaded.for_model("ollama/qwen3:4b").temperature == 0
    assert loaded.origin('models."ollama/qwen3:4b".temperature') == "LLM_JUPYTER_MODELS"
    both = places.load(MODELS=example, MODELS__OLLAMA_QWEN3_4B__SEED="5").for_model("ollama/qwen3:4b")
    assert (both.temperature, both.seed) == (0, 5)


def test_the_variables_of_a_host_keep_their_letters(places: Places) -> None:
    loaded = places.load(HOSTS__MINE__ENVIRONMENT__OLLAMA_DEBUG="1", HOSTS__MINE__COMMAND="srv")
    assert loaded.hosts["mine"].environment == {"OLLAMA_DEBUG": "1"}


def test_none_in_a_variable_takes_a_limit_away(places: Places) -> None:
    places.person.write_text("[limits]\nhost_memory = '1 GiB'\nmax_tokens = 3")
    loaded = places.load(LIMITS__HOST_MEMORY="none", LIMITS__MAX_TOKENS="")
    assert loaded.limits == LimitSettings()


@pytest.mark.parametrize(
    ("name", "text"),
    [("PROVIDERS____KIND", "x"), ("MODELS", "{x"), ("CONNECTION__RETRYS", "1"), ("CONNECTION__RETRIES", "x")],
)
def test_a_variable_that_cannot_be_meant_is_named(places: Places, name: str, text: str) -> None:
    assert f"LLM_JUPYTER_{name}" in str(places.refusal(**{name: text}))


# -- one setting under two names


def test_a_setting_with_two_names_has_its_value_under_both(places: Places) -> None:
    places.person.write_text('[session]\nmodel = "a/b"\n[connection]\nfirst_token_timeout = 7')
    loaded = places.load()
    assert (loaded.default_model, loaded.session.model) == ("a/b", "a/b")
    assert (loaded.timeout, loaded.connection.first_token_timeout) == (7, 7)
    assert loaded.origin("timeout") == loaded.origin("connection.first_token_timeout") == str(places.person)
    for name in ("timeout", "connection.first_token_timeout"):
        variables = {"CONNECTION__FIRST_TOKEN_TIMEOUT": "6"}
        assert places.load(**variables).origin(name) == "LLM_JUPYTER_CONNECTION__FIRST_TOKEN_TIMEOUT"
    over = places.load({"timeout": 8}, DEFAULT_MODEL="c/d")
    assert (over.session.model, over.connection.first_token_timeout) == ("c/d", 8)
    made = LLMSettings(home=places.folder, timeout=9, session=SessionSettings(model="e/f"))
    assert (made.connection.first_token_timeout, made.default_model) == (9, "e/f")


def test_two_values_for_one_setting_in_one_place_are_refused_with_both_names(places: Places) -> None:
    places.person.write_text('default_model = "a/b"\n\n[session]\nmodel = "a/c"')
    said = str(places.refusal())
    assert "default_model" in said
    assert "session.model" in said
    assert f"{places.person}, line 4" in said
    places.person.write_text('default_model = "a/b"\n[session]\nmodel = "a/b"')
    assert places.load().default_model == "a/b"
    assert "LLM_JUPYTER_CONNECTION__FIRST_TOKEN_TIMEOUT" in str(
        places.refusal(TIMEOUT="1", CONNECTION__FIRST_TOKEN_TIMEOUT="2")
    )
    assert places.load(TIMEOUT="1", CONNECTION__FIRST_TOKEN_TIMEOUT="1.0").timeout == 1
    with pytest.raises(ValueError, match="one setting"):
        LLMSettings(timeout=1, connection=ConnectionSettings(first_token_timeout=2))


def test_a_host_without_a_command_is_named_with_its_variable_and_the_built_in_one_needs_none(places: Places) -> None:
    refusal = places.refusal(HOSTS__MINE__PORT="8080")
    assert (refusal.what, refusal.where) == ("hosts.mine.command is missing", "LLM_JUPYTER_HOSTS__MINE__PORT")
    assert places.load(HOSTS__EMBEDDED__MEMORY_LIMIT="2 GiB").hosts["embedded"].command == ()


def test_the_default_model_is_written_under_the_name_that_the_file_uses(places: Places) -> None:
    places.person.write_text('[session]\nmodel = "a/b"  # mine\n')
    write_default_model(places.person, "a/c")
    assert places.person.read_text() == '[session]\nmodel = "a/c"  # mine\n'
    assert places.load().default_model == "a/c"
    places.person.write_text('default_model = "a/b"\n[session]\nmodel = "a/b"\n')
    write_default_model(places.person, "a/c")
    assert places.load().default_model == "a/c"


# -- locks


def test_what_a_lock_overrules_is_said_and_is_no_error(places: Places) -> None:
    places.near.write_text('[locked]\nlocal_only = true\n[locked.limits]\nhost_memory = "4 GiB"')
    places.person.write_text("local_only = false")
    loaded = places.load({"local_only": False}, LIMITS__HOST_MEMORY="8 GiB")
    assert loaded.local_only is True
    assert loaded.limits.host_memory == 4 * 2**30
    said = {entry.name: entry.note for entry in entries(loaded)}
    assert said["local_only"] == f"overrules %config, {places.person}"
    assert said["limits.host_memory"] == "overrules LLM_JUPYTER_LIMITS__HOST_MEMORY"
    assert loaded.is_locked("limits")
    assert not loaded.is_locked("connection")


def test_a_lock_on_a_provider_holds_field_by_field(places: Places) -> None:
    places.near.write_text('[locked.providers.hub]\nbase_url = "http://hub:1/v1"\napi_key_env = "HUB_KEY"')
    places.person.write_text(
        '[providers.hub]\nkind = "x"\nbase_url = "http://mine:1"\napi_key = "sk-mine"\npriority = 4'
    )
    hub = places.load(PROVIDERS__HUB__API_KEY="sk-variable").providers["hub"]
    assert (hub.kind, hub.base_url, hub.priority) == ("x", "http://hub:1/v1", 4)
    assert hub.api_key is None
    assert hub.secret({"HUB_KEY": "theirs"}) == "theirs"


def test_a_lock_on_parts_of_a_provider_that_nobody_has_set_up_makes_none_and_is_listed(places: Places) -> None:
    places.near.write_text('[locked.providers.hub]\nbase_url = "http://hub:1/v1"')
    loaded = places.load()
    assert loaded.providers == {}
    said = {entry.name: (entry.value, entry.origin) for entry in entries(loaded, ("providers",))}
    assert said == {"providers.hub.base_url": ("http://hub:1/v1", f"locked by {places.near}")}
    assert [entry.name for entry in entries(loaded, ("providers", "hub"))] == ["providers.hub.base_url"]
    assert loaded.is_locked("providers.hub.base_url")
    assert not loaded.is_locked("providers.hub.enabled")
    places.near.write_text('[locked.providers.hub]\nbase_url = "http://hub:1/v1"\nkind = "x"')
    assert places.load().providers["hub"].base_url == "http://hub:1/v1"


def test_a_lock_holds_for_a_provider_that_is_merely_found(places: Places) -> None:
    places.far.write_text('[locked.providers.openai]\nenabled = false\napi_key_env = "HUB_KEY"')
    places.near.write_text("[locked.providers.openai]\nenabled = true\npriority = 3")
    found = ProviderSettings(kind="openai-compatible", base_url="http://mine:1/v1", api_key=SecretStr("sk-mine"))
    openai = places.load().as_locked("openai", found)
    assert (openai.kind, openai.base_url) == (found.kind, found.base_url)
    assert (openai.enabled, openai.priority) == (False, 3)
    assert (openai.api_key, openai.secret({"HUB_KEY": "theirs"})) == (None, "theirs")
    assert places.load().as_locked("ollama", found) is found


def test_locked_in_the_persons_own_file_is_refused_with_the_place_where_it_belongs(places: Places) -> None:
    places.person.write_text("stream = 'final'\n[locked]\nlocal_only = true")
    refusal = places.refusal()
    assert refusal.where == f"{places.person}, line 2"
    assert "the system's settings file" in refusal.what
    assert os.path.join("etc", "jupyter", "llm_jupyter", "config.toml") in refusal.next_step


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("locked = true", "[locked]", 1),
        ("[locked]\nlocal_onyl = true", "local_onyl", 2),
        ("[locked]\n\nstream = 'often'", "one of live, final", 3),
        ("[locked]\nhome = '/x'", "home", 2),
        ("[locked.providers.ollama]\nenabled = 'perhaps'", "providers.ollama.enabled must be true or false", 2),
        ("timeout = 5\n[locked.connection]\nfirst_token_timeout = -1", "connection.first_token_timeout", 3),
    ],
)
def test_a_wrong_lock_is_named_with_its_file_and_line(places: Places, text: str, what: str, line: int) -> None:
    places.far.write_text(text)
    refusal = places.refusal()
    assert what in refusal.what
    assert refusal.where == f"{places.far}, line {line}"


def test_a_system_file_that_cannot_be_read_is_no_reason_to_go_on_without_its_locks(places: Places) -> None:
    places.far.write_text("[locked")
    assert str(places.far) in str(places.refusal())
    places.far.unlink()
    places.far.mkdir()
    assert f"{places.far} cannot be read" in str(places.refusal())


# -- where a value came from


def test_origins_are_told_for_every_kind_of_place(places: Places) -> None:
    places.far.write_text("[connection]\nretries = 1")
    places.person.write_text('[providers.local]\nkind = "x"\nheaders = { team = "blue" }')
    loaded = places.load({"footer": "off"}, PROVIDERS__LOCAL__PRIORITY="2")
    origins = {
        "stream": "default",
        "footer": "%config",
        "connection.retries": str(places.far),
        "connection.idle_timeout": "default",
        "providers.local.kind": str(places.person),
        "providers.local.headers.team": str(places.person),
        "providers.local.priority": "LLM_JUPYTER_PROVIDERS__LOCAL__PRIORITY",
        "providers.local": f"{places.person}, LLM_JUPYTER_PROVIDERS__LOCAL__PRIORITY",
        "home": "LLM_JUPYTER_HOME",
    }
    assert {name: loaded.origin(name) for name in origins} == origins
    with pytest.raises(ConfigurationError, match=r"Did you mean connection\.retries"):
        loaded.origin("connection.retrys")
    made = LLMSettings(home=places.folder, stream="final")
    assert (made.origin("stream"), made.origin("footer")) == ("the program", "default")


def test_a_stronger_way_to_a_key_replaces_a_weaker_one(places: Places) -> None:
    places.person.write_text('[providers.p]\nkind = "x"\napi_key_env = "UNSET"')
    loaded = places.load(PROVIDERS__P__API_KEY="sk-variable")
    assert loaded.providers["p"].secret({}) == "sk-variable"
    assert loaded.origin("providers.p.api_key_env") == "default"


PROBE = """
import json
from llm_jupyter.settings import load_settings, system_files
settings = load_settings()
print(json.dumps([[str(file) for file in system_files()], settings.footer, settings.origin("footer")]))
"""


def test_the_systems_files_stand_on_jupyters_path_and_not_in_the_persons_folder(tmp_path: Path) -> None:
    own, hub = tmp_path / "own", tmp_path / "hub"
    for folder in (own, hub):
        (folder / "llm_jupyter").mkdir(parents=True)
        (folder / "llm_jupyter" / "config.toml").write_text("footer = 'off'")
    variables = {"JUPYTER_CONFIG_DIR": str(own)}

    def probe(**more: str) -> tuple[list[str], str, str]:
        environment = kernel_environment(tmp_path, {**variables, **more})
        ran = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
        files, footer, origin = json.loads(ran.stdout)
        return files, footer, origin

    files, footer, origin = probe()
    assert str(own / "llm_jupyter" / "config.toml") not in files
    assert (footer, origin) == ("on", "default")
    files, footer, origin = probe(JUPYTER_CONFIG_PATH=str(hub))
    assert files[0] == str(hub / "llm_jupyter" / "config.toml")
    assert (footer, origin) == ("off", files[0])
