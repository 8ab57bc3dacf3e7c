"""That what a page asks for was taken is said at once: so it can tell a kernel that needs long from one that is gone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from kernels import Kernel
from watching import shown

from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import LLMSettings
from llm_jupyter.widgets import Dashboard


class Slow(Dashboard):
    """Does what it is asked for once it may."""

    name = "slow"
    title = "Slow"

    async def begin(self) -> None:
        self.may = asyncio.Event()

    async def do_wait(self) -> None:
        await self.may.wait()

    async def do_go(self) -> None:
        self.may.set()


def test_it_is_taken_before_it_is_done(tmp_path: Path) -> None:
    with LLMFactory(LLMSettings(home=tmp_path), environment={}) as llm, shown(Slow(llm)) as page:
        page.send(do="wait", ticket="long")
        assert page.answers == [{"taken": "long"}]
        page.act("go")
        page.until(lambda: {"done": "long"} in page.answers)
        assert page.answers.index({"taken": 1}) < page.answers.index({"done": 1})


def test_it_is_taken_and_done_while_a_cell_runs(tmp_path: Path) -> None:
    with Kernel(tmp_path) as kernel:
        kernel.load()
        (output,) = kernel.run("%llm dash events", "a cell of a page").outputs
        dashboard = output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
        shell = subshell(kernel)
        cell = kernel.start("import threading; print('runs'); threading.Event().wait()")
        kernel.until(cell, lambda ran: ran.printed)
        asked = {
            "method": "custom",
            "content": {"do": "filter", "groups": [], "text": "", "frequent": True, "ticket": "1"},
        }
        message = kernel.client.session.msg("comm_msg", {"comm_id": dashboard, "data": asked})
        message["header"]["subshell_id"] = shell
        kernel.client.shell_channel.send(message)
        assert answers(kernel, dashboard, 2) == [{"taken": "1"}, {"done": "1"}]
        kernel.interrupt()
        assert kernel.finish(cell).error


def subshell(kernel: Kernel) -> str:
    """A new subshell, as JupyterLab has one for its widgets."""
    kernel.client.control_channel.send(kernel.client.session.msg("create_subshell_request"))
    return str(kernel.client.get_control_msg(timeout=20)["content"]["subshell_id"])


def answers(kernel: Kernel, dashboard: str, count: int) -> list[dict[str, Any]]:
    """The next messages of a dashboard that say what became of a request."""
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 20
    while len(found) < count:
        message = kernel.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
        if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == dashboard:
            said = message["content"]["data"].get("content", {})
            found += [{name: said[name]} for name in ("taken", "done") if name in said]
    return found
