"""The log of events in a real JupyterLab: live, filtered, and under a flood that no page could show."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest
from counts import times
from dashboards import SOON, Watched, dashboard, execute, in_a_narrow_cell, photographed, run_and_close, run_cell
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]

BUS = "get_ipython()._llm_jupyter_magics.kernel.factory.events"
PUBLISH = (
    f"from llm_jupyter.events import HostRestarting\n{BUS}.publish(HostRestarting(host='{{}}', attempt=1, delay=0.5))"
)
FLOOD = f"""
import threading, time
from llm_jupyter.events import HostMeasured, RequestFinished
def flood(count, rate=1000):
    began = time.monotonic()
    for n in range(count):
        {BUS}.publish(HostMeasured(host='flooded', pid=1, rss=n, cpu=0.1, threads=1, uptime=1.0) if n % 2 else
                      RequestFinished(request=f'r{{n}}', finish_reason='stop', seconds=0.1, completion_tokens=n))
        time.sleep(max(0.0, began + n / rate - time.monotonic()))
    {BUS}.publish(RequestFinished(request='the last one', finish_reason='stop', seconds=0.1))
threading.Thread(target=flood, args=(COUNT,)).start()
"""
FRAMES = """
() => {
  window.gaps = [];
  let before = performance.now();
  const frame = now => { window.gaps.push(now - before); before = now; requestAnimationFrame(frame); };
  requestAnimationFrame(now => { before = now; requestAnimationFrame(frame); });
}
"""


def lines(frame: Locator) -> Locator:
    return frame.get_by_role("table", name="Events").locator("tbody tr")


def press(frame: Locator, name: str) -> None:
    frame.get_by_role("button", name=name, exact=True).click()


def publish(page: Page, host: str) -> float:
    """Let something happen to a host; returns when, in seconds since the epoch."""
    cell = execute(page, PUBLISH.format(host) + ".timestamp")
    return float(cell.locator(".jp-OutputArea-output").last.inner_text())


def test_what_happens_stands_there_within_a_second_and_is_filtered_paused_and_cleared(room: Page) -> None:
    run_cell(room, "%llm dash events")
    events = dashboard(room, "Events")
    expect(lines(events).filter(has_text="ModelLoaded")).to_have_count(1)  # it began before the dashboard was opened
    log = Watched(events.get_by_role("region", name="Log of events"))
    assert log.after(publish(room, "alpha"), "HostRestarting.*alpha") < SOON
    photographed(events, "dashboard-events")
    in_a_narrow_cell(events, "dashboard-events")

    press(events, "Only host events")
    expect(lines(events).filter(has_text="ModelLoaded")).to_have_count(0)
    expect(lines(events).filter(has_text="alpha")).to_have_count(1)
    press(events, "All events")
    expect(lines(events).filter(has_text="ModelLoaded")).to_have_count(1)
    press(events, "Show measurements and progress too")
    expect(events.get_by_role("button", name="Show measurements and progress too")).to_have_attribute(
        "aria-pressed", "true"
    )
    press(events, "Show measurements and progress too")
    events.get_by_role("textbox", name="Filter events by text").fill("restarting alpha")
    expect(lines(events)).to_have_count(1)
    publish(room, "beta")
    expect(events.get_by_role("textbox", name="Filter events by text")).to_have_value("restarting alpha")
    events.get_by_role("textbox", name="Filter events by text").fill("")
    expect(lines(events).filter(has_text="beta")).to_have_count(1)

    press(events, "Pause events")
    publish(room, "gamma")
    expect(events).to_contain_text("paused, 1 new")
    press(events, "Resume events")
    expect(lines(events).filter(has_text="gamma")).to_have_count(1)
    press(events, "Clear events")
    expect(events).to_contain_text("Nothing yet.")


@pytest.mark.stress
def test_a_flood_costs_no_frame_and_ends_with_the_last_event(room: Page, report: Callable[[str], None]) -> None:
    run_cell(room, "%llm dash status")
    run_cell(room, "%llm dash hosts")
    run_cell(room, "%llm dash events")
    events, count = dashboard(room, "Events"), times(10_000)
    press(events, "Show measurements and progress too")
    execute(room, "pass")
    room.evaluate(FRAMES)
    began = time.monotonic()
    execute(room, FLOOD.replace("COUNT", str(count)))
    expect(lines(events).filter(has_text="the last one")).to_have_count(1, timeout=30_000)
    took = time.monotonic() - began
    room.wait_for_timeout(300)
    gaps = json.loads(room.evaluate("JSON.stringify(window.gaps)"))
    report(
        f"{count:,} events in {took:.1f} s with three dashboards open: the longest gap between frames {max(gaps):.0f} ms"
    )
    assert len(gaps) > 20
    assert max(gaps) < 300
    expect(events).to_contain_text("passed too fast to show")
    assert lines(events).count() <= 500

    log = events.get_by_role("region", name="Log of events")
    log.evaluate("element => { element.scrollTop = 0; }")
    publish(room, "delta")
    events.get_by_role("button", name=re.compile("new events below, go to the end")).click()
    expect(log).to_be_focused()
    expect(lines(events).last).to_be_in_viewport()
    run_and_close(room, "events", "Events")
