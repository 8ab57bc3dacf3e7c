"""The quickstart, run by hand: a person opens it in JupyterLab, runs all cells, and watches."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from labs import ARTIFACTS, Lab
from pages_of import code_cell, menu, open_notebook, wait_until_done
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

WATCH = """
cell => {
  window.lengths = [];
  new MutationObserver(() => {
    const output = cell.querySelector('.jp-OutputArea-output.jp-RenderedMarkdown');
    const length = output ? output.innerText.length : 0;
    const running = cell.querySelector('.jp-InputPrompt').innerText.includes('*');
    if (length !== (window.lengths.at(-1) || [0])[0]) window.lengths.push([length, running]);
  }).observe(cell, {subtree: true, childList: true, characterData: true});
}
"""


def test_text_grows_while_the_cell_runs_and_ends_as_rendered_markdown(page: Page, lab: Lab) -> None:
    open_notebook(page, lab, "01_quickstart.ipynb")
    menu(page, "Edit", "Clear Outputs of All Cells")
    first = code_cell(page, "what is a Jupyter notebook?")
    expect(first.locator(".jp-OutputArea-output")).to_have_count(0)
    first.evaluate(WATCH)

    menu(page, "Run", "Run All Cells")
    wait_until_done(page, cells=7)

    lengths = page.evaluate("window.lengths")
    while_running = [length for length, running in lengths if running]
    growing = [length for before, length in pairwise(while_running) if length > before]
    assert len(growing) >= 3, lengths  # it takes half a second, at thirteen updates a second
    answer = first.locator(".jp-OutputArea-output.jp-RenderedMarkdown")
    expect(answer).to_have_count(1)
    expect(answer.locator("p")).not_to_be_empty()
    expect(first.locator(".jp-OutputArea-output")).to_have_count(2)
    expect(first.locator(".jp-RenderedHTMLCommon small")).to_contain_text("embedded/smollm2-135m · local")
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

    ARTIFACTS.mkdir(exist_ok=True)
    first.scroll_into_view_if_needed()
    page.screenshot(path=ARTIFACTS / "quickstart.png")


def test_what_the_page_showed_is_what_the_file_keeps(page: Page, lab: Lab) -> None:
    open_notebook(page, lab, "01_quickstart.ipynb")
    menu(page, "Run", "Run All Cells")
    wait_until_done(page, cells=7)
    shown = code_cell(page, "what is a Jupyter notebook?").locator(".jp-RenderedMarkdown").last.inner_text()

    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    saved = json.loads((lab.root / "01_quickstart.ipynb").read_text())
    cell = next(cell for cell in saved["cells"] if "what is a Jupyter notebook?" in "".join(cell["source"]))
    markdown = [output for output in cell["outputs"] if "text/markdown" in output.get("data", {})]
    assert len(markdown) == 1
    assert "".join(markdown[0]["data"]["text/plain"]).split() == shown.split()
    assert set(markdown[0]["metadata"]) == {"llm_jupyter"}
