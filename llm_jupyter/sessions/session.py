"""One conversation: its turns, its model, its options, as they are stored."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from llm_jupyter.cache import Asker, Asking
from llm_jupyter.choice import Choice
from llm_jupyter.context import Fitted, Policy
from llm_jupyter.documents import Document, DocumentReader
from llm_jupyter.errors import SessionError
from llm_jupyter.events import SessionCreated, TurnReplaced, TurnRestored
from llm_jupyter.failover import Route
from llm_jupyter.providers.base import DEFAULT_OPTIONS
from llm_jupyter.question import NothingEarlier, Question
from llm_jupyter.sessions.again import UNKNOWN, OwnOptions, last_asked
from llm_jupyter.sessions.answering import Answering, Asked
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.history import Remembered, bring_back, found_turn, remembered
from llm_jupyter.sessions.holding import own_holder
from llm_jupyter.sessions.keeping import told
from llm_jupyter.sessions.order import Order, Spot
from llm_jupyter.sessions.services import Services
from llm_jupyter.sessions.states import SessionState
from llm_jupyter.sessions.turns import EarlierTurns, digest_after, last_before, place_of
from llm_jupyter.store import Filled, SessionConfig, SessionRecord, Store, TurnRecord
from llm_jupyter.types import GenerationOptions, Image, LLMResponse, Message

ALL = 2**31
"""More turns than there are."""


class LLMSession:
    """One conversation.

    `choice` is the model that answers (`None` until the first question), `options` hold for every question that says
    nothing else, `system` stands before the conversation, `policy` says what happens when it outgrows the model's window.
    `model` is the one that was chosen for it, if any was, `notebook` the file whose cells order its turns. All but the last
    survives with the conversation. `last` is the answer that came last in this kernel, in whatever turn and also
    to a question with no memory; `under_way` are the answers that come now, those with no memory left out.
    """

    def __init__(
        self, services: Services, store: Store, record: SessionRecord | None = None, *,
        options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None, policy: Policy = "window",
    ) -> None:  # fmt: skip
        now = time.time()
        self.record = record or SessionRecord(id=uuid.uuid4().hex[:12], created=now, updated=now)
        self.store = store
        self.events = services.events
        self.services = services
        self.options = options
        self.system = system
        self.policy: Policy = policy
        self.state = SessionState.IDLE
        self.choice: Choice | None = None
        self.last: LLMResponse | None = None
        self.model: str | None = None
        self.notebook: Path | None = None
        self.under_way: list[Answering] = []
        self._documents = DocumentReader()
        self._order: Order | None = None
        self._turnstile = threading.RLock()
        self._is_stored = self._is_announced = record is not None
        if record is not None:
            self._take_over(record.config)

    @property
    def id(self) -> str:
        """What it is called everywhere: in the store, in the notebook's outputs, in events."""
        return self.record.id

    @property
    def name(self) -> str | None:
        """The name that the person gave it."""
        return self.record.name

    @property
    def document(self) -> Document | None:
        """The notebook as it was saved last."""
        return self._documents.get(self.notebook) if self.notebook is not None else None

    @property
    def is_kept(self) -> bool:
        """Whether it is on disk, or would be once something is asked."""
        return self.store.is_kept

    @property
    def is_private(self) -> bool:
        """Whether it is to stay in memory."""
        return self.store.path is None

    @property
    def is_stored(self) -> bool:
        """Whether anything of it was written down."""
        return self._is_stored

    @property
    def turns(self) -> list[TurnRecord]:
        """The turns that stand in the conversation, in order. Reads all of them."""
        return list(reversed(self.store.before(self.id, None, limit=ALL)))

    @property
    def answering(self) -> Answering | None:
        """The answer under way, for whoever wants to show or stop it: of several the newest. May be asked from any thread."""
        return next(reversed(self.under_way), None)

    # -- who answers

    async def current_choice(self) -> Choice:
        """The session's model, chosen on first need and then kept."""
        if self.choice is None:
            providers = self.services.providers
            if self.model is not None:
                self.choice = await providers.resolve(self.model, trusting=True)
            else:
                self.choice = await providers.choose(trusting=True)
        return self.choice

    async def use(self, model: str) -> Choice:
        """Answer with that model from now on. Raises `ModelNotFoundError` and leaves things as they are."""
        self.services.expect_open()
        self.choice = await self.services.providers.use(model)
        self.model = self.choice.full_name
        if self._is_stored:
            await asyncio.to_thread(self.save)
        return self.choice

    def wish(self, model: str) -> None:
        """As `use`, where nobody can be asked whether it is there."""
        self.choice, self.model = None, model

    @property
    def wanted_model(self) -> str | None:
        """The model that was named for this conversation, by `use` or by the settings.

        In a replay the settings do not count: a recording is to answer wherever it is taken to.
        """
        if self.model is None and self.services.cache.is_replaying:
            return None
        return self.model or self.services.providers.default_model

    # -- asking

    def ask(
        self, prompt: str | Message, *, place: CellPlace | None = None, choice: Choice | None = None,
        wanted: str | None = None, options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None, images: Sequence[Image] = (),
        append: bool = False, private: bool = False, filled: Sequence[Filled] = (), template: str | None = None,
        instead: TurnRecord | None = None, read_interval: float = 0.0,
    ) -> Answering:  # fmt: skip
        """Ask the next question of the conversation, or ask again where the same cell asked before.

        `choice` and `options` hold for this question alone, a `system` text holds from this turn on. `append` adds a turn
        where the cell has one; a `private` question sees the conversation and leaves nothing in it or on disk. `instead`
        is a turn whose new version this is: it takes that one's place, and is its cell's.
        """
        message = Message.user(prompt, images) if isinstance(prompt, str) else prompt
        asked = Asked(
            prompt=message, options=options, system=system, choice=choice, wanted=wanted,
            place=place or CellPlace(), append=append, joins=not private, filled=tuple(filled), template=template,
            instead=instead, read_interval=read_interval,
        )  # fmt: skip
        return Answering(self, asked)

    def ask_once(
        self, prompt: str | Message, *, choice: Choice | None = None, wanted: str | None = None,
        options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None, images: Sequence[Image] = (),
        read_interval: float = 0.0, completion: bool = False, place: CellPlace | None = None, alone: bool = False,
    ) -> Answering:  # fmt: skip
        """Ask one question with no memory: it sees nothing of the conversation and leaves nothing in it.

        `place` is the cell that asks; recordings number the answers to a question that is asked several times by it. Asked
        `alone`, a server gives way to no other that holds the same model.
        """
        message = Message.user(prompt, images) if isinstance(prompt, str) else prompt
        asked = Asked(
            prompt=message, options=options, system=system, choice=choice, wanted=wanted,
            place=place or CellPlace(), sees=False, joins=False, completion=completion, read_interval=read_interval,
            alone=alone,
        )  # fmt: skip
        return Answering(self, asked)

    def ask_again(
        self, *, place: CellPlace | None = None, choice: Choice | None = None, wanted: str | None = None,
        options: GenerationOptions = DEFAULT_OPTIONS, read_interval: float = 0.0,
    ) -> Answering:  # fmt: skip
        """Ask the last question above a place again, which is the end where none is given, also one that failed; all its
        answers are kept, the new one counts. It has its own options, as far as they are known, and its own model, where no
        other is named. Raises `SessionError` if there is none.
        """
        spot = self._spot(place := place or CellPlace(), is_asked=False)
        turn = last_asked(self.store, self.id, spot.position, spot.hidden)
        if turn is None:
            raise SessionError("there is no turn to ask again", next_step="Ask something first: %chat your question")
        if (own := self.services.asked_with.get(turn.id)) is not None:
            options = options.merged_over(own.options)
            if choice is None and wanted is None:
                choice, wanted = own.choice, own.wanted
        asked = Asked(
            prompt=turn.prompt, options=options, system=turn.system, choice=choice, wanted=wanted, place=place,
            again=turn, read_interval=read_interval,
        )  # fmt: skip
        answering = Answering(self, asked)
        answering.notes += [UNKNOWN] if own is None else []
        return answering

    async def chat(
        self, prompt: str, *, options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None
    ) -> LLMResponse:
        """Ask the next question and wait for the whole answer."""
        async with self.ask(prompt, options=options, system=system) as answering:
            while await answering.read_batch():
                pass
        assert answering.response is not None
        return answering.response

    # -- what `Answering` asks of its session

    async def question(self, answering: Answering) -> Question:
        """The question, once it is written down."""
        asked = answering.asked
        spot = Spot(float("inf"))
        if asked.again is not None:
            spot = await asyncio.to_thread(self._spot, asked.place, is_asked=False)
            answering.turn, spot = asked.again, replace(spot, position=asked.again.position)
        elif asked.joins:
            answering.turn, spot = await asyncio.to_thread(self._write_down, asked)
            if spot.note:
                answering.notes.append(spot.note)
        elif asked.sees:
            spot = await asyncio.to_thread(self._spot, asked.place, asked.append, is_asked=False)
        return await self._question(answering.request, asked, spot)

    async def _question(self, request: str, asked: Asked, spot: Spot) -> Question:
        given = asked.system
        if given is None and asked.sees:
            given = await asyncio.to_thread(self.store.system_before, self.id, spot.position, skip=spot.hidden)
        earlier = EarlierTurns(self.store, self.id, spot.position, spot.hidden) if asked.sees else NothingEarlier()
        return Question(
            request=request, prompt=asked.prompt, system=given or self.system, options=self._completed(asked.options),
            earlier=earlier, completion=asked.completion, read_interval=asked.read_interval, is_instructed=given is not None,
            policy=self.policy,
        )  # fmt: skip

    async def route(self, question: Question, asked: Asked) -> Asking:
        """How a question of this conversation finds who answers it."""
        services = self.services
        retries = services.providers.connections.retries

        def live() -> Route:
            return Route(
                services.providers, self.events, question, services.context, retries=retries, ready=self.announce,
                alone=asked.alone,
            )  # fmt: skip

        asker = Asker(asked.place.cell_id, asked.place.execution)
        is_private = self.is_private or (asked.sees and not asked.joins)
        return await services.cache.route(question, live, asker, is_private=is_private)

    async def preview(self, asked: Asked) -> tuple[Choice | None, Fitted]:
        """What the question would send and to whom, `None` in a replay; it is not sent, and stands nowhere."""
        is_replay = self.services.cache.is_replaying
        choice = None if is_replay else await self.services.providers.seen(asked.choice or await self.current_choice())
        spot = Spot(float("inf"))
        if asked.sees:
            spot = await asyncio.to_thread(self._spot, asked.place, asked.append, is_asked=False)
        question = await self._question("preview", asked, spot)
        providers, context = self.services.providers, self.services.context
        if choice is None:
            return None, await question.unfitted(context)
        return choice, await question.fitted(choice, providers.defaults, context, may_count=False)

    def announce(self) -> None:
        """Say once that the conversation has begun."""
        if not self._is_announced:
            self._is_announced = True
            self.events.publish(SessionCreated(session=self.id))

    def _write_down(self, asked: Asked) -> tuple[TurnRecord, Spot]:
        """Put the question where it belongs, on disk. Questions that are asked at once come one after the other."""
        with self._turnstile:
            return self._written(asked)

    def _written(self, asked: Asked) -> tuple[TurnRecord, Spot]:
        self.save()
        spot = self._spot(asked.place, asked.append) if asked.instead is None else self._spot_of(asked.instead)
        before = last_before(self.store, self.id, spot.position, spot.hidden)
        own = uuid.uuid4().hex[:12]
        document, asked_before = self.document, asked.instead
        turn = TurnRecord(
            id=own, session=self.id, slot=spot.slot or own, position=spot.position, cell=spot.cell,
            notebook=asked_before.notebook if asked_before is not None else self._path if spot.cell else None,
            client=(asked_before or asked.place).client, execution=asked.place.execution, prompt=asked.prompt,
            system=asked.system, created=time.time(), stamp=document.stamp if document is not None else "",
            under=digest_after(place_of(before) if before is not None else None),
            was_saved=document is not None and self.order.lists(spot.cell), filled=asked.filled, template=asked.template,
        )  # fmt: skip
        self.store.add(turn)
        self.services.asked_with[turn.id] = OwnOptions(asked.options, asked.choice, asked.wanted)
        if self._order is not None:
            self._order.note(place_of(turn))
        if spot.replaces is not None:
            self.events.publish(TurnReplaced(session=self.id, turn=spot.replaces))
        return turn, spot

    def _spot(self, place: CellPlace, append: bool = False, *, is_asked: bool = True) -> Spot:
        """Where a question goes, or would go."""
        if place.cell_id is None and self._order is None and self.notebook is None:
            return Spot(self.store.last_position(self.id) + 1)
        with self._turnstile:
            order = self.order
            order.read(self.document)
            if not is_asked:
                order.hear(replace(place, silent=frozenset()))
                return order.look(place, append=append)
            order.hear(place)
            return order.spot(place, append=append)

    def hear(self, place: CellPlace) -> None:
        """Leave out what cells had asked that have run without asking here, or were deleted."""
        with self._turnstile:
            if any(cell in self.order.places.of_cell for cell in place.silent | place.deleted):
                self.order.read(self.document)
                self.order.hear(place)

    def _spot_of(self, turn: TurnRecord) -> Spot:
        """Where a turn stands by now, for a new version of it."""
        self.order.read(self.document)
        now = next((one for one in self.store.versions(self.id, turn.slot) if one.is_current), turn)
        return Spot(now.position, now.slot, now.id, cell=now.cell)

    @property
    def order(self) -> Order:
        """The places of the turns that have a cell."""
        if self._order is None or self._order.notebook != self._path:
            self._order = Order(self.store, self.id, self._path)
        return self._order

    @property
    def _path(self) -> str | None:
        return str(self.notebook) if self.notebook is not None else None

    # -- keeping it

    def adopt(self, other: LLMSession) -> None:
        """Begin with what was said in another conversation, and with what it is set to."""
        self.model, self.choice, self.system = other.model, other.choice, other.system
        self.options, self.policy, self.notebook = other.options, other.policy, other.notebook
        turns = [msgspec.structs.replace(turn, session=self.id) for turn in other.store.all_turns(other.id)]
        self.save()
        self.store.take_in(self.record, turns)

    def _completed(self, options: GenerationOptions) -> GenerationOptions:
        """What a question says, with what holds for all questions where it says nothing."""
        return options.merged_over(self.options).merged_over(GenerationOptions(timeout=self.services.timeout))

    def forget_choice(self) -> None:
        """Choose the model anew at the next question: the settings have changed."""
        self.choice = self.model = None

    def save(self, **changes: Any) -> None:
        """Write down what the conversation is set to, and that it is used now by this process."""
        config = SessionConfig(model=self.model, system=self.system, options=told(self.options), context=self.policy)
        self.record = msgspec.structs.replace(
            self.record, config=config, updated=time.time(), **{"holder": own_holder(), **changes}
        )
        self.store.save_session(self.record)
        self._is_stored = True

    def history(self, count: int) -> list[Remembered]:
        """The last turns, those left out among them, in order."""
        return remembered(self.store, self.id, count)

    def find_turn(self, name: str) -> TurnRecord:
        """The turn of that id, or the only one whose id begins so. Raises `SessionError`."""
        return found_turn(self.store, self.id, name)

    def restore(self, turn: str) -> str:
        """As `bring_back`. Raises `SessionError` where there is no turn of that id."""
        why = bring_back(self.store, self.id, self.find_turn(turn))
        self._order = None
        self.events.publish(TurnRestored(session=self.id, turn=turn))
        return why

    def _take_over(self, config: SessionConfig) -> None:
        """What it was set to when it was kept."""
        self.model = config.model
        self.system = config.system if config.system is not None else self.system
        self.options = msgspec.convert(config.options, GenerationOptions).merged_over(self.options)
        if config.context in ("window", "strict"):
            self.policy = "strict" if config.context == "strict" else "window"
