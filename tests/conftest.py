"""What the whole suite shares. That this file stands here lets every test import `servers.*`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from servers.real_ollama import Ollama, real_ollama

pytest_plugins = ["counts", "live", "labs", "sharing"]

# Machines that run many things at once make single examples slow; a limit on the time of one would only be noise.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def ollama(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """One real Ollama for all tests that leave it as it was, with one model on it."""
    with real_ollama(tmp_path_factory.mktemp("ollama"), weights) as server:
        yield server
