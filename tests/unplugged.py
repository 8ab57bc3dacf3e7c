"""A process whose Python refuses the network, and what was refused to it.

network = Unplugged(tmp_path)
Kernel(home, network.variables)         # or any other Python
network.refused                         # one line for each attempt

The kernel's own channels go on: they are libzmq's, which no audit hook sees.
"""

from __future__ import annotations

import os
from pathlib import Path

HOOK = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["UNPLUGGED_LOG"], "a") as log:
            log.write(f"{event} {arguments[1:] if event == 'socket.connect' else arguments}\\n")
        raise PermissionError(f"{event} was refused by the test")

sys.addaudithook(refuse)
with open(os.environ["UNPLUGGED_LOG"], "a") as log:
    log.write(f"plugged out {os.getpid()}\\n")
"""


class Unplugged:
    """`variables` belong into the environment of the process and of its children."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "unplugged.log"
        site = folder / "unplugged-site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(HOOK)
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        self.variables = {"PYTHONPATH": path, "UNPLUGGED_LOG": str(self._log)}

    @property
    def processes(self) -> int:
        """How many were kept from the network."""
        return sum(line.startswith("plugged out") for line in self._lines())

    @property
    def refused(self) -> list[str]:
        """What they tried."""
        return [line for line in self._lines() if not line.startswith("plugged out")]

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []
