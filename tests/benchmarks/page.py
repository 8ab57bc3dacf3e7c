"""What a front end makes of a kernel's messages."""

from __future__ import annotations

from collections.abc import Iterable

from tests.benchmarks.kernel import Sent
from tests.kernels import Document, Output

SHOWING = ("display_data", "update_display_data")


def outputs(messages: Iterable[Sent]) -> list[Output]:
    """The outputs of a cell when all messages are in, as they are saved."""
    document, shown, clear = Document(), [], False
    for message in messages:
        if message.kind == "clear_output":
            clear = True  # with the next output, or before it: both end alike
        elif message.kind == "update_display_data":
            document.take(shown, message.kind, message.content, clear=False)
        elif message.kind in ("display_data", "stream", "error"):
            document.take(shown, message.kind, message.content, clear=clear)
            clear = False
    return shown


def answers(shown: Iterable[Output]) -> list[str]:
    """The exact texts of the answers among the outputs."""
    return [output["data"].get("text/plain", "") for output in shown if "text/markdown" in output.get("data", {})]


def prints(shown: Iterable[Output]) -> list[str]:
    """The lines of standard output."""
    return "".join(output["text"] for output in shown if output.get("name") == "stdout").splitlines()


def busiest_second(messages: Iterable[Sent]) -> int:
    """The largest number of messages that show something within any second."""
    times = [message.left for message in messages if message.kind in SHOWING]
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)


def first_showing(messages: Iterable[Sent], text: str) -> float:
    """When a text first stood on the page; never is infinity."""
    return next(
        (m.arrived for m in messages if m.kind in SHOWING and text in m.content["data"].get("text/markdown", "")),
        float("inf"),
    )
