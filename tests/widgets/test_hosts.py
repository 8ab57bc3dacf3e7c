"""The dashboard `hosts` on real processes: a small server of the settings, somebody else's, and the embedded model's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from hosts.children import FOLDER, leases_in, problem
from live import eventually, place
from servers.paced import ModelServer
from watching import Page, shown

from llm_jupyter.events import EventBus, HostMeasured
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from llm_jupyter.widgets import HostsDashboard
from llm_jupyter.widgets.hosts import MEASUREMENTS

HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def llm(tmp_path: Path, server: ModelServer) -> Iterator[LLMFactory]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    values = {
        "hosts": {
            "mine": {"command": command, "port": port, "ready": "/", "memory_limit": "1 GB"},
            "broken": {"command": [f"/nowhere/{HOSTILE}"]},
        },
        "providers": {"theirs": {"kind": "openai-compatible", "base_url": server.base_url}},
    }
    with LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(tmp_path)}), environment={}) as llm:
        yield llm


def row(page: Page, name: str) -> dict[str, Any]:
    """A host as it is shown; empty where it is not."""
    return page.state.get(f"host {name}", {})


@contextmanager
def another_kernel(home: Path, name: str) -> Iterator[int]:
    """A process that runs a host of that name, of which nothing is known here; the process id of the host."""
    command = [sys.executable, str(FOLDER / "holder.py"), str(home), json.dumps(asdict(problem(name)))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            yield json.loads(holder.stdout.readline())["pid"]
        finally:
            holder.kill()


def states(page: Page, name: str) -> list[str]:
    """The states of a host in the order in which the page was told of them, each once."""
    told = [content["changes"].get(f"host {name}", [None, None])[1] for _, content in page.messages]
    words = [change["state"] for change in told if change]
    return [word for before, word in zip([None, *words], words, strict=False) if word != before]


def said(page: Page, text: str) -> None:
    """Wait until the line at the foot says it."""
    page.until(lambda: text in page.state.get("notice", {}).get("text", ""))


def measured(llm: LLMFactory, wanted: bool = True) -> None:
    """Wait until the hosts are measured for somebody, or for nobody."""
    llm.portal.run(eventually(lambda: ("LLMHostManager._measure()" in repr(asyncio.all_tasks())) == wanted, within=10))


def test_a_host_is_started_measured_restarted_and_stopped_from_the_page(llm: LLMFactory) -> None:
    with shown(HostsDashboard(llm)) as page:
        assert row(page, "mine")["state"] == "stopped"
        assert row(page, "mine")["can"] == {"start": True, "stop": False, "restart": False, "log": True}
        page.act("start", name="mine")
        said(page, "mine is running at http://127.0.0.1:")
        page.until(lambda: row(page, "mine")["state"] == "running" and page.state.get("taken mine"))
        host = row(page, "mine")
        assert (host["whose"], host["holders"], host["restarts"], host["limit"]) == ("ours", 1, 0, 1_000_000_000)
        assert host["can"] == {"start": False, "stop": True, "restart": True, "log": True}
        assert page.state["taken mine"]["rss"] == page.state["memory mine"][-1] > 1_000_000
        assert page.state["taken mine"]["threads"] >= 1
        assert abs(host["began"] - psutil.Process(host["pid"]).create_time()) < 2
        page.act("restart", name="mine")
        page.until(lambda: row(page, "mine")["pid"] not in (None, host["pid"]))
        page.act("stop", name="mine")
        page.until(lambda: row(page, "mine")["state"] == "stopped")
        page.until(lambda: row(page, "mine")["end"]["text"] == "stopped on request")
        page.until(lambda: (row(page, "mine")["pid"], page.state["taken mine"]) == (None, None))
        assert page.state["memory mine"][-1] == 0


def test_its_log_is_shown_and_followed_until_it_is_closed(llm: LLMFactory) -> None:
    with shown(HostsDashboard(llm)) as page:
        page.act("log", name="mine")
        page.until(lambda: page.state.get("log mine") == "It has written nothing yet.")
        page.act("start", name="mine")
        page.until(lambda: row(page, "mine")["url"])
        for path in ("first", "second"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{row(page, 'mine')['url']}/{path}", timeout=10)
            page.until(lambda path=path: f"/{path}" in page.state["log mine"])
        page.act("close_log", name="mine")
        page.until(lambda: "log mine" not in page.state)


def test_somebody_elses_server_is_watched_and_never_stopped(llm: LLMFactory, server: ModelServer) -> None:
    with shown(HostsDashboard(llm)) as page:
        assert (row(page, "theirs")["state"], row(page, "theirs")["whose"]) == ("running", "somebody else's")
        assert row(page, "theirs")["pid"] == os.getpid()
        assert row(page, "theirs")["can"] == {"start": False, "stop": False, "restart": False, "log": False}
        for verb in ("stop", "restart", "log"):
            page.act(verb, name="theirs")
            said(page, "theirs was not started by llm_jupyter")
            assert page.state["notice"]["error"]
        assert row(page, "theirs")["state"] == "running"


def test_a_host_that_cannot_be_started_says_why_and_is_harmless_in_the_picture(llm: LLMFactory) -> None:
    with shown(HostsDashboard(llm)) as page:
        page.act("start", name="broken")
        said(page, "broken is given up")
        page.until(lambda: row(page, "broken")["state"] == "failed")
        assert "cannot be run" in row(page, "broken")["reason"]
        assert row(page, "broken")["can"]["start"]
        picture = page.dashboard.picture()
        assert "&lt;img src=x" in picture.html
        assert "<img" not in picture.html
        assert "\u202e" not in picture.text
        page.act("start", name="nonsense")
        said(page, "there is no host 'nonsense'")


def test_the_embedded_models_process_of_another_kernel_is_seen_without_joining_it(
    llm: LLMFactory, tmp_path: Path
) -> None:
    with another_kernel(tmp_path, "embedded") as pid, shown(HostsDashboard(llm)) as page:
        page.until(lambda: page.state.get("taken embedded"))
        host = row(page, "embedded")
        assert [host[fact] for fact in ("state", "whose", "pid", "holders", "held")] == [
            "running",
            "ours",
            pid,
            1,
            False,
        ]
        assert host["can"] == {"start": False, "stop": True, "restart": True, "log": True}
        page.act("restart", name="embedded")
        page.until(lambda: row(page, "embedded")["pid"] not in (None, pid))
        assert len(leases_in(tmp_path)) == 1
        page.act("stop", name="embedded")
        said(page, "embedded is stopped.")
        page.until(lambda: row(page, "embedded")["state"] == "stopped" and not page.state["taken embedded"])
        assert page.state["memory embedded"][-1] == 0
        page.act("stop", name="embedded")
        said(page, "embedded does not run")


def test_the_hosts_are_measured_only_while_the_page_shows_them(llm: LLMFactory) -> None:
    dashboard = HostsDashboard(llm)
    measured(llm, False)
    with shown(dashboard) as page:
        page.until(lambda: page.state.get("memory theirs"))
        measured(llm)
        page.look(False)
        measured(llm, False)
        page.look()
        measured(llm)
    measured(llm, False)


def test_the_plots_show_the_last_measurements(llm: LLMFactory) -> None:
    def measure(events: EventBus, count: int) -> None:
        for number in range(count):
            events.publish(HostMeasured(host="mine", pid=1, rss=number, cpu=0.5, threads=1, uptime=1.0))

    measure(llm.events, 3)
    with shown(HostsDashboard(llm)) as page:
        assert page.state["memory mine"] == [0, 1, 2]
        measure(llm.events, 2 * MEASUREMENTS)
        page.until(lambda: 2 * MEASUREMENTS - 1 in page.state["memory mine"])
        assert len(page.state["memory mine"]) == len(page.state["cpu mine"]) == MEASUREMENTS


@pytest.mark.live
def test_the_embedded_models_process_is_started_killed_and_seen_to_come_back(tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    settings = load_settings({"limits": {"host_memory": "2 GB"}}, {"LLM_JUPYTER_HOME": str(tmp_path)})
    with LLMFactory(settings, environment={}) as llm, shown(HostsDashboard(llm)) as page:
        assert page.state["names"] == ["embedded"]
        assert row(page, "embedded")["state"] == "stopped"
        page.act("stop", name="embedded")
        said(page, "embedded does not run; the first question to it starts it.")
        page.act("start", name="embedded")
        said(page, "embedded is running, with smollm2-135m.")
        page.until(lambda: row(page, "embedded")["state"] == "running" and page.state.get("taken embedded"))
        assert row(page, "embedded")["limit"] == 2_000_000_000
        killed = row(page, "embedded")["pid"]
        psutil.Process(killed).kill()
        page.until(lambda: row(page, "embedded")["restarts"] == 1 and row(page, "embedded")["state"] == "running")
        order = states(page, "embedded")
        assert "restarting" in order[order.index("running") + 1 :]
        assert order[-1] == "running"
        assert row(page, "embedded")["pid"] not in (None, killed)
        assert "killed by SIGKILL" in row(page, "embedded")["end"]["text"]
        assert 0 in page.state["memory embedded"]
        page.act("stop", name="embedded")
        page.until(lambda: row(page, "embedded")["state"] == "stopped")
