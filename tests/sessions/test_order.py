"""The order of a conversation, on notebooks that are edited at random: what a kernel asks follows from the document."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_jupyter.documents import Document
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.order import SAME_ID, Order
from llm_jupyter.sessions.turns import messages_of, place_of
from llm_jupyter.store import SessionRecord, Store, TurnRecord, TurnState
from llm_jupyter.types import LLMResponse, Message

LAB = "the notebook's front end"


@dataclass
class Cell:
    id: str
    prompt: str | None
    kind: str = "code"


@dataclass
class Talk:
    """A notebook, its file, and the conversation that its kernels have about it."""

    cells: list[Cell] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    saved: Document | None = None
    store: Store = field(default_factory=lambda: Store(None))
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.store.save_session(SessionRecord(id="s", created=0.0, updated=0.0))
        self.restart()

    def restart(self) -> None:
        self.order = Order(self.store, "s")
        self.silent: set[str] = set()

    def add(self, prompt: str | None, at: int | None = None) -> Cell:
        cell = Cell(f"c{next(self.numbers)}", prompt)
        self.cells.insert(len(self.cells) if at is None else at, cell)
        return cell

    def save(self) -> None:
        ids = [cell.id for cell in self.cells]
        self.saved = Document(
            path=Path("talk.ipynb"), stamp=str(next(self.numbers)),
            cells=tuple(cell.id for cell in self.cells if cell.kind == "code"),
            others=frozenset(cell.id for cell in self.cells if cell.kind != "code"),
            repeated=frozenset(one for one in ids if ids.count(one) > 1),
        )  # fmt: skip

    def run_all(self) -> list[list[str]]:
        """The requests of a run of all cells, in order."""
        requests, ran = [], []
        for cell in self.cells:
            if cell.kind != "code":
                continue
            if cell.prompt is not None:
                requests.append(self.ask(cell, tuple(ran)))
            else:
                self.silent.add(cell.id)
            ran.append(cell.id)
        return requests

    def ask(self, cell: Cell, run: tuple[str, ...] = (), client: str = LAB, cell_id: str | None = "") -> list[str]:
        """What the model sees when this cell asks; the answer follows from that alone."""
        place = CellPlace(
            cell.id if cell_id == "" else cell_id, str(next(self.numbers)), client, run,
            frozenset(self.silent - {cell.id}), frozenset(self.deleted) - {cell.id},
        )  # fmt: skip
        self.silent, self.deleted = set(), []
        self.order.read(self.saved)
        self.order.hear(place)
        spot = self.order.spot(place)
        before = reversed(self.store.before("s", spot.position, limit=1000, skip=spot.hidden))
        seen = [message.content for turn in before for message in messages_of(turn)] + [cell.prompt or ""]
        own = f"t{next(self.numbers)}"
        turn = TurnRecord(
            id=own, session="s", slot=spot.slot or own, position=spot.position, cell=spot.cell, client=client,
            execution=place.execution, prompt=Message.user(cell.prompt or ""), created=0.0,
            stamp=self.saved.stamp if self.saved else "",
            was_saved=self.saved is not None and spot.cell in self.saved.cells,
        )  # fmt: skip
        self.store.add(turn)
        self.order.note(place_of(turn))
        answer = LLMResponse(text=f"<{len(seen)}:{seen[-1]}>")
        self.store.answered("s", own, 1, answer, TurnState.COMPLETE)
        return seen

    def prompts(self) -> list[str]:
        return [cell.prompt for cell in self.cells if cell.kind == "code" and cell.prompt is not None]

    def ideal(self) -> list[list[str]]:
        """What the document says: each question sees those above it, with their answers."""
        requests: list[list[str]] = []
        said: list[str] = []
        for prompt in self.prompts():
            seen = [*said, prompt]
            requests.append(seen)
            said = [*seen, f"<{len(seen)}:{prompt}>"]
        return requests


def talk_of(*prompts: str | None) -> Talk:
    talk = Talk()
    for prompt in prompts:
        talk.add(prompt)
    talk.save()
    return talk


PROMPT = st.sampled_from([*"abcdefgh", None])


class EditedNotebook(RuleBasedStateMachine):
    """Whatever is done to the cells: once the notebook is saved, "Run All" asks what the document says, again and again,
    in the living kernel and in a restarted one. While it is not saved, both still ask the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.talk = talk_of("a", "b", None, "c", "d")
        self.talk.run_all()
        self.has_moved = False

    def _at(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, max(0, len(self.talk.cells) - 1)))

    @rule(prompt=PROMPT, data=st.data())
    def insert(self, prompt: str | None, data: st.DataObject) -> None:
        self.talk.add(prompt, self._at(data))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if len(self.talk.cells) > 1:
            self.talk.deleted.append(self.talk.cells.pop(self._at(data)).id)

    @rule(data=st.data())
    def move_and_save(self, data: st.DataObject) -> None:
        cell = self.talk.cells.pop(self._at(data))
        self.talk.cells.insert(data.draw(st.integers(0, len(self.talk.cells))), cell)
        self.talk.save()

    @rule(data=st.data())
    def cut_and_paste_and_save(self, data: st.DataObject) -> None:
        cell = self.talk.cells.pop(self._at(data))
        self.talk.deleted.append(cell.id)
        self.talk.cells.insert(data.draw(st.integers(0, len(self.talk.cells))), cell)
        self.talk.save()

    @rule(data=st.data(), prompt=PROMPT)
    def split(self, data: st.DataObject, prompt: str | None) -> None:
        at = self._at(data)
        self.talk.add(prompt, at + 1)

    @rule(data=st.data(), prompt=PROMPT)
    def retype(self, data: st.DataObject, prompt: str | None) -> None:
        self.talk.cells[self._at(data)].prompt = prompt

    @rule(data=st.data(), kind=st.sampled_from(["code", "markdown"]))
    def change_the_kind_and_save(self, data: st.DataObject, kind: str) -> None:
        self.talk.cells[self._at(data)].kind = kind
        self.talk.save()

    @rule()
    def save(self) -> None:
        self.talk.save()

    @rule()
    def restart(self) -> None:
        self.talk.restart()

    @rule(data=st.data())
    def run_one(self, data: st.DataObject) -> None:
        cell = self.talk.cells[self._at(data)]
        if cell.kind == "code" and cell.prompt is not None:
            self.talk.ask(cell)

    @rule()
    def run_all_of_a_saved_notebook(self) -> None:
        self.talk.save()
        assert self.talk.run_all() == self.talk.ideal()
        self.talk.restart()
        assert self.talk.run_all() == self.talk.ideal()

    @invariant()
    def the_store_is_in_step(self) -> None:
        kept = [(one.slot, one.position, one.left_out) for one in self.talk.store.places("s", of_cells=True)]
        assert kept == [(one.slot, one.position, one.left_out) for one in self.talk.order.places]


TestEditedNotebook = EditedNotebook.TestCase


EDITS = {
    "insert": lambda talk, at: talk.add("new", at + 1),
    "delete": lambda talk, at: talk.deleted.append(talk.cells.pop(at).id),
    "copy": lambda talk, at: talk.add(talk.cells[at].prompt, at + 1),
    "split": lambda talk, at: talk.add("rest", at + 1),
    "retype": lambda talk, at: setattr(talk.cells[at], "prompt", "other"),
    "retype to plain code": lambda talk, at: setattr(talk.cells[at], "prompt", None),
}


@pytest.mark.parametrize("edit", EDITS)
@given(at=st.integers(0, 4))
def test_an_edit_that_is_not_saved_yet_is_followed_by_a_run_of_all(edit: str, at: int) -> None:
    talk = talk_of("a", "b", None, "c", "d")
    talk.run_all()
    EDITS[edit](talk, at)
    assert talk.run_all() == talk.ideal()
    talk.restart()
    assert talk.run_all() == talk.ideal()


def test_a_cell_put_at_the_top_and_not_saved_asks_the_same_in_both_kernels() -> None:
    talk = talk_of("a", "b")
    talk.run_all()
    talk.add("new", 0)
    living = talk.run_all()
    talk.restart()
    assert talk.run_all() == living


def test_a_console_appends_and_never_replaces() -> None:
    talk = talk_of("a", "b")
    talk.run_all()
    console = Cell("console-1", "aside")
    talk.ask(console, client="a console")
    assert talk.ask(Cell("console-2", "aside"), client="a console")[-3:] == ["aside", "<5:aside>", "aside"]
    talk.save()
    assert talk.ask(talk.add("c"))[-5] == "aside"


def test_an_id_that_stands_twice_appends_with_a_word() -> None:
    talk = talk_of("a", "b")
    talk.run_all()
    talk.cells.append(Cell(talk.cells[0].id, "a"))
    talk.save()
    assert talk.ask(talk.cells[0]) == ["a", "<1:a>", "b", "<3:b>", "a"]
    talk.order.read(talk.saved)
    assert talk.order.spot(CellPlace(talk.cells[0].id, "x", LAB)).note == SAME_ID


def test_several_questions_of_one_cell_stay_in_their_order_and_fewer_take_the_rest_out() -> None:
    talk = talk_of("a", "b")
    cell = talk.cells[0]

    def run(*prompts: str) -> list[list[str]]:
        execution = str(next(talk.numbers))
        asked = []
        for prompt in prompts:
            cell.prompt = prompt
            place = CellPlace(cell.id, execution, LAB)
            talk.order.read(talk.saved)
            spot = talk.order.spot(place)
            own = f"t{next(talk.numbers)}"
            turn = TurnRecord(
                id=own, session="s", slot=spot.slot or own, position=spot.position, cell=cell.id, client=LAB,
                prompt=Message.user(prompt), created=0.0,
            )  # fmt: skip
            talk.store.add(turn)
            talk.order.note(place_of(turn))
            talk.store.answered("s", own, 1, LLMResponse(text="ok"), TurnState.COMPLETE)
            asked.append([one.prompt.content for one in reversed(talk.store.before("s", None, limit=9))])
        return asked

    talk.ask(talk.cells[1])
    assert run("x", "y", "z")[-1] == ["x", "y", "z", "b"]
    assert run("p", "q")[-1] == ["p", "q", "b"]
    assert run("k", "l", "m", "n")[-1] == ["k", "l", "m", "n", "b"]


@settings(max_examples=5)
@given(st.integers(60, 90))
def test_there_is_room_between_two_turns_however_often_something_goes_between_them(count: int) -> None:
    talk = talk_of("first", "last")
    talk.run_all()
    for number in range(count):
        talk.add(f"{number}", 1)
        talk.save()
        talk.ask(talk.cells[1])
    assert talk.run_all() == talk.ideal()
