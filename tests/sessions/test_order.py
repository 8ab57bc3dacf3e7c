"""The order of a conversation, on notebooks that are edited at random: what a kernel asks follows from the document."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_jupyter.documents import Document
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.order import NO_IDS, SAME_ID, Order
from llm_jupyter.sessions.turns import messages_of, place_of
from llm_jupyter.store import SessionRecord, Store, TurnRecord, TurnState
from llm_jupyter.types import LLMResponse, Message

LAB = "the notebook's front end"


@dataclass
class Cell:
    """A cell that asks nothing, or a question for each line of its prompt."""

    id: str
    prompt: str | None
    kind: str = "code"

    @property
    def questions(self) -> list[str]:
        return (self.prompt or "").splitlines()


@dataclass
class Talk:
    """A notebook, its file, and the conversation that its kernels have about it."""

    notebook: str | None = None
    cells: list[Cell] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    saved: Document | None = None
    store: Store = field(default_factory=lambda: Store(None))
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.store.save_session(SessionRecord(id="s", created=0.0, updated=0.0))
        self.restart()

    def restart(self) -> None:
        self.order = Order(self.store, "s", self.notebook)

    def taken_to(self, notebook: str, *prompts: str | None) -> Talk:
        """Another notebook that goes on with the conversation. Its cells have the same ids."""
        return talk_of(*prompts, talk=Talk(notebook, store=self.store, numbers=self.numbers))

    def add(self, prompt: str | None, at: int | None = None) -> Cell:
        cell = Cell(f"c{next(self.ids)}", prompt)
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
        requests: list[list[str]] = []
        ran: list[str] = []
        for cell in self.cells:
            if cell.kind == "code":
                requests += self.run(cell, tuple(ran))
                ran.append(cell.id)
        return requests

    def ask(self, cell: Cell, client: str = LAB) -> list[str]:
        """What the model sees at the last question of this cell."""
        return self.run(cell, client=client)[-1]

    def run(self, cell: Cell, run: tuple[str, ...] = (), client: str = LAB) -> list[list[str]]:
        """The requests of a cell. What the kernel hears of others goes before them; a cell that asks nothing is told at
        its end.
        """
        deleted, self.deleted = frozenset(self.deleted) - {cell.id}, []
        place = CellPlace(cell.id, str(next(self.numbers)), client, run, deleted=deleted)
        self.order.read(self.saved)
        requests = [self._request(place, question) for question in cell.questions]
        if not requests:
            self.order.hear(CellPlace(silent=frozenset({cell.id}), deleted=deleted))
        return requests

    def _request(self, place: CellPlace, question: str) -> list[str]:
        """What the model sees; the answer follows from that alone."""
        self.order.read(self.saved)
        self.order.hear(place)
        spot = self.order.spot(place)
        before = reversed(self.store.before("s", spot.position, limit=1000, skip=spot.hidden))
        seen = [message.content for turn in before for message in messages_of(turn)] + [question]
        own = f"t{next(self.numbers)}"
        turn = TurnRecord(
            id=own, session="s", slot=spot.slot or own, position=spot.position, cell=spot.cell, notebook=self.notebook,
            client=place.client, execution=place.execution, prompt=Message.user(question), created=0.0,
            stamp=self.saved.stamp if self.saved else "",
            was_saved=self.saved is not None and spot.cell in self.saved.cells,
        )  # fmt: skip
        self.store.add(turn)
        self.order.note(place_of(turn))
        answer = LLMResponse(text=f"<{len(seen)}:{seen[-1]}>")
        self.store.answered("s", own, 1, answer, TurnState.COMPLETE)
        return seen

    def prompts(self) -> list[str]:
        return [question for cell in self.cells if cell.kind == "code" for question in cell.questions]

    def ideal(self) -> list[list[str]]:
        """What the document says: each question sees those above it, with their answers."""
        requests: list[list[str]] = []
        said: list[str] = []
        for prompt in self.prompts():
            seen = [*said, prompt]
            requests.append(seen)
            said = [*seen, f"<{len(seen)}:{prompt}>"]
        return requests


def talk_of(*prompts: str | None, talk: Talk | None = None) -> Talk:
    talk = talk or Talk()
    for prompt in prompts:
        talk.add(prompt)
    talk.save()
    return talk


PROMPT = st.sampled_from([*"abcdefgh", None, "i\nj", "k\nl\nm"])


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
        if cell.kind == "code":
            self.talk.run(cell)

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


def edited(talk: Talk, edit: str, at: int, prompt: str | None) -> None:
    """Do something to the cells below the first one; nothing is saved but by `save`."""
    cell = talk.cells[at]
    match edit:
        case "insert":
            talk.add(prompt, at)
        case "delete":
            talk.deleted.append(talk.cells.pop(at).id)
        case "copy":
            talk.add(cell.prompt, at + 1)
        case "split":
            first, rest = cell.questions[:1], cell.questions[1:]
            cell.prompt = "\n".join(first)
            talk.add("\n".join(rest), at + 1)
        case "merge":
            cell.prompt = "\n".join([*talk.cells[at - 1].questions, *cell.questions]) if at > 1 else cell.prompt
            talk.deleted += [talk.cells.pop(at - 1).id] if at > 1 else []
        case "move" if talk.saved and cell.id not in talk.saved.cells:  # of the others the file knows better
            talk.cells.insert(1 if prompt else len(talk.cells), talk.cells.pop(at))
        case "retype":
            cell.prompt = prompt
        case "run":
            talk.run(cell)
        case "save":
            talk.save()
        case "restart":
            talk.restart()


EDITS = ("insert", "delete", "copy", "split", "merge", "move", "retype", "run", "save", "restart")


@given(st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 9), PROMPT), max_size=6))
def test_whatever_is_edited_and_not_saved_a_run_of_all_asks_what_stands_there(
    edits: list[tuple[str, int, str | None]],
) -> None:
    talk = talk_of(None, "a", "b\nc", None, "d", "e")
    talk.run_all()
    for edit, at, prompt in edits:
        if len(talk.cells) < 2:
            talk.add("z")
        edited(talk, edit, 1 + at % (len(talk.cells) - 1), prompt)
    assert talk.run_all() == talk.ideal(), "in the living kernel"
    assert talk.run_all() == talk.ideal(), "and again"
    talk.restart()
    assert talk.run_all() == talk.ideal(), "and in a new one"


def test_a_new_cell_that_is_moved_takes_all_its_questions_along_until_it_asks_none() -> None:
    talk = talk_of(None, "a", "b")
    talk.run_all()
    new = talk.add("\n".join(map(str, range(70))), 1)
    for place in (3, 1, 2):
        talk.cells.remove(new)
        talk.cells.insert(place, new)
        assert [talk.run_all(), talk.run_all()] == [talk.ideal()] * 2
    talk.cells.remove(new)
    talk.cells.insert(1, new)
    new.prompt = None
    talk.add("below it", 2)
    assert [talk.run_all(), talk.run_all()] == [talk.ideal()] * 2


def only(known: list[str], requests: list[list[str]]) -> list[list[str]]:
    """The questions in requests, those that are known, of those requests that ask one."""
    asked = [request for request in requests if request[-1] in known]
    return [[text for text in request if text in known] for request in asked]


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["a", "b\nc", None, "d\ne\nf"]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["G", "H\nI", None, "J\nK\nL"]), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.booleans(), st.sampled_from(EDITS[:-1]), st.integers(0, 9)), max_size=4),
)
def test_of_two_notebooks_that_share_a_conversation_none_takes_a_turn_from_the_other(
    here: list[str | None], there: list[str | None], edits: list[tuple[bool, str, int]]
) -> None:
    first = talk_of(None, *here, talk=Talk("first.ipynb"))
    first.run_all()
    second = first.taken_to("second.ipynb", None, *there)
    before = first.prompts()
    for request in second.run_all():
        assert request[: 2 * len(before) : 2] == before
    for is_first, edit, at in edits:
        talk = first if is_first else second
        if len(talk.cells) > 1:
            edited(talk, edit, 1 + at % (len(talk.cells) - 1), "m" if is_first else "N")
    for talk in (first, second, first):
        talk.restart()
        requests = talk.run_all()
        own = [question for question in "abcdefmGHIJKLN" if question.islower() == (talk is first)]
        assert only(own, requests) == only(own, talk.ideal())
        assert talk.run_all() == requests
    first.save()
    *said, _ = second.ask(second.add("last"))[::2]
    assert sorted(said) == sorted([*first.prompts(), *second.prompts()[:-1]])


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
    talk.run_all()
    for prompt in ("x\ny\nz", "p\nq", "k\nl\nm\nn"):
        talk.cells[0].prompt = prompt
        talk.run(talk.cells[0])
        assert talk.ask(talk.cells[1])[::2] == [*prompt.splitlines(), "b"]


def test_a_file_without_ids_of_cells_says_once_how_it_gets_them() -> None:
    talk = talk_of("a", "b")
    talk.saved = Document(path=Path("talk.ipynb"), stamp="old", cells=("", ""))
    talk.order.read(talk.saved)
    notes = [talk.order.spot(CellPlace(cell, "x", LAB)).note for cell in ("c1", None, "c2")]
    assert notes == [NO_IDS, "", ""]


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
