"""A notebook with the magics loaded, whose model is a scripted server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels import Kernel
from servers.paced import ModelServer


@pytest.fixture(scope="module")
def module_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def local_provider(server: ModelServer) -> dict[str, str]:
    """The environment that configures a server as `[providers.local]`."""
    return {
        "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
    }


def by_default(server: ModelServer) -> dict[str, str]:
    """The same, and that its model `m` answers when none is named."""
    return local_provider(server) | {"LLM_JUPYTER_DEFAULT_MODEL": "local/m"}


@pytest.fixture(scope="module")
def module_notebook(tmp_path_factory: pytest.TempPathFactory, module_server: ModelServer) -> Iterator[Kernel]:
    with Kernel(tmp_path_factory.mktemp("home"), local_provider(module_server)) as kernel:
        kernel.load()
        kernel.run("%chat hello")  # what is said once has been said
        yield kernel


@pytest.fixture
def server(module_server: ModelServer) -> ModelServer:
    module_server.forget()
    return module_server


@pytest.fixture
def notebook(module_notebook: Kernel, server: ModelServer) -> Kernel:
    """One kernel for a whole module, with a fresh conversation for each test."""
    module_notebook.run("%config LLMMagics.footer = ''\n%config LLMMagics.stream = ''\n%config LLMMagics.metadata = ''")
    assert module_notebook.run("%llm reset").status == "ok"
    return module_notebook
