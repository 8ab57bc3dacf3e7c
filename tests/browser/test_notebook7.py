"""Notebook 7: the same file has the same outputs there as in JupyterLab, and the dashboards work."""

from __future__ import annotations

import pytest
from dashboards import dashboard, execute, run_and_close, run_cell, write_notebook
from labs import ARTIFACTS, Lab
from pages_of import code_cell, menu, open_notebook, wait_until_done
from playwright.sync_api import Page, expect
from test_dashboards_chat import CODE, STEADY, ask, button, cell_below, fill_in

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

ANSWERS = ".jp-OutputArea-output.jp-RenderedMarkdown"
ERRORS = ".jp-OutputArea-output:is([data-mime-type$='.stderr'], [data-mime-type$='.error'])"


def test_the_quickstart_runs_to_its_end_and_its_answers_are_rendered(page: Page, notebook7: Lab) -> None:
    open_notebook(page, notebook7, "01_quickstart.ipynb")
    menu(page, "Edit", "Clear Outputs of All Cells")
    first = code_cell(page, "what is a Jupyter notebook?")
    expect(first.locator(".jp-OutputArea-output")).to_have_count(0)

    menu(page, "Run", "Run All Cells")
    wait_until_done(page, cells=7)

    expect(page.locator(ANSWERS)).to_have_count(4)
    expect(first.locator(ANSWERS).locator("p").first).not_to_be_empty()
    expect(first.locator(".jp-RenderedHTMLCommon small")).to_contain_text("embedded/smollm2-135m · local")
    expect(page.locator(ERRORS)).to_have_count(0)

    ARTIFACTS.mkdir(exist_ok=True)
    first.scroll_into_view_if_needed()
    page.screenshot(path=ARTIFACTS / "notebook7.png")


def test_the_dashboards_are_live_and_a_new_cell_stands_below_the_panel(page: Page, notebook7: Lab) -> None:
    names = ("status", "chat", "compare")
    opened = [f"%llm dash {name} -o {name}_dash" for name in names]
    load = f"import os\nos.environ.update({STEADY!r})\n%load_ext llm_jupyter"
    write_notebook(notebook7, "seven.ipynb", load, *opened, "# free")
    page.set_viewport_size({"width": 1280, "height": 2000})
    open_notebook(page, notebook7, "seven.ipynb")
    for source in ("%load_ext", *opened):
        run_cell(page, source)
    status, chat, compare = (dashboard(page, title) for title in ("Status", "Chat", "Compare models"))

    execute(page, "# free")
    button(status, "Look again for providers and their models").click()
    for key in "ddxb":
        page.keyboard.press(key)
    expect(status).to_be_visible()
    expect(page.locator(".jp-CodeCell")).to_have_count(len(names) + 2)

    asked = ask(chat, CODE)
    expect(status.locator("tr", has_text="embedded")).to_contain_text("connected")
    first = asked.locator("pre").inner_text().splitlines()[0]
    button(asked, f"New cell with code: {first[:40]}").click()
    expect(cell_below(chat).locator(".cm-content")).to_contain_text(first)
    expect(cell_below(chat).locator(".jp-InputPrompt")).to_have_text("[ ]:")

    fill_in(compare, "Name a colour.", {"Temperature": "0"}, {"Temperature": "1"})
    button(compare, "Ask").click()
    expect(compare.get_by_role("status").first).to_have_text("2 of 2 answers")
    page.screenshot(path=ARTIFACTS / "notebook7-dashboards.png")
    run_and_close(page, "chat", "Chat")
