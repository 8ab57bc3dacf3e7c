"""Where a supervisor begins: it reads its order, and makes sure that it is the only one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.lock import take_patiently
from llm_jupyter._supervisor.order import Order
from llm_jupyter._supervisor.supervisor import Supervisor

OTHERS_END = 5.0
"""Seconds to wait for an earlier supervisor of this host to end."""

NOT_FIRST = 3
"""Exit code where another supervisor has the host."""


def tidy_up(folder: HostFolder) -> None:
    """The kernel died before it had said what to do: leave nothing of it."""
    lock = folder.lock()
    with contextlib.suppress(OSError):
        if take_patiently(lock, 0.5):
            folder.sweep_leases()
            state = folder.read_state()
            if state is not None and state.supervisor == ProcessIdentity.own():
                folder.remove_state(state.run)
    lock.let_go()


def main() -> int:
    """Read the order and follow the host. The exit code is `NOT_FIRST` where another supervisor does."""
    line = sys.stdin.buffer.readline()
    folder = HostFolder(Path.cwd())
    if not line.endswith(b"\n"):
        tidy_up(folder)
        return 0
    alive = folder.alive()
    if not take_patiently(alive, OTHERS_END):
        return NOT_FIRST
    Supervisor(Order(**json.loads(line)), folder, alive).run()
    return 0


def start() -> None:
    """What the command line calls. Without Python's own tidying up, which only takes time here."""
    code = main()
    os._exit(code)
