"""Many kernels write to one store at once, and many open it for the first time at once: nothing is lost, none is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from counts import times
from sessions.conversing import WatchingServer, kept
from sessions.conversing import take_turns as converse_at_once
from store.processes import CONTEXT, in_namespaces, together
from store.samples import converse, session, storing
from store.talking import claim, open_at_once, take_turns

KERNELS = 8
TURNS = 100
ROUNDS = times(100)


@pytest.mark.parametrize(("kernels", "turns", "is_remote"), [(KERNELS, TURNS, False), (2, 40, True)])
def test_kernels_that_write_at_once_all_have_their_turns(
    tmp_path: Path, kernels: int, turns: int, is_remote: bool, report: Callable[[str], None]
) -> None:
    path = tmp_path / "store.db"
    with storing(path, is_remote=lambda _: is_remote) as (store, events):
        store.save_session(session())
        said = together(take_turns, [(path, f"kernel {number}", turns, is_remote) for number in range(kernels)])
        assert [outcome.trouble for (outcome,) in said] == [""] * kernels
        found = store.session("talk")
        assert found is not None
        assert found.turns == kernels * turns
        assert len(store.search("say", limit=1000)) == kernels * turns
        examination = store.examine()
        assert (examination.problem, examination.journal) == ("", "delete" if is_remote else "wal")
        assert events == []
    report(f"17 {kernels} kernels x {turns} turns, {examination.journal}: {found.turns} of {kernels * turns}")


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_programs_that_converse_at_once_from_their_first_run_on_all_have_their_turns(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    turns = times(TURNS)
    with WatchingServer(tmp_path) as server:
        names = [f"program {number}" for number in range(KERNELS)]
        said = together(converse_at_once, [(tmp_path, server.base_url, name, turns) for name in names])
    for name, ((talk, trouble, heard),) in zip(names, said, strict=True):
        assert trouble == ""
        assert heard == [f"Heard: {name}.{number}" for number in range(turns)]
        assert [(turn.prompt, turn.answer) for turn in kept(tmp_path, talk) if turn.is_whole] == [
            (f"{name}.{number}", f"Heard: {name}.{number}") for number in range(turns)
        ]
    with storing(tmp_path / "sessions.db") as (store, _):
        assert sum(record.turns for record in store.sessions()) == KERNELS * turns
        assert store.examine().problem == ""
    report(f"17 {KERNELS} programs x {turns} turns through the model: {KERNELS * turns} of {KERNELS * turns}")


def test_a_store_that_moved_to_a_network_gets_another_journal(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with storing(path, is_remote=lambda _: False) as (store, _):
        converse(store, "a")
        assert store.examine().journal == "wal"
    with storing(path, is_remote=lambda _: True) as (store, events):
        assert len(store.places("talk")) == 1
        assert store.examine().journal == "delete"
        converse(store, "b")
        assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
        assert events == []


def test_a_journal_that_cannot_be_changed_while_somebody_writes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with storing(path, is_remote=lambda _: True) as (store, _):
        converse(store, "a")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tried: list[str] = []

        def end_at_the_second_attempt(statement: str) -> None:
            if "journal_mode" in statement:
                tried.append(statement)
                if len(tried) == 2:
                    other.execute("ROLLBACK")

        with storing(
            path,
            is_remote=lambda _: False,
            tune=lambda connection: connection.set_trace_callback(end_at_the_second_attempt),
        ) as (store, events):
            assert len(store.places("talk")) == 1
            assert store.examine().journal == "wal"
            assert events == []


def make_old(path: Path) -> None:
    """A store as the first version of its tables was."""
    with storing(path) as (store, _):
        converse(store, "a", "unicorns")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE found")
        connection.execute("ALTER TABLE turns DROP COLUMN notebook")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_old", [False, True], ids=["no file", "old file"])
def test_kernels_that_open_the_store_for_the_first_time_at_once_all_can(
    tmp_path: Path, is_old: bool, report: Callable[[str], None]
) -> None:
    old = tmp_path / "store.old"
    make_old(old)
    for number in range(ROUNDS):
        path = tmp_path / str(number) / "store.db"
        if is_old:
            path.parent.mkdir()
            shutil.copy(old, path)
            shutil.copy(old, path.with_suffix(".old"))
        barrier = CONTEXT.Barrier(KERNELS)
        said = together(open_at_once, [(path, f"kernel {kernel}", barrier) for kernel in range(KERNELS)])
        assert [outcome.trouble for (outcome,) in said] == [""] * KERNELS
        with storing(path) as (store, _):
            assert len(store.sessions()) == KERNELS + is_old
            assert len(store.search("unicorns")) == is_old
            assert store.examine().problem == ""
    report(f"17 {KERNELS} kernels opened {'an old' if is_old else 'a new'} store at once, {ROUNDS} times: no error")


def test_of_kernels_that_claim_a_conversation_at_once_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    expected = None
    with storing(path) as (store, _):
        store.save_session(session())
        for _ in range(5):
            said = [outcome for (outcome,) in together(claim, [(path, expected)] * KERNELS)]
            (winner,) = (outcome for outcome in said if outcome.has_claimed)
            found = store.session("talk")
            assert found is not None
            assert found.holder == winner.holder
            expected = winner.holder


CONTAINED = """
import json, os, sys
from pathlib import Path
from store.talking import claim, take_turns

path, name = Path(sys.argv[1]), sys.argv[2]
print(os.getpid(), flush=True)
sys.stdin.readline()
claim(lambda outcome: print(json.dumps(outcome), flush=True), path, None)
take_turns(lambda outcome: print(json.dumps(outcome), flush=True), path, name, 30, False)
"""


def test_containers_with_one_home_share_its_store_though_their_process_ids_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with storing(path) as (store, _):
        store.save_session(session())
        kinds = ["--pid", "--fork", "--mount-proc"]
        containers = [in_namespaces(CONTAINED, str(path), name, kinds=kinds) for name in ("one", "two")]
        assert [container.stdout.readline() for container in containers if container.stdout] == ["1\n", "1\n"]
        for container in containers:
            assert container.stdin is not None
            container.stdin.write("go\n")
            container.stdin.flush()
        said = [
            [json.loads(line) for line in container.communicate(timeout=60)[0].splitlines()] for container in containers
        ]
        assert [container.returncode for container in containers] == [0, 0]
        (trouble, holder, has_claimed), (other_trouble, other_holder, other_has_claimed) = (first for first, _ in said)
        assert (trouble, other_trouble, [last[0] for _, last in said]) == ("", "", ["", ""])
        assert holder != other_holder
        assert has_claimed != other_has_claimed
        found = store.session("talk")
        assert found is not None
        assert (found.holder, found.turns) == (holder if has_claimed else other_holder, 60)
