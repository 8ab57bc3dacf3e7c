"""The conversation belongs to the notebook: cells that run again, in loops, and those that fail."""

from __future__ import annotations

import pytest
from kernels import Kernel, kinds
from servers.paced import ModelServer, endless
from servers.scripted import answer, delta, finish, reply, sse

from llm_jupyter.sessions import INTERRUPTED_MARK


def test_the_second_cell_sees_the_first(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    notebook.run("%%chat\ntwo", "b")
    assert [(m["role"], m["content"]) for m in server.chats[-1]["messages"]] == [
        ("user", "one"), ("assistant", "Heard: one"), ("user", "two"),
    ]  # fmt: skip


def test_a_cell_that_runs_again_replaces_its_turn_and_sees_what_stood_before_it(
    notebook: Kernel, server: ModelServer
) -> None:
    for cell, text in (("a", "one"), ("b", "two"), ("c", "three")):
        notebook.run(f"%chat {text}", cell)
    notebook.run("%chat TWO", "b")
    assert server.contents() == ["one", "Heard: one", "TWO"]
    notebook.run("%chat four", "d")
    assert server.contents() == [
        "one", "Heard: one", "TWO", "Heard: TWO", "three", "Heard: three", "four",
    ]  # fmt: skip


def test_running_all_again_sends_the_same_requests(notebook: Kernel, server: ModelServer) -> None:
    cells = [("a", "%chat one"), ("b", "for n in range(2):\n    %chat n?\n"), ("c", "%chat three")]
    for cell, code in cells * 2:
        notebook.run(code, cell)
    sent = [chat["messages"] for chat in server.chats]
    assert len(sent) == 8
    assert sent[:4] == sent[4:]


def test_without_a_cell_id_turns_are_appended(notebook: Kernel, server: ModelServer) -> None:
    for _ in range(3):
        notebook.run("%chat same")
    assert server.contents() == ["same", "Heard: same", "same", "Heard: same", "same"]


def test_three_questions_in_a_loop_are_three_turns_and_three_whole_outputs(
    notebook: Kernel, server: ModelServer
) -> None:
    loop = "for n in range(3):\n    print('before', n)\n    %chat -o r next?\n    print('after', n)"
    long = [f"Answer {n}. " + "word " * 1200 for n in range(3)]
    for _ in range(2):
        server.next(*(answer(*(text[i : i + 500] for i in range(0, len(text), 500))) for text in long))
        ran = notebook.run(loop, "loop")
        assert ran.texts == long
        assert [o["data"]["text/markdown"] for o in ran.answers] == long
        assert kinds(ran.outputs) == ["stdout", "answer", "footer"] * 3 + ["stdout"]
        assert ran.printed.splitlines() == [f"{word} {n}" for n in range(3) for word in ("before", "after")]
    notebook.run("%chat then?", "after")
    assert server.contents() == [part for text in long for part in ("next?", text)] + ["then?"]


def test_a_failed_turn_never_enters_the_context(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    server.next(reply({"error": {"message": "no", "type": "server_error"}}, 500), sse(delta("half an ans")))
    assert notebook.run("%chat refused", "b").status == "error"
    assert notebook.run("%chat broken off", "c").status == "error"
    notebook.run("%chat four", "d")
    assert server.contents() == ["one", "Heard: one", "four"]


def test_a_cell_that_failed_and_runs_again_stands_where_it_stood(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    server.next(reply({"error": {"message": "no"}}, 500))
    notebook.run("%chat two", "b")
    notebook.run("%chat three", "c")
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", "Heard: one", "two"]
    notebook.run("%chat four", "d")
    assert server.contents()[2:] == ["two", "Heard: two", "three", "Heard: three", "four"]


def test_an_interrupted_turn_enters_the_context_marked(notebook: Kernel, server: ModelServer) -> None:
    server.next(endless("tick "))
    ran = notebook.start("%chat one", "a")
    notebook.until(ran, lambda ran: any("tick tick" in text for _, text in ran.shown()))
    notebook.interrupt()
    partial = notebook.finish(ran).texts[0]
    assert partial.startswith("tick tick")
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", partial + INTERRUPTED_MARK, "two"]
    notebook.run("%chat one", "a")
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_thinking_is_not_sent_back(notebook: Kernel, server: ModelServer) -> None:
    server.next(sse(delta(reasoning_content="secret thought"), delta("Yes."), finish()))
    notebook.run("%chat one", "a")
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", "Yes.", "two"]


def test_a_system_text_holds_from_its_turn_on(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    notebook.run("%chat --system 'Be brief.' two", "b")
    notebook.run("%chat three", "c")
    notebook.run("%chat one", "a")
    systems = [[m["content"] for m in chat["messages"] if m["role"] == "system"] for chat in server.chats]
    assert systems == [[], ["Be brief."], ["Be brief."], []]


def test_again_keeps_both_answers_and_the_new_one_counts(notebook: Kernel, server: ModelServer) -> None:
    server.next(answer("first"), answer("second"))
    notebook.run("%chat one", "a")
    ran = notebook.run("%llm again -m local/other-model -t 1", "b")
    assert ran.texts == ["second"]
    assert (server.chats[-1]["model"], server.chats[-1]["temperature"]) == ("other-model", 1.0)
    assert server.contents() == ["one"]
    notebook.run("%chat two", "c")
    assert server.chats[-1]["model"] == "m"
    assert server.contents() == ["one", "second", "two"]
    kept = "[a.response.text for a in get_ipython().magics_manager.magics['line']['chat'].__self__.kernel.factory.sessions.current.turns[0].answers]"
    assert notebook.value(kept) == ["first", "second"]


def test_again_that_fails_leaves_the_first_answer(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    server.next(reply({"error": {"message": "no"}}, 500))
    assert notebook.run("%llm again", "b").status == "error"
    notebook.run("%chat two", "c")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_again_asks_the_question_that_failed_as_it_was_asked(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    server.next(reply({"error": {"message": "no"}}, 400))
    notebook.run("%chat -m local/other-model -t 0.5 --max-tokens 9 --system 'Be brief.' two", "b")
    refused = server.chats[-1]
    server.next(answer("2"))
    assert notebook.run("%llm again", "c").texts == ["2"]
    assert server.chats[-1] == refused
    assert server.contents() == ["Be brief.", "one", "Heard: one", "two"]
    notebook.run("%llm again -t 1", "c")
    assert (server.chats[-1]["temperature"], server.chats[-1]["max_tokens"]) == (1.0, 9)
    notebook.run("%chat three", "d")
    assert server.contents()[1:] == ["one", "Heard: one", "two", "Heard: two", "three"]


def test_again_with_nothing_to_ask_says_so(notebook: Kernel) -> None:
    ran = notebook.run("%llm again")
    assert ran.error == ["SessionError: there is no turn to ask again", "Ask something first: %chat your question"]


@pytest.mark.parametrize("cell_id", [None, "a"])
def test_reset_begins_anew_and_keeps_the_model(notebook: Kernel, server: ModelServer, cell_id: str | None) -> None:
    notebook.run("%llm use local/other-model")
    notebook.run("%chat one", cell_id)
    notebook.run("%llm reset")
    notebook.run("%chat two", cell_id)
    assert server.contents() == ["two"]
    assert server.chats[-1]["model"] == "other-model"
    notebook.run("%llm use local/m")
