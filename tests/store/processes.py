"""Real processes that use a store: many at once, one to be killed, one that permissions bind, one in a container."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["llm_jupyter.store"])  # so that a process starts within milliseconds
LIMIT = 60.0


class Child:
    """A process that calls `function(say, *arguments)`; what it says arrives at once, whatever becomes of it then."""

    def __init__(self, function: Callable[..., object], *arguments: object, is_ordinary: bool = False) -> None:
        self._heard, said = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_run, args=(function, said, arguments, is_ordinary), daemon=True)
        self.process.start()
        said.close()

    def hears(self) -> Any:
        """The next thing that it says. Raises `EOFError` when it has ended."""
        assert self._heard.poll(LIMIT), "the process says nothing"
        return self._heard.recv()

    def hears_all(self) -> list[Any]:
        """All that it says until it ends."""
        said = []
        with contextlib.suppress(EOFError):
            while True:
                said.append(self.hears())
        self.process.join(LIMIT)
        return said

    def kill(self) -> None:
        """End it as the system does when memory runs out."""
        self.process.kill()


def together(function: Callable[..., object], arguments: Sequence[tuple[object, ...]]) -> list[list[Any]]:
    """Call a function in as many processes at once; what each says. Fails if one of them does."""
    children = [Child(function, *each) for each in arguments]
    said = [child.hears_all() for child in children]
    assert [child.process.exitcode for child in children] == [0] * len(children)
    return said


def as_ordinary_user(function: Callable[..., object], *arguments: object) -> list[Any]:
    """Call a function in a process that permissions bind, which they do not bind root; what it says."""
    child = Child(function, *arguments, is_ordinary=True)
    said = child.hears_all()
    assert child.process.exitcode == 0
    return said


def let_everybody_in(folder: Path) -> None:
    """Let every user reach a folder."""
    for each in (folder, *folder.parents):
        with contextlib.suppress(PermissionError):
            each.chmod(each.stat().st_mode | 0o055)


def in_namespaces(script: str, *arguments: str, kinds: Sequence[str]) -> subprocess.Popen[str]:
    """Run a script in namespaces of its own (`--pid`, `--mount`), as containers do; root need not be who runs it."""
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(TESTS)]))
    return subprocess.Popen(
        ["unshare", *rights, *kinds, sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _run(function: Callable[..., object], said: Connection, arguments: Sequence[object], is_ordinary: bool) -> None:
    if is_ordinary and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(pwd.getpwnam("nobody").pw_gid)
        os.setuid(pwd.getpwnam("nobody").pw_uid)
    function(said.send, *arguments)
