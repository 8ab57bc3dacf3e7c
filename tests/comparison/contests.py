"""Services over scripted servers, for comparisons of what those answer.

    with ModelServer() as one, ModelServer() as two, services(home, one=one, two=two) as llm:
        compare("hi", ["one/m", "two/m"], llm=llm)

Nobody else is asked, whatever runs on this machine.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from kernels import NOBODY
from servers.paced import ModelServer
from servers.scripted import Request, Script, ScriptedServer

from llm_jupyter.comparison import Comparison, LaneState, Trial, contenders_of
from llm_jupyter.factory import LLMFactory
from llm_jupyter.registry import Recipe
from llm_jupyter.testing import ScriptedProvider


def configured(servers: dict[str, ScriptedServer]) -> dict[str, str]:
    """The environment that configures servers under these names."""
    told = {"OLLAMA_HOST": NOBODY}
    for name, server in servers.items():
        told[f"LLM_JUPYTER_PROVIDERS__{name.upper()}__KIND"] = "openai-compatible"
        told[f"LLM_JUPYTER_PROVIDERS__{name.upper()}__BASE_URL"] = server.base_url
    return told


def services(home: Path, settings: dict[str, str] | None = None, **servers: ScriptedServer) -> LLMFactory:
    """The services over these servers; `settings` are variables of the environment, without their prefix."""
    more = {f"LLM_JUPYTER_{name}": value for name, value in (settings or {}).items()}
    return LLMFactory(environment={**configured(servers), "LLM_JUPYTER_HOME": str(home), **more})


def add(llm: LLMFactory, provider: ScriptedProvider) -> None:
    """Let a scripted provider be asked under its name."""
    llm.registry.register(Recipe(provider.name, "scripted", lambda: provider, provider.is_local, 0))


def contest(prompts: str | list[str], *models: Any, repeats: int = 1) -> Comparison:
    return Comparison(prompts, contenders_of(models), repeats=repeats)


def filled(*models: str, prompts: str | list[str] = "p", repeats: int = 1, **told: Any) -> Comparison:
    """A comparison that is over; `told` is put into each answer, lists one after the other."""
    comparison = contest(prompts, *models, repeats=repeats)
    for number, lane in enumerate(comparison.progress):
        own = {name: value[number] if isinstance(value, list) else value for name, value in told.items()}
        known = {"prompt": comparison.prompts[lane.prompt], "prompt_index": lane.prompt, "repeat": lane.repeat}
        known |= {"contender": lane.contender, "model": lane.model, "finish": "stop"}
        lane.end(Trial(**{**known, **own}), LaneState.DONE)
    return comparison


def labels(*models: Any) -> list[str]:
    return [one.label for one in contenders_of(models)]


class Punctual(ModelServer):
    """A model server that notes when each question arrives, in monotonic seconds."""

    def __init__(self) -> None:
        super().__init__(["m"])
        self.arrivals: list[float] = []

    def _script(self, request: Request) -> Script:
        if request.method == "POST":
            self.arrivals.append(time.monotonic())
        return super()._script(request)


class Aside:
    """Does something on a thread of its own as soon as something is so."""

    def __init__(self, when: threading.Event, do: Any) -> None:
        self._thread = threading.Thread(target=lambda: when.wait(10) and do())
        self._thread.start()

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
