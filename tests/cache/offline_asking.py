"""Questions that go through the offline door the way a conversation asks them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from routes import Routes

from llm_jupyter.cache import Answerer, Asker, Kept, LLMCache, Piece, Request, Who
from llm_jupyter.choice import Choice
from llm_jupyter.context import ContextBuilder, TokenEstimates
from llm_jupyter.failover import Route
from llm_jupyter.question import Question
from llm_jupyter.testing import ScriptedProvider
from llm_jupyter.testing.scripted import Answer
from llm_jupyter.types import Chunk, FinishReason, GenerationOptions, Message, Usage


def request_of(prompt: str = "hi", **options: Any) -> Request:
    return Request.of([Message.user(prompt)], GenerationOptions(**options))


def answer_of(
    prompt: str = "hi", *pieces: str | Piece, model: str = "m", provider: str = "local", created: float | None = None
) -> Kept:
    """An answer, by default of one piece that names its question and its model."""
    return Kept(
        request=request_of(prompt), who=Who("scripted", model), provider=provider,
        pieces=pieces or (f"{model} on {prompt}",), finish_reason=FinishReason.STOP, usage=Usage(3, 1), created=created,
    )  # fmt: skip


class Heard:
    """One answer as it came."""

    def __init__(self, batches: Sequence[Sequence[Chunk]], source: str, age: float | None, by: Answerer | None) -> None:
        self.batches = [list(batch) for batch in batches]
        self.chunks = [chunk for batch in batches for chunk in batch]
        self.text = "".join(chunk.text for chunk in self.chunks)
        self.said = [(c.text, c.thinking, c.tool_calls) for c in self.chunks if c.text or c.thinking or c.tool_calls]
        self.source, self.age, self.by = source, age, by


class Desk:
    """A scripted model `local/m`, or other servers, behind the offline door; `now` is the time, in seconds."""

    def __init__(self, folder: Path, *answers: Answer, servers: dict[str, Any] | None = None, **cache: Any) -> None:
        self.provider = ScriptedProvider(*answers, name="local", models=("m", "n"))
        self.now = 1_000_000.0
        self.routes = Routes(servers or {"local": lambda name: self.provider})
        self.cache = LLMCache(
            folder / "home", self.routes.events,
            **{"clock": lambda: self.now, "waits": self.routes.clock, "defaults": self.routes.manager.defaults, **cache},
        )  # fmt: skip
        self.notebook = folder / "notes" / "work.ipynb"
        self.notebook.parent.mkdir(exist_ok=True)
        self.cache.place(self.notebook, self.notebook.parent)
        self.lives = 0
        self._stack = AsyncExitStack()

    @property
    def recording(self) -> Path:
        return self.notebook.with_name("work.recording.jsonl")

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.routes)
        self._stack.callback(self.cache.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(
        self, prompt: str = "hi", *, model: str | None = None, asker: Asker | None = None, stop_after: int | None = None,
        choose: Callable[[], Any] | None = None, is_private: bool = False, **options: Any,
    ) -> Heard:  # fmt: skip
        """One answer; it is left after so many batches if `stop_after` is set."""
        question = Question(request=uuid.uuid4().hex, prompt=Message.user(prompt), options=GenerationOptions(**options))

        async def chosen() -> Choice:
            manager = self.routes.manager
            return await (manager.choose(trusting=True) if model is None else manager.resolve(model, trusting=True))

        asking = await self.cache.route(question, lambda: self._live(question), asker, is_private=is_private)
        batches: list[list[Chunk]] = []
        try:
            batch = await asking.open(choose or chosen, named=model is not None, wanted=model)
            while batch:
                batches.append(batch)
                if len(batches) == stop_after:
                    break
                batch = await asking.read_batch()
        finally:
            await asking.aclose()
        return Heard(batches, asking.source, asking.age, asking.answered_by)

    def _live(self, question: Question) -> Route:
        self.lives += 1
        context = ContextBuilder(TokenEstimates())
        return Route(self.routes.manager, self.routes.events, question, context, retries=2)
