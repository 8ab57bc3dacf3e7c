"""What happens to the disk below a notebook's conversations, done where it binds the kernel: in cells of it.

with ContainedKernel(folder, variables, notebook=path) as kernel:       # whatever it mounts is its own
    kernel.do("fill", disk)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import sqlite3
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from jupyter_client.manager import KernelManager
from kernels import Kernel, Ran

TESTS = Path(__file__).parents[1]
OVERRIDE = 0b110
"""The two capabilities by which permissions do not bind root."""


class _ContainedManager(KernelManager):
    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return ["unshare", *rights, "--mount", *super().format_kernel_cmd(extra_arguments)]


class ContainedKernel(Kernel):
    """A kernel with mounts of its own, in which the functions below are run."""

    def __init__(self, folder: Path, variables: Mapping[str, str], *, notebook: Path) -> None:
        super().__init__(folder, variables, notebook=notebook)
        self.manager = _ContainedManager(
            kernel_name="python3", connection_file=str(folder / f"kernel-{uuid.uuid4()}.json")
        )

    def good(self, code: str) -> Ran:
        """Run a cell, which must succeed."""
        ran = self.run(code)
        assert ran.status == "ok", ran.error
        return ran

    def move_to(self, home: Path) -> None:
        """Let everything be kept in another folder from now on."""
        self.good(f"import os; os.environ['LLM_JUPYTER_HOME'] = {str(home)!r}")

    def do(self, function: str, folder: Path) -> None:
        """Call a function of this module in the kernel."""
        where = f"import sys; sys.path.append({str(TESTS)!r})"
        self.good(f"{where}\nfrom sessions import troubles\ntroubles.{function}(troubles.Path({str(folder)!r}))")


# -- run in the kernel


def mount_small(folder: Path) -> None:
    """A disk of 1 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write until nothing can be written any more."""
    file = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(file, b"x" * size)
    os.close(file)
    assert _refusal(folder) == errno.ENOSPC, "the disk has to be full"


def close(folder: Path) -> None:
    """Let nobody write there, and permissions bind this thread as they bind an ordinary user."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    _override(False)
    assert _refusal(folder) == errno.EACCES, "it has to be impossible to write"


def open_again(folder: Path) -> None:
    """Undo `close`."""
    _override(True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def damage(folder: Path) -> None:
    """Noise in place of the store."""
    path = folder / "sessions.db"
    path.write_bytes(random.Random(18).randbytes(path.stat().st_size))


def make_newer(folder: Path) -> None:
    """What a version of some years hence has left."""
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        connection.execute("PRAGMA user_version = 99")


def _refusal(folder: Path) -> int | None:
    """Why nothing can be written there."""
    try:
        (folder / "proof").write_bytes(b"x")
    except OSError as error:
        return error.errno
    return None


def _override(may: bool) -> None:
    """Whether this thread, and those that it starts from now on, may write what permissions forbid."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, sets) == 0
    sets[0] = sets[1] if may else sets[1] & ~OVERRIDE
    assert libc.capset(header, sets) == 0
