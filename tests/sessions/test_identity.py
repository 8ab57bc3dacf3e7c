"""Which conversation a kernel goes on with: every rule on a real store and real files, and the race for one conversation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from counts import times
from store.processes import together
from store.samples import answer, session, turn

from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter.cache import LLMCache
from llm_jupyter.documents import NotebookFile, read_document, sources
from llm_jupyter.events import EventBus
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.registry import ProviderRegistry
from llm_jupyter.sessions import LLMSessionManager, Services, Whereabouts
from llm_jupyter.sessions.holding import is_held_by_another, own_holder
from llm_jupyter.sessions.identity import Found, How, find
from llm_jupyter.store import SessionRecord, Store, TurnState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "sessions.db")
    yield store
    store.close()


@pytest.fixture
def somebody() -> Iterator[str]:
    """Another living process, as the holder of a conversation."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    yield f"{machine()}.{identity.pid}.{identity.start}"
    process.communicate()


def saved(path: Path, cells: Mapping[str, str], shows: str | tuple[str, ...] = ()) -> Path:
    """A notebook of these cells; its first cells show an answer of these conversations."""
    shown = [shows] if isinstance(shows, str) else list(shows)
    shown += [""] * (len(cells) - len(shown))
    text = [
        {"id": name, "cell_type": "code", "source": source, "metadata": {}, "execution_count": None, "outputs": [
            {"output_type": "display_data", "data": {}, "metadata": {"llm_jupyter": {"session": one}}}
        ] if one else []}
        for (name, source), one in zip(cells.items(), shown, strict=True)
    ]  # fmt: skip
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": text}))
    return path


def keep(store: Store, name: str, asked: Mapping[str, str], **fields: object) -> SessionRecord:
    """A conversation with what these cells asked."""
    record = session(name, **{"created": 1.0, **fields})
    store.save_session(record)
    for position, (cell, prompt) in enumerate(asked.items(), 1):
        one = turn(f"{name}-{position}", float(position), prompt, session=name, cell=cell)
        store.add(one)
        store.answered(name, one.id, 1, answer("yes"), TurnState.COMPLETE)
    store.save_session(record)  # asking has moved `updated` on
    return record


def found(store: Store, path: Path | None = None, kernel: str | None = None) -> Found:
    return find(store, Whereabouts(kernel, path), read_document(path) if path is not None else None)


def chosen(store: Store, path: Path | None = None, kernel: str | None = None) -> tuple[How, str | None]:
    one = found(store, path, kernel)
    return one.how, one.record.id if one.record is not None else None


EVERYBODY, NOBODY = (lambda path: True), (lambda path: False)
"""Whose a file is, where its inode is all that is known of it."""

CELLS = {"c1": "%%chat\nWhat is a monad?", "c2": "%%chat\nAnd a functor?"}
ASKED = {"c1": "What is a monad?", "c2": "And a functor?"}


# -- by the kernel's id


def test_a_kernel_finds_its_own_by_its_id_wherever_its_notebook_is(store: Store, tmp_path: Path) -> None:
    keep(store, "mine", ASKED, kernel="k", notebook="/gone.ipynb")
    other = saved(tmp_path / "other.ipynb", CELLS)
    assert chosen(store, None, "k") == chosen(store, other, "k") == (How.RESUMED, "mine")
    assert found(store, other, "k").reason == "the kernel was restarted"


def test_a_kernel_that_knows_no_notebook_begins_anew(store: Store, tmp_path: Path) -> None:
    keep(store, "mine", ASKED, kernel="k", notebook=str(tmp_path / "talk.ipynb"))
    assert chosen(store) == chosen(store, None, "another") == (How.NEW, None)


def test_a_notebook_that_cannot_be_read_begins_anew(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "talk.ipynb"
    path.write_text("{")
    keep(store, "mine", ASKED, notebook=str(path))
    assert chosen(store, path) == (How.NEW, None)


# -- by the notebook's path


@pytest.mark.parametrize("shows", ["", "mine"])
def test_a_notebook_finds_its_own_by_its_path_and_a_cell(shows: str, store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS, shows or ())
    keep(store, "mine", {"c2": "And a functor?"}, notebook=str(path))
    assert chosen(store, path) == (How.RESUMED, "mine")


def test_a_notebook_finds_its_own_by_its_path_and_an_answer_that_it_shows(store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "talk.ipynb", {"x": "chat('hello')"}, "mine")
    keep(store, "mine", {}, notebook=str(path))
    assert chosen(store, path) == (How.RESUMED, "mine")


def test_a_new_notebook_at_an_old_path_begins_anew(store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "Untitled.ipynb", {"new": ""})
    keep(store, "old", ASKED, notebook=str(path))
    assert chosen(store, path) == (How.NEW, None)


def test_an_older_version_of_a_turn_does_not_count_and_its_cell_does(store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "talk.ipynb", {"c1": ""})
    keep(store, "mine", {"c1": "first"}, notebook=str(path))
    store.add(turn("again", 1.0, "second", session="mine", slot="slot of mine-1", cell="c9"))
    assert chosen(store, path) == (How.NEW, None)


def test_of_two_conversations_of_one_notebook_the_one_that_nobody_goes_on_with_is_taken(
    store: Store, tmp_path: Path, somebody: str
) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS, ("original", "copy"))
    keep(store, "original", ASKED, notebook=str(path))
    keep(store, "copy", ASKED, notebook=str(path), holder=somebody, created=2.0, updated=9.0)
    assert chosen(store, path) == (How.RESUMED, "original")
    keep(store, "original", {}, notebook=str(path), holder=somebody)
    assert chosen(store, path) == (How.FORKED, "copy")


SHOWN: list[tuple[str | tuple[str, ...], float, str]] = [
    ("original", 1.0, "original"),
    (("original", "copy"), 9.0, "copy"),
    ((), 1.0, "copy"),
    ((), 9.0, "original"),
]


@pytest.mark.parametrize(("shows", "updated", "expected"), SHOWN)
def test_of_two_that_nobody_goes_on_with_it_is_the_youngest_that_the_file_shows_else_the_last_used(
    shows: str | tuple[str, ...], updated: float, expected: str, store: Store, tmp_path: Path
) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS, shows)
    keep(store, "original", ASKED, notebook=str(path), updated=updated)
    keep(store, "copy", ASKED, notebook=str(path), created=2.0, updated=5.0)
    assert chosen(store, path) == (How.RESUMED, expected)


# -- who holds it


def test_what_another_living_kernel_goes_on_with_is_continued_as_a_copy(
    store: Store, tmp_path: Path, somebody: str
) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS)
    keep(store, "mine", ASKED, notebook=str(path), holder=somebody)
    assert chosen(store, path) == (How.FORKED, "mine")
    assert found(store, path).reason == "another kernel goes on with it"


def test_only_a_holder_that_lives_on_this_machine_is_one(somebody: str) -> None:
    assert is_held_by_another(somebody)
    own = ProcessIdentity.own()
    assert not is_held_by_another(None)
    assert not is_held_by_another(own_holder())
    assert not is_held_by_another(f"{machine()}.{own.pid}.{own.start + 1}"), "the same id, given to another process"
    assert not is_held_by_another(f"elsewhere.{own.pid}.{own.start}"), "nobody can tell from here"
    assert not is_held_by_another("nonsense")
    assert not is_held_by_another(f"{machine()}.x.y")


# -- renamed, or a copy


def test_a_notebook_whose_old_path_is_gone_was_renamed(store: Store, tmp_path: Path, somebody: str) -> None:
    keep(store, "mine", ASKED, notebook=str(tmp_path / "talk.ipynb"))
    for shows in ("mine", ()):
        path = saved(tmp_path / "final.ipynb", CELLS, shows)
        assert chosen(store, path) == (How.RESUMED, "mine")
        assert found(store, path).reason == "this notebook was talk.ipynb"
    keep(store, "mine", {}, notebook=str(tmp_path / "talk.ipynb"), holder=somebody)
    assert chosen(store, tmp_path / "final.ipynb") == (How.FORKED, "mine")


@pytest.mark.parametrize("shows", ["mine", ""])
def test_a_notebook_whose_old_path_is_still_there_is_a_copy(shows: str, store: Store, tmp_path: Path) -> None:
    keep(store, "mine", ASKED, notebook=str(saved(tmp_path / "talk.ipynb", CELLS, shows or ())))
    path = saved(tmp_path / "copy.ipynb", CELLS, shows or ())
    assert chosen(store, path) == (How.FORKED, "mine")
    assert found(store, path).reason == "this notebook is a copy of talk.ipynb"


def test_a_notebook_was_renamed_too_if_there_is_another_one_by_now_under_its_old_name(
    store: Store, tmp_path: Path
) -> None:
    keep(store, "mine", ASKED, notebook=str(saved(tmp_path / "Untitled.ipynb", {"new": ""})))
    assert chosen(store, saved(tmp_path / "talk.ipynb", CELLS, "mine")) == (How.RESUMED, "mine")


def test_a_renamed_notebook_without_answers_is_no_copy_of_its_own_copy(store: Store, tmp_path: Path) -> None:
    keep(store, "mine", ASKED, notebook=str(tmp_path / "talk.ipynb"))
    keep(store, "copy", ASKED, notebook=str(saved(tmp_path / "copy.ipynb", CELLS)), updated=9.0)
    assert chosen(store, saved(tmp_path / "final.ipynb", CELLS)) == (How.RESUMED, "mine")


def test_a_copy_of_a_copy_goes_on_with_what_the_copy_said(store: Store, tmp_path: Path) -> None:
    keep(store, "original", ASKED, notebook=str(saved(tmp_path / "talk.ipynb", CELLS, "original")), updated=9.0)
    keep(store, "copy", ASKED, notebook=str(saved(tmp_path / "copy.ipynb", CELLS, "copy")), created=2.0)
    path = saved(tmp_path / "copy of copy.ipynb", CELLS, ("original", "copy"))
    assert chosen(store, path) == (How.FORKED, "copy")


def test_a_copy_without_answers_is_one_of_the_conversation_of_which_most_stands_there(
    store: Store, tmp_path: Path
) -> None:
    keep(store, "original", ASKED, notebook=str(saved(tmp_path / "talk.ipynb", CELLS, "original")))
    more = ASKED | {"c3": "More", "c4": "And more"}
    cells = CELLS | {"c3": "%%chat\nMore", "c4": "%%chat\nAnd more"}
    keep(store, "copy", more, notebook=str(saved(tmp_path / "copy.ipynb", cells)), created=2.0, updated=9.0)
    assert chosen(store, saved(tmp_path / "short.ipynb", CELLS)) == (How.FORKED, "original")
    assert chosen(store, saved(tmp_path / "long.ipynb", cells)) == (How.FORKED, "copy")


def test_another_notebook_with_the_same_cell_ids_is_no_copy(store: Store, tmp_path: Path) -> None:
    keep(store, "mine", ASKED, notebook=str(saved(tmp_path / "talk.ipynb", CELLS)))
    other = saved(tmp_path / "other.ipynb", {"c1": "%load_ext llm_jupyter", "c2": "%%chat\nWho was Ada?"})
    assert chosen(store, other) == (How.NEW, None)
    edited = saved(tmp_path / "edited.ipynb", CELLS | {"c1": "%%chat\nWhat is a comonad?"})
    assert chosen(store, edited) == (How.FORKED, "mine"), "one of its questions still stands there"


def test_what_was_filled_into_a_prompt_need_not_stand_in_the_cell(store: Store, tmp_path: Path) -> None:
    keep(store, "mine", {}, notebook=str(tmp_path / "gone.ipynb"))
    store.add(turn("t", 1.0, "Explain 42.", session="mine", cell="c1", template="Explain {x}."))
    assert chosen(store, saved(tmp_path / "talk.ipynb", {"c1": "%%chat\nExplain {x}."})) == (How.RESUMED, "mine")


def test_the_texts_of_cells_are_read_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "talk.ipynb"
    odd = [{"id": "a", "source": ["one\n", "two"]}, {"id": "b", "source": 7}, {"id": "not an id!", "source": "x"}, {}]
    path.write_text(json.dumps({"nbformat": 4, "cells": odd}))
    assert sources(path) == {"a": "one\ntwo"}
    path.write_text("{")
    assert sources(path) == sources(tmp_path) == {}


def test_a_conversation_that_was_put_aside_is_not_found_again(store: Store, tmp_path: Path) -> None:
    keep(store, "old", ASKED, notebook=None)
    assert chosen(store, saved(tmp_path / "talk.ipynb", CELLS, "old")) == (How.NEW, None)


# -- the manager, and a race


def manager_of(store: Store, *, private: bool = False) -> LLMSessionManager:
    events = EventBus()
    services = Services(
        LLMProviderManager(ProviderRegistry(events), events), events, LLMCache(Path(os.devnull), events)
    )
    return LLMSessionManager(services, store, private=private)


def test_a_kernel_that_began_privately_finds_its_conversation_once_it_is_to_be_kept(
    store: Store, tmp_path: Path
) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS)
    keep(store, "mine", ASKED, notebook=str(path))
    manager = manager_of(store, private=True)
    manager.arrive(Whereabouts("k", path))
    assert manager.current.id != "mine"
    manager.private(False)
    assert manager.current.id == "mine"
    manager.private(True)
    manager.private(False)
    assert manager.current.id == "mine"


def test_after_a_reset_the_old_conversation_does_not_come_back_even_if_nothing_was_asked_since(
    store: Store, tmp_path: Path
) -> None:
    path = saved(tmp_path / "talk.ipynb", CELLS, "mine")
    keep(store, "mine", ASKED, notebook=str(path), kernel="k")
    manager = manager_of(store)
    manager.arrive(Whereabouts("k", path))
    assert manager.current.id == "mine"
    manager.reset()
    assert chosen(store, path, "k") == chosen(store, path) == (How.NEW, None)
    manager.use("mine")
    assert chosen(store, path, "k") == chosen(store, path) == (How.RESUMED, "mine")


def test_a_kernel_follows_its_notebook_when_it_is_renamed(store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "Untitled.ipynb", CELLS)
    keep(store, "mine", ASKED, notebook=str(path))
    manager = manager_of(store)
    manager.arrive(Whereabouts("k", path))
    renamed = path.rename(tmp_path / "talk.ipynb")
    manager.arrive(Whereabouts("k", None))
    assert manager.notebook == manager.current.notebook == renamed
    saved(path, {"new": ""})
    manager.arrive(Whereabouts("k", path))
    assert manager.notebook == renamed, "under the old name there is another one"
    kept = store.session("mine")
    assert kept is not None
    assert kept.notebook == str(renamed)


def test_a_notebook_that_was_deleted_or_moved_away_is_nowhere_until_it_is_back(tmp_path: Path) -> None:
    path, file = saved(tmp_path / "talk.ipynb", CELLS), NotebookFile()
    assert file.locate(path, EVERYBODY) == path
    away = tmp_path / "away"
    away.mkdir()
    path.rename(away / "talk.ipynb")
    assert file.locate(None, EVERYBODY) is None
    (away / "talk.ipynb").rename(path)
    assert file.locate(path, EVERYBODY) == path


def test_a_file_that_got_the_inode_of_a_deleted_notebook_is_not_that_notebook(tmp_path: Path) -> None:
    path, file = saved(tmp_path / "talk.ipynb", CELLS), NotebookFile()
    assert file.locate(path, NOBODY) == path
    path.rename(tmp_path / "other.ipynb")
    assert file.locate(None, NOBODY) is None


def test_a_notebook_that_is_saved_into_a_new_file_stays_where_it_is(tmp_path: Path) -> None:
    path, file = saved(tmp_path / "talk.ipynb", CELLS), NotebookFile()
    file.locate(path, EVERYBODY)
    saved(tmp_path / "new", CELLS).rename(path)
    assert file.locate(path, EVERYBODY) == path
    renamed = path.rename(tmp_path / "final.ipynb")
    assert file.locate(None, EVERYBODY) == renamed


def test_a_front_end_that_tells_another_path_is_believed(tmp_path: Path) -> None:
    path, file = saved(tmp_path / "talk.ipynb", CELLS), NotebookFile()
    file.locate(path, EVERYBODY)
    final = path.rename(tmp_path / "final.ipynb")
    other = saved(tmp_path / "other.ipynb", CELLS)
    assert file.locate(other, EVERYBODY) == other
    assert file.locate(final, EVERYBODY) == final


def arrive_at_once(say: Callable[[tuple[str, str]], object], bases: list[Path], kernel: str, other: str) -> None:
    """With another process, begin on notebooks that have a conversation; which one it came to, and what was said."""
    for base in bases:
        store = Store(base / "sessions.db")
        manager = manager_of(store)
        store.sessions()  # it is open now
        meet(base, kernel, other)
        manager.arrive(Whereabouts(kernel, base / "talk.ipynb"))
        say((manager.current.id, " ".join(manager.notices)))
        store.close()
    meet(bases[0].parent, kernel, other)  # what was held by a process that has ended may be had


def meet(base: Path, one: str, other: str) -> None:
    """Wait until the other one is here too."""
    (base / one).touch()
    while not (base / other).exists():
        pass


@pytest.mark.stress
def test_of_kernels_that_begin_at_the_same_moment_exactly_one_goes_on_and_the_other_copies(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    bases = [tmp_path / str(number) for number in range(times(200))]
    for base in bases:
        base.mkdir()
        path = saved(base / "talk.ipynb", CELLS)
        store = Store(base / "sessions.db")
        keep(store, "original", ASKED, notebook=str(path))
        store.close()
    rounds = zip(*together(arrive_at_once, [(bases, "k1", "k2"), (bases, "k2", "k1")]), strict=True)
    for said in map(dict, rounds):
        assert len(said) == 2
        assert said.pop("original").startswith("Resumed 2 turns of talk.ipynb")
        (line,) = said.values()
        assert line.startswith("This is a copy of talk.ipynb with its 2 turns, for another kernel goes on with it")
    report(f"{len(bases)} times two kernels began at the same moment on one conversation: one went on, one copied")
