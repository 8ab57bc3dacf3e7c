"""The recipes by name, plug-ins among them, and the order in which providers are asked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import ConfigurationError, InvalidInputError, ProviderNotFoundError
from llm_jupyter.events import Event, EventBus, ProviderRegistered, ProviderUnregistered
from llm_jupyter.providers import check_kind, plugins, provider_class
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import FOUND, SMOOTHING, ProviderRegistry
from llm_jupyter.selection import Need, Recipe, Selection
from llm_jupyter.types import Capability, LLMModelInfo, LLMProviderStatus, ProviderState

CHAT, TOOLS, VISION, EMBEDDING = Capability.CHAT, Capability.TOOLS, Capability.VISION, Capability.EMBEDDING
LOCAL, REMOTE = "http://127.0.0.1:9", "https://api.example.com/v1"


Foreign = Callable[[Collection[str]], Collection[str]]


def nobodys(urls: Collection[str]) -> Collection[str]:
    return ()


class House:
    """A registry, and what it says on its bus."""

    def __init__(self, foreign: Foreign = nobodys) -> None:
        self.events = EventBus()
        self.registry = ProviderRegistry(self.events, foreign=foreign)

    def add(self, name: str, **fields: Any) -> None:
        self.registry.register(recipe(name, **fields))

    def heard(self, kind: type[Event]) -> list[Event]:
        return self.events.history(kind)

    def state(self, name: str, state: ProviderState, latency: float | None = None) -> None:
        self.registry.note_status(LLMProviderStatus(name=name, state=state, since=0.0, is_local=True, latency=latency))

    def models(self, name: str, *models: tuple[str, set[Capability]], local: bool = True) -> None:
        self.registry.note_models(name, [model(name, one, can, local) for one, can in models])

    def names(self, **need: Any) -> list[str]:
        return [one.name for one in self.registry.select(Need(**need)).candidates]

    def why_not(self, name: str, **need: Any) -> str:
        (reason,) = [one.reason for one in self.registry.select(Need(**need)).left_out if one.recipe.name == name]
        return reason


def recipe(name: str, *, kind: str = "ollama", url: str = LOCAL, **fields: Any) -> Recipe:
    def build() -> LLMProvider:
        return OpenAICompatibleProvider(name, url)

    return Recipe(name, kind, build, url == LOCAL, base_url=url, **fields)


def model(provider: str, name: str, can: set[Capability], local: bool = True) -> LLMModelInfo:
    return LLMModelInfo(id=name, name=name, provider=provider, is_local=local, capabilities=frozenset(can))


@pytest.fixture
def house() -> House:
    return House()


# -- names


def test_a_recipe_that_is_unregistered_is_gone_with_all_that_was_seen_of_it(house: House) -> None:
    house.add("a")
    house.models("a", ("m", {CHAT}))
    house.state("a", ProviderState.CONNECTED, 0.1)
    house.registry.unregister("a")
    (event,) = house.heard(ProviderUnregistered)
    assert isinstance(event, ProviderUnregistered)
    assert event.provider == "a"
    assert "a" not in house.registry
    assert house.registry.latency("a") is None
    assert house.registry.status("a") is None
    house.add("a")
    assert house.registry.capabilities("a") is None
    assert len(house.heard(ProviderRegistered)) == 2


def test_an_unknown_name_is_an_error_that_names_the_nearest(house: House) -> None:
    house.add("lmstudio")
    for ask in (house.registry.recipe, house.registry.unregister, house.registry.enable, house.registry.capabilities):
        with pytest.raises(ProviderNotFoundError, match="Did you mean lmstudio"):
            ask("lmstdio")


def test_a_provider_that_is_switched_off_says_why_until_it_is_switched_on(house: House) -> None:
    house.add("a")
    house.registry.disable("a", "its disk is full")
    assert house.why_not("a") == "its disk is full"
    house.registry.enable("a")
    assert (house.registry.recipe("a").reason, house.names()) == ("", ["a"])
    house.registry.disable("a")
    assert house.why_not("a") == "it is switched off"


# -- what was seen


def test_capabilities_are_kept_for_each_model_and_for_all_together(house: House) -> None:
    house.add("a")
    assert house.registry.capabilities("a") is None
    house.models("a", ("m:latest", {CHAT, TOOLS}), ("e", {EMBEDDING}))
    assert house.registry.capabilities("a") == frozenset({CHAT, TOOLS, EMBEDDING})
    assert house.registry.capabilities("a", "m") == frozenset({CHAT, TOOLS})
    assert house.registry.capabilities("a", "e") == frozenset({EMBEDDING})
    assert house.registry.capabilities("a", "other") is None


def test_the_latency_is_smoothed_so_that_one_slow_answer_moves_little(house: House) -> None:
    house.add("a")
    house.state("a", ProviderState.CONNECTED, 0.010)
    assert house.registry.latency("a") == pytest.approx(0.010)
    house.state("a", ProviderState.CONNECTED, 1.010)
    assert house.registry.latency("a") == pytest.approx(0.010 + SMOOTHING)
    house.state("a", ProviderState.FAILED)
    assert house.registry.latency("a") == pytest.approx(0.010 + SMOOTHING), "no measurement changes nothing"
    for _ in range(50):
        house.state("a", ProviderState.CONNECTED, 0.010)
    assert house.registry.latency("a") == pytest.approx(0.010, abs=1e-5)


def test_what_is_said_of_an_unknown_provider_is_not_kept(house: House) -> None:
    house.state("late", ProviderState.CONNECTED, 1.0)
    house.models("late", ("m", {CHAT}))
    house.add("late")
    assert house.registry.status("late") is None
    assert house.registry.capabilities("late") is None


# -- the order


def test_capability_goes_before_state_state_before_priority_priority_before_latency(house: House) -> None:
    priorities = {"unsure": 100, "failed": 50, "low": 0, "slow": 10, "fast": 10, "b": 10, "a": 10}
    for name, priority in priorities.items():
        house.add(name, priority=priority)
        if name != "unsure":
            house.models(name, ("m", {CHAT}))
        house.state(name, ProviderState.FAILED if name == "failed" else ProviderState.CONNECTED)
    house.state("slow", ProviderState.CONNECTED, 0.5)
    house.state("fast", ProviderState.CONNECTED, 0.1)
    assert house.names() == ["fast", "slow", "a", "b", "low", "failed", "unsure"]


def test_of_the_states_connected_is_first_and_failed_is_last(house: House) -> None:
    order = {
        "a": ProviderState.FAILED, "b": ProviderState.LOADING, "c": None, "d": ProviderState.DEGRADED,
        "e": ProviderState.CONNECTED,
    }  # fmt: skip
    for name, state in order.items():
        house.add(name)
        if state is not None:
            house.state(name, state)
    assert house.names() == ["e", "d", "c", "b", "a"]


def test_one_model_must_have_all_that_is_needed(house: House) -> None:
    house.add("a")
    house.models("a", ("talks", {CHAT}), ("sees", {VISION}))
    assert house.names(capabilities=frozenset({CHAT, VISION})) == []
    assert house.why_not("a", capabilities=frozenset({CHAT, VISION})) == "it has no model for chat and vision"
    house.models("a", ("both", {CHAT, VISION}))
    assert house.names(capabilities=frozenset({CHAT, VISION})) == ["a"]


def test_what_openais_list_does_not_tell_is_unknown_and_not_absent(house: House) -> None:
    for name, kind in (("any", "openai-compatible"), ("server", "llamacpp"), ("ollama", "ollama")):
        house.add(name, kind=kind)
        house.models(name, ("m", {CHAT}))
    house.registry.register(Recipe("embedded", "llamacpp", recipe("x").build, True))
    house.models("embedded", ("m", {CHAT}))
    selection = house.registry.select(Need(frozenset({TOOLS})))
    assert [(one.name, one.is_certain) for one in selection.candidates] == [("any", False), ("server", False)]
    assert house.names(capabilities=frozenset({CHAT})) == ["any", "embedded", "ollama", "server"]


def test_only_servers_that_may_hold_the_model_are_asked_for_it(house: House) -> None:
    for name in ("has", "tagged", "other", "empty", "silent"):
        house.add(name)
    house.models("has", ("m", {CHAT}))
    house.models("tagged", ("m:latest", {CHAT}))
    house.models("other", ("n", {CHAT}))
    house.models("empty")
    assert house.names(model="m") == ["has", "tagged", "silent"]
    assert house.why_not("other", model="m") == "it has no model m"
    assert house.why_not("empty", model=None) == "it has no model"
    house.models("has", ("m", {EMBEDDING}))
    assert house.why_not("has", model="m") == "its model m is not for chat"


# -- nothing leaves unasked


def test_a_remote_provider_that_was_found_is_asked_only_when_it_is_named(house: House) -> None:
    house.add("openai", url=REMOTE, was_found=True)
    house.add("mine", url=REMOTE)
    assert house.names() == ["mine"]
    assert house.why_not("openai") == "it is remote, and you did not name it"
    assert house.names(named=frozenset({"openai"})) == ["mine", "openai"]
    assert house.names(named=frozenset({"openai/gpt"})) == ["mine", "openai"]
    assert house.names(named=frozenset({"openai2"})) == ["mine"]


def test_local_only_refuses_all_remote_ones_named_or_not(house: House) -> None:
    house.add("here")
    house.add("away", url=REMOTE)
    assert house.names(local_only=True, named=frozenset({"away"})) == ["here"]
    assert house.why_not("away", local_only=True) == "it is remote, and local_only is set"


def test_another_users_server_is_asked_only_when_it_is_named_or_configured() -> None:
    house = House(foreign=lambda urls: {LOCAL}.intersection(urls))
    house.add("found", was_found=True)
    house.add("configured")
    house.add("hosted", of_host=True)
    assert house.names() == ["configured"]
    assert house.why_not("hosted") == "it belongs to another user of this machine, and you did not name it"
    assert house.why_not("found") == "it belongs to another user of this machine, and you did not name it"
    assert house.names(named=frozenset({"found"})) == ["configured", "found"]


def test_whose_server_it_is_holds_for_one_look_and_only_what_was_found_is_looked_up() -> None:
    asked, others = list[Collection[str]](), set[str]()

    def foreign(urls: Collection[str]) -> Collection[str]:
        asked.append(urls)
        return others.copy()

    house = House(foreign)
    house.add("configured", kind="llamacpp", enabled=False)
    house.add("found", was_found=True)
    house.state("found", ProviderState.CONNECTED)
    for names in (["found"], [], ["found"]):
        others.symmetric_difference_update([LOCAL] if asked else [])
        assert house.names() == names
    assert asked == [[LOCAL]] * 3


def test_what_the_settings_keep_off_stays_off(house: House) -> None:
    house.add("shut", enabled=False, reason="locked by /etc/config.toml", stays_off=True)
    house.registry.disable("shut", "disconnected")
    with pytest.raises(InvalidInputError, match=r"switched off: locked by /etc/config\.toml") as caught:
        house.registry.enable("shut")
    assert "connect" not in caught.value.next_step
    assert house.why_not("shut", named=frozenset({"shut"})) == "locked by /etc/config.toml"


def test_a_model_that_a_local_server_passes_on_to_elsewhere_needs_its_full_name(house: House) -> None:
    house.add("ollama")
    house.models("ollama", ("big-cloud", {CHAT}), local=False)
    assert house.names() == []
    assert house.why_not("ollama") == "its model runs elsewhere, and you did not name it"
    assert house.names(named=frozenset({"ollama"})) == []
    named = frozenset({"ollama/big-cloud"})
    assert house.names(named=named) == ["ollama"]
    assert house.names(named=named, local_only=True) == []
    assert house.why_not("ollama", named=named, local_only=True) == "its model runs elsewhere, and local_only is set"


def test_the_explanation_says_in_words_why_each_stands_where_it_stands(house: House) -> None:
    house.add("ollama", priority=5)
    house.models("ollama", ("m", {CHAT}))
    house.state("ollama", ProviderState.CONNECTED, 0.012)
    house.add("lmstudio", priority=FOUND)
    house.add("openai", url=REMOTE, was_found=True)
    selection = house.registry.select(Need())
    assert selection.explain() == [
        "1. ollama: has what is needed, connected, priority 5, answers in 12 ms",
        "2. lmstudio: may have what is needed, not asked yet, priority -10",
        "-  openai: left out, it is remote, and you did not name it",
    ]
    assert selection.reason == "ollama has what is needed, connected, priority 5, answers in 12 ms"
    assert house.registry.select(Need(exclude=frozenset({"ollama", "lmstudio"}))).reason == (
        "no provider has what is needed"
    )


# -- whatever there is

NAMES = ["ollama", "ollama2", "a", "b", "embedded", "openai"]
capabilities = st.frozensets(st.sampled_from(list(Capability)), max_size=4)
facts = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["ollama", "openai-compatible", "llamacpp"]),
        "url": st.sampled_from([LOCAL, REMOTE]),
        "priority": st.integers(-2, 2),
        "enabled": st.booleans(),
        "was_found": st.booleans(),
        "state": st.none() | st.sampled_from(list(ProviderState)),
        "latency": st.none() | st.floats(0, 2),
        "models": st.none() | st.lists(st.tuples(st.sampled_from(["m", "n"]), capabilities, st.booleans()), max_size=3),
    }
)
houses = st.dictionaries(st.sampled_from(NAMES), facts)
needs = st.builds(
    Need, capabilities, st.none() | st.sampled_from(["m", "n"]), st.booleans(),
    st.frozensets(st.sampled_from(NAMES), max_size=2),
    st.frozensets(st.sampled_from([*NAMES, *(f"{name}/m" for name in NAMES)]), max_size=3),
)  # fmt: skip


def select(rows: Sequence[tuple[str, dict[str, Any]]], need: Need) -> Selection:
    house = House()
    for name, row in rows:
        fields = {key: row[key] for key in ("kind", "url", "priority", "enabled", "was_found")}
        house.add(name, **fields)
        if row["state"] is not None:
            house.state(name, row["state"], row["latency"])
        if row["models"] is not None:
            house.registry.note_models(name, [model(name, one, set(can), local) for one, can, local in row["models"]])
    return house.registry.select(need)


@given(houses, needs, st.randoms())
def test_the_order_is_total_and_does_not_depend_on_the_order_of_registration(
    rows: dict[str, dict[str, Any]], need: Need, random: Any
) -> None:
    shuffled = list(rows.items())
    random.shuffle(shuffled)
    first, second = select(list(rows.items()), need), select(shuffled, need)
    assert first.explain() == second.explain()
    ranks = [one.rank for one in first.candidates]
    assert all(one < next_one for one, next_one in pairwise(ranks))


@given(houses, needs)
def test_the_explanation_names_every_recipe_exactly_once(rows: dict[str, dict[str, Any]], need: Need) -> None:
    selection = select(list(rows.items()), need)
    named = [line.partition(" ")[2].strip().partition(":")[0] for line in selection.explain()]
    assert sorted(named) == sorted(rows)
    assert [line.startswith("-") for line in selection.explain()] == (
        [False] * len(selection.candidates) + [True] * len(selection.left_out)
    )
    assert all(one.reason for one in selection.left_out)


@given(houses, needs)
def test_no_candidate_is_remote_unasked_switched_off_excluded_or_known_to_be_unable(
    rows: dict[str, dict[str, Any]], need: Need
) -> None:
    for candidate in select(list(rows.items()), need).candidates:
        row, name = rows[candidate.name], candidate.name
        is_named = bool(need.named & {name, f"{name}/m"})
        assert row["enabled"]
        assert name not in need.exclude
        assert row["url"] == LOCAL or not need.local_only
        assert row["url"] == LOCAL or is_named or not row["was_found"]
        if row["models"] is None:
            assert not candidate.is_certain
        elif row["kind"] == "ollama":
            able = [
                (one, can, local) for one, can, local in row["models"]
                if need.model in (None, one) and (need.capabilities <= can or not can)
                and (local or (not need.local_only and (row["url"] == REMOTE or f"{name}/{one}" in need.named)))
            ]  # fmt: skip
            assert able
            assert candidate.is_certain is any(need.capabilities <= can for _, can, _ in able)


@given(houses, needs)
def test_whoever_is_left_out_has_a_cause(rows: dict[str, dict[str, Any]], need: Need) -> None:
    for left in select(list(rows.items()), need).left_out:
        row, name = rows[left.recipe.name], left.recipe.name
        is_named = bool(need.named & {name, f"{name}/m"})
        remote = row["url"] == REMOTE
        is_out = (
            name in need.exclude or not row["enabled"] or (remote and need.local_only)
            or (remote and row["was_found"] and not is_named)
        )  # fmt: skip
        assert is_out or row["models"] is not None


# -- plug-ins

GOOD = """
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
class Echo(OpenAICompatibleProvider):
    kind = "echo"
    def __init__(self, name="echo", base_url="http://127.0.0.1:9/v1", api_key=None):
        super().__init__(name, base_url, api_key)
class Cloud(Echo):
    kind = "cloud"
    def __init__(self, name, *, token):
        super().__init__(name, "https://api.example.com/v1", token)
class Unfinished(__import__("llm_jupyter.providers.base", fromlist=["x"]).LLMProvider):
    kind = "unfinished"
def function(): pass
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put packages with entry points on the path, as an installer would."""
    before = set(sys.modules)

    def install(package: str, text: str, **entries: str) -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[llm_jupyter.providers]", *lines]))
        (tmp_path / f"{package}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("llmplug"):
            del sys.modules[name]


def test_a_package_brings_a_kind_of_provider_that_is_imported_only_when_it_is_needed(
    install: Callable[..., None], house: House
) -> None:
    with pytest.raises(ConfigurationError, match="no kind of provider 'echo'"):
        check_kind("echo")
    install("llmplug_good", GOOD, echo="llmplug_good:Echo")
    check_kind("echo")
    house.registry.register_plugins()
    house.registry.select(Need())
    house.registry.recipes()
    assert "llmplug_good" not in sys.modules
    recipe = house.registry.recipe("echo")
    assert "llmplug_good" in sys.modules
    assert (recipe.is_local, recipe.source, recipe.enabled) == (True, "the package llmplug_good", True)
    assert recipe.build().where == "echo at http://127.0.0.1:9/v1"
    assert provider_class("echo").kind == "echo"


def test_a_plugin_answers_only_when_it_is_named(install: Callable[..., None], house: House) -> None:
    install("llmplug_named", GOOD, echo="llmplug_named:Echo")
    house.registry.register_plugins()
    assert house.why_not("echo") == "it is remote, and you did not name it"
    house.registry.recipe("echo")
    assert house.why_not("echo") == "it is asked only when you name it"
    assert house.names(named=frozenset({"echo"})) == ["echo"]


def test_what_is_configured_under_a_plugins_name_stays(install: Callable[..., None], house: House) -> None:
    install("llmplug_taken", GOOD, echo="llmplug_taken:Echo")
    house.add("echo", priority=7)
    house.registry.register_plugins()
    assert house.registry.recipe("echo").priority == 7


def test_a_builtin_kind_and_the_first_of_two_packages_keep_the_name(install: Callable[..., None]) -> None:
    install("llmplug_two", GOOD, echo="llmplug_two:Echo")
    install("llmplug_one", GOOD, echo="llmplug_one:Echo", ollama="llmplug_one:Echo")
    assert [entry.value for entry in plugins().values()] == ["llmplug_one:Echo"]
    assert provider_class("ollama").__module__ == "llm_jupyter.providers.ollama"


BROKEN = {
    "a missing module": ("llmplug_nowhere:Echo", GOOD),
    "a missing class": ("llmplug_broken:Nobody", GOOD),
    "an error": ("llmplug_broken:Echo", "1 / 0"),
    "an exit": ("llmplug_broken:Echo", "raise SystemExit(3)"),
    "no provider": ("llmplug_broken:function", GOOD),
    "an unfinished one": ("llmplug_broken:Unfinished", GOOD),
    "nonsense": ("llmplug_broken:", GOOD),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_one_warning_and_a_disabled_provider_with_the_reason(
    fault: str, install: Callable[..., None], house: House, caplog: pytest.LogCaptureFixture
) -> None:
    value, text = BROKEN[fault]
    install("llmplug_broken", text, echo=value)
    house.add("fine")
    house.registry.register_plugins()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            listed = {recipe.name: recipe for recipe in house.registry.listed()}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert set(listed) == {"fine", "echo"}
    assert not listed["echo"].enabled
    assert "llmplug_broken does not load: " in listed["echo"].reason
    assert house.why_not("echo") == listed["echo"].reason
    with pytest.raises(ConfigurationError) as caught:
        provider_class("echo")
    assert "%pip uninstall -y llmplug_broken" in caught.value.next_step
    assert len(caught.value.lines()) <= 3


def test_a_plugin_that_needs_settings_says_which(install: Callable[..., None], house: House) -> None:
    install("llmplug_cloud", GOOD, cloud="llmplug_cloud:Cloud")
    house.registry.register_plugins()
    (cloud,) = house.registry.listed()
    assert not cloud.enabled
    assert "cannot be made without settings" in cloud.reason
    assert "token" in cloud.reason
    with pytest.raises(ConfigurationError, match=r"\[providers.cloud\]"):
        cloud.build()


def test_a_broken_plugin_that_the_settings_name_is_disabled_in_the_list(
    install: Callable[..., None], house: House
) -> None:
    install("llmplug_set", "1 / 0", echo="llmplug_set:Echo")
    house.add("mine", kind="echo")
    mine = next(recipe for recipe in house.registry.listed() if recipe.name == "mine")
    assert not mine.enabled
    assert "ZeroDivisionError" in mine.reason
