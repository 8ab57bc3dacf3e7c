"""`%llm dash` in a real kernel: what it opens, what a saved file has of it, and that running it again leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from counts import times
from kernels import Kernel, Ran, kernel_environment
from nbclient import NotebookClient
from on_ollama import bad

from llm_jupyter.widgets import DASHBOARDS

WIDGET = "application/vnd.jupyter.widget-view+json"

LOOK = """
import asyncio, ctypes, gc, threading
import psutil
from llm_jupyter.widgets import StatusDashboard

def opened():
    "How many comms, feeds, jobs and threads there are; without those of the loop's pool, which stay for the next task."
    factory = get_ipython()._llm_jupyter_magics.kernel.factory
    for _ in range(5):
        factory.portal.run(asyncio.sleep(0))  # what was cancelled ends
    gc.collect()
    comms, threads = get_ipython().kernel.comm_manager.comms, [t.name for t in threading.enumerate()]
    ours = [name for name in threads if not name.startswith("asyncio_")]
    return len(comms), len(factory.events._feeds), len(factory.portal._jobs), len(ours)

def memory():
    "Bytes of this process, without the outputs that IPython itself keeps and what the allocator does."
    getattr(get_ipython().history_manager, "outputs", {}).clear()
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    return psutil.Process().memory_info().rss
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel(tmp_path_factory.mktemp("home")) as kernel:
        good(kernel.load(), LOOK)
        yield kernel


@pytest.fixture(autouse=True)
def empty(kernel: Kernel) -> None:
    """Every test begins with none open."""
    kernel.run("%unload_ext llm_jupyter\n%load_ext llm_jupyter")


def good(kernel: Kernel, code: str, cell: str | None = None, **more: Any) -> Ran:
    ran = kernel.run(code, cell, **more)
    assert ran.status == "ok", ran.error
    return ran


def view_of(ran: Ran) -> dict[str, Any]:
    (data,) = [output["data"] for output in ran.outputs if WIDGET in output.get("data", {})]
    return data


# -- what it opens


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_dashboard_opens_with_its_picture_for_a_saved_file(kernel: Kernel, name: str) -> None:
    data = view_of(good(kernel, f"%llm dash {name}", cell="a"))
    assert set(data) == {WIDGET, "text/html", "text/plain"}
    assert data["text/html"].startswith('<div class="llm-dashboard"><b>')
    assert data["text/plain"].strip()
    assert kernel.value("opened()[0]") == 2


def test_without_a_name_it_is_the_status(kernel: Kernel) -> None:
    assert view_of(good(kernel, "%llm dash", cell="a"))["text/plain"].startswith("Status")


def test_it_is_kept_in_a_variable_on_either_side_of_the_name(kernel: Kernel) -> None:
    good(kernel, "%llm dash -o first events")
    good(kernel, "%llm dash events -o second")
    assert kernel.value("[type(d).__name__ for d in (first, second)]") == ["EventsDashboard"] * 2
    good(kernel, "first.close()")
    assert kernel.value("repr(first)") == "Events (closed)"


def test_a_name_that_none_has_is_an_error_that_lists_them(kernel: Kernel) -> None:
    assert bad(kernel, "%llm dash nonsense") == [
        "InvalidInputError: there is no dashboard 'nonsense'",
        f"There are: {', '.join(DASHBOARDS)}.",
    ]
    assert "Did you mean %llm dash events?" in bad(kernel, "%llm dash event")[1]
    assert "takes one name, not 'hosts' too" in bad(kernel, "%llm dash events hosts")[0]


def test_while_a_cell_runs_no_page_is_forgotten_since_what_it_says_may_wait_for_the_cell(kernel: Kernel) -> None:
    good(kernel, "%llm dash status -o seen\nseen.lease = 0.05")
    good(kernel, "import time\nseen._viewers = {'a page': 0.0}\ntime.sleep(0.5)\nstill = len(seen._viewers)")
    assert kernel.value("still") == 1
    for _ in range(100):
        if kernel.value("len(seen._viewers)") == 0:
            return
    raise AssertionError("it is never forgotten")


def test_without_the_extension_it_says_what_to_type(kernel: Kernel) -> None:
    good(kernel, "%unload_ext llm_jupyter")
    assert bad(kernel, "StatusDashboard()") == [
        "InvalidInputError: a dashboard needs services to look at",
        "Type %load_ext llm_jupyter first, or give it an LLMFactory.",
    ]


# -- what ends it


def test_unloading_the_extension_closes_all(kernel: Kernel) -> None:
    for name in ("status", "events"):
        good(kernel, f"%llm dash {name} -o {name}")
    good(kernel, "%unload_ext llm_jupyter")
    assert kernel.value("len(get_ipython().kernel.comm_manager.comms)") == 0
    assert kernel.value("[repr(status), repr(events)]") == ["Status (closed)", "Events (closed)"]


def test_a_cell_that_is_deleted_takes_its_dashboard_along(kernel: Kernel) -> None:
    good(kernel, "%llm dash events", cell="log")
    good(kernel, "%llm dash events", cell="other")
    assert kernel.value("opened()[0]") == 4
    good(kernel, "pass", cell="next", metadata={"deletedCells": ["log"]})
    assert kernel.value("opened()[0]") == 2


def test_a_dashboard_on_services_of_ones_own_belongs_to_its_cell_too(kernel: Kernel) -> None:
    good(kernel, "from llm_jupyter import LLMFactory\nown = LLMFactory()")
    for _ in range(3):
        good(kernel, "StatusDashboard(own)", cell="own")
        assert kernel.value("opened()[0]") == 2
    good(kernel, "own.close()")


WAYS = (("%llm dash events", "a cell"), ("%llm dash events", None), ("StatusDashboard()", "another cell"))
"""A dashboard, and the id of its cell where the front end tells one."""


@pytest.mark.stress
def test_running_a_dashboard_again_leaves_nothing_behind(kernel: Kernel, report: Callable[[str], None]) -> None:
    def run_again(count: int) -> None:
        for number in range(count):
            code, cell = WAYS[number % len(WAYS)]
            good(kernel, code, cell)

    run_again(12)
    before, memory = kernel.value("opened()"), kernel.value("memory()")
    run_again(times(1000))
    grown = (kernel.value("memory()") - memory) / 1e6
    assert kernel.value("opened()") == before == (6, 3, 3, before[-1])
    assert grown < 5
    report(f"dashboards run again {times(1000):,} times: {grown:.1f} MB more memory, nothing else")


# -- what a saved file has of it


CELLS = ["%load_ext llm_jupyter", "%llm dash status", "%llm dash events -o log", "log"]


def test_a_notebook_that_no_page_shows_runs_and_as_html_it_has_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in kernel_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()  # as nbconvert: with the state of widgets
    assert [len(cell.outputs) for cell in notebook.cells] == [0, 1, 1, 1]
    assert notebook.metadata.widgets
    file = tmp_path / "dashboards.ipynb"
    nbformat.write(notebook, file)
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--template", "basic", file.name],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count('<div class="llm-dashboard">') == 3
    assert "<td" in page
    assert "ProviderRegistered" in page
