"""`chat`: the notebook's conversation in a panel. It shows the turns of its `%%chat` cells as they stream, and asks too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from llm_jupyter.errors import AnswerInterrupted, InvalidInputError, LLMError
from llm_jupyter.events import (
    AnswerReplayed,
    Event,
    ModelChosen,
    ModelLoading,
    ModelPulled,
    ModelPulling,
    RequestFailed,
    RequestFailedOver,
    RequestFinished,
    RequestFirstToken,
    RequestQueued,
    RequestStarted,
    SessionCreated,
    SessionDeleted,
    SessionForked,
    SessionRenamed,
    SessionResumed,
    StoreDegraded,
    TurnReplaced,
    TurnRestored,
)
from llm_jupyter.sessions import Answering, LLMSession
from llm_jupyter.types import Message
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.chat_turns import Watched, Window, look_up
from llm_jupyter.widgets.known_models import KnownModels
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.wording import answers_now, shortened

AGAIN = (
    RequestFinished, RequestFailed, TurnReplaced, TurnRestored, SessionCreated, SessionResumed, SessionForked,
    SessionRenamed, SessionDeleted, StoreDegraded, ModelChosen,
)  # fmt: skip
"""What makes it read the conversation again."""

WAITS = (
    RequestStarted, RequestQueued, RequestFirstToken, RequestFailedOver, AnswerReplayed, ModelLoading, ModelPulling,
    ModelPulled,
)  # fmt: skip
"""What tells of an answer that is waited for."""


class ChatDashboard(Dashboard):
    """Its questions belong to no cell, so they come last; a turn that is asked again keeps its place.

    Closing it stops the answers that were asked for in it, and no others.
    """

    name: ClassVar[str] = "chat"
    title: ClassVar[str] = "Chat"
    hears: ClassVar[tuple[type[Event], ...]] = (*AGAIN, *WAITS)
    every: ClassVar[float | None] = 0.5
    """Nothing is published when the conversation is reset or becomes private; to see whether it is another costs nothing."""

    async def begin(self) -> None:
        self._session: LLMSession | None = None
        self._window = Window()
        self._watched: dict[str, Watched] = {}
        self._own: set[Answering] = set()
        self._remarks: dict[str, dict[str, Any]] = {}
        """What is known of turns beyond what is stored of them: why they failed, how long the model thought."""
        self._ends: list[str] = []
        """The slots with which the windows end through which somebody went back; none at the end of the conversation."""
        self._moves = 0
        self._reads_again = True
        self._models = KnownModels(self.llm)
        self._listing = self.llm.portal.start(self._list_models())

    def ended(self) -> None:
        self._listing.cancel()
        for answering in list(self._own):
            answering.stop()

    # -- looking

    async def refresh(self, events: Sequence[Event]) -> None:
        session = self.llm.sessions.current
        self._note_failures(events)
        asked = {one.turn.id for one in session.under_way if one.turn is not None}
        is_news = any(isinstance(event, AGAIN) for event in events) or session is not self._session
        if is_news or self._reads_again or asked - self._window.turns.keys():
            self._reads_again = False
            await self._read(session, asked)
        under_way = list(session.under_way)  # as it is now: nobody else has his turn before the end of this look
        for answering in under_way:
            self._watch(answering, events)
        self._let_go(under_way)
        self.show("answering", bool(under_way))
        if under_way and self._is_seen:
            self.poke()

    async def _read(self, session: LLMSession, asked: Collection[str]) -> None:
        """Show the turns that stand in the conversation; what comes now of an answer is added as it comes."""
        if session is not self._session:
            self._session, self._window, self._ends = session, Window(), []
        end = self._ends[-1] if self._ends else None
        window = await asyncio.to_thread(look_up, session, self._window.turns, end, asked)
        self._window = window
        rows = []
        for turn, shown in window.turns.items():
            rows.append({**shown.facts, **self._remarks.get(turn, {}), "stale": turn in window.stale})
            for kind, text in shown.texts.items():
                key = f"{kind}:{turn}"
                if turn not in asked or key not in self.channel.state:
                    self.show(key, text)
        self.show("turns", rows)
        self.show("system", window.system)
        self.show("window", {"earlier": window.earlier, "later": window.later})
        self._show_session(session)
        for key in list(self.channel.state):
            if ":" in key and key.partition(":")[2] not in window.turns:
                self.channel.drop(key)

    def _show_session(self, session: LLMSession) -> None:
        is_kept = session.is_kept and not session.is_private
        self.show("session", {"name": session.name, "id": session.id, "private": session.is_private, "kept": is_kept})
        choice, wanted = session.choice, session.wanted_model
        named = {"name": wanted, "local": None} if wanted else None
        self.show("model", {"name": choice.full_name, "local": choice.is_local} if choice is not None else named)
        if self.comm is not None:
            self.show("view", self.model_id)  # by which the page finds the cell that shows it

    # -- answers under way

    def _watch(self, answering: Answering, events: Sequence[Event]) -> None:
        turn = answering.turn
        if turn is None or turn.id not in self._window.turns:
            return
        watched = self._watched.get(answering.request)
        if watched is None:
            watched = self._watched[answering.request] = Watched(answering)
            events = [event for event in self.llm.events.history() if event.timestamp >= turn.created]
            self._remarks.pop(turn.id, None)  # of an answer before this one
            self.show(f"text:{turn.id}", "")
            self.show(f"thinking:{turn.id}", "")
        for kind, text in watched.news(events).items():
            self.add_text(f"{kind}:{turn.id}", text)
        self.show(f"live:{turn.id}", watched.stage(time.time()))

    def _let_go(self, under_way: Sequence[Answering]) -> None:
        """Watch those no more that are over, and remember of them what is not on the disk."""
        for watched in list(self._watched.values()):
            answering, turn = watched.answering, watched.answering.turn
            if answering in under_way or turn is None:
                continue
            del self._watched[answering.request]
            self.channel.drop(f"live:{turn.id}")
            self._remark(turn.id, thought=watched.thought(time.time()), notes=list(answering.notes))

    def _note_failures(self, events: Sequence[Event]) -> None:
        """Remember why cells got no answer; whoever asked here is told more."""
        for event in events:
            if not isinstance(event, RequestFailed) or event.error == AnswerInterrupted.__name__:
                continue
            watched = self._watched.get(event.request)
            if watched is not None and watched.answering.turn is not None:
                self._remark(watched.answering.turn.id, error=event.message)

    def _remark(self, turn: str, **remarks: Any) -> None:
        self._remarks[turn] = remarks | self._remarks.get(turn, {})
        self._reads_again = True
        self.poke()

    # -- asking

    async def do_ask(self, prompt: str, system: str | None = None) -> None:
        """Ask the next question; other instructions hold from it on."""
        session = await self._current()
        self._go([])
        self._start(session.ask(_said(prompt), system=system, read_interval=self.beat))

    async def do_again(self, turn: str, prompt: str | None = None) -> None:
        """Ask the question of a turn again, or another one in its place. The earlier version is kept."""
        session = await self._current()
        before = await asyncio.to_thread(session.find_turn, turn)
        if prompt is None or prompt == before.prompt.content:
            again = session.ask(
                before.prompt, system=before.system, filled=before.filled, template=before.template, instead=before,
                read_interval=self.beat,
            )  # fmt: skip
        else:
            message = Message.user(_said(prompt), before.prompt.images)
            again = session.ask(message, system=before.system, instead=before, read_interval=self.beat)
            if before.cell is not None:
                self.say("The cell still shows the question as it was; running it asks that one again.")
        self._start(again)

    async def do_stop(self) -> None:
        """Stop the answers under way, whoever asked; what has arrived is kept."""
        for answering in {*self.llm.sessions.current.under_way, *self._own}:
            answering.stop()

    async def _current(self) -> LLMSession:
        """The conversation in which the next cell would ask."""
        return self.llm.sessions.current if self.here is None else await asyncio.to_thread(self.here.session)

    def _start(self, answering: Answering) -> None:
        self._own.add(answering)
        self.llm.portal.start(self._answer(answering))

    async def _answer(self, answering: Answering) -> None:
        try:
            async with answering:
                while await answering.read_batch():
                    pass
        except AnswerInterrupted:
            pass  # the turn says so
        except LLMError as error:
            if answering.turn is not None:
                self._remark(answering.turn.id, error="\n".join(error.lines()))
            else:
                self.say("\n".join(error.lines()), is_error=True)
        finally:
            self._own.discard(answering)
            self._reads_again = True
            self.poke()

    # -- what else a person does

    async def do_use(self, model: str) -> None:
        """Let that model answer from now on."""
        choice = await (await self._current()).use(model)
        self.say(answers_now(choice.full_name, choice.is_local))

    async def do_models(self, remote: bool = False) -> None:
        """Look for models again; in remote places too where the person says so."""
        await self._list_models(remote=remote)

    async def _list_models(self, *, remote: bool = False) -> None:
        await self._models.look(remote=remote)
        self.show("models", self._models.rows())
        self.show("remote", self._models.unasked())
        self.poke()

    async def do_earlier(self) -> None:
        """Show the turns before those that are shown."""
        if self._window.before:
            self._go([*self._ends, self._window.before])

    async def do_later(self) -> None:
        """Go one step back towards the last turns."""
        self._go(self._ends[:-1], to="beginning")

    async def do_latest(self) -> None:
        """Show the last turns."""
        self._go([])

    def _go(self, ends: list[str], to: str = "end") -> None:
        """Show the turns up to the last of these; the page goes to their `end`, or to their `beginning`."""
        self._ends, self._reads_again = ends, True
        self._moves += 1
        self.show("moved", {"count": self._moves, "to": to})

    # -- for a saved file

    def picture(self) -> Picture:
        state = self.channel.state
        rows = [
            (shortened(state.get(f"question:{turn['id']}", ""), 200),
             shortened(state.get(f"text:{turn['id']}", ""), 400) or f"({turn['state']})", turn.get("model", ""))
            for turn in state.get("turns", ())[-10:]
        ]  # fmt: skip
        lines = [] if rows else ["Nothing was asked yet."]
        return Picture(self.title, ("question", "answer", "model"), rows, lines)


def _said(prompt: str) -> str:
    """What a person typed, if it is anything. Raises `InvalidInputError`."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInputError("there is nothing to ask", next_step="Type a question first.")
    return prompt
