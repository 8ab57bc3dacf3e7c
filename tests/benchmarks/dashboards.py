"""What open dashboards cost a kernel, and the connection to the page, while very much happens."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.figures import Report
from tests.benchmarks.kernel import Kernel, Run

EVENTS_A_SECOND = 1000
OPEN = ("events", "status")

FLOOD = """
import threading, time
from llm_jupyter import events as kinds

def flood(count, rate):
    publish = get_ipython()._llm_jupyter_magics.kernel.factory.events.publish
    began = time.monotonic()
    for number in range(count):
        match number % 4:
            case 0: publish(kinds.RequestStarted(request=f"r{number}", provider="embedded", model="smollm2-135m"))
            case 1: publish(kinds.RequestFirstToken(request=f"r{number}", seconds=0.1))
            case 2: publish(kinds.HealthChecked(provider="embedded", healthy=True, latency=0.001))
            case 3: publish(kinds.RequestFinished(request=f"r{number}", finish_reason="stop", seconds=1.0))
        if number % 20 == 19:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))

def run(count, rate):
    thread = threading.Thread(target=flood, args=(count, rate))
    thread.start()
    thread.join()
"""


def run(report: Report, *, seconds: float) -> None:
    """The cost of dashboards that are seen, over so many seconds of events."""
    count = round(EVENTS_A_SECOND * seconds)
    report.title(f"{count:,} events in {seconds:g} s, with the dashboards {' and '.join(OPEN)} open")
    cell = f"run({count}, {EVENTS_A_SECOND})"
    with Kernel() as kernel:
        kernel.run("%load_ext llm_jupyter\n%llm events")
        kernel.run(FLOOD)
        kernel.run("run(100, 1000)")
        alone = kernel.run(cell, quiet_for=1)
        comms = [_opened(kernel, name) for name in OPEN]
        kernel.run("pass", quiet_for=3)  # what they ask at first has been answered
        watched = kernel.run(cell, quiet_for=1)
    for ran in (alone, watched):
        report.check(not ran.error, f"the flood ended with {ran.error}")
    sent = [message for message in watched.sent if message.kind == "comm_msg"]
    report.add("CPU beyond what publishing takes", (watched.cpu - alone.cpu) / seconds * 100, "% of core", 5)
    report.add("bytes to the page", sum(message.size for message in sent) / seconds / 1000, "kB/s", 200)
    for name, comm in zip(OPEN, comms, strict=True):
        messages = sum(message.content["comm_id"] == comm for message in sent)
        report.add(f"messages to the page, {name}", messages / seconds, "1/s", 15)
    report.check(_last_row(watched, comms[0]) == f"r{count - 1}", "the page ends with the last event")


def _opened(kernel: Kernel, name: str) -> str:
    """A dashboard, opened and seen; the id of its comm."""
    ran = kernel.run(f"%llm dash {name}")
    (comm,) = [
        message.content["comm_id"]
        for message in ran.sent
        if message.kind == "comm_open" and message.content["data"]["state"].get("_model_module") == "anywidget"
    ]
    for content in ({"do": "hello"}, {"do": "seen", "views": 1, "page": "benchmark"}):
        kernel.tell(comm, {"method": "custom", "content": content})
    return str(comm)


def _last_row(ran: Run, comm: str) -> str:
    """What the last row of the events dashboard is about."""
    rows: list[dict[str, Any]] = []
    for message in ran.sent:
        if message.kind == "comm_msg" and message.content["comm_id"] == comm:
            rows += message.content["data"]["content"].get("changes", {}).get("rows", [None, []])[1]
    return str(rows[-1]["about"]) if rows else ""
