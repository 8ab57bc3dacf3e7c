"""Programs that converse with a model server, and a server that says what its client had on disk and in hand at any moment.

with WatchingServer(home) as server:
    child = Child(dictate, home, server.base_url, "a")
    server.wait_for("dictate a", 5)         # five pieces of the answer have left
    child.kill()
    kept(home, session)                     # what stands on the disk, seen from outside
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kernels import NOBODY
from servers.paced import ModelServer
from servers.scripted import Pause, Request, Script, Step, delta, sse
from store.processes import CONTEXT

from llm_jupyter.factory import LLMFactory

CONTEXT.set_forkserver_preload(["llm_jupyter.factory", "sessions.conversing"])

PACE = 0.02
"""Seconds between two pieces of a dictated answer."""

PIECES = 1500
"""So many has a dictated answer, at most: half a minute."""


class Kept(NamedTuple):
    """A turn as it stands on the disk; `answer` is `None` before anything of it was written."""

    prompt: str
    state: str
    answer: str | None
    is_whole: bool


def kept(home: Path, session: str | None = None) -> list[Kept]:
    """The turns on the disk, of one conversation or of all, in the order in which they were asked: read by plain SQL."""
    path = home / "sessions.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            """SELECT asked.text, turns.state, said.text, coalesce(answer.is_whole, 0) FROM turns
            JOIN parts AS asked ON asked.turn = serial AND asked.number = 0 AND asked.kind = 'text'
            LEFT JOIN messages AS answer ON answer.turn = serial AND answer.number = turns.answers AND answer.number > 0
            LEFT JOIN parts AS said ON said.turn = serial AND said.number = answer.number AND said.kind = 'text'
            WHERE coalesce(?1, session) = session ORDER BY serial""",
            (session,),
        )
        return [Kept(prompt, state, answer, bool(is_whole)) for prompt, state, answer, is_whole in rows]


class WatchingServer(ModelServer):
    """A model server that looks at its client's disk at the moment at which a question arrives.

    `seen` tells for each prompt which turns were on the disk when it arrived. One that begins with `dictate` gets an answer
    that comes piece by piece; `left` says when each piece had left.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.seen: dict[str, list[Kept]] = {}
        self.left: dict[str, list[float]] = defaultdict(list)
        self._moved = threading.Condition()
        super().__init__()

    def wait_for(self, prompt: str, pieces: int, timeout: float = 30.0) -> None:
        """Wait until so many pieces of the answer to a prompt have left."""
        with self._moved:
            assert self._moved.wait_for(lambda: len(self.left[prompt]) >= pieces, timeout), f"nobody hears {prompt}"

    def _script(self, request: Request) -> Script:
        if request.method == "POST":
            prompt = request.json()["messages"][-1]["content"]
            self.seen[prompt] = kept(self.home)
            if prompt.startswith("dictate"):
                return self._dictation(prompt)  # type: ignore[return-value]
        return super()._script(request)

    def _dictation(self, prompt: str) -> Iterator[Step]:
        yield from sse(is_chunked=False)
        for number in range(PIECES):
            yield delta(piece(number))
            with self._moved:
                self.left[prompt].append(time.monotonic())
                self._moved.notify_all()
            yield Pause(PACE)


def piece(number: int) -> str:
    """What is said at that place of a dictated answer."""
    return f"{number} "


DICTATED = "".join(map(piece, range(PIECES)))


def pieces_in(text: str) -> int:
    """How many whole pieces of a dictated answer a text has. Fails if it has anything else."""
    assert DICTATED.startswith(text)
    return text.count(" ")


def environment(home: Path, url: str, **more: str) -> dict[str, str]:
    """The environment of a program that asks one model server and nobody else."""
    return {
        "LLM_JUPYTER_HOME": str(home), "OLLAMA_HOST": NOBODY, "LLM_JUPYTER_DEFAULT_MODEL": "local/m",
        "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible", "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": url, **more,
    }  # fmt: skip


# -- what child processes do


def dictate(say: Callable[[str], object], home: Path, url: str, name: str) -> None:
    """One whole turn, then one whose answer does not end."""
    with LLMFactory(environment=environment(home, url)) as llm:
        say(llm.sessions.current.id)
        llm.chat(f"whole {name}")
        llm.chat(f"dictate {name}")


def take_turns(
    say: Callable[[tuple[str, str, list[str]]], object], home: Path, url: str, name: str, turns: int
) -> None:
    """A conversation of so many turns; its id, what is wrong with the store, and what the model said."""
    with LLMFactory(environment=environment(home, url)) as llm:
        said = [llm.chat(f"{name}.{number}").text for number in range(turns)]
        say((llm.sessions.current.id, llm.store.trouble, said))
