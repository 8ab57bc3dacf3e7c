"""The dashboard `compare`: one prompt to several models, side by side while they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llm_jupyter.comparison import Comparison, Difference, run
from llm_jupyter.comparison.difference import SHOWN as DIFFERENCE_SHOWN
from llm_jupyter.errors import InvalidInputError, LLMError
from llm_jupyter.events import (
    AnswerReplayed,
    Event,
    ModelDeleted,
    ModelPulled,
    ProviderRegistered,
    ProviderUnregistered,
    RequestFailed,
    RequestFinished,
    RequestStarted,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.here import COMPARISONS
from llm_jupyter.sessions import LLMSession
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.compare_view import (
    HEADINGS,
    PROMPT_SHOWN,
    SHOWN,
    View,
    cells,
    comparison_of,
    figures,
    in_history,
    in_range,
    queues,
    suggested,
)
from llm_jupyter.widgets.known_models import KnownModels
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.wording import shortened

OTHER_MODELS = (ModelPulled, ModelDeleted, ProviderRegistered, ProviderUnregistered)
"""After which there are other models to choose from."""


class CompareDashboard(Dashboard):
    """Shows the comparison that was made last, in a cell or here, and makes others.

    `llm` are the services, as for every dashboard; `comparison` is one to look at. Closing it stops a comparison that was
    begun here, and no other. A remote model gets the prompt only when the person has agreed to that.
    """

    name: ClassVar[str] = "compare"
    title: ClassVar[str] = "Compare models"
    hears: ClassVar[tuple[type[Event], ...]] = (
        RequestStarted, RequestFinished, RequestFailed, AnswerReplayed, *OTHER_MODELS
    )  # fmt: skip
    every: ClassVar[float | None] = 1.0
    """Nothing is published when a model is not there, or when somebody votes in a cell."""

    def __init__(self, llm: LLMFactory | None = None, comparison: Comparison | None = None) -> None:
        self._given = comparison
        super().__init__(llm)

    @property
    def result(self) -> Comparison | None:
        """The comparison that is shown, also while it runs; `None` before the first."""
        return self._view.comparison if self._view is not None else None

    stays: ClassVar[tuple[str, ...]] = ("_view",)

    async def begin(self) -> None:
        self._view: View | None = None
        self._views: dict[int, View] = {}
        self._count = 0
        self._taken_in: tuple[Comparison, ...] = ()
        self._own: Comparison | None = None
        self._is_blind = False
        self._differing: tuple[int, int] | None = None
        self._models = KnownModels(self.llm)
        self._listing = self.llm.portal.start(self._list_models())
        self.show("keeps", self._kernel is not None)
        self._take_in()
        if self._given is not None:
            self._turn_to(self._view_of(self._given))

    def ended(self) -> None:
        self._listing.cancel()
        if self._own is not None:
            self._own.stop()

    # -- looking

    async def refresh(self, events: Sequence[Event]) -> None:
        if any(isinstance(event, OTHER_MODELS) for event in events):
            self._listing.cancel()
            self._listing = self.llm.portal.start(self._list_models())
        self._take_in()
        if self._view is not None:
            self._show_view(self._view)
            if self._runs(self._view) and self._is_seen:
                self.poke()

    def _take_in(self) -> None:
        """Take up comparisons that cells have made, and show the last unless one that is shown still runs."""
        made = self.here.comparisons if self.here is not None else ()
        for comparison in made:
            if any(comparison is known for known in self._taken_in):
                continue
            view = self._view_of(comparison)
            if view is not self._view and not self._runs(self._view):
                self._turn_to(view)
        self._taken_in = made

    def _view_of(self, comparison: Comparison) -> View:
        for view in self._views.values():
            if view.comparison is comparison:
                return view
        self._count += 1
        view = self._views[self._count] = View(comparison)
        for number in list(self._views)[:-COMPARISONS]:
            del self._views[number]
        return view

    def _turn_to(self, view: View) -> None:
        view.is_blind = self._is_blind
        self._view, self._differing = view, None
        self.channel.drop("difference")

    def _runs(self, view: View | None) -> bool:
        return view is not None and not view.comparison.is_over and (view.is_under_way or view.comparison is self._own)

    def _show_view(self, view: View) -> None:
        comparison, shown = view.comparison, self.channel.state.get("view", {})
        numbers = {number: one.comparison for number, one in self._views.items()}
        number = next((number for number, one in numbers.items() if one is comparison), 0)
        head = {"number": number, "running": self._runs(view), **view.head()}
        self._show_columns(view)
        if any(shown.get(name) != head[name] for name in ("number", "over", "hidden")):
            self.show("spread", view.spread())
        self.show("prompts", view.titles)
        self.show("prompt", shortened(comparison.prompts[view.prompt], PROMPT_SHOWN))
        self.show("order", view.order)
        self.show("view", head)
        self.show("history", [in_history(number, numbers[number]) for number in reversed(numbers)])

    def _show_columns(self, view: View) -> None:
        ahead, count = queues(view.comparison), len(view.comparison.contenders)
        for column in range(count):
            lane = view.lane(column)
            self.show(f"column:{column}", view.column(column, ahead.get(lane, 0)))
            self.show(f"figures:{column}", figures(lane))
            self._grow(f"text:{column}", lane.text[:SHOWN])
            self._grow(f"thinking:{column}", lane.thinking[:SHOWN])
        for key in list(self.channel.state):
            if ":" in key and int(key.partition(":")[2]) >= count:
                self.channel.drop(key)

    def _grow(self, key: str, text: str) -> None:
        """Let that text stand under that key; where it goes on with the one that stands there, only what is new travels."""
        shown = self.channel.state.get(key, "")
        if text.startswith(shown):
            self.add_text(key, text[len(shown) :])
        else:
            self.show(key, text)

    # -- asking

    async def do_ask(
        self, prompt: str, contenders: Sequence[Mapping[str, Any]], repeats: int = 1, confirmed: bool = False,
        asked: str = "",
    ) -> None:  # fmt: skip
        """Ask them all. With a remote one among them, only if `confirmed`; else `leaves` says which, to whoever `asked`."""
        comparison = comparison_of(prompt, contenders, repeats, is_blind=self._is_blind)
        if not confirmed and (remote := await self._models.remote_among(one.model for one in comparison.contenders)):
            self.show("leaves", {"asked": asked, "models": remote})
            return
        self.channel.drop("leaves")
        session = await self._session()
        if self._own is not None and not self._own.is_over:
            raise InvalidInputError("a comparison is under way", next_step="Stop it, or wait until it is over.")
        self._own = comparison
        self._turn_to(self._view_of(comparison))
        if self.here is not None:
            self.here.comparison = comparison
            self._take_in()
        self.llm.portal.start(self._run(comparison, session))

    async def _run(self, comparison: Comparison, session: LLMSession) -> None:
        try:
            await run(comparison, self.llm, session=session)
        except LLMError as error:
            self.say("\n".join(error.lines()), is_error=True)
        finally:
            self.poke()

    async def _session(self) -> LLMSession:
        """The conversation whose options stand behind those of the contenders; nothing is written into it."""
        return self.llm.sessions.current if self.here is None else await asyncio.to_thread(self.here.session)

    async def do_stop(self) -> None:
        """Stop what is shown, whoever began it; what has arrived is kept."""
        self._shown().comparison.stop()

    # -- looking at it otherwise

    async def do_open(self, number: int) -> None:
        """Look at that comparison."""
        if (view := self._views.get(number)) is None:
            raise InvalidInputError("that comparison is no longer kept here")
        self._turn_to(view)

    async def do_prompt(self, number: int) -> None:
        """Look at the answers to that prompt, counted from 0."""
        view = self._shown()
        view.prompt = in_range(number, len(view.comparison.messages), "prompt")
        self._turn_to(view)

    async def do_run(self, column: int, run: int) -> None:
        """Look at that run of a contender, both counted from 0."""
        view = self._shown()
        view.runs[view.checked(column)] = in_range(run, view.comparison.repeats, "run")
        if self._differing is not None and column in self._differing:
            await self._differ(view)

    async def do_blind(self, on: bool) -> None:
        """Hide the names until there is a vote, or hide them no more."""
        self._is_blind = on
        if self._view is not None:
            self._view.is_blind = on
        self.show("blind", on)

    async def do_vote(self, column: int | None = None) -> None:
        """Let that answer be the better one for its prompt; nobody's where none is named."""
        view = self._shown()
        view.vote(column if column is None else view.checked(column))

    async def do_differences(self, one: int | None = None, other: int | None = None) -> None:
        """Show how the answers of two contenders differ, word by word; no longer where none are named."""
        view = self._shown()
        self._differing = None if one is None or other is None else (view.checked(one), view.checked(other))
        if not await self._differ(view) and self._differing is not None:
            self._differing = None
            raise InvalidInputError("one of these answers is not over yet", next_step="Try again when it is.")

    async def _differ(self, view: View) -> bool:
        """Show how the two answers that were chosen differ, if both are over."""
        lanes = [view.lane(column) for column in self._differing or ()]
        trials = [lane.trial for lane in lanes if lane.trial is not None]
        if len(trials) < 2:
            self.channel.drop("difference")
            return False
        difference = Difference("", "", trials[0].answer, trials[1].answer)
        pieces, left = [], DIFFERENCE_SHOWN
        for piece in await asyncio.to_thread(lambda: difference.pieces):
            if left > 0:
                pieces.append([piece.kind, piece.text[:left]])
            left -= len(piece.text)
        if view is self._view and lanes == [view.lane(column) for column in self._differing or ()]:
            columns = list(self._differing or ())
            self.show(
                "difference", {"columns": columns, "same": difference.is_empty, "pieces": pieces, "cut": left < 0}
            )
        return True

    async def do_keep(self, name: str) -> None:
        """Let a variable of the notebook hold the comparison that is shown."""
        comparison = self._shown().comparison
        if self._kernel is None:
            raise InvalidInputError("there is no notebook to keep it in", next_step="Read it from .result.")
        replaced = self._kernel.keep(name, comparison)
        instead = f" in place of a value of type {replaced}" if replaced else ""
        self.say(f"{name} holds this comparison{instead}: {name}.to_dataframe(), {name}.plot(), {name}.save(...)")

    def _shown(self) -> View:
        if self._view is None:
            raise InvalidInputError("nothing was compared yet", next_step="Ask first.")
        return self._view

    # -- models to choose from

    async def do_models(self, remote: bool = False) -> None:
        """Look for models again; in remote places too where the person says so."""
        await self._list_models(remote=remote)

    async def _list_models(self, *, remote: bool = False) -> None:
        await self._models.look(remote=remote)
        self.show("models", self._models.rows())
        self.show("suggested", suggested(self._models.found, self.llm.sessions.current.choice))
        self.show("remote", self._models.unasked())
        self.poke()

    # -- for a saved file

    def picture(self) -> Picture:
        state = self.channel.state
        if "view" not in state:
            return Picture(self.title, lines=["Nothing was compared yet."])
        rows = [cells(state, column) for column in state["order"]]
        return Picture(self.title, HEADINGS, rows, [f"Prompt: {shortened(state['prompt'], 200)}"])
