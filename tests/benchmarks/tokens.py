"""CPU for each token of a stream that comes as fast as a server can send it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import server
from tests.benchmarks.figures import Report, median
from tests.benchmarks.peers import PeerMissing, python_of, version_of
from tests.benchmarks.texts import whole

PEERS = ("httpx", "openai", "litellm")
TOKENS = 2000


class Client:
    """A client in a process of its own, that streams an answer whenever it is told to."""

    def __init__(self, name: str, python: str, url: str, request: str, text: str) -> None:
        command = [python, "-P", str(Path(__file__).with_name("clients.py")), name, url, request]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would be fetched at import
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._tell(text)
        self._told()  # it is ready

    def stream(self) -> float:
        """Stream one answer; CPU seconds."""
        self._tell("")
        return float(self._told())

    def close(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _told(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client ended with an error, which stands above"
        return line


def run(report: Report, *, runs: int) -> None:
    """Interleaved runs of all clients; medians of microseconds a token."""
    pythons = {"llm_jupyter": sys.executable}
    report.versions["llm_jupyter"] = version_of(sys.executable, "jupyter-llm")
    for peer in PEERS:
        try:
            pythons[peer] = python_of(peer)
        except PeerMissing as error:
            report.check(False, str(error))
            continue
        report.versions[peer] = version_of(pythons[peer], peer)
    request = f"line {TOKENS} 0"
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server.running())
        clients: dict[str, Client] = {}
        for name, python in pythons.items():
            clients[name] = Client(name, python, url, request, whole("line", TOKENS))
            stack.callback(clients[name].close)
        seconds: dict[str, list[float]] = {name: [] for name in clients}
        for n in range(runs + 1):
            for name, client in clients.items():
                spent = client.stream()
                if n:  # the first run warms up
                    seconds[name].append(spent)
    _tell(report, {name: median(values) / TOKENS * 1e6 for name, values in seconds.items()}, runs)


def _tell(report: Report, each: dict[str, float], runs: int) -> None:
    report.title(f"CPU for each of {TOKENS:,} tokens (SSE), medians of {runs} interleaved runs")
    what = {
        "llm_jupyter": "stream_chat_completion",
        "httpx": "aiter_lines",
        "openai": "AsyncOpenAI",
        "litellm": "acompletion",
    }
    for name, value in each.items():
        report.add(f"{name} {report.versions[name]} {what[name]}", value, "µs/token")
    ours = each.pop("llm_jupyter")
    if "httpx" in each:
        report.add("llm_jupyter / httpx", ours / each["httpx"], "x", 0.5)
    for name, value in each.items():
        report.add(f"{name} / llm_jupyter", value / ours, "x", 15 if name == "openai" else None, at_least=True)
