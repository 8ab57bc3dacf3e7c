"""Dashboards in a page of JupyterLab: opened in their cells, watched, and used by the names that their controls have."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from labs import ARTIFACTS, Lab
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

SOON = 2.0 if os.environ.get("PYTEST_XDIST_WORKER") else 1.0
"""Seconds within which a page shows what has happened; twice as many where other tests take the machine at the same time."""

QUESTION = "%chat -t 0 --max-tokens 8 Say hello."
TITLES = {
    "status": "Status", "hosts": "Hosts", "models": "Models", "sessions": "Conversations", "chat": "Chat",
    "events": "Events", "compare": "Compare models",
}  # fmt: skip

WATCH = """
([element, name]) => {
  const log = (window.watched = window.watched || {})[name] = [];
  const look = () => {
    const text = element.isConnected ? element.innerText : '';
    if (!log.length || log.at(-1)[1] !== text) log.push([Date.now() / 1000, text]);
  };
  look();
  new MutationObserver(look).observe(element, {subtree: true, childList: true, characterData: true, attributes: true});
}
"""


def write_notebook(lab: Lab, name: str, *sources: str) -> None:
    """A notebook with these cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), lab.root / name)


def run_cell(page: Page, source: str) -> Locator:
    """Run the cell with this text, and wait until it is done."""
    before = cell_of(page, source).locator(".jp-InputPrompt").inner_text()
    cell = start_cell(page, source)
    wait_until_run(cell, before)
    return cell


def start_cell(page: Page, source: str) -> Locator:
    """Begin to run the cell with this text."""
    cell = cell_of(page, source)
    cell.locator(".cm-content").click()  # the prompt would leave the focus in a dashboard's field
    page.keyboard.press("Control+Enter")
    return cell


def cell_of(page: Page, source: str) -> Locator:
    """The cell in which this text was typed: dashboards show the texts of others."""
    return page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=source)).first


def wait_until_run(cell: Locator, before: str) -> None:
    """Wait until a cell has another number than what stood there before."""
    prompt = cell.locator(".jp-InputPrompt")
    expect(prompt).not_to_have_text(before)
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)


def heard_from(page: Page) -> list[str]:
    """The errors of our own script, which the page has as a blob, from now on; JupyterLab has others."""
    found: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and ("blob:" in str(message.location) or "llm_jupyter" in message.text):
            found.append(message.text)

    page.on("pageerror", lambda error: found.append(str(error)) if "blob:" in f"{error.stack}" else None)
    page.on("console", note)
    return found


def dashboard(page: Page, title: str) -> Locator:
    """The dashboard of that title, once it is drawn."""
    frame = page.get_by_role("region", name=title, exact=True)
    expect(frame).to_be_visible()
    return frame


class Watched:
    """What a part of the page has said since it was watched, and when."""

    def __init__(self, part: Locator) -> None:
        self._page = part.page
        self._name = f"watched {time.monotonic()}"
        self._page.evaluate(WATCH, [part.element_handle(), self._name])

    def said(self) -> list[tuple[float, str]]:
        """Every text, with the time (seconds since the epoch) at which it came."""
        return [(at, text) for at, text in self._page.evaluate("name => window.watched[name]", self._name)]

    def after(self, moment: float, pattern: str, within: float = 20.0) -> float:
        """Seconds from that moment until something said so; waits for it.

        What is written down before its event is published may be on the page a little before it: after 0 seconds.
        """
        end = time.monotonic() + within
        while time.monotonic() < end:
            for at, text in self.said():
                if at >= moment - 0.05 and re.search(pattern, text):
                    return max(0.0, at - moment)
            self._page.wait_for_timeout(20)
        raise AssertionError(f"nothing like {pattern!r} was said: {self.said()[-3:]}")


@contextmanager
def dark(page: Page) -> Iterator[None]:
    """For this time the page has the dark theme."""
    choose_theme(page, "JupyterLab Dark")
    try:
        yield
    finally:
        choose_theme(page, "JupyterLab Light")


def choose_theme(page: Page, name: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Settings$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).hover()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{name}$")).click()
    expect(page.locator(f"body[data-jp-theme-name='{name}']")).to_have_count(1)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)


def photographed(part: Locator, name: str) -> None:
    """A picture of a part of the page in both themes, among the artefacts."""
    ARTIFACTS.mkdir(exist_ok=True)
    part.scroll_into_view_if_needed()
    part.screenshot(path=ARTIFACTS / f"{name}.png")
    with dark(part.page):
        part.screenshot(path=ARTIFACTS / f"{name}-dark.png")


def in_a_narrow_cell(part: Locator, name: str) -> None:
    """A picture at 320 pixels, in which nothing is wider than its place."""
    width = part.evaluate(
        """async element => {
          const root = element.closest('.llmj');
          root.style.width = '320px';
          await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
          const inner = element.scrollWidth;
          return inner;
        }"""
    )
    part.screenshot(path=ARTIFACTS / f"{name}-narrow.png")
    part.evaluate("element => { element.closest('.llmj').style.width = ''; }")
    assert width <= 322, f"something is {width} pixels wide"


def by_keyboard(part: Locator, name: str) -> Locator:
    """A control of that name: it can be reached with the tab key, and shows that it has the focus."""
    control = part.get_by_role("button", name=name, exact=True).first
    control.focus()
    outline = control.evaluate("element => [element === document.activeElement, element.tabIndex]")
    assert outline == [True, 0]
    return control


def kept(path: Path) -> list[dict[str, Any]]:
    """The outputs of all cells as the file has them."""
    notebook = nbformat.read(path, as_version=4)
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def eventually(condition: Callable[[], object], page: Page, within: float = 10.0) -> None:
    """Wait for something that is not in the page."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        page.wait_for_timeout(20)


def run_and_close(page: Page, name: str, title: str) -> None:
    """The cell runs again: one dashboard is there; it is closed: none is."""
    run_cell(page, f"%llm dash {name}")
    expect(page.get_by_role("region", name=title, exact=True)).to_have_count(1)
    execute(page, f"{name}_dash.close()")
    expect(page.get_by_role("region", name=title, exact=True)).to_have_count(0)


def execute(page: Page, source: str) -> Locator:
    """Type this into the last cell, and run it."""
    cell = page.locator(".jp-CodeCell").last
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    before = cell.locator(".jp-InputPrompt").inner_text()
    page.keyboard.press("Control+Enter")
    wait_until_run(cell, before)
    return cell
