"""What it costs to look after providers and hosts while nobody asks anything."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from tests.benchmarks.figures import Report
from tests.benchmarks.outage import in_trouble
from tests.live import cached_weights, place

PROVIDERS = 5
LIMIT = 0.2
"""Per cent of a core."""


def run(report: Report, *, seconds: float) -> None:
    """The share of a core that watching takes, over so many seconds."""
    report.title(f"CPU while nothing is asked, over {seconds:g} s")
    with tempfile.TemporaryDirectory() as home:
        _providers(report, Path(home), seconds)
    with tempfile.TemporaryDirectory() as home:
        _host(report, Path(home), seconds)


def _providers(report: Report, home: Path, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(in_trouble("500")) for _ in range(PROVIDERS)]  # their lists of models are fine
        tables = {f"p{n}": {"kind": "openai-compatible", "base_url": url} for n, url in enumerate(urls)}
        llm = stack.enter_context(_factory(home, {"providers": tables}))
        for name in tables:
            llm.portal.run(llm.providers.connect(name))
        share = _share(psutil.Process(), seconds)
    report.add(f"{PROVIDERS} idle providers under watch", share, "% of core", LIMIT)


def _host(report: Report, home: Path, seconds: float) -> None:
    place(cached_weights(), home)
    with _factory(home, {}) as llm:
        llm.chat("hi", max_tokens=1)
        (host,) = [status for status in llm.hosts.status() if status.ours]
        assert host.pid is not None
        supervisor = psutil.Process(host.pid).parent()
        assert supervisor is not None
        report.add("the supervisor of an idle host", _share(supervisor, seconds), "% of core", LIMIT)
        with _watching(llm):
            share = _share(psutil.Process(), seconds)
        report.add("a kernel that watches it, measuring once a second", share, "% of core", LIMIT)


@contextlib.contextmanager
def _watching(llm: LLMFactory) -> Iterator[None]:
    async def begin() -> Callable[[], object]:
        watch = llm.hosts.watch()
        watch.__enter__()
        return lambda: watch.__exit__(None, None, None)

    async def end(stop: Callable[[], object]) -> None:
        stop()

    stop = llm.portal.run(begin())
    try:
        yield
    finally:
        llm.portal.run(end(stop))


def _factory(home: Path, values: dict[str, object]) -> LLMFactory:
    return LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(home)}), environment={})


def _share(process: psutil.Process, seconds: float) -> float:
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds * 100
