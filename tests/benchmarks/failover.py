"""How long an answer takes when the server that was asked is in trouble and another may answer, beside litellm's Router."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import server
from tests.benchmarks.figures import Report, median
from tests.benchmarks.outage import KINDS, in_trouble
from tests.benchmarks.peers import PeerMissing, python_of, version_of

LIMIT = 1.0
"""Seconds to the first token that both are allowed; they decide what a server costs that hangs."""

PATIENCE = 30.0
"""Seconds after which a client's answer is no longer waited for."""

FIRST = {"refused": 0.05, "500": 0.1, "429": 0.1, "hang": LIMIT + 0.1, "death": 0.1}
"""Seconds beyond the healthy path that the first question of an outage may take."""

NEXT = 0.001
"""Seconds beyond the healthy path that each further question may take."""


class Client:
    """A client in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, whom: str) -> float | None:
        """Seconds to the first piece of the answer; `None` where an error came instead, or nothing in good time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(whom + "\n")
        self._process.stdin.flush()
        waiting, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if waiting else ""
        return None if line.startswith("error") or not line.strip() else float(line)


@contextlib.contextmanager
def client(name: str, python: str, troubled: str, healthy: str) -> Iterator[Client]:
    """A client that is ready to be asked."""
    script = Path(__file__).with_name("outage_clients.py")
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "CRITICAL"}
    with subprocess.Popen(
        [python, "-P", str(script), name, troubled, healthy, str(LIMIT)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while "ready" not in (line := process.stdout.readline()):
                assert line, f"{name} did not start"
            yield Client(process)
        finally:
            process.kill()


def run(report: Report, *, runs: int) -> None:
    """Each kind of trouble with fresh clients, `runs` times for ours and once for litellm, whose waits are long."""
    report.title(
        f"Seconds to the first token during an outage, beyond those of the healthy server ({runs} outages each)"
    )
    try:
        peer = python_of("litellm")
        report.versions["litellm"] = version_of(peer, "litellm")
    except PeerMissing as error:
        report.check(False, str(error))
        peer = None
    with server.running() as healthy:
        for kind in KINDS:
            first, later = _outages(report, kind, healthy, runs)
            report.add(f"llm_jupyter, {kind}: first question", first, "s", FIRST[kind])
            report.add(f"llm_jupyter, {kind}: each question after it", later, "s", NEXT)
            if peer is not None:
                _peer(report, peer, kind, healthy, later)


def _outages(report: Report, kind: str, healthy: str, runs: int) -> tuple[float, float]:
    first, later, usual = [], [], []
    for _ in range(runs):
        with in_trouble(kind) as troubled, client("llm_jupyter", sys.executable, troubled, healthy) as ours:
            usual += [ours.ask("healthy") or 0.0 for _ in range(20)]
            asked = ours.ask("main")
            report.check(asked is not None, f"llm_jupyter answers during an outage ({kind})")
            first.append(asked or PATIENCE)
            for _ in range(20):  # side by side, so that both see the same machine
                later.append(ours.ask("main") or PATIENCE)
                usual.append(ours.ask("healthy") or 0.0)
    return median(first) - median(usual), median(later) - median(usual)


def _peer(report: Report, python: str, kind: str, healthy: str, ours: float) -> None:
    with in_trouble(kind) as troubled, client("litellm", python, troubled, healthy) as theirs:
        usual = median([theirs.ask("healthy") or 0.0 for _ in range(5)])
        for which in ("first", "second"):
            if (seconds := theirs.ask("main")) is None:
                report.add(f"litellm Router, {kind}: {which} question", PATIENCE, "s", note="no answer until then")
                return
            report.add(f"litellm Router, {kind}: {which} question", seconds - usual, "s")
