"""A real kernel, and what a front end would save of it.

    with Kernel(home) as kernel:
        ran = kernel.run("%load_ext llm_jupyter", cell_id="c1")
        ran.status, ran.outputs, ran.updates

`outputs` are kept the way a notebook file keeps them: streams of one name that follow each other are one output,
`update_display_data` changes the outputs with its `display_id` in whatever cell they stand, `clear_output` empties.
"""

from __future__ import annotations

import os
import queue
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

Output = dict[str, Any]
FOREIGN = ("LLM_JUPYTER_", "LM_API_TOKEN", "OLLAMA_", "OPENAI_", "ANTHROPIC_", "JPY_", "HTTP_PROXY", "HTTPS_PROXY")
"""Beginnings of variables that would change what a kernel does; none of them is handed on."""


NOBODY = "127.0.0.1:9"
"""An address at which nothing listens: an Ollama of the person who runs the tests is not to answer."""


def kernel_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that knows only `home`, whatever the person who runs the tests has set."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}
    profile = {"IPYTHONDIR": str(home / "ipython"), "LLM_JUPYTER_HOME": str(home), "OLLAMA_HOST": NOBODY}
    return {**inherited, **profile, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Document:
    """The outputs of all cells, and which of them a `display_id` names."""

    def __init__(self) -> None:
        self._named: dict[str, list[Output]] = {}

    def take(self, outputs: list[Output], kind: str, content: Mapping[str, Any], *, clear: bool) -> None:
        """Apply one message to the outputs of the cell that it belongs to."""
        if clear:
            outputs.clear()
        if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
        elif kind == "stream":
            outputs.append({"output_type": kind, "name": content["name"], "text": content["text"]})
        elif kind == "error":
            outputs.append({"output_type": kind, **content})
        elif kind == "update_display_data":
            self._update(content)
        elif kind in ("display_data", "execute_result"):
            output = {"output_type": kind, "data": dict(content["data"]), "metadata": dict(content["metadata"])}
            outputs.append(output)
            if (name := (content.get("transient") or {}).get("display_id")) is not None:
                self._update(content)
                self._named.setdefault(name, []).append(output)

    def _update(self, content: Mapping[str, Any]) -> None:
        for output in self._named.get(content["transient"]["display_id"], ()):
            output["data"], output["metadata"] = dict(content["data"]), dict(content["metadata"])


@dataclass(eq=False)
class Ran:
    """One execution: its messages with the seconds at which they came, the outputs that are saved, the reply."""

    began: float
    messages: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    idle_at: float | None = None
    clear_next: bool = False

    @property
    def status(self) -> str:
        return str(self.reply["status"])

    @property
    def idle_after(self) -> float:
        assert self.idle_at is not None, "the cell still runs"
        return self.idle_at - self.began

    @property
    def answers(self) -> list[Output]:
        """The outputs that hold an answer."""
        return [output for output in self.outputs if "llm_jupyter" in output.get("metadata", {})]

    @property
    def texts(self) -> list[str]:
        return [output["data"]["text/plain"] for output in self.answers]

    @property
    def printed(self) -> str:
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream" and o["name"] == "stdout")

    @property
    def error(self) -> list[str]:
        """The lines of the error that is shown, empty where there is none."""
        return [line for output in self.outputs if output["output_type"] == "error" for line in output["traceback"]]

    @property
    def footers(self) -> list[str]:
        """The text of small lines below answers, and of notices."""
        return [o["data"]["text/plain"] for o in self.outputs if "<small" in o.get("data", {}).get("text/html", "")]

    @property
    def updates(self) -> int:
        return sum(kind == "update_display_data" for _, kind, _ in self.messages)

    def shown(self, mime: str = "text/markdown") -> list[tuple[float, str]]:
        """Every text of that kind that was ever on the page, with its time."""
        return [
            (at, content["data"][mime]) for at, kind, content in self.messages
            if kind in ("display_data", "update_display_data") and mime in content["data"]
        ]  # fmt: skip


class Kernel:
    """An ipykernel in its own process, driven over its real channels."""

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str] | None = None,
        *,
        notebook: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        """`home` is where everything is kept. With a `notebook` the kernel is what Jupyter's server starts for that file."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._folder = folder or (notebook.parent if notebook is not None else home)
        extra = {"JPY_SESSION_NAME": str(notebook)} if notebook is not None else {}
        self._env = kernel_environment(home, {**(env or {}), **extra})
        file = {"connection_file": str(home / f"kernel-{uuid.uuid4()}.json")} if notebook is not None else {}
        self.manager = KernelManager(kernel_name="python3", **file)
        self.client: BlockingKernelClient
        self._document = Document()
        self._ran: dict[str, Ran] = {}

    def __enter__(self) -> Self:
        self.manager.start_kernel(env=self._env, cwd=str(self._folder))
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=False)
        self.manager.cleanup_resources()

    def restart(self) -> None:
        """What "Restart Kernel" does: the same connection file, the same front end."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def shut_down(self) -> None:
        """What "Shut Down Kernel" does."""
        self.manager.shutdown_kernel(now=False)

    def kill(self) -> None:
        """`kill -9`: the kernel gets no chance to tidy up."""
        self.manager.signal_kernel(9)

    def interrupt(self) -> float:
        """What "Interrupt Kernel" does; the moment at which it was done."""
        at = time.monotonic()
        self.manager.interrupt_kernel()
        return at

    def load(self) -> Self:
        assert self.run("%load_ext llm_jupyter").status == "ok"
        return self

    def run(self, code: str, cell_id: str | None = None, **more: Any) -> Ran:
        """Run a cell to its end."""
        return self.finish(self.start(code, cell_id, **more))

    def value(self, expression: str) -> Any:
        """A Python value of the kernel, by way of its `repr`."""
        ran = self.run(f"print(repr({expression}))")
        assert ran.status == "ok", ran.error
        return eval(ran.printed, {})

    def start(
        self, code: str, cell_id: str | None = None, *, stop_on_error: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> Ran:  # fmt: skip
        """Send a cell and do not wait for it."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
            "stop_on_error": stop_on_error,
        }  # fmt: skip
        told = {"cellId": cell_id} if cell_id is not None else {}
        message = self.client.session.msg("execute_request", content, metadata={**told, **(metadata or {})})
        ran = self._ran[message["header"]["msg_id"]] = Ran(time.monotonic())
        self.client.shell_channel.send(message)
        return ran

    def until(self, ran: Ran, condition: Callable[[Ran], object], timeout: float = 60.0) -> Ran:
        """Take messages in until something is so of a run. Fails once the cell ended without it."""
        end = time.monotonic() + timeout
        while not condition(ran):
            assert ran.idle_at is None, f"the cell ended before: {ran.messages}"
            self._take(max(0.0, end - time.monotonic()))
        return ran

    def finish(self, ran: Ran, timeout: float = 60.0) -> Ran:
        """Take messages in until the cell has ended and has been replied to."""
        end = time.monotonic() + timeout
        while ran.idle_at is None:
            self._take(max(0.0, end - time.monotonic()))
        while not ran.reply:
            reply = self.client.get_shell_msg(timeout=max(0.0, end - time.monotonic()))
            if (other := self._ran.get(reply["parent_header"].get("msg_id"))) is not None:
                other.reply = reply["content"]
        return ran

    def take_waiting(self, seconds: float) -> None:
        """Take in what comes within that time, for what arrives after the end of a cell."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._take(left)
            except queue.Empty:
                return

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def _take(self, timeout: float) -> None:
        message = self.client.get_iopub_msg(timeout=timeout)
        ran = self._ran.get(message["parent_header"].get("msg_id", ""))
        if ran is None:
            return
        kind, content, now = message["msg_type"], message["content"], time.monotonic()
        if kind == "status":
            if content["execution_state"] == "idle":
                ran.idle_at = now
            return
        ran.messages.append((now - ran.began, kind, content))
        if kind == "clear_output" and content["wait"]:
            ran.clear_next = True
        elif kind == "clear_output":
            ran.outputs.clear()
        elif kind != "execute_input":
            clear, ran.clear_next = ran.clear_next and kind != "update_display_data", False
            self._document.take(ran.outputs, kind, content, clear=clear)


def is_empty(output: Output) -> bool:
    """Whether an output would leave a blank area in the page."""
    if output["output_type"] == "stream":
        return not output["text"].strip()
    return output["output_type"] != "error" and not any(str(value).strip() for value in output["data"].values())


def kinds(outputs: Sequence[Output]) -> list[str]:
    """Outputs in one word each: what a reader sees, from top to bottom."""
    words = []
    for output in outputs:
        if output["output_type"] in ("stream", "error"):
            words.append(output.get("name", "error") if output["output_type"] == "stream" else "error")
        elif "llm_jupyter" in output["metadata"]:
            words.append("answer")
        elif "<small" in output["data"].get("text/html", ""):
            words.append("footer")
        else:
            words.append("display")
    return words
