"""The dashboard of conversations: real services, real conversations, and a page for tests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.paced import ModelServer
from servers.scripted import End, Gate, Request, Script, delta, finish, reply, sse
from sessions.conversing import WatchingServer, dictate
from store.processes import Child
from store.samples import answer as answered
from store.samples import converse, session, turn
from watching import Page, shown

from llm_jupyter.errors import LLMError, SessionError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.portable import export, file_name
from llm_jupyter.sessions import CellPlace, Whereabouts
from llm_jupyter.settings import LLMSettings, ProviderSettings
from llm_jupyter.store import TurnState
from llm_jupyter.widgets import SessionsDashboard
from llm_jupyter.widgets.session_rows import cut

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\ud800 & <img src=x onerror=alert(1)>"


class NarrowServer(ModelServer):
    """Its models have a window of 400 tokens."""

    def _script(self, request: Request) -> Script:
        if request.method == "GET":
            return reply({"object": "list", "data": [{"id": model, "max_model_len": 400} for model in self.models]})
        return super()._script(request)


@pytest.fixture(scope="module")
def module_server() -> Iterator[NarrowServer]:
    with NarrowServer() as server:
        yield server


@pytest.fixture
def server(module_server: NarrowServer) -> NarrowServer:
    module_server.forget()
    return module_server


def factory(home: Path, server: ModelServer, **more: Any) -> LLMFactory:
    provider = ProviderSettings(kind="openai-compatible", base_url=server.base_url)
    settings = LLMSettings(home=home, providers={"local": provider}, **{"default_model": "local/m", **more})
    return LLMFactory(settings, environment={})


@pytest.fixture
def llm(tmp_path: Path, server: NarrowServer) -> Iterator[LLMFactory]:
    with factory(tmp_path, server) as llm:
        yield llm


def ask(llm: LLMFactory, text: str, cell: str) -> None:
    """Ask in a cell of a notebook."""

    async def whole() -> None:
        async with llm.sessions.current.ask(text, place=CellPlace(cell, text, "tab")) as answering:
            while await answering.read_batch():
                pass

    llm.portal.run(whole())


def listed(page: Page) -> list[str]:
    return [one["title"] for one in page.state["conversations"]]


def turns(page: Page) -> list[dict[str, Any]]:
    return [page.state[f"turn {slot}"] for slot in page.state["slots"]]


def texts(page: Page) -> list[tuple[str, str]]:
    return [(one["question"]["text"], one["answer"]["text"]) for one in turns(page)]


def told(page: Page) -> str:
    return str((page.state.get("notice") or {}).get("text", ""))


def fails(page: Page, verb: str, because: str, **values: Any) -> None:
    page.act(verb, **values)
    page.until(lambda: because in told(page) and page.state["notice"]["error"])


# -- what it shows


def test_the_notebooks_conversation_stands_first_and_is_open_with_its_turns(llm: LLMFactory) -> None:
    llm.chat("one")
    llm.sessions.rename("older")
    llm.sessions.reset()
    llm.chat("two")
    llm.chat("three")
    with shown(SessionsDashboard(llm)) as page:
        assert listed(page) == ["“two”", "older"]
        first, older = page.state["conversations"]
        assert (first["current"], first["turns"], older["current"], older["turns"]) == (True, 2, False, 1)
        assert page.state["opened"]["id"] == llm.sessions.current.id
        assert texts(page) == [("two", "Heard: two"), ("three", "Heard: three")]
        assert [(one["number"], one["who"], one["state"], one["stale"]) for one in turns(page)] == [
            (1, "local/m", "complete", False),
            (2, "local/m", "complete", False),
        ]
        page.act("open", session=older["id"])
        page.until(lambda: texts(page) == [("one", "Heard: one")])
        assert llm.sessions.current.id == first["id"], "a look changes nothing"


def test_a_turn_is_shown_from_when_it_is_asked_to_how_it_ends(llm: LLMFactory, server: NarrowServer) -> None:
    gate = Gate()
    server.next(sse(delta("It "), gate, delta("goes"), finish("length")), sse(delta("half"), End.RESET))
    with shown(SessionsDashboard(llm)) as page:
        assert page.state["slots"] == []
        stream = llm.stream("one")
        assert next(stream) == "It "
        page.until(lambda: [one["state"] for one in turns(page)] == ["pending"])
        gate.open()
        assert list(stream) == ["goes"]
        page.until(lambda: [one["state"] for one in turns(page)] == ["cut"])
        assert texts(page) == [("one", "It goes")]
        with pytest.raises(LLMError):
            llm.chat("two")
        page.until(lambda: [one["state"] for one in turns(page)] == ["cut", "failed"])


def test_an_answer_that_was_stopped_is_shown_as_interrupted(llm: LLMFactory, server: NarrowServer) -> None:
    server.next(sse(delta("begun"), End.HOLD))
    with shown(SessionsDashboard(llm)) as page:
        stream = llm.stream("one")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        page.until(lambda: [one["state"] for one in turns(page)] == ["interrupted"])
        page.until(lambda: texts(page) == [("one", "begun")])


def test_what_was_answered_under_an_earlier_version_is_marked_and_versions_are_looked_at_and_restored(
    llm: LLMFactory,
) -> None:
    ask(llm, "one", "a")
    ask(llm, "two", "b")
    with shown(SessionsDashboard(llm)) as page:
        ask(llm, "uno", "a")
        page.until(lambda: [one["stale"] for one in turns(page)] == [False, True])
        first = turns(page)[0]
        assert [one["counts"] for one in first["versions"]] == [False, True]
        slot, old = page.state["slots"][0], first["versions"][0]["id"]
        page.act("version", slot=slot, turn=old)
        page.until(lambda: texts(page)[0] == ("one", "Heard: one"))
        page.act("restore", slot=slot, turn=old)
        page.until(lambda: [one["counts"] for one in turns(page)[0]["versions"]] == [True, False])
        page.until(lambda: [one["stale"] for one in turns(page)] == [False, False])
        assert "counts again" in told(page)
        fails(page, "restore", "there is no turn 'nothing'", slot=slot, turn="nothing")
    llm.chat("three")
    assert [one.prompt.content for one in llm.sessions.current.turns] == ["one", "two", "three"]


def test_of_many_turns_the_last_are_shown_and_others_on_request(llm: LLMFactory) -> None:
    converse(llm.store, *(f"t{number}" for number in range(120)), name="long")
    with shown(SessionsDashboard(llm)) as page:
        page.act("open", session="long")
        page.until(lambda: [one["number"] for one in turns(page)] == [*range(71, 121)])
        assert (page.state["opened"]["earlier"], page.state["opened"]["later"]) == (70, 0)
        page.act("earlier")
        page.until(lambda: [one["number"] for one in turns(page)] == [*range(21, 121)])
        page.act("earlier")
        page.until(lambda: page.state["opened"]["earlier"] == 0 and len(turns(page)) == 120)


def test_a_found_turn_is_opened_with_those_around_it(llm: LLMFactory) -> None:
    converse(llm.store, *(f"t{number}" for number in range(200)), name="long")
    with shown(SessionsDashboard(llm)) as page:
        page.act("search", text="say t40")
        page.until(lambda: page.state["hits"])
        (hit,) = page.state["hits"]["rows"]
        assert (hit["session"], hit["turn"], hit["earlier"]) == ("long", "t40", False)
        page.act("open", session="long", turn="t40")
        page.until(lambda: [one["number"] for one in turns(page)] == [*range(16, 66)])
        assert hit["slot"] in page.state["slots"]
        page.act("later")
        page.until(lambda: [one["number"] for one in turns(page)] == [*range(16, 116)])
        page.act("search", text="nothing says this")
        page.until(lambda: page.state["hits"]["rows"] == [])
        page.act("search", text=" ")
        page.until(lambda: page.state["hits"] is None)


def test_an_earlier_version_that_was_found_is_the_one_that_is_shown(llm: LLMFactory) -> None:
    ask(llm, "crocodiles", "a")
    ask(llm, "else", "a")
    with shown(SessionsDashboard(llm)) as page:
        page.act("search", text="crocod")
        page.until(lambda: page.state["hits"])
        (hit,) = page.state["hits"]["rows"]
        assert hit["earlier"]
        page.act("open", session=hit["session"], turn=hit["turn"])
        page.until(lambda: texts(page) == [("crocodiles", "Heard: crocodiles")])


def test_the_last_two_hundred_conversations_are_listed_and_any_can_be_opened(llm: LLMFactory) -> None:
    for number in range(230):
        llm.store.save_session(session(f"talk {number}", updated=float(number)))
    converse(llm.store, "one", name="talk 0")
    with shown(SessionsDashboard(llm)) as page:
        assert len(listed(page)) == 200
        assert page.state["kept"] == 231, "the notebook's own, in which nothing was asked yet, among them"
        assert "211 more are kept." in page.dashboard.picture().text
        page.act("open", session="talk 0")
        page.until(lambda: page.state["opened"]["id"] == "talk 0" and len(turns(page)) == 1)


def test_a_name_is_found_among_all_conversations_and_what_is_found_stays_true(llm: LLMFactory) -> None:
    for number in range(230):
        llm.store.save_session(session(f"talk {number}", name=f"Früh {number}", updated=float(number)))

    def found(text: str) -> list[str]:
        page.act("search", text=text)
        page.until(lambda: (page.state["named"] or {}).get("text") == text)
        return [one["title"] for one in page.state["named"]["rows"]]

    with shown(SessionsDashboard(llm)) as page:
        assert page.state["named"] is None
        assert found("FRÜH 3") == [f"Früh {number}" for number in (*range(39, 29, -1), 3)]
        assert found(llm.sessions.current.id[2:6].upper()) == [llm.sessions.current.id]
        assert found("nobody") == []
        assert (len(found("ü")), page.state["named"]["is_all"], page.state["hits"]) == (200, False, None)
        found("früh 29")
        page.act("rename", session="talk 29", name="Spät")
        page.until(lambda: page.state["named"]["rows"] == [])
        page.act("search", text=" ")
        page.until(lambda: page.state["named"] is None)


# -- how full the context is


def test_the_meter_tells_what_the_next_question_would_send_and_leave_out(llm: LLMFactory) -> None:
    with shown(SessionsDashboard(llm)) as page:
        page.until(lambda: page.state["meter"].get("model") == "local/m")
        llm.chat("one")
        page.until(lambda: page.state["meter"]["window"] == 400 and page.state["meter"]["turns"] == 1)
        small = page.state["meter"]["tokens"]
        for _ in range(3):
            llm.chat("word " * 60)
        page.until(lambda: page.state["meter"]["left_out"])
        meter = page.state["meter"]
        assert small < meter["tokens"] < 400
        assert meter["turns"] + meter["left_out"] == 4
        assert meter["reserve"] == 100


def test_the_meter_asks_no_server_who_answers_until_somebody_wants_to_know(
    tmp_path: Path, server: NarrowServer
) -> None:
    with factory(tmp_path, server, default_model=None) as llm, shown(SessionsDashboard(llm)) as page:
        assert "chosen with the first question" in page.state["meter"]["problem"]
        assert server.visits == []
        page.act("refresh")
        page.until(lambda: page.state["meter"].get("model") == "local/m")


# -- what can be done


def test_conversations_are_continued_copied_begun_and_deleted(llm: LLMFactory, server: NarrowServer) -> None:
    llm.chat("one")
    llm.sessions.rename("first")
    first = llm.sessions.current.id
    with shown(SessionsDashboard(llm)) as page:
        page.act("new")
        page.until(lambda: page.state["opened"]["id"] != first and page.state["slots"] == [])
        page.act("use", session=first)
        page.until(lambda: page.state["opened"]["id"] == first and page.state["opened"]["current"])
        assert told(page).startswith("Resumed 1 turn of first")
        assert llm.sessions.notices == [], "what was said here is not said again under the next answer"
        page.act("fork", session=first)
        page.until(lambda: page.state["opened"]["id"] not in ("", first) and texts(page) == [("one", "Heard: one")])
        page.until(lambda: told(page) == "This notebook goes on with first (copy), a copy of first.")
        assert listed(page) == ["first (copy)", "first", *listed(page)[2:]]
        llm.chat("two")
        assert server.contents() == ["one", "Heard: one", "two"]
        page.act("open", session=first)
        page.act("delete", session=first)
        page.until(lambda: "first" not in listed(page) and page.state["opened"]["current"])
        assert told(page) == "Deleted first."
        page.act("delete", session=llm.sessions.current.id)
        page.until(lambda: told(page).endswith("A fresh conversation begins here.") and page.state["slots"] == [])


def test_any_conversation_gets_another_name_and_keeps_its_place_in_the_list(llm: LLMFactory) -> None:
    llm.chat("one")
    old = llm.sessions.current.id
    llm.sessions.reset()
    llm.chat("two")
    current = llm.sessions.current.id
    with shown(SessionsDashboard(llm)) as page:
        page.act("rename", session=old, name=" about one ")
        page.until(lambda: listed(page) == ["“two”", "about one"])
        page.act("rename", session=current, name="about two")
        page.until(lambda: listed(page) == ["about two", "about one"])
        fails(page, "rename", "there is a conversation 'about one' already", session=current, name="about one")
        fails(page, "rename", "cannot be a name", session=old, name="a/b")
    assert llm.sessions.current.name == "about two"
    assert llm.sessions.one("about one").id == old


def test_a_conversation_is_exported_beside_its_notebook(llm: LLMFactory, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "talk.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    llm.sessions.arrive(Whereabouts(notebook=folder / "talk.ipynb"))
    llm.chat("one")
    llm.sessions.rename("My talk: part 1")
    with shown(SessionsDashboard(llm)) as page:
        current = llm.sessions.current.id
        for suffix in (".md", ".json", ".md"):
            page.act("export", session=current, suffix=suffix)
            page.until(lambda suffix=suffix: told(page) == f"Written to {folder}/My talk_ part 1{suffix}.")
        assert "Heard: one" in (folder / "My talk_ part 1.md").read_text()
        (folder / "My talk_ part 1.md").write_text("my own\n")
        fails(page, "export", "is no export, and stays as it is", session=current, suffix=".md")
        assert (folder / "My talk_ part 1.md").read_text() == "my own\n"
        fails(page, "export", "tells no format", session=current, suffix=".exe")


def test_what_cannot_be_meant_is_said_and_changes_nothing(llm: LLMFactory) -> None:
    llm.chat("one")
    with shown(SessionsDashboard(llm)) as page:
        for verb in ("open", "use", "fork", "delete", "export"):
            values = {"suffix": ".md"} if verb == "export" else {}
            fails(page, verb, "there is no conversation 'nobody'", session="nobody", **values)
        fails(page, "open", "there is no turn 'nothing'", session=llm.sessions.current.id, turn="nothing")
        fails(page, "dance", "cannot 'dance'")
        assert texts(page) == [("one", "Heard: one")]


def test_a_private_conversation_is_shown_as_such_and_nothing_stored_is_touched(llm: LLMFactory) -> None:
    llm.chat("stored")
    stored = llm.sessions.current.id
    llm.sessions.private(True)
    llm.chat("hush")
    with shown(SessionsDashboard(llm)) as page:
        assert [(one["private"], one["current"]) for one in page.state["conversations"]] == [
            (True, True),
            (False, False),
        ]
        assert [question for question, _ in texts(page)] == ["stored", "hush"]
        for verb, more in (("use", {}), ("delete", {}), ("rename", {"name": "x"})):
            fails(page, verb, "nothing is stored now", session=stored, **more)
        fails(page, "fork", "has no copy", session=stored)
        page.act("new")
        page.until(lambda: page.state["slots"] == [] and page.state["opened"]["private"])
    assert [one.id for one in llm.sessions.all()] == [stored]


# -- other kernels, and trouble


def test_what_another_kernel_goes_on_with_is_marked_watched_and_continued_as_a_copy(tmp_path: Path) -> None:
    with WatchingServer(tmp_path) as server, factory(tmp_path, server) as llm, shown(SessionsDashboard(llm)) as page:
        child = Child(dictate, tmp_path, server.base_url, "a")
        theirs = child.hears()
        server.wait_for("dictate a", 3)
        page.act("refresh")
        page.until(lambda: any(one["id"] == theirs and one["elsewhere"] for one in page.state["conversations"]))
        page.act("open", session=theirs)
        page.until(lambda: [one["state"] for one in turns(page)] == ["complete", "pending"])
        for verb, more in (("delete", {}), ("rename", {"name": "mine"})):
            fails(page, verb, "another kernel goes on with that conversation", session=theirs, **more)
        page.act("use", session=theirs)
        page.until(lambda: told(page).startswith("This is a copy of “whole a” with its 1 turn"))
        page.until(lambda: page.state["opened"]["id"] == llm.sessions.current.id != theirs)
        assert listed(page) == ["whole a (copy)", "“whole a”"]
        child.kill()
        child.process.join()
        page.act("open", session=theirs)
        page.until(lambda: page.state["opened"]["id"] == theirs and not page.state["opened"]["elsewhere"])
        page.until(lambda: [one["state"] for one in turns(page)] == ["complete", "lost"])


def test_a_conversation_that_another_kernel_deletes_gives_way_to_the_notebooks_own(llm: LLMFactory) -> None:
    converse(llm.store, "one", name="theirs")
    with shown(SessionsDashboard(llm)) as page:
        page.act("open", session="theirs")
        page.until(lambda: page.state["opened"]["id"] == "theirs")
        llm.store.delete("theirs")
        page.act("refresh")
        page.until(lambda: page.state["opened"]["current"] and listed(page) == [llm.sessions.current.id])
        page.act("refresh")
        page.until(lambda: page.state["meter"].get("model") == "local/m")


def test_a_store_that_fails_is_shown_with_what_to_do(llm: LLMFactory, tmp_path: Path) -> None:
    llm.chat("one")
    with shown(dashboard := SessionsDashboard(llm)) as page:
        assert page.state["trouble"] == ""
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
            connection.execute("DROP TABLE messages")
        llm.chat("two")
        page.until(lambda: page.state["trouble"].startswith("Conversations are no longer kept on disk: "))
        assert page.state["trouble"].endswith("%llm doctor tells what to do about it.")
        assert page.state["trouble"] in dashboard.picture().text


# -- hostile content


def test_hostile_names_and_texts_are_cut_and_travel_as_text(llm: LLMFactory) -> None:
    llm.store.save_session(session("talk", name=HOSTILE * 30, notebook=f"/tmp/{HOSTILE}.ipynb"))
    huge = HOSTILE + "y" * 1_000_000
    llm.store.add(turn("t", prompt=huge))
    llm.store.answered("talk", "t", 1, answered(huge, model=HOSTILE), TurnState.COMPLETE)
    with shown(dashboard := SessionsDashboard(llm)) as page:
        page.act("open", session="talk")
        page.until(lambda: page.state["slots"])
        (only,) = turns(page)
        assert len(json.dumps(only, ensure_ascii=False).encode()) < 5_000
        assert len(only["answer"]["text"]) + only["answer"]["more"] == len(huge)
        page.act("whole", slot=page.state["slots"][0])
        page.until(lambda: turns(page)[0]["whole"])
        (only,) = turns(page)
        assert 140_000 < len(only["answer"]["text"]) < len(json.dumps(only, ensure_ascii=False).encode()) < 210_000
        json.dumps(page.state, ensure_ascii=False).encode()  # as a kernel sends it: no half characters
        picture = dashboard.picture()
        assert "<script" not in picture.html
        assert "<img" not in picture.html
        assert not {"\u202e", "\x1b", "\ud800"} & {*picture.html, *picture.text}
        page.act("search", text="script alert")
        page.until(lambda: page.state["hits"])
        json.dumps(page.state["hits"], ensure_ascii=False).encode()


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 20))
def test_a_text_that_is_cut_is_its_beginning_and_says_how_much_is_missing(text: str, limit: int) -> None:
    found = cut(text, limit)
    shown, more = found["text"], found["more"]
    assert len(shown.encode()) <= limit
    assert text.encode("utf-8", "replace").decode().startswith(shown)
    assert len(shown) + more == len(text)
    assert more == 0 or len(shown.encode()) > limit - 4


# -- files


@given(st.text(st.characters(exclude_categories=())))
def test_any_name_becomes_the_name_of_a_file_in_that_folder(name: str) -> None:
    found = file_name(name)
    assert Path(found).name == found
    assert found.strip(".")
    assert len(f"{found}.json".encode()) <= 255


def test_the_ending_of_a_notebook_does_not_stand_in_the_middle_of_a_files_name() -> None:
    assert file_name("Untitled.ipynb (copy)") == "Untitled (copy)"
    assert file_name("the .ipynbs") == "the .ipynbs"


def test_an_export_that_cannot_be_written_says_where_and_why(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="cannot be written"):
        export(session(), [turn("a")], tmp_path / "nowhere" / "talk.md")
