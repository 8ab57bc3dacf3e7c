"""Each dashboard in a real JupyterLab with the real model: opened, watched while things happen, used, run again, closed."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from dashboards import (
    SOON,
    Watched,
    by_keyboard,
    dashboard,
    execute,
    in_a_narrow_cell,
    photographed,
    run_and_close,
    run_cell,
)
from pages_of import menu
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(180)]


def row(frame: Locator, name: str) -> Locator:
    return frame.locator("tr", has=frame.page.locator("strong", has_text=re.compile(f"^{name}$")))


def pid_of(hosts: Locator) -> int:
    found = re.search(r"pid (\d+)", row(hosts, "embedded").inner_text())
    assert found, row(hosts, "embedded").inner_text()
    return int(found[1])


def test_status_and_hosts_show_a_killed_process_and_its_return_within_a_second(room: Page) -> None:
    run_cell(room, "%llm dash status")
    status = dashboard(room, "Status")
    run_cell(room, "%llm dash hosts")
    hosts = dashboard(room, "Hosts")
    provider, host = Watched(row(status, "embedded")), Watched(row(hosts, "embedded"))
    pid = pid_of(hosts)
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    assert host.after(killed, "restarting|starting|loading") < SOON
    assert provider.after(killed, "loading") < SOON
    expect(row(hosts, "embedded")).to_contain_text("1 restart")
    expect(row(hosts, "embedded")).to_contain_text("running")
    assert pid_of(hosts) != pid
    expect(row(status, "embedded")).to_contain_text("connected")
    back = min(at for at, text in host.said() if at > killed and "running" in text)
    assert provider.after(back, "connected") < SOON
    photographed(status, "dashboard-status")
    photographed(hosts, "dashboard-hosts")
    in_a_narrow_cell(status, "dashboard-status")
    in_a_narrow_cell(hosts, "dashboard-hosts")


def press(frame: Locator, name: str) -> Locator:
    button = frame.get_by_role("button", name=name, exact=True)
    button.click()
    return button


def test_providers_are_disconnected_connected_and_used_from_the_page(room: Page) -> None:
    status = dashboard(room, "Status")
    changes = Watched(row(status, "embedded"))
    off = by_keyboard(status, "Disconnect embedded")
    pressed = time.time()
    room.keyboard.press("Enter")
    assert changes.after(pressed, r"\boff\b") < SOON
    expect(off).to_be_focused()
    expect(off).to_have_attribute("aria-disabled", "true")
    expect(status.locator(".llmj-answers")).to_contain_text("is chosen, but off: %llm connect embedded")
    press(status, "Connect embedded")
    expect(row(status, "embedded")).to_contain_text("connected")
    press(status, "Use embedded")
    expect(status.locator(".llmj-answers")).to_contain_text("embedded/smollm2-135m (local) answers")
    press(status, "Look again for providers and their models")
    expect(status.get_by_text("Not running at their usual places")).to_be_visible()
    run_and_close(room, "status", "Status")


def test_hosts_are_stopped_started_restarted_and_their_log_is_read_on_the_page(room: Page) -> None:
    hosts = dashboard(room, "Hosts")
    expect(row(hosts, "embedded")).to_contain_text("stopped")  # its provider was disconnected
    changes = Watched(row(hosts, "embedded"))
    pressed = time.time()
    press(hosts, "Start embedded")
    changes.after(pressed, "running")
    press(hosts, "Log of embedded")
    expect(hosts.get_by_role("region", name="Log of embedded")).to_be_visible()
    press(hosts, "Close log of embedded")
    expect(hosts.get_by_role("region", name="Log of embedded")).to_have_count(0)
    by_keyboard(hosts, "Stop embedded")
    room.keyboard.press("Enter")
    question = hosts.get_by_role("alertdialog", name="Stop embedded?")
    expect(question.get_by_role("button", name="No")).to_be_focused()
    room.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(row(hosts, "embedded")).to_contain_text("running")
    press(hosts, "Stop embedded")
    question.get_by_role("button", name="Yes").click()
    expect(row(hosts, "embedded")).to_contain_text("stopped")
    press(hosts, "Start embedded")
    expect(row(hosts, "embedded")).to_contain_text("running")
    pid = pid_of(hosts)
    press(hosts, "Restart embedded")
    expect(row(hosts, "embedded")).not_to_contain_text(f"pid {pid}")
    expect(row(hosts, "embedded")).to_contain_text("running")
    expect(hosts.get_by_role("img", name=re.compile("^Memory of embedded in the last"))).to_be_visible()
    press(hosts, "Look again for servers that somebody else started")
    run_and_close(room, "hosts", "Hosts")


SILENT = "The kernel does not answer. If it was restarted, run %load_ext llm_jupyter, then this cell again."
GONE = "The kernel of this dashboard is gone. Run %load_ext llm_jupyter, then this cell again."
DIMMED = re.compile("llmj-past")


def test_a_kernel_that_does_not_answer_is_said_so_until_it_does_and_has_done_what_was_asked(room: Page) -> None:
    run_cell(room, "%llm dash status")
    status = dashboard(room, "Status")
    pid = int(execute(room, "import os; os.getpid()").locator(".jp-OutputArea-output").inner_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        off = press(status, "Disconnect embedded")
        expect(off).to_have_attribute("aria-busy", "true")
        expect(status.locator(".llmj-notice")).to_have_text(SILENT)
        expect(off).to_have_attribute("aria-busy", "false")
        expect(status).to_have_class(DIMMED)
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(status.locator(".llmj-notice")).to_contain_text("embedded is disconnected")
    expect(status).not_to_have_class(DIMMED)


def test_a_kernel_that_was_restarted_is_said_to_be_gone_at_once_until_the_cell_runs_again(room: Page) -> None:
    status = dashboard(room, "Status")
    press(status, "Connect embedded")
    expect(status.locator("time").first).to_be_visible()
    line = Watched(status.locator(".llmj-notice"))
    menu(room, "Kernel", "Restart Kernel…")
    restarted = time.time()
    room.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    assert line.after(restarted, re.escape(GONE)) < SOON
    expect(status).to_have_class(DIMMED)
    stands = status.inner_text()
    photographed(status, "dashboard-gone")
    expect(press(status, "Disconnect embedded")).to_have_attribute("aria-busy", "false")
    assert status.inner_text() == stands
    run_cell(room, "%load_ext")
    run_cell(room, "%llm dash status")
    press(status, "Disconnect embedded")
    expect(status.locator(".llmj-notice")).to_contain_text("embedded is disconnected")
    expect(status).not_to_have_class(DIMMED)
