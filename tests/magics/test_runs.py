"""Which cells belong to one run, and what each conversation hears of them: the kernel's hooks, by clocks that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_jupyter.magics.runs import AT_ONCE, RunLog
from llm_jupyter.sessions import CellPlace


@dataclass
class Cells:
    """A kernel whose cells last a second, and a front end whose clock is an hour ahead."""

    log: RunLog = field(default_factory=RunLog)
    now: float = 1000.0
    places: dict[str, CellPlace] = field(default_factory=dict)

    def run(
        self, cell: str, *asks: str, sent: float = 0.0, lasts: float = 1.0, beside: str = "", deleted: str = ""
    ) -> None:
        """A cell that is sent so long after the one before it had ended, and asks in these conversations."""
        self.now += max(0.0, sent)
        self.log.begin(cell, "lab", self.now + min(0.0, sent) + 3600, self.now, deleted.split())
        for session in asks:
            self.places[cell] = self.log.place(cell, cell, session, asks=True, is_beside=session == beside)
        self.now += lasts
        self.log.end(self.now)

    def hear(self, session: str) -> tuple[set[str], set[str]]:
        news = self.log.news(session)
        return set(news.silent), set(news.deleted)


def test_cells_that_are_sent_at_once_are_one_run_also_where_the_first_of_them_takes_no_time() -> None:
    cells = Cells()
    cells.run("a", sent=60, lasts=AT_ONCE / 4)
    cells.run("b", "talk", sent=AT_ONCE / 2)
    cells.run("c", "talk", sent=-0.9)
    assert (cells.places["b"].run, cells.places["c"].run) == (("a",), ("a", "b"))
    cells.run("d", "talk", sent=AT_ONCE / 2)
    assert cells.places["d"].run == (), "somebody has waited for the end of the one before"


def test_what_a_conversation_in_use_hears_when_a_cell_has_ended_it_hears_once() -> None:
    cells = Cells()
    cells.run("a", "talk")
    assert cells.hear("talk") == (set(), set())
    cells.run("b", deleted="x")
    assert cells.hear("talk") == ({"b"}, {"x"})
    cells.run("a", "other")
    assert (cells.places["a"].silent, cells.places["a"].deleted) == ({"b"}, {"x"})
    assert cells.hear("other") == (set(), set()), "it has heard of them when it was asked"
    assert cells.hear("talk") == ({"a"}, set()), "it asks elsewhere by now"
    cells.run("c", "talk")
    assert cells.hear("talk") == (set(), set())


def test_a_conversation_that_was_not_in_use_does_not_lose_what_asked_in_another_meanwhile() -> None:
    """Unless it is one beside the notebook's own: what asks there has left it."""
    cells = Cells()
    cells.run("a", "second")
    cells.run("plain")
    cells.run("b", "first")
    assert cells.places["b"].silent == {"plain"}
    cells.run("c", "beside", beside="beside")
    assert cells.places["c"].silent == {"a", "plain", "b"}


def test_a_cell_that_only_looks_keeps_what_it_has_asked() -> None:
    cells = Cells()
    cells.log.begin("a", "lab", None, cells.now)
    cells.log.looks()
    cells.log.end(cells.now)
    assert cells.hear("talk") == (set(), set())
