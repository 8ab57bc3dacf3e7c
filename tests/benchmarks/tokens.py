"""CPU for each token of a stream that comes as fast as a server can send it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import server
from tests.benchmarks.figures import Report, median
from tests.benchmarks.peers import PeerMissing, python_of, version_of
from tests.benchmarks.texts import whole

TOKENS = 2000


@dataclass(frozen=True)
class Race:
    """Clients of one protocol: our own client function, and the others' with the peer each comes from and what it runs.

    `reading` only reads lines; `rival` is the protocol's usual client, which we promise to beat by `factor`.
    """

    protocol: str
    ours: tuple[str, str]
    others: tuple[tuple[str, str, str], ...]
    reading: str
    rival: str
    factor: float


RACES = (
    Race(
        "SSE", ("llm_jupyter", "stream_chat_completion"),
        (("httpx", "httpx", "aiter_lines"), ("openai", "openai", "AsyncOpenAI"), ("litellm", "litellm", "acompletion")),
        reading="httpx", rival="openai", factor=15,
    ),
    Race(
        "NDJSON", ("llm_jupyter_ollama", "OllamaProvider.stream_chat_completion"),
        (("httpx_ndjson", "httpx", "aiter_lines"), ("ollama", "ollama", "AsyncClient.chat")),
        reading="httpx_ndjson", rival="ollama", factor=2.5,
    ),
)  # fmt: skip


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
    report.versions["llm_jupyter"] = version_of(sys.executable, "jupyter-llm")
    for race in RACES:
        _run(report, race, runs)


def _run(report: Report, race: Race, runs: int) -> None:
    pythons = {race.ours[0]: sys.executable}
    for client, peer, _ in race.others:
        try:
            pythons[client] = python_of(peer)
        except PeerMissing as error:
            report.check(False, str(error))
            continue
        report.versions[peer] = version_of(pythons[client], peer)
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
    _tell(report, race, {name: median(values) / TOKENS * 1e6 for name, values in seconds.items()}, runs)


def _tell(report: Report, race: Race, each: dict[str, float], runs: int) -> None:
    report.title(f"CPU for each of {TOKENS:,} tokens ({race.protocol}), medians of {runs} interleaved runs")
    ours = each[race.ours[0]]
    report.add(f"llm_jupyter {report.versions['llm_jupyter']} {race.ours[1]}", ours, "µs/token")
    for client, peer, what in race.others:
        if client in each:
            report.add(f"{peer} {report.versions[peer]} {what}", each[client], "µs/token")
    if race.reading in each:
        report.add(f"llm_jupyter / httpx ({race.protocol})", ours / each[race.reading], "x", 0.5)
    for client, peer, _ in race.others:
        if client in each:
            target = race.factor if client == race.rival else None
            report.add(f"{peer} / llm_jupyter ({race.protocol})", each[client] / ours, "x", target, at_least=True)
