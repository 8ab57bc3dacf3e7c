"""A disk that is full, read-only or damaged, a lock that is never let go: the conversation goes on, with one warning.

First the store's half: it never raises for any of that, and what was said is still there to be asked on. Then the notebook's.
"""

from __future__ import annotations

import errno
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from counts import times
from sessions.conversing import WatchingServer, environment
from sessions.troubles import ContainedKernel
from store.processes import Child, as_ordinary_user, in_namespaces, let_everybody_in
from store.samples import ask, converse, ids, session, storing
from store.talking import damage, go_on, read_only

from llm_jupyter.events import Event, StoreDegraded
from llm_jupyter.store import Store
from llm_jupyter.store.schema import VERSION
from notebooks import Notebook

LONG = "so much to say " * 300


def one_warning(events: list[Event]) -> str:
    """The reason in the only event."""
    (event,) = events
    assert isinstance(event, StoreDegraded)
    return event.reason


def a_store(path: Path, turns: int = 3) -> None:
    """A store with a conversation of some pages."""
    with storing(path) as (store, _):
        converse(store)
        for number in range(turns):
            ask(store, f"old {number}", float(number), prompt=LONG)


# -- full


def only_pages(count: int) -> Callable[[sqlite3.Connection], object]:
    """What makes a disk of so many pages of 4 KiB."""
    return lambda connection: connection.execute(f"PRAGMA max_page_count = {count}")


@pytest.mark.parametrize("pages", [1, 20, 40, 60, 100])
def test_a_full_disk_ends_no_conversation(tmp_path: Path, pages: int) -> None:
    with storing(tmp_path / "store.db", tune=only_pages(pages)) as (store, events):
        store.save_session(session())
        for number in range(30):
            ask(store, f"{number}", float(number), prompt=LONG)
        assert ids(store.before("talk", None, limit=50)) == [f"{number}" for number in reversed(range(30))]
        assert go_on(store) == []
        assert one_warning(events) == "No space left on device"
        assert not store.is_kept
    with storing(tmp_path / "store.db") as (store, events):  # somebody made room
        converse(store, "after")
        assert (store.is_kept, events) == (True, [])
        assert store.examine().problem == ""


FULL = """
import errno, json, os, subprocess, sys
from pathlib import Path
from store.samples import ask, session, storing
from store.talking import go_on

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)

def fill():
    file = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (4096, 1):
        try:
            while True:
                os.write(file, b"x" * size)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    os.close(file)

with storing(folder / "store.db") as (store, events):
    if sys.argv[2] != "from the start":
        store.save_session(session())
        ask(store, "before", 1.0)
        assert store.is_kept
    fill()
    try:
        (folder / "proof").write_bytes(b"x")
        wrote = True
    except OSError as error:
        wrote = error.errno != errno.ENOSPC
    for number in range(300):
        ask(store, f"{number}", number + 2.0, prompt="so much to say " * 30)
    wrong = go_on(store)
    print(json.dumps([wrote, wrong, len(store.places("talk")), [event.reason for event in events]]))
"""


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
def test_a_disk_that_is_really_full_ends_no_conversation(tmp_path: Path, when: str) -> None:
    process = in_namespaces(FULL, str(tmp_path), when, kinds=["--mount"])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    wrote, wrong, turns, reasons = json.loads(out)
    assert not wrote, "the disk has to be full"
    assert wrong == []
    assert turns == 300 + (when == "in the middle")
    assert len(reasons) == 1
    assert not list(tmp_path.iterdir())


# -- read-only


@pytest.mark.parametrize("is_remote", [False, True], ids=["log", "journal"])
def test_a_folder_that_cannot_be_written_is_read_and_the_conversation_goes_on(tmp_path: Path, is_remote: bool) -> None:
    path = tmp_path / "home" / "store.db"
    with storing(path, is_remote=lambda _: is_remote) as (store, _):
        converse(store, "a", "b")
        converse(store, "c", name="other")
    let_everybody_in(path.parent)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    before = path.read_bytes()
    ((proof, found, wrong, reasons),) = as_ordinary_user(read_only, path, is_remote)
    assert proof == [errno.EACCES, errno.EACCES], "it has to be impossible to write"
    assert found == [["b", "a"], ["other", "talk"], ["c"]]
    assert wrong == []
    assert len(reasons) == 1
    assert path.read_bytes() == before


def test_a_file_that_cannot_even_be_read_ends_no_conversation(tmp_path: Path) -> None:
    path = tmp_path / "home" / "store.db"
    a_store(path)
    let_everybody_in(path.parent)
    path.parent.chmod(0o555)
    ((proof, found, wrong, reasons),) = as_ordinary_user(read_only, path, False)
    assert proof == [errno.EACCES, errno.EACCES]
    assert found == [[], [], []]
    assert wrong == []
    assert len(reasons) == 1


def test_a_folder_that_cannot_be_made_ends_no_conversation(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with storing(tmp_path / "file" / "home" / "store.db") as (store, events):
        assert go_on(store) == []
        assert one_warning(events) == "Not a directory"


# -- damaged

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off in the middle": lambda content: content[: len(content) // 2],
    "cut off within a page": lambda content: content[:5000],
    "junk": lambda content: random.Random(1).randbytes(len(content)),
    "a broken header": lambda content: b"x" * 20 + content[20:],
    "a broken schema": lambda content: content[:100] + bytes(3000) + content[3100:],
    "text": lambda content: b"This is no database.\n",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_ends_no_conversation_and_stays_as_it_lies(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "store.db"
    a_store(path)
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with storing(path) as (store, events):
        assert go_on(store) == []
        assert "damaged" in one_warning(events)
        assert store.examine().problem
        damaged = path.read_bytes()
    assert path.read_bytes() == damaged


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    with storing(path) as (store, events):
        assert go_on(store) == []
        assert (store.is_kept, events) == (True, [])


@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_no_page_that_is_damaged_ends_a_conversation(tmp_path: Path, kind: str, report: Callable[[str], None]) -> None:
    sound = tmp_path / "sound.db"
    a_store(sound, turns=12)
    content = sound.read_bytes()
    pages = len(content) // 4096
    given_up = 0
    for page in range(pages):
        path = tmp_path / str(page) / "store.db"
        path.parent.mkdir()
        noise = bytes(4096) if kind == "zeros" else random.Random(page).randbytes(4096)
        path.write_bytes(content[: page * 4096] + noise + content[(page + 1) * 4096 :])
        with storing(path) as (store, events):
            assert go_on(store) == [], f"page {page}"
            assert len(events) <= 1
            assert store.is_kept == (events == [])
            given_up += len(events)
    assert given_up > pages / 4
    report(f"18 {pages} pages, each damaged by {kind}: the conversation went on, {given_up} times in memory")


def test_what_is_sound_of_a_damaged_file_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store(path, turns=30)
    content = path.read_bytes()
    left = []
    for page in range(1, len(content) // 4096):
        path.write_bytes(content[: page * 4096] + bytes(4096) + content[(page + 1) * 4096 :])
        with storing(path) as (store, events):
            for number in range(30):
                store.turn("talk", f"old {number}")
            if events:
                left.append(len(store.places("talk")))
    assert 20 < max(left) < 30


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE turns SET state = 'whatever' WHERE id = 'old 2'",
        "UPDATE turns SET filled = '[{' WHERE id = 'old 2'",
        "UPDATE turns SET cell = x'ff' WHERE id = 'old 2'",
        "UPDATE messages SET usage = '[]'",
        "UPDATE messages SET finish_reason = 'whatever'",
        "UPDATE messages SET role = ''",
        "UPDATE parts SET text = NULL",
        "DELETE FROM messages WHERE number = 0",
        "UPDATE sessions SET config = '{'",
    ],
)
def test_rows_that_make_no_sense_end_no_conversation(tmp_path: Path, nonsense: str) -> None:
    path = tmp_path / "store.db"
    a_store(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(nonsense)
    with storing(path) as (store, events):
        store.sessions()
        store.turn("talk", "old 2")
        store.settle("talk")
        assert go_on(store) == []
        assert "malformed" in one_warning(events)


@pytest.mark.stress
def test_a_file_that_is_damaged_under_an_open_store_ends_no_conversation(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    dice = random.Random(18)
    given_up = 0
    for number in range(times(300)):
        path = tmp_path / str(number) / "store.db"
        a_store(path)
        with storing(path) as (store, events):
            ask(store, "first", 10.0)
            # by another process: one that closes a file lets go of all its locks on it
            Child(damage, path, dice.random()).hears_all()
            for other in range(3):
                ask(store, f"then {other}", 11.0 + other)
            assert go_on(store) == []
            assert len(events) <= 1
            given_up += len(events)
    assert given_up > 0
    report(f"18 damaged while open, {times(300)} times: the conversation went on, {given_up} times in memory")


# -- locked, or of another time


@pytest.mark.parametrize(("is_remote", "lock"), [(False, "IMMEDIATE"), (True, "IMMEDIATE"), (True, "EXCLUSIVE")])
def test_a_lock_that_is_never_let_go_ends_no_conversation(tmp_path: Path, is_remote: bool, lock: str) -> None:
    path = tmp_path / "store.db"
    with storing(path, is_remote=lambda _: is_remote, wait=0.05) as (store, events):
        converse(store, "a", "b")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(f"BEGIN {lock}")
            ask(store, "c", 3.0)
            assert ids(store.before("talk", None, limit=9)) == ["c", "b", "a"]
            assert go_on(store) == []
            with storing(path, is_remote=lambda _: is_remote, wait=0.05) as (late, later_events):
                assert go_on(late) == []
                assert "held its lock" in one_warning(later_events)
            other.execute("ROLLBACK")
        ask(store, "d", 4.0)
        assert ids(store.before("talk", None, limit=9)) == ["d", "c", "b", "a"]
        assert "held its lock" in one_warning(events)
    with storing(path) as (store, _):
        assert ids(store.before("talk", None, limit=9)) == ["b", "a"]


def test_a_file_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with storing(path) as (store, events):
        assert go_on(store) == []
        assert "a later version" in one_warning(events)
        assert "version" in store.examine().problem
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (whatever)")
    with storing(path) as (store, events):
        assert go_on(store) == []
        assert one_warning(events)
    with closing(sqlite3.connect(path)) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["sessions"]


def test_what_could_not_be_purged_is_never_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, storing(path, wait=0.05) as (store, _):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="could not be purged: another process") as caught:
            store.purge(older=1e12)
        assert type(caught.value).__name__ == "StoreError"
    assert Store(path).session("talk") is not None


# -- in a notebook


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchingServer]:
    with WatchingServer(tmp_path_factory.mktemp("nowhere")) as server:
        yield server


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, server: WatchingServer) -> Iterator[ContainedKernel]:
    folder = tmp_path_factory.mktemp("kernel")
    notebook = Notebook(folder / "talk.ipynb")
    notebook.save()
    with ContainedKernel(folder, environment(folder, server.base_url), notebook=notebook.path) as kernel:
        yield kernel


TROUBLES = {
    "fill": ("No space left on device", True),
    "close": ("it cannot be written", True),
    "damage": ("the file is damaged", False),
    "make_newer": ("a later version of llm_jupyter wrote it", False),
}
"""What the one line says, and whether what was said before can still be read."""


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_notebook_in_trouble_talks_on_with_one_line_at_its_first_answer_and_the_doctor_names_it(
    tmp_path: Path, kernel: ContainedKernel, server: WatchingServer, trouble: str
) -> None:
    reason, is_readable = TROUBLES[trouble]
    server.forget()
    kernel.move_to(tmp_path)
    if trouble == "fill":
        kernel.do("mount_small", tmp_path)
    kernel.load()
    kernel.good("%chat one")
    if trouble != "fill":  # a disk gets full while it is used
        kernel.good("%unload_ext llm_jupyter")
    kernel.do(trouble, tmp_path)
    kernel.load()
    said = ["\n".join(kernel.good(f"%chat {word}").footers) for word in ("two", "three")]
    examined = " ".join(kernel.good("%llm doctor").printed.split())
    kernel.good("%unload_ext llm_jupyter")
    if trouble == "close":
        kernel.do("open_again", tmp_path)
    words = ["one", "two"] if is_readable else ["two"]
    assert server.contents() == [text for word in words for text in (word, f"Heard: {word}")] + ["three"]
    assert [text.count("in memory only") for text in said] == [1, 0]
    assert f"kept in memory only: {reason}" in said[0]
    assert f"conversations in memory only: {reason}" in examined
