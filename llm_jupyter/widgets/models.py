"""The dashboard `models`: every model of every provider, to search, fetch, load, free, delete and use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from llm_jupyter.choice import Choice, Shelf, fits
from llm_jupyter.errors import LLMError
from llm_jupyter.events import (
    ConnectionStateChanged,
    Event,
    ModelChosen,
    ModelDeleted,
    ModelLoaded,
    ModelLoading,
    ModelPulled,
    ModelPulling,
    ModelUnloaded,
    ProviderRegistered,
    ProviderUnregistered,
    RequestFailed,
)
from llm_jupyter.overview import REPLAYED
from llm_jupyter.portal import Job
from llm_jupyter.types import Capability, LLMModelInfo, ProviderState
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.widgets.pulls import Pulls
from llm_jupyter.wording import abilities, answers_now, size, waited, window

SETTLING = 0.2
"""Seconds before servers are asked again: they let go of a model a moment after they said so, and several changes are one
question."""

CHANGES = (ModelPulled, ModelDeleted, ModelLoaded, ModelUnloaded, ProviderRegistered, ProviderUnregistered)
"""After which the list of models is another."""

HEADINGS = ("model", "where", "size", "fits", "loaded", "window", "quant", "can also")


class ModelsDashboard(Dashboard):
    """Every model of every provider: search, fetch, load, free, delete, use.

    Local servers are asked when it opens and when something changed; remote ones only when the person says so. Closing it
    stops the downloads that it began; the next one shows them as stopped, and can go on where they were.
    """

    name: ClassVar[str] = "models"
    title: ClassVar[str] = "Models"
    hears: ClassVar[tuple[type[Event], ...]] = (
        *CHANGES, ModelChosen, ModelLoading, ModelPulling, ConnectionStateChanged, RequestFailed
    )  # fmt: skip

    async def begin(self) -> None:
        self._pulls = Pulls(self.llm.providers, self.llm.portal, self._show_pulls, self._arrived)
        self._rows: list[dict[str, Any]] = []
        self._remote: list[Shelf] = []
        self._was_remote_asked = False
        self._would_answer: Choice | None = None
        self._loading: dict[str, float] = {}
        self._busy: dict[str, tuple[str, float]] = {}
        self._settled: dict[str, float] = {}
        """When something was last done with a model here: what is told of an earlier moment is past."""
        self._turn = asyncio.Lock()
        self._asking: Job | None = None
        self._is_due = self._is_over = False
        self._asked = (0.0, 0.0)
        """When the servers were asked last, from and to, in seconds since the epoch."""
        await self._ask()
        self._pulls.show()

    async def refresh(self, events: Sequence[Event]) -> None:
        for event in events:
            self._notice(event)
            if self._is_news(event):
                self._ask_soon()
        self._show_models()

    def ended(self) -> None:
        self._is_over = True
        self._pulls.close()
        if self._asking is not None:
            self._asking.cancel()

    # -- what the person does

    async def do_refresh(self, remote: bool = False) -> None:
        """Ask the local providers again, and the remote ones where the person says so."""
        await self._ask(remote=remote)

    async def do_use(self, model: str) -> None:
        """Let it answer in this session."""
        choice = await self.llm.sessions.current.use(model)
        self.say(answers_now(choice.full_name, choice.is_local))

    async def do_load(self, model: str) -> None:
        """Read it into memory."""
        started = time.monotonic()
        async with self._at_work(model, "loading") as choice:
            await choice.provider.load_model(choice.model)
        self.say(f"{choice.full_name} is loaded, after {waited(time.monotonic() - started)}.")

    async def do_unload(self, model: str) -> None:
        """Free its memory."""
        async with self._at_work(model, "unloading") as choice:
            await choice.provider.unload_model(choice.model)
        self.say(f"{choice.full_name} is unloaded; its memory is free. The next question loads it again.")

    async def do_delete(self, model: str) -> None:
        """Remove it from its server's disk; the page has asked before."""
        async with self._at_work(model, "deleting") as choice:
            await choice.provider.delete_model(choice.model)
            self.llm.providers.forget(choice)
        self.say(f"{choice.full_name} is deleted.")

    async def do_pull(self, model: str) -> None:
        """Begin to fetch a model."""
        await self._pulls.fetch(model)

    async def do_resume(self, pull: int) -> None:
        """Go on with a download that was stopped or failed."""
        await self._pulls.resume(pull)

    async def do_cancel(self, pull: int) -> None:
        """Stop a download."""
        self._pulls.cancel(pull)

    async def do_dismiss(self, pull: int) -> None:
        """Show a download no longer."""
        self._pulls.dismiss(pull)

    @asynccontextmanager
    async def _at_work(self, model: str, what: str) -> AsyncIterator[Choice]:
        """In this block something is done with a model; the row says so, and afterwards its server is asked again."""
        self._busy[model] = (what, time.time())
        self.poke()
        try:
            yield await self.llm.providers.resolve(model, named=True)
        finally:
            self._settled[model] = time.time()
            self._loading.pop(model, None)
            await self._ask(SETTLING, done=model)

    # -- what happened

    def _notice(self, event: Event) -> None:
        if isinstance(event, ModelPulling | ModelPulled):
            self._pulls.hear(event)
        elif isinstance(event, ModelLoading):
            key, began = f"{event.provider}/{event.model}", event.timestamp - (event.elapsed or 0.0)
            if event.timestamp > self._settled.get(key, 0.0):
                self._loading.setdefault(key, began)
        elif isinstance(event, ModelLoaded | ModelUnloaded):
            self._loading.pop(f"{event.provider}/{event.model}", None)
        elif isinstance(event, RequestFailed):
            self._loading.clear()  # a model that could not be loaded is told of in no other way
        elif isinstance(event, ConnectionStateChanged) and (
            event.old is ProviderState.LOADING or event.new in (ProviderState.FAILED, ProviderState.DISCONNECTED)
        ):
            own = f"{event.provider}/"
            self._loading = {name: since for name, since in self._loading.items() if not name.startswith(own)}

    def _is_news(self, event: Event) -> bool:
        """Whether the catalogue may be another than the one that is shown.

        A state that changed while the catalogue was asked did so because of that.
        """
        began, ended = self._asked
        if isinstance(event, ConnectionStateChanged):
            return event.timestamp > ended and not self._turn.locked()
        return isinstance(event, CHANGES) and event.timestamp > began

    def _ask_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._asking = self.llm.portal.start(self._ask(SETTLING))

    async def _ask(self, delay: float = 0.0, *, remote: bool = False, done: str = "") -> None:
        """Ask what there is, after so many seconds, and show it; the model with which something was `done` is idle again."""
        await asyncio.sleep(delay)
        async with self._turn:
            if self._is_over:  # its services may be closed
                return
            self._is_due = False
            began = time.time()
            shelves = await self.llm.offers(remote=remote)
            if remote:
                self._was_remote_asked = True
                self._remote = [shelf for shelf in shelves if not shelf.recipe.is_local]
            names = self._remote_names()
            shelves = [shelf for shelf in shelves if shelf.recipe.is_local]
            shelves += [shelf for shelf in self._remote if shelf.recipe.name in names]
            self._would_answer = await self._choose()
            self._asked = (began, time.time())
        self._busy.pop(done, None)
        if self.llm.is_replaying:
            self.say(REPLAYED)
        self._rows = [_row(model) for shelf in shelves for model in shelf.models]
        self.show("down", [_trouble(shelf) for shelf in shelves if shelf.trouble])
        self.show("remote", {"names": names, "asked": self._was_remote_asked})
        self._show_models()
        self.poke()

    async def _choose(self) -> Choice | None:
        """The model that would answer where none was chosen yet."""
        session, providers = self.llm.sessions.current, self.llm.providers
        if session.choice is not None or self.llm.is_replaying:
            return None
        try:
            if session.model is not None:
                return await providers.resolve(session.model, trusting=True)
            return await providers.choose(announce=False, trusting=True)
        except LLMError:
            return None

    def _remote_names(self) -> list[str]:
        """The providers that are asked only when the person says so."""
        if self.llm.providers.local_only:
            return []
        return [recipe.name for recipe in self.llm.registry.recipes() if recipe.enabled and not recipe.is_local]

    # -- what is shown

    def _show_models(self) -> None:
        chosen = self.llm.sessions.current.choice
        choice, word = chosen or self._would_answer, "answers now" if chosen else "will answer"
        name = choice.full_name if choice is not None else ""
        answering = {"name": name, "local": choice.is_local, "word": word} if choice is not None else None
        self.show("answering", answering)
        at_work = {key: ("loading", since) for key, since in self._loading.items()} | self._busy
        rows = []
        for row in self._rows:
            answers = word if row["key"] in (name, f"{name}:latest") else ""
            busy, since = at_work.get(row["key"], ("", None))
            rows.append(row | {"answers": answers, "busy": busy, "since": since})
        self.show("models", rows)

    def _show_pulls(self) -> None:
        self.show("pulls", self._pulls.rows())
        self.poke()

    def _arrived(self, text: str) -> None:
        self.say(text)
        self._ask_soon()

    def picture(self) -> Picture:
        state = self.channel.state
        lines = [f"{one['text']}. {one['step']}" for one in state["down"]]
        if notice := state.get("notice"):
            lines.append(notice["text"])
        if (remote := state["remote"])["names"] and not remote["asked"]:
            lines.append(f"Not asked, since remote: {', '.join(remote['names'])}.")
        lines += [f"{pull['name']}: {pull['state']}, {size(pull['completed'])}" for pull in state["pulls"]]
        return Picture(self.title, HEADINGS, [_cells(row) for row in state["models"]], lines)


def _row(model: LLMModelInfo) -> dict[str, Any]:
    """A model as JSON values; sizes in bytes, `tokens` the window that it is asked with."""
    local = model.is_local
    return {
        "key": model.full_name, "name": model.id.removesuffix(":latest"), "provider": model.provider, "local": local,
        "size": model.size if local else None, "fits": fits(model) if local else None,
        "loaded": model.loaded if local else None, "window": window(model, short=True),
        "tokens": model.effective_context or model.context_length, "quantization": model.quantization or "",
        "abilities": abilities(model), "is_managed": local and Capability.MODEL_MANAGEMENT in model.capabilities,
        "chats": Capability.EMBEDDING not in model.capabilities or Capability.CHAT in model.capabilities,
    }  # fmt: skip


def _trouble(shelf: Shelf) -> dict[str, str]:
    """Why a provider's models are not listed, and what to type about it."""
    step = shelf.error.next_step if shelf.error is not None else ""
    return {"provider": shelf.recipe.name, "text": shelf.trouble, "step": step or "%llm doctor says more."}


def _cells(row: dict[str, Any]) -> list[str]:
    def yes(so: bool | None) -> str:
        return "" if so is None else "yes" if so else "no"

    name = f"{row['provider']}/{row['name']}" + (f" ({row['answers']})" if row["answers"] else "")
    return [
        name, "local" if row["local"] else "remote", size(row["size"]), yes(row["fits"]), yes(row["loaded"]),
        row["window"], row["quantization"], ", ".join(row["abilities"]),
    ]  # fmt: skip
