"""Notebooks in a page of JupyterLab or of Notebook 7, driven as a person does it.

open_notebook(page, lab, "01_quickstart.ipynb")
menu(page, "Run", "Run All Cells")
wait_until_done(page, cells=7)
code_cell(page, "%%chat").locator(".jp-OutputArea-output")
"""

from __future__ import annotations

import re

from labs import Lab
from playwright.sync_api import Locator, Page, expect

IDLE = ".jp-Toolbar:has(.jp-KernelName:not(:has-text('No Kernel'))) .jp-Notebook-ExecutionIndicator[data-status='idle']"
"""What both pages have when the kernel is there and idle; before there is one, the indicator says idle too."""


def open_notebook(page: Page, server: Lab, name: str) -> None:
    """Open a notebook, and wait until its kernel can be used."""
    page.goto(server.notebook_url(name))
    wait_until_idle(page)


def wait_until_idle(page: Page) -> None:
    expect(page.locator(IDLE)).to_be_visible(timeout=60_000)


def menu(page: Page, name: str, entry: str) -> None:
    """Choose an entry of the menu of that name."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).click()


def code_cell(page: Page, source: str) -> Locator:
    """The first code cell that has this text."""
    return page.locator(".jp-CodeCell", has_text=source).first


def wait_until_done(page: Page, cells: int) -> None:
    """Wait until so many code cells have a number, and nothing runs."""
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.filter(has_text=re.compile(r"\[\d+\]"))).to_have_count(cells, timeout=90_000)
    wait_until_idle(page)
