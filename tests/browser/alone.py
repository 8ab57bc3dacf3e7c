"""Dashboards on a page without Jupyter: what a kernel would say is said to them by a test."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page

from llm_jupyter.widgets import bundle

DRAW = """
async ([script, state]) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([script], { type: 'text/javascript' })));
  window.told = [];
  const on = (name, listener) => { if (name === 'msg:custom') window.hear = listener; };
  const model = { get: () => state, set() {}, on, off() {}, send: content => window.told.push(content) };
  document.body.replaceChildren(document.createElement('div'));
  widget.render({ model, el: document.body.firstChild });
  await new Promise(resolve => setTimeout(resolve, 50));
}
"""


def draw(page: Page, state: dict[str, Any], width: int = 700) -> None:
    """Let the page show this state in a cell of that width."""
    page.set_viewport_size({"width": width, "height": 900})
    page.set_content(f"<!doctype html><style>body {{ margin: 0 }} {bundle._static('dashboards.css')}</style>")
    page.evaluate(DRAW, [bundle._static("dashboards.js"), state])


def say(page: Page, **message: Any) -> None:
    """Let the dashboard hear that from its kernel, whose clock is right."""
    page.evaluate("message => hear(message)", {"now": time.time(), **message})


def told(page: Page) -> list[dict[str, Any]]:
    """What the dashboard has told its kernel so far."""
    found: list[dict[str, Any]] = page.evaluate("told")
    return found
