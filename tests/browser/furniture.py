"""What stands in the room of the dashboards `models` and `sessions`: servers with models, and what was said on other days."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from dashboards import dashboard, eventually, run_cell
from playwright.sync_api import Locator, Page
from providers.gguf_files import STRING, UINT32, fact, gguf, text
from servers.file_server import FileServer
from servers.paced import ModelServer
from servers.scripted import DONE, Gate, Request, Script, event, reply, sse
from servers.scripted_ollama import ScriptedOllama, entry
from store.samples import answer, session, storing, turn

from llm_jupyter.store import TurnState

NOTEBOOK = "analysis.ipynb"
MODEL = "mistral-small"
DAY = 86_400.0

ON_OLLAMA = (
    entry(
        "qwen3:8b", size=5_225_388_164, details={"quantization_level": "Q4_K_M", "context_length": 40_960},
        capabilities=["completion", "tools", "thinking"],
    ),
    entry(
        "gemma3:4b", size=3_338_801_804, details={"quantization_level": "Q4_K_M", "context_length": 131_072},
        capabilities=["completion", "vision"],
    ),
    entry(
        "llama3.3:70b", size=42_520_413_916, details={"quantization_level": "Q4_K_M", "context_length": 131_072},
        capabilities=["completion", "tools"],
    ),
    entry(
        "nomic-embed-text:latest", size=274_302_450, details={"quantization_level": "F16", "context_length": 2048},
        capabilities=["embedding"],
    ),
)  # fmt: skip

TALKS = {
    "Survey cleaning": {
        "How do I drop empty rows?": "`frame.dropna(how='all')` drops the rows in which nothing stands.",
        "And columns with one value?": "`frame.loc[:, frame.nunique() > 1]` keeps the others.",
    },
    "Reading log": {
        f"What does chapter {number} say?": "It goes on where the one before ended. " * (60 if number == 60 else 1)
        for number in range(1, 61)
    },
    "Regular expressions": {"What does \\b match?": "The place between a letter and what is none."},
}
"""Conversations of other days, the latest first: one has more turns than are shown at once, and a long last answer."""


class Desk(ModelServer):
    """A server with one model, whose window it tells."""

    def _script(self, request: Request) -> Script:
        if request.method == "GET":
            return reply({"object": "list", "data": [{"id": MODEL, "max_model_len": 8192}]})
        return super()._script(request)


def said(*steps: str | Gate) -> Script:
    """An answer of the desk's model, in these pieces."""
    pieces = [step if isinstance(step, Gate) else event(_piece({"content": step})) for step in steps]
    end = {**_piece({}, "stop"), "usage": {"prompt_tokens": 118, "completion_tokens": 64}}
    return sse(*pieces, event(end), DONE)


def _piece(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "model": MODEL}


def stories() -> FileServer:
    """A server with a small model, which takes some 20 seconds to come."""
    number = struct.Struct("<I").pack
    facts = [
        fact("general.architecture", STRING, text("llama")), fact("general.name", STRING, text("Stories 15M")),
        fact("general.file_type", UINT32, number(2)), fact("llama.context_length", UINT32, number(256)),
    ]  # fmt: skip
    return FileServer("stories15m-q4_0.gguf", gguf(facts, [], data=19_000_000))


def keep_talks(home: Path) -> None:
    """Put the conversations of other days into the store of a home."""
    with storing(home / "sessions.db") as (store, _):
        for days, (name, talk) in enumerate(TALKS.items(), 1):
            began = time.time() - days * DAY
            record = session(name, name=name, created=began, updated=began)
            store.save_session(record)
            for position, (question, words) in enumerate(talk.items(), 1):
                one = turn(f"{name} {position}", position, question, session=name, created=began + position)
                store.add(one)
                store.answered(name, one.id, 1, answer(words, model="llama3.2", provider="ollama"), TurnState.COMPLETE)
            store.save_session(record)


@dataclass(frozen=True)
class Room:
    """A notebook with both dashboards, and the servers that its kernel knows."""

    page: Page
    folder: Path
    home: Path
    ollama: ScriptedOllama
    desk: Desk
    files: FileServer

    def opened(self, name: str, title: str) -> Locator:
        """A dashboard as its cell has just made it."""
        run_cell(self.page, f"%llm dash {name}")
        return dashboard(self.page, title)

    def happened(self, kind: str, after: float) -> float:
        """When such an event was published first after that moment (both in seconds since the epoch); waits for it."""
        log = self.home / "events.jsonl"

        def moments() -> list[float]:
            events = [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()]
            return [one["timestamp"] for one in events if one["event"] == kind and one["timestamp"] > after]

        eventually(moments, self.page, within=30)
        return moments()[0]


def environment(home: Path, ollama: ScriptedOllama, desk: Desk) -> dict[str, str]:
    """Variables with which a kernel has that home, writes its events there, and knows the servers and one far away."""
    return {
        "LLM_JUPYTER_HOME": str(home),
        "LLM_JUPYTER_EVENT_LOG": "true",
        "OLLAMA_HOST": ollama.origin,
        "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": desk.base_url,
        "LLM_JUPYTER_PROVIDERS__CLOUD__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__CLOUD__BASE_URL": "https://far.invalid/v1",
        "LLM_JUPYTER_DEFAULT_MODEL": f"desk/{MODEL}",
    }
