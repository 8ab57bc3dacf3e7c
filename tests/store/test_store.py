"""What a conversation is after it was kept: its order, its versions, its copies, and what is found in it."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from store.samples import answer, ask, converse, ids, session, storing, turn

from llm_jupyter.errors import StoreError
from llm_jupyter.store import Filled, Purged, SessionConfig, Store, TurnState
from llm_jupyter.store.schema import MIGRATIONS, migrate
from llm_jupyter.types import FinishReason, Image, LLMResponse, Message, ToolCall


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    clock = count(100)
    with storing(tmp_path / "home" / "store.db", clock=lambda: float(next(clock))) as (store, events):
        yield store
    assert events == []


def reopened(store: Store) -> Store:
    store.close()
    assert store.path is not None
    return Store(store.path)


# -- conversations


def test_a_conversation_is_found_again_in_another_process_with_all_that_it_asks_with(store: Store) -> None:
    config = SessionConfig(model="local/m", system="Be brief.", options={"seed": 7, "stop": ["."]}, context="window")
    record = session(name="physics", kernel="k", notebook="/n.ipynb", holder="m.1.2", config=config)
    store.save_session(record)
    again = reopened(store)
    assert again.session("talk") == again.named("physics") == record
    assert again.session("other") is None
    assert again.named("chemistry") is None
    again.close()


def test_the_last_updated_conversation_comes_first_and_a_turn_updates_its_own(store: Store) -> None:
    for number, name in enumerate(("one", "two", "three"), 1):
        store.save_session(session(name, updated=float(number)))
    assert [record.id for record in store.sessions()] == ["three", "two", "one"]
    store.add(turn("a", session="one"))
    assert [record.id for record in store.sessions(limit=2)] == ["one", "three"]
    store.save_session(session("three", updated=1000.0, name="x"))
    store.save_session(session("two", updated=2000.0, name="x"))
    assert store.named("x") == store.session("two")


def test_conversations_are_counted_and_found_by_what_they_are_called_in_any_case(store: Store) -> None:
    store.save_session(session("a", name="ÄRGER im Büro", updated=1.0))
    store.save_session(session("b", notebook="/somewhere/Ärger.ipynb", updated=2.0))
    converse(store, "Warum der ärger?", name="c")
    store.save_session(session("d", name="%rger", notebook="/somewhere/Ärger.ipynb"))
    assert [one.id for one in store.sessions(called="äRGER")] == ["c", "b", "a"]
    assert [one.id for one in store.sessions(called="ärger", limit=2)] == ["c", "b"]
    assert [one.id for one in store.sessions(called="%")] == ["d"]
    assert (store.count(), len(store.sessions())) == (4, 4)


def test_conversations_are_found_by_kernel_notebook_id_or_the_cells_of_their_current_turns(store: Store) -> None:
    store.save_session(session("by kernel", kernel="k", updated=5.0))
    store.save_session(session("by notebook", notebook="/n.ipynb", updated=4.0))
    store.save_session(session("by id", updated=3.0))
    store.save_session(session("by cell", updated=2.0))
    store.add(turn("a", session="by cell", cell="c", slot="s"))
    assert [found.id for found in store.sessions_of(kernel="k", notebook="/n.ipynb", ids=["by id"], cells=["c"])] == [
        "by cell", "by kernel", "by notebook", "by id",
    ]  # fmt: skip
    store.add(turn("b", session="by cell", cell="another", slot="s"))
    assert store.sessions_of(cells=["c"]) == []
    assert store.sessions_of() == []


def test_the_cells_of_a_notebook_are_those_of_another_in_all_conversations_or_in_one(store: Store) -> None:
    for name in ("one", "two"):
        store.save_session(session(name))
        store.add(turn("a", 1.0, session=name, cell="c", notebook="/old.ipynb"))
        store.add(turn("b", 2.0, session=name, cell="c", notebook="/another.ipynb"))
        store.add(turn("console", 3.0, session=name))

    def notebooks(name: str) -> list[str | None]:
        return [place.notebook for place in store.places(name)]

    store.carry("/old.ipynb", "/copy.ipynb", session="one")
    assert notebooks("one") == ["/copy.ipynb", "/another.ipynb", None]
    assert notebooks("two") == ["/old.ipynb", "/another.ipynb", None]
    store.carry("/another.ipynb", "/renamed.ipynb")
    assert [notebooks(name)[1] for name in ("one", "two")] == ["/renamed.ipynb"] * 2


def test_turns_of_a_file_that_knew_no_notebooks_of_turns_are_of_their_conversations(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:2])
        connection.execute("INSERT INTO sessions VALUES ('s', NULL, 1, 1, NULL, '/n.ipynb', NULL, NULL, '{}')")
        for name, cell in (("a", "c1"), ("b", None)):
            connection.execute(
                """INSERT INTO turns (session, id, slot, version, position, cell, state, created, is_current, left_out,
                was_saved, stamp, under, filled) VALUES ('s', ?, ?, 1, 1, ?, 'complete', 1, 1, '', 0, '', '', '[]')""",
                (name, name, cell),
            )
    with storing(path) as (store, _):
        assert [(place.id, place.notebook) for place in store.places("s")] == [("a", "/n.ipynb"), ("b", None)]


def test_only_turns_with_an_answer_that_stand_in_the_context_are_counted(store: Store) -> None:
    converse(store, "a", "b", "c")
    store.add(turn("pending", 4.0))
    store.add(turn("failed", 5.0))
    store.grow("talk", "failed", 1, "half", "")
    store.ended("talk", "failed", TurnState.FAILED)
    store.add(turn("stopped", 6.0))
    store.answered("talk", "stopped", 1, answer("half"), TurnState.INTERRUPTED)
    store.add(turn("silent", 7.0))
    store.ended("talk", "silent", TurnState.INTERRUPTED)
    store.add(turn("a again", 1.0, slot="slot of a"))
    store.mark("talk", ["slot of b"], left_out="gone")
    found = store.session("talk")
    assert found is not None
    assert found.turns == 2  # c, and the one that was stopped


def test_a_conversation_without_a_name_and_a_notebook_is_called_after_its_first_question(store: Store) -> None:
    store.save_session(session())
    assert store.sessions()[0].title == "talk"
    store.add(turn("b", 2.0, "later"))
    store.add(turn("a", 1.0, "Where do\n\n  fish \ud800 " + "sleep " * 100, template=None))
    titles = {one.title for one in (store.session("talk"), *store.sessions()) if one is not None}
    assert titles == {"“" + ("Where do fish \ud800 " + "sleep " * 100)[:49] + "…”"}
    store.add(turn("c", 1.0, "values and all", slot="slot of a", template="In {file}?"))
    assert [one.title for one in store.sessions()] == ["“In {file}?”"]
    store.save_session(session(notebook="/somewhere/fish.ipynb"))
    assert [one.title for one in store.sessions()] == ["fish.ipynb"]
    store.save_session(session(notebook="/somewhere/fish.ipynb", name="fish"))
    assert [one.title for one in store.sessions()] == ["fish"]


def test_of_two_processes_that_claim_a_conversation_one_has_it(store: Store) -> None:
    store.save_session(session())
    assert store.claim("talk", "m.1.1", expected=None)
    assert not store.claim("talk", "m.2.2", expected=None)
    assert store.claim("talk", "m.2.2", expected="m.1.1")
    assert not store.claim("unknown", "m.1.1", expected=None)
    found = store.session("talk")
    assert found is not None
    assert found.holder == "m.2.2"


def test_a_fork_has_all_turns_with_versions_and_answers_and_both_go_on_apart(store: Store) -> None:
    converse(store, "a", "b")
    ask(store, "a again", 1.0, slot="slot of a", prompt="unicorns")
    store.fork("talk", session("copy", parent="talk"))
    assert store.places("copy") == store.places("talk")
    assert [ids(store.versions(name, "slot of a")) for name in ("talk", "copy")] == [["a", "a again"]] * 2
    copied, original = store.turn("copy", "a"), store.turn("talk", "a")
    assert copied is not None
    assert original is not None
    assert copied.answers == original.answers
    assert {hit.session.id for hit in store.search("unicorns")} == {"talk", "copy"}
    store.restore("copy", "a")
    ask(store, "c", 3.0, session="copy")
    assert ids(store.before("copy", None, limit=9)) == ["c", "b", "a"]
    assert ids(store.before("talk", None, limit=9)) == ["b", "a again"]
    with pytest.raises(StoreError, match="copy already"):
        store.fork("talk", session("copy"))


def test_a_deleted_conversation_leaves_no_turn_and_no_word_behind(store: Store) -> None:
    converse(store, "a", "b")
    converse(store, "a", name="other")
    assert store.delete("talk")
    assert not store.delete("talk")
    assert store.places("talk") == []
    assert [hit.session.id for hit in store.search("ask")] == ["other"]
    converse(store, "a")
    assert len(store.places("talk")) == 1


# -- turns


def test_a_turn_comes_back_with_its_parts_who_answered_and_how(store: Store) -> None:
    call = ToolCall("1", "look", '{"a": 1}')
    asked = Message.user("see", [Image(b"\0\xff", "image/jpeg"), Image(b"")])
    record = turn("a", prompt="", system="Be brief.", cell="c", client="lab", execution="9", stamp="s", under="u")
    record = type(record)(
        **{name: getattr(record, name) for name in record.__struct_fields__}
        | {"prompt": asked, "filled": (Filled("frame", "3 rows"),), "template": "see {frame}"}
    )
    store.add(record)
    first = LLMResponse(text="", thinking="hm", tool_calls=(call,), finish_reason=FinishReason.TOOL_CALLS, model="m")
    store.answered("talk", "a", 1, first, TurnState.PENDING)
    store.answered("talk", "a", 2, answer("done", is_local=False, tried=("x/y",)), TurnState.COMPLETE)
    found = store.turn("talk", "a")
    assert found is not None
    assert (found.prompt, found.filled, found.template) == (record.prompt, record.filled, record.template)
    assert (found.cell, found.client, found.execution, found.stamp, found.under) == ("c", "lab", "9", "s", "u")
    assert [part.response for part in found.answers] == [first, answer("done", is_local=False, tried=("x/y",))]
    assert [part.is_whole for part in found.answers] == [True, True]
    assert found.state is TurnState.COMPLETE


def test_turns_come_nearest_first_without_what_is_replaced_left_out_or_to_be_skipped(store: Store) -> None:
    converse(store, "a", "b", "c", "d", "e")
    ask(store, "b again", 2.0, slot="slot of b")
    store.mark("talk", ["slot of c"], left_out="gone")
    assert ids(store.before("talk", None, limit=9)) == ["e", "d", "b again", "a"]
    assert ids(store.before("talk", 4.0, limit=9)) == ["b again", "a"]
    assert ids(store.before("talk", None, limit=2, skip=["slot of e"])) == ["d", "b again"]
    assert ids(store.before("talk", 1.0, limit=9)) == []
    store.mark("talk", ["slot of c"], left_out="")
    assert ids(store.before("talk", 4.0, limit=1)) == ["c"]


def test_moved_turns_stand_in_their_new_order(store: Store) -> None:
    converse(store, "a", "b", "c")
    store.move("talk", {"slot of a": 3.5, "slot of c": 0.5, "nobody's": 9.0})
    assert [place.id for place in store.places("talk")] == ["c", "b", "a"]
    assert store.last_position("talk") == 3.5
    assert store.last_position("empty") == 0.0


def test_places_tell_all_of_a_turn_but_its_texts(store: Store) -> None:
    converse(store, "a")
    store.add(turn("b", 2.0, cell="c", client="lab", stamp="s", under="u"))
    store.mark("talk", ["slot of a"], was_saved=True, left_out="gone")
    first, second = store.places("talk")
    assert (first.id, first.was_saved, first.left_out, first.answers) == ("a", True, "gone", 1)
    assert (second.slot, second.cell, second.client) == ("slot of b", "c", "lab")
    assert (second.stamp, second.under, second.answers) == ("s", "u", 0)
    assert (second.was_saved, second.left_out, second.created) == (False, "", 1.0)


def test_a_cell_has_its_current_turns_in_order(store: Store) -> None:
    converse(store)
    for name, position, slot in (("late", 2.0, "x"), ("old", 1.0, "y"), ("new", 1.0, "y")):
        ask(store, name, position, slot=slot, cell="c")
    assert ids(store.of_cell("talk", "c")) == ["new", "late"]
    assert store.of_cell("talk", "d") == []


def test_an_older_version_that_is_restored_takes_the_place_that_its_slot_has_now(store: Store) -> None:
    converse(store, "a", "b")
    ask(store, "a again", 1.0, slot="slot of a")
    store.move("talk", {"slot of a": 5.0})
    store.mark("talk", ["slot of a"], was_saved=True)
    store.restore("talk", "a")
    store.restore("talk", "a")
    store.restore("talk", "unknown")
    assert ids(store.before("talk", None, limit=9)) == ["a", "b"]
    older, newer = store.versions("talk", "slot of a")
    assert (older.id, older.version, older.is_current, older.position, older.was_saved) == ("a", 1, True, 5.0, True)
    assert (newer.id, newer.version, newer.is_current) == ("a again", 2, False)
    ask(store, "third", 5.0, slot="slot of a")
    assert [one.version for one in store.versions("talk", "slot of a")] == [1, 2, 3]


def test_a_turn_is_not_added_twice_and_what_was_there_stays(store: Store) -> None:
    converse(store, "a")
    with pytest.raises(StoreError, match="a turn a already"):
        store.add(turn("a", slot="slot of a", prompt="other"))
    (only,) = store.versions("talk", "slot of a")
    assert only.is_current
    assert only.prompt.content == "ask a"


def test_what_cannot_be_kept_changes_nothing(store: Store) -> None:
    converse(store, "a")
    with pytest.raises(StoreError, match="cannot be kept"):
        store.add(turn("b", slot="slot of a", cell=object()))
    assert ids(store.before("talk", None, limit=9)) == ["a"]
    assert store.is_kept


def test_an_answer_under_way_is_kept_as_it_grows_and_replaced_when_it_is_whole(store: Store) -> None:
    store.save_session(session())
    store.add(turn("a"))
    store.grow("talk", "a", 1, "", "let me")
    store.grow("talk", "a", 1, "It", "let me think")
    found = store.turn("talk", "a")
    assert found is not None
    (under_way,) = found.answers
    assert (under_way.response.text, under_way.response.thinking) == ("It", "let me think")
    assert (under_way.is_whole, under_way.response.finish_reason) == (False, FinishReason.INTERRUPTED)
    store.answered("talk", "a", 1, answer("It is."), TurnState.COMPLETE)
    found = store.turn("talk", "a")
    assert found is not None
    (whole,) = found.answers
    assert (whole.response, whole.is_whole) == (answer("It is."), True)
    assert whole.created == under_way.created


def test_what_is_said_of_a_turn_that_is_gone_is_passed_over(store: Store) -> None:
    store.grow("talk", "a", 1, "text", "")
    store.answered("talk", "a", 1, answer("text"), TurnState.COMPLETE)
    store.ended("talk", "a", TurnState.FAILED)
    assert store.turn("talk", "a") is None


def test_turns_whose_process_is_gone_are_interrupted_where_text_had_arrived_and_failed_where_not(store: Store) -> None:
    converse(store, "whole")
    for name in ("half", "thinking", "nothing", "called"):
        store.add(turn(name))
    store.grow("talk", "half", 1, "half an answer", "")
    store.grow("talk", "thinking", 1, "", "hm")
    store.answered("talk", "called", 1, answer("", tool_calls=(ToolCall("1", "f", ""),)), TurnState.PENDING)
    assert store.settle("talk") == 4
    assert store.settle("talk") == 0
    states = {name: found.state for name in ("whole", "half", "thinking", "nothing", "called")
              if (found := store.turn("talk", name))}  # fmt: skip
    assert states == {
        "whole": TurnState.COMPLETE,
        "half": TurnState.INTERRUPTED,
        "thinking": TurnState.FAILED,
        "nothing": TurnState.FAILED,
        "called": TurnState.INTERRUPTED,
    }
    assert ids([hit.turn for hit in store.search("half an")]) == ["half"]


def test_a_transaction_that_an_interrupt_left_open_is_undone(tmp_path: Path) -> None:
    opened: list[sqlite3.Connection] = []
    with storing(tmp_path / "store.db", tune=opened.append) as (store, events):
        converse(store, "a")
        (connection,) = opened
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM turns")
        ask(store, "b", 2.0)
        assert ids(store.before("talk", None, limit=9)) == ["b", "a"]
        assert events == []


# -- search


def test_a_search_finds_prompts_and_answers_by_the_beginnings_of_words_whatever_their_accents(store: Store) -> None:
    converse(store)
    ask(store, "a", 1.0, prompt="Explain the Schrödinger equation")
    store.answered("talk", "a", 1, answer("It governs waves,\n\nof every kind"), TurnState.COMPLETE)
    ask(store, "b", 2.0, prompt="And Heisenberg?")
    (hit,) = store.search("schrod wave")
    assert (hit.turn.id, hit.session.id) == ("a", "talk")
    assert hit.excerpt in ("Explain the Schrödinger equation", "It governs waves, of every kind")
    assert store.search("waves Heisenberg") == []


TEXTS = [
    "日本語のテキストを検索", "C++ and C# and .NET", "cats, cars and 50 cents", "price is 50% of 100", "emoji 🙂 here", "snake_case",
    'say "Hello world" now', "ภาษาไทยไม่มีช่องว่าง", r"path C:\Users",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("検索", [0]), ("日本", [0]), ("ไทย", [7]), ("C++", [1]), ("c#", [1]), ("C+", [1]), ("c", [1, 2, 5, 8]), (".net", [1]), ("50", [2, 3]),
        ("50%", [3]), ("%", [3]), ("_", [5]), ("snake_", [5]), ("🙂", [4]), ("here 🙂", [4]), ("now 🙂", []), ("\\", [8]), ("'", []),
        ('"hello world"', [6]), ("(hel*)", [6]), ('"', [6]), ("C++ 検索", []), ("C:\\", [8]), pytest.param("%" * 100_000, [], id="long"), pytest.param("検 " * 2000, [0], id="many"),
    ],
)  # fmt: skip
def test_signs_and_scripts_without_blanks_are_found_to_the_letter(words: str, numbers: list[int]) -> None:
    with storing(None) as (store, _):
        store.save_session(session())
        for number, text in enumerate(TEXTS):
            ask(store, str(number), float(number), prompt=text)
        found = store.search(words)
        assert sorted(int(hit.turn.id) for hit in found) == numbers
        assert {hit.excerpt for hit in found} == {TEXTS[number] for number in numbers}
        assert not store.trouble


def test_the_excerpt_of_what_only_signs_were_looked_for_shows_where_they_stand(store: Store) -> None:
    converse(store)
    ask(store, "a", 1.0, prompt="short")
    store.answered("talk", "a", 1, answer("many words " * 100 + "then 🙂 at last, and more " * 10), TurnState.COMPLETE)
    (hit,) = store.search("🙂")
    assert hit.excerpt.startswith("…")
    assert "words then 🙂 at last" in hit.excerpt
    assert len(hit.excerpt) <= 121


def test_older_versions_are_found_and_an_answer_under_way_is_not_yet(store: Store) -> None:
    converse(store)
    ask(store, "a", 1.0, slot="s", prompt="zebras")
    ask(store, "b", 1.0, slot="s", prompt="horses")
    assert ids([hit.turn for hit in store.search("zebras")]) == ["a"]
    store.add(turn("c", prompt="donkeys"))
    store.grow("talk", "c", 1, "mules", "")
    assert store.search("mules") == []
    assert ids([hit.turn for hit in store.search("donkeys")]) == ["c"]


def test_no_more_is_found_than_was_asked_for(store: Store) -> None:
    converse(store, *"abcdef")
    assert len(store.search("ask", limit=4)) == 4


# -- purging


SECRET = "plesiosaurus"


def files_with(text: str, folder: Path) -> list[str]:
    """Which files hold a text, looked for by another process: one that closes a file ends its own locks on it."""
    found = subprocess.run(["grep", "-rlia", text, str(folder)], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("is_remote", [False, True])
def test_after_a_purge_the_text_stands_in_no_file_while_others_have_the_store_open(
    tmp_path: Path, is_remote: bool
) -> None:
    with (
        storing(tmp_path / "store.db", is_remote=lambda _: is_remote, clock=lambda: 50.0) as (store, _),
        storing(tmp_path / "store.db", is_remote=lambda _: is_remote) as (other, _),
    ):
        store.save_session(session("old", updated=10.0, notebook=f"/{SECRET}.ipynb"))
        store.save_session(session("new", updated=60.0))
        for number in range(40):
            asked = turn(f"{number}", float(number), f"{SECRET} {number}" * 100, session="old", slot=f"{number % 20}")
            store.add(asked)
            store.grow("old", asked.id, 1, f"half a {SECRET}", "")
            store.answered("old", asked.id, 1, answer(f"a {SECRET} in Loch Ness"), TurnState.COMPLETE)
            ask(store, f"kept {number}", float(number), session="new")
        assert other.search(SECRET)
        assert files_with(SECRET, tmp_path)
        purged = store.purge(older=55.0)
        assert (purged.sessions, purged.turns) == (1, 40)
        assert purged.bytes > 50_000
        assert files_with(SECRET, tmp_path) == []
        assert other.search(SECRET) == []
        assert len(other.places("new")) == 40
        assert store.examine().problem == ""


def test_a_purge_of_nothing_removes_nothing(store: Store) -> None:
    converse(store, "a")
    assert store.purge() == store.purge(older=0.0) == store.purge(session="unknown") == Purged()
    assert store.purge(session="talk").turns == 1
    assert store.sessions() == []


def test_a_purge_spares_the_conversation_that_is_in_use(store: Store) -> None:
    for name in ("one", "two"):
        store.save_session(session(name, updated=5.0))
    assert store.purge(older=10.0, spare=["one"]).sessions == 1
    assert [record.id for record in store.sessions()] == ["one"]


# -- the file


def test_the_folder_and_the_files_are_for_this_person_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "new"
        with storing(folder / "store.db") as (store, _):
            converse(store, "a")
            assert sorted(file.name for file in folder.iterdir()) == ["store.db", "store.db-shm", "store.db-wal"]
            assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_folder_and_a_file_that_others_could_read_are_closed_to_them_and_never_opened_further(tmp_path: Path) -> None:
    path = tmp_path / "home" / "store.db"
    with storing(path) as (store, _):
        converse(store, "a")
    path.parent.chmod(0o755)
    path.chmod(0o444)
    with storing(path) as (store, _):
        assert store.session("talk") is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_folder_that_is_there_for_everybody_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    with storing(folder / "store.db") as (store, _):
        converse(store, "a")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    with storing(tmp_path / "home" / "store.db") as (store, _):
        assert store.is_kept
        assert not store.examine().exists
    assert list(tmp_path.iterdir()) == []


def test_a_private_conversation_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with storing(None) as (store, events):
        converse(store, "a")
        assert ids(store.before("talk", None, limit=1)) == ["a"]
        assert (store.is_kept, store.trouble, events) == (False, "", [])
        assert store.examine().path is None
    assert list(tmp_path.iterdir()) == []


def test_a_closed_store_says_so(store: Store) -> None:
    converse(store, "a")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.session("talk")


def test_an_examination_counts_and_says_how_the_file_is_written(store: Store) -> None:
    converse(store, "a", "b")
    found = store.examine()
    assert (found.path, found.exists, found.sessions, found.turns) == (store.path, True, 1, 2)
    assert (found.journal, found.problem, found.is_writable) == ("wal", "", True)
    assert found.size > 0


def test_threads_share_one_store(store: Store) -> None:
    store.save_session(session())

    def talk(thread: int) -> None:
        for number in range(25):
            ask(store, f"{thread}.{number}", float(number))
            store.before("talk", None, limit=3)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.places("talk")) == 200
    assert store.is_kept


FORKING = """
import os, sys, threading
from pathlib import Path
from store.samples import ask, converse, session
from llm_jupyter.store import Store

path = Path(sys.argv[1])
store = Store(path)
converse(store, "a")
held, freed = threading.Event(), threading.Event()
def hold():
    with store._database.held():
        held.set()
        freed.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    ask(store, "b", 2.0)
    sys.exit(0 if store.is_kept else 1)
_, status = os.waitpid(child, 0)
freed.set()
ask(store, "c", 3.0)
print(os.waitstatus_to_exitcode(status), [turn.id for turn in store.before("talk", None, limit=9)], store.trouble)
"""


def test_a_forked_child_has_a_connection_and_a_lock_of_its_own(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    run = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "store.db")],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stdout == "0 ['c', 'b', 'a'] \n"
    with storing(tmp_path / "store.db") as (store, _):
        assert store.examine().problem == ""
        assert len(store.places("talk")) == 3


def test_a_turn_costs_as_many_steps_in_a_long_conversation_as_in_a_short_one(tmp_path: Path) -> None:
    steps = count()

    def counted(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(lambda: next(steps) < 0, 1)  # SQLite calls it for each step of its machine

    def costs(name: str) -> dict[str, int]:
        last = store.last_position(name)
        acts: dict[str, Callable[[], object]] = {
            "last_position": lambda: store.last_position(name),
            "before": lambda: store.before(name, None, limit=4),
            "before some": lambda: store.before(name, last - 2, limit=4, skip=["slot of 3"]),
            "of_cell": lambda: store.of_cell(name, "cell"),
            "sessions_of": lambda: store.sessions_of(cells=["cell of nobody"]),
            "add": lambda: store.add(turn("new", last + 1, session=name)),
            "again": lambda: store.add(turn("newer", last + 1, session=name, slot="slot of new")),
            "grow": lambda: store.grow(name, "newer", 1, "text", ""),
            "answered": lambda: store.answered(name, "newer", 1, answer("text"), TurnState.COMPLETE),
            "restore": lambda: store.restore(name, "new"),
            "move": lambda: store.move(name, {"slot of new": last + 2}),
            "mark": lambda: store.mark(name, ["slot of new"], left_out="gone"),
            "versions": lambda: store.versions(name, "slot of new"),
            "settle": lambda: store.settle(name),
        }
        found = {}
        for act in acts:
            before = next(steps)
            acts[act]()
            found[act] = next(steps) - before
        return found

    with storing(tmp_path / "store.db", tune=counted) as (store, _):
        converse(store, *(f"{number}" for number in range(10)), name="short")
        converse(store, *(f"{number}" for number in range(1500)), name="long")
        short, long = costs("short"), costs("long")
    assert min(short.values()) > 5
    assert {act: (short[act], long[act]) for act in short if long[act] > 1.2 * short[act]} == {}
