"""What the tests in a browser share: a notebook with all dashboards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dashboards import QUESTION, TITLES, run_cell, write_notebook
from labs import Lab
from pages_of import open_notebook
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=20_000)  # what is promised within a second is measured; for all else a busy machine has time


@pytest.fixture(scope="module", autouse=True)
def _kernels_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one module's notebooks hold, above all the embedded model's process, is nobody's when the next begins."""
    asks_lab = any("lab" in item.fixturenames for item in request.session.items if item.path == request.path)
    lab: Lab | None = request.getfixturevalue("lab") if asks_lab else None
    yield
    if lab is not None:
        lab.end_kernels()


@pytest.fixture(scope="module")
def room(browser: Browser, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Page]:
    """One notebook with a cell for each dashboard, none of which has run; its model runs."""
    cells = [f"%llm dash {name} -o {name}_dash" for name in TITLES]
    name = f"{request.module.__name__}.ipynb"
    write_notebook(lab, name, "%load_ext llm_jupyter", QUESTION, *cells, "# free")
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(30_000)
    open_notebook(page, lab, name)
    run_cell(page, "%load_ext")
    run_cell(page, QUESTION)
    yield page
    page.close()
