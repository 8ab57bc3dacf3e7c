"""The names that `llm_jupyter` promises."""

import importlib
import inspect
import subprocess
import sys

import pytest

import llm_jupyter
from llm_jupyter.providers.base import LLMProvider

SEED = {
    "LLMFactory": "factory",
    "LLMModelInfo": "types",
    "LLMProvider": "providers.base",
    "LLMProviderManager": "manager",
    "LLMProviderStatus": "types",
    "LLMResponse": "types",
    "LLMSessionManager": "sessions",
    "LMStudioProvider": "providers.lmstudio",
    "LlamaCppProvider": "providers.llamacpp",
    "OllamaProvider": "providers.ollama",
    "OpenAICompatibleProvider": "providers.openai_compatible",
    "ProviderRegistry": "registry",
}
"""Names that stay findable, and the module that defines each."""

PROVIDER_METHODS = [
    *["is_available", "connect", "disconnect", "get_status", "get_available_models", "get_model_info"],
    *["generate_completion", "generate_chat_completion", "stream_completion", "stream_chat_completion"],
    *["pull_model", "delete_model", "load_model", "unload_model", "embed"],
]
HOOKS = {"load_ipython_extension", "unload_ipython_extension"}
VALUES = [name for name in llm_jupyter.__all__ if name not in HOOKS]


def test_the_list_of_names_is_sorted_and_has_none_twice() -> None:
    assert llm_jupyter.__all__ == sorted(set(llm_jupyter.__all__))
    assert dir(llm_jupyter) == llm_jupyter.__all__


@pytest.mark.parametrize("name", VALUES)
def test_a_public_name_is_the_object_of_the_module_that_defines_it(name: str) -> None:
    value = getattr(llm_jupyter, name)
    assert value.__module__.startswith("llm_jupyter.")
    assert value.__name__ == name
    assert getattr(importlib.import_module(value.__module__), name) is value


@pytest.mark.parametrize(("name", "home"), SEED.items())
def test_a_name_of_the_seed_stands_where_the_design_says(name: str, home: str) -> None:
    assert name in llm_jupyter.__all__
    assert f"{getattr(llm_jupyter, name).__module__}.".startswith(f"llm_jupyter.{home}.")


def test_the_extension_hooks_are_functions_of_the_package_itself() -> None:
    assert set(llm_jupyter.__all__) >= HOOKS
    assert all(inspect.isfunction(vars(llm_jupyter)[name]) for name in HOOKS)


def test_a_star_import_brings_every_name() -> None:
    script = (
        "from llm_jupyter import *; import llm_jupyter; assert set(llm_jupyter.__all__) <= set(globals()); print(1)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("1\n", "")


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'llm_jupyter' has no attribute 'Nothing'"):
        llm_jupyter.Nothing  # noqa: B018


@pytest.mark.parametrize("method", PROVIDER_METHODS)
def test_a_provider_has_every_method_of_the_seed_with_a_docstring(method: str) -> None:
    function = inspect.getattr_static(LLMProvider, method)
    assert inspect.isfunction(function)
    assert inspect.getdoc(function)


def test_a_provider_has_a_name_and_every_provider_is_whole() -> None:
    for kind in (
        llm_jupyter.LMStudioProvider,
        llm_jupyter.LlamaCppProvider,
        llm_jupyter.OllamaProvider,
        llm_jupyter.OpenAICompatibleProvider,
    ):
        assert issubclass(kind, LLMProvider)
        assert not inspect.isabstract(kind)
        assert "name" in inspect.signature(kind).parameters
    assert inspect.isabstract(LLMProvider)
