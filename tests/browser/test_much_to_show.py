"""What dashboards look like where there is much: long names and many models, on a page without Jupyter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alone import draw
from playwright.sync_api import Page
from servers.paced import ModelServer
from widgets.watching import shown

from llm_jupyter.comparison import compare
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from llm_jupyter.widgets import ChatDashboard, CompareDashboard, EventsDashboard, ModelsDashboard

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

LONG = "hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M"
LONGEST = "a-model-whose-name-has-no-end" * 5
MANY = [f"model-{number}" for number in range(300)]


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[LLMFactory]:
    with ModelServer([LONG, LONGEST, *MANY]) as server:
        environment = {
            "LLM_JUPYTER_HOME": str(tmp_path),
            "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": server.base_url,
            "LLM_JUPYTER_DEFAULT_MODEL": f"desk/{LONG}",
        }
        with LLMFactory(load_settings(environment=environment), environment=environment) as llm:
            yield llm


def size(page: Page) -> tuple[int, int]:
    width, height = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollHeight]")
    return width, height


@pytest.mark.parametrize("width", [270, 320, 700])
def test_nothing_is_wider_than_its_cell_however_long_models_are_called(page: Page, llm: LLMFactory, width: int) -> None:
    llm.chat("hello")
    with shown(ChatDashboard(llm)) as told:
        told.until(lambda: told.state.get("models"))
        draw(page, told.state, width)
        assert size(page)[0] == width
    comparison = compare("hello", [f"desk/{LONG}", f"desk/{LONGEST}"], llm=llm)
    with shown(CompareDashboard(llm, comparison)) as told:
        told.until(lambda: told.state.get("view"))
        draw(page, {**told.state, "keeps": True}, width)
        assert size(page)[0] == width
    with shown(EventsDashboard(llm)) as told:
        told.until(lambda: told.state.get("rows"))
        draw(page, told.state, width)
        log = page.get_by_role("region", name="Log of events")
        assert size(page)[0] == width
        assert width > 600 or log.evaluate("element => element.scrollWidth - element.clientWidth") == 0


@pytest.mark.parametrize("width", [320, 1200])
def test_many_models_scroll_in_a_list_of_their_own(page: Page, llm: LLMFactory, width: int) -> None:
    with shown(ModelsDashboard(llm)) as told:
        told.until(lambda: len(told.state.get("models", ())) >= len(MANY))
        draw(page, told.state, width)
        listed = page.get_by_role("region", name="List of models")
        assert listed.locator("tbody tr").count() >= len(MANY)
        assert size(page)[1] < 1200
        listed.evaluate("element => { element.scrollTop = 1e6; }")
        assert listed.locator("tbody tr").last.is_visible()
