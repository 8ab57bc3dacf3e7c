"""The servers that nobody configured: what is looked for, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_jupyter.factory import LLMFactory, found_servers, ollama_url
from llm_jupyter.registry import EMBEDDED_PRIORITY, FOUND
from llm_jupyter.settings import LLMSettings, ProviderSettings

USUAL = "http://127.0.0.1:11434"

AS_OLLAMA_READS_IT = {
    "": USUAL,
    "1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:1234": "http://1.2.3.4:1234",
    "example.com": "http://example.com:11434",
    "example.com:1234": "http://example.com:1234",
    "[::1]": "http://[::1]:11434",
    "::1": "http://[::1]:11434",
    "[::1]:1337": "http://[::1]:1337",
    " 1.2.3.4 ": "http://1.2.3.4:11434",
    '"1.2.3.4"': "http://1.2.3.4:11434",
    ' " 1.2.3.4 " ': "http://1.2.3.4:11434",
    "'1.2.3.4'": "http://1.2.3.4:11434",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "http://1.2.3.4:4321": "http://1.2.3.4:4321",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:4321": "https://1.2.3.4:4321",
    "https://example.com/ollama": "https://example.com:443/ollama",
    "http://example.com:99999": "http://example.com:80",
    "ollama.com": "https://ollama.com:443",
}
"""The cases that Ollama itself is tested with, where what it reads can also be connected to."""

LISTENS_EVERYWHERE = {
    ":1234": "http://127.0.0.1:1234",
    ":66000": USUAL,
    ":-1": USUAL,
    "0.0.0.0": USUAL,
    "0.0.0.0:1234": "http://127.0.0.1:1234",
    "http://0.0.0.0:1234/": "http://127.0.0.1:1234",
    "[::]": USUAL,
    "[::]:1234": "http://127.0.0.1:1234",
    "::": USUAL,
}

NONSENSE = {
    "no host at all": USUAL,
    "http://": "http://127.0.0.1:80",
    "://": USUAL,
    "/": USUAL,
    "a b:1234": "http://127.0.0.1:1234",
    "name:password@example.com": "http://name:11434",
    "gopher://1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:١٢": "http://1.2.3.4:11434",
    '"': USUAL,
}


@pytest.mark.parametrize(("host", "url"), [*AS_OLLAMA_READS_IT.items(), *LISTENS_EVERYWHERE.items(), *NONSENSE.items()])
def test_the_address_of_ollama_is_read_as_ollama_reads_it(tmp_path: Path, host: str, url: str) -> None:
    assert ollama_url(host) == url
    with LLMFactory(LLMSettings(home=tmp_path), environment={"OLLAMA_HOST": host}) as llm:
        is_here = any(part in url for part in ("//127.0.0.1:", "//[::1]:"))
        assert llm.registry.recipe("ollama").is_local is is_here
        assert llm.providers.get("ollama").is_local is is_here


def test_without_a_word_the_usual_places_are_looked_at() -> None:
    found = {name: (provider, source) for name, provider, source in found_servers({})}
    assert list(found) == ["ollama", "lmstudio"]
    assert (found["ollama"][0].kind, found["ollama"][0].base_url) == ("ollama", USUAL)
    assert (found["lmstudio"][0].kind, found["lmstudio"][0].base_url) == ("lmstudio", "http://127.0.0.1:1234")
    assert {source for _, source in found.values()} == {"its usual port"}


def test_they_rank_below_the_settings_and_above_the_embedded_model(tmp_path: Path) -> None:
    configured = {"mine": ProviderSettings(kind="openai-compatible", base_url="http://127.0.0.1:9/v1")}
    environment = {"OPENAI_API_KEY": "sk", "OLLAMA_HOST": ":9"}
    with LLMFactory(LLMSettings(home=tmp_path, providers=configured), environment=environment) as llm:
        ranked = [(recipe.name, recipe.priority) for recipe in llm.registry.recipes()]
        assert llm.registry.recipe("ollama").source == "the environment (OLLAMA_HOST)"
    assert ranked == [
        ("mine", 0), ("lmstudio", FOUND), ("ollama", FOUND), ("openai", FOUND), ("embedded", EMBEDDED_PRIORITY)
    ]  # fmt: skip


def test_what_the_settings_name_is_not_found_a_second_time(tmp_path: Path) -> None:
    configured = {
        "ollama": ProviderSettings(kind="ollama", base_url="http://127.0.0.1:9", priority=5),
        "lmstudio": ProviderSettings(kind="lmstudio", base_url="http://127.0.0.1:9", enabled=False),
    }
    with LLMFactory(LLMSettings(home=tmp_path, providers=configured), environment={"OLLAMA_HOST": ":7"}) as llm:
        recipes = {recipe.name: recipe for recipe in llm.registry.recipes()}
        assert set(recipes) == {"ollama", "lmstudio", "embedded"}
        assert (recipes["ollama"].priority, recipes["ollama"].source) == (5, "your settings")
        assert not recipes["lmstudio"].enabled
        assert llm.providers.get("ollama").where == "ollama at http://127.0.0.1:9"


def test_a_key_of_lm_studio_is_taken_from_its_own_variable() -> None:
    (studio,) = [provider for name, provider, _ in found_servers({}) if name == "lmstudio"]
    assert studio.secret({"LM_API_TOKEN": "t"}) == "t"
    assert studio.secret({}) is None
