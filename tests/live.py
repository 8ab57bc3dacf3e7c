"""The real model for tests: its weights, and a home folder that holds them.

`LLM_JUPYTER_TEST_WEIGHTS` may name a folder that has the file; otherwise the package's own code fetches it, once for all
runs, into `.cache/llm_jupyter` of the repository. A test that cannot have the weights fails; it is never skipped.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_jupyter.errors import LLMError
from llm_jupyter.providers._weights import FILE, WeightsFolder

VARIABLE = "LLM_JUPYTER_TEST_WEIGHTS"
CACHE = Path(__file__).parents[1] / ".cache" / "llm_jupyter"


@pytest.fixture(scope="session")
def weights() -> Path:
    """The real model's file. It is shared: never write to it."""
    return cached_weights()


def cached_weights() -> Path:
    """The real model's file, fetched if it is not there yet."""
    if folder := os.environ.get(VARIABLE):
        file = Path(folder).absolute() / FILE
        assert file.is_file(), f"{VARIABLE} is set to {folder}, which has no {FILE}"
        return file
    with ThreadPoolExecutor(1) as aside:  # where no event loop of the running test is disturbed
        return aside.submit(asyncio.run, _cached()).result()


async def _cached() -> Path:
    folder = WeightsFolder(CACHE)
    try:
        async for progress in folder.fetch():
            print(f"\r{progress.status} {progress.completed:,} of {progress.total or 0:,}", end="")
        file = folder.verified()
    except LLMError as error:
        pytest.fail(f"the embedded model cannot be had for the tests: {error}")
    assert file is not None
    return file


async def eventually(condition: Callable[[], object], within: float) -> float:
    """Look until something is so that nothing announces; how long it took. Fails after `within` seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within, f"not so within {within} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


def place(weights: Path, home: Path, name: str = FILE) -> Path:
    """Put the weights into a home, under a name, without copying them; return where they stand."""
    target = home / "models" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(weights)
    except OSError:  # Windows grants symbolic links to few
        os.link(weights, target)
    return target


@pytest.fixture
def llm_home(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`LLM_JUPYTER_HOME` for one test, with the weights in it."""
    home = tmp_path / "llm_jupyter"
    place(weights, home)
    monkeypatch.setenv("LLM_JUPYTER_HOME", str(home))
    return home
