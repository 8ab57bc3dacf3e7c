"""What it costs to keep a conversation, however long it is, and to answer from what was kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_jupyter import LLMFactory
from llm_jupyter.sessions import Answering, CellPlace, LLMSession
from llm_jupyter.settings import load_settings
from llm_jupyter.store import AnswerRecord, SessionRecord, Store, TurnRecord, TurnState
from llm_jupyter.types import FinishReason, LLMResponse, Message
from tests.benchmarks import page, server
from tests.benchmarks.figures import Report, median
from tests.benchmarks.kernel import Kernel

SHORT, LONG = 10, 100_000
WINDOW = 2048
"""Tokens; ten turns fill it, so that conversations of any length send the same."""

WORDS = "What was said here is about as long as what people say to each other in a notebook, mostly. " * 3
QUESTION, RECORDED = "line 80 0", "prose 20 0"
"""What the server is told to answer: as much as the turns before hold, or 20 pieces."""
AT_ONCE = 5000
RATIO = 1.5
NOTEBOOK = "/home/somebody/talk.ipynb"
OPENED, REPLAYED = 20.0, 5.0
"""Milliseconds."""

OPEN = """
import time; began = time.process_time()
from pathlib import Path
from llm_jupyter.store import Store
store = Store(Path({path!r}))
assert not store.sessions_of(kernel="a new one")
opened = time.process_time()
assert store.sessions_of(notebook={notebook!r})
print((opened - began) * 1000, (time.process_time() - opened) * 1000)
"""
FIRST = "import llm_jupyter.cache, llm_jupyter.discovery, llm_jupyter.hosts, llm_jupyter.portal"
"""What a kernel imports with its first question, whether or not anything is kept."""


def run(report: Report, *, runs: int, kernels: int) -> None:
    """Medians of so many turns, and of so many kernels."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(server.running()).removesuffix("/v1")
        report.title(f"A turn, in ms, medians of {runs}; the window holds the last ten turns")
        for name, length in (("short", SHORT), ("long", LONG)):
            filled(home / name, length)
        _turns(report, home, url, runs)
        report.title(f"Keeping a turn in conversations of 1,000 to {LONG:,} turns, in ms, medians of {runs}")
        _appending(report, home, runs)
        report.title(f"A fresh kernel, the store holding {LONG:,} turns, medians of {kernels}")
        _opening(report, home / "long", kernels)
        report.title(f"A recorded answer of 20 pieces, in ms, medians of {runs}")
        _replaying(report, home, url, runs)


# -- what there is


def filled(home: Path, turns: int, session: str = "talk") -> None:
    """A home whose conversation has so many turns, each asked by a cell of its own."""
    home.mkdir(exist_ok=True)
    with contextlib.closing(Store(home / "sessions.db")) as store:
        for first in range(0, turns, AT_ONCE):
            part = range(first, min(first + AT_ONCE, turns))
            store.take_in(
                SessionRecord(id=session, name=session, created=1.0, updated=1.0, notebook=NOTEBOOK),
                [_turn(n, session) for n in part],
            )


def _turn(number: int, session: str) -> TurnRecord:
    response = LLMResponse(text=f"{number}: {WORDS}", model="m", provider="local", finish_reason=FinishReason.STOP)
    answer = AnswerRecord(number=1, response=response, created=1.0, is_whole=True)
    return TurnRecord(
        id=f"t{number}", session=session, slot=f"t{number}", position=number + 1.0, cell=f"cell-{number}",
        prompt=Message.user(f"Number {number}? {WORDS[:60]}"), state=TurnState.COMPLETE, created=1.0, was_saved=True,
        answers=(answer,),
    )  # fmt: skip


def _notebook(home: Path, cells: int) -> Path:
    path = home / "talk.ipynb"
    given = [{"id": f"cell-{n}", "cell_type": "code", "source": "%%chat", "metadata": {}, "outputs": [], "execution_count": None} for n in range(cells)]  # fmt: skip
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": given}))
    return path


@contextlib.contextmanager
def _factory(home: Path, url: str, **more: object) -> Iterator[LLMFactory]:
    values = {
        "default_model": "local/m", "providers": {"local": {"kind": "ollama", "base_url": url, "context": WINDOW}}, **more,
    }  # fmt: skip
    with LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(home)}), environment={}) as llm:
        yield llm


# -- what is measured


def _turns(report: Report, home: Path, url: str, runs: int) -> None:
    """Interleaved, so that both conversations meet the machine in the same moods."""
    homes = {home / "short": SHORT, home / "long": LONG}
    with contextlib.ExitStack() as stack:
        factories = {place: stack.enter_context(_factory(place, url)) for place in homes}
        sessions = {place: llm.sessions.use("talk") for place, llm in factories.items()}

        def medians(ask: Callable[[LLMSession, int], Answering]) -> list[float]:
            spent: dict[Path, list[float]] = {place: [] for place in homes}
            for _ in range(runs + 1):
                for place, llm in factories.items():
                    spent[place].append(_took(llm, ask(sessions[place], homes[place])))
            return [median(values[1:]) for values in spent.values()]  # the first one reads what all later ones know

        _compare(report, "of a program", medians(lambda session, length: session.ask(QUESTION)))
        _keeping(report, factories[home / "short"], sessions[home / "short"], runs)
        for place, session in sessions.items():
            session.notebook = _notebook(place, homes[place])
        numbers = itertools.count()
        place = lambda cell: CellPlace(cell, str(next(numbers)), "page")  # noqa: E731 - it is said where it is used
        again = medians(lambda session, length: session.ask(QUESTION, place=place(f"cell-{length - 1}")))
        _compare(report, "of a cell that runs again", again)
        new = medians(lambda session, length: session.ask(QUESTION, place=place(f"new-{next(numbers)}")))
        _compare(report, "of a new cell", new)


def _compare(report: Report, kind: str, medians: Sequence[float]) -> None:
    short, long = medians
    report.add(f"a turn {kind}, the conversation having {SHORT}", short, "ms")
    report.add(f"a turn {kind}, the conversation having {LONG:,}", long, "ms")
    report.add(f"{LONG:,} turns / {SHORT} turns, {kind}", long / short, "x", RATIO)


def _keeping(report: Report, llm: LLMFactory, session: LLMSession, runs: int) -> None:
    """Questions that are kept and questions that are not, by turns."""
    pairs = [[_took(llm, session.ask(QUESTION, private=private)) for private in (False, True)] for _ in range(runs)]
    report.add("what keeping a turn adds to its answer", median([kept - unkept for kept, unkept in pairs]), "ms")


def _took(llm: LLMFactory, answering: Answering) -> float:
    """Milliseconds from the question to the end of its answer."""

    async def whole() -> float:
        began = time.perf_counter()
        async with answering:
            while await answering.read_batch():
                pass
        return (time.perf_counter() - began) * 1000

    return llm.portal.run(whole())


def _appending(report: Report, home: Path, runs: int) -> None:
    spent = {}
    for length in (1000, 10_000, LONG):
        filled(home / f"kept-{length}", length)
        with contextlib.closing(Store(home / f"kept-{length}" / "sessions.db")) as store:
            spent[length] = median(_each(_appender(store, length), runs))
        report.add(f"keeping a turn and its answer after {length:,}", spent[length], "ms")
    report.add(f"after {LONG:,} / after 1,000", spent[LONG] / spent[1000], "x", RATIO)


def _appender(store: Store, length: int) -> Callable[[int], object]:
    store.last_position("talk")  # open it

    def append(number: int) -> None:
        turn = _turn(length + number, "talk")
        store.add(TurnRecord(**{name: getattr(turn, name) for name in turn.__struct_fields__} | {"answers": ()}))
        store.answered("talk", turn.id, 1, turn.answers[0].response, TurnState.COMPLETE)

    return append


def _each(act: Callable[[int], object], runs: int) -> list[float]:
    """Milliseconds of each call."""
    spent = []
    for number in range(runs):
        began = time.perf_counter()
        act(number)
        spent.append((time.perf_counter() - began) * 1000)
    return spent


def _opening(report: Report, home: Path, kernels: int) -> None:
    """CPU, as of the other imports: the wall's clock counts what else the machine does."""
    with tempfile.TemporaryDirectory() as compiled:
        spent = [_opened(report, home, compiled) for _ in range(kernels + 1)][1:]  # the first one compiles
    opened, found = zip(*spent, strict=True)
    report.add("importing and opening the store, to the first look", median(opened), "ms of CPU", OPENED)
    report.add("finding a notebook's conversation, all its turns counted", median(found), "ms of CPU")


def _opened(report: Report, home: Path, compiled: str) -> list[float]:
    with Kernel(PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=compiled) as kernel:
        for code in ("%load_ext llm_jupyter", FIRST):
            report.check(not (error := kernel.run(code).error), error)
        ran = kernel.run(OPEN.format(path=str(home / "sessions.db"), notebook=NOTEBOOK))
    return [float(number) for number in page.prints(page.outputs(ran.sent))[0].split()]


def _replaying(report: Report, home: Path, url: str, runs: int) -> None:
    with _factory(home / "replay", url, offline="record") as llm:
        _ask_all(llm, llm.sessions.current)
    with _factory(home / "replay", url, offline="replay") as llm:
        first, *later = [_ask_all(llm, llm.sessions.new()) for _ in range(max(2, runs // SHORT))]
    report.add("the first one of a kernel", first[0], "ms")
    report.add(
        "a recorded answer, kept as a turn again", median([one for each in later for one in each]), "ms", REPLAYED
    )


def _ask_all(llm: LLMFactory, session: LLMSession) -> list[float]:
    return [_took(llm, session.ask(RECORDED)) for _ in range(SHORT)]
