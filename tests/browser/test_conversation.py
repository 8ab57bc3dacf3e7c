"""A conversation in a real JupyterLab: it goes on after a restart, and follows its cells when they are moved."""

from __future__ import annotations

import json
import re

import pytest
from labs import ARTIFACTS, Lab
from pages_of import menu, open_notebook, wait_until_done
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

WORDS = ("Name a colour.", "Name a fruit.", "Name a river.")


def notebook() -> dict[str, object]:
    sources = ["%load_ext llm_jupyter", *(f"%%chat -t 0 --max-tokens 8\n{word}" for word in WORDS), "%llm history"]
    cells = [
        {"id": f"cell-{n}", "cell_type": "code", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
        for n, s in enumerate(sources)
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": spec, "cells": cells}


def history(page: Page) -> list[str]:
    """The questions as `%llm history` lists them."""
    text = page.locator(".jp-CodeCell", has_text="%llm history").locator(".jp-OutputArea-output").first.inner_text()
    return [word for line in text.splitlines() for word in WORDS if word in line]


def restart(page: Page) -> None:
    menu(page, "Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog-button", has_text="Restart").click()
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)


def run(page: Page, cell: Locator) -> None:
    cell.locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)


def test_a_restart_loses_nothing_and_a_moved_cell_moves_its_turn(page: Page, lab: Lab) -> None:
    (lab.root / "talk.ipynb").write_text(json.dumps(notebook()), encoding="utf-8")
    open_notebook(page, lab, "talk.ipynb")
    menu(page, "Run", "Run All Cells")
    wait_until_done(page, cells=5)
    assert history(page) == list(WORDS)

    restart(page)
    cells = page.locator(".jp-CodeCell")
    run(page, cells.nth(0))
    run(page, cells.nth(3))
    expect(cells.nth(3).locator("small").last).to_contain_text("Resumed 3 turns of talk.ipynb")
    page.screenshot(path=ARTIFACTS / "conversation.png")

    cells.nth(3).locator(".jp-InputPrompt").click()
    for _ in range(2):
        menu(page, "Edit", "Move Cell Up")
    menu(page, "File", "Save Notebook")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    menu(page, "Run", "Run All Cells")
    wait_until_done(page, cells=5)
    assert history(page) == [WORDS[2], WORDS[0], WORDS[1]]
