"""`%llm session`, `%llm history`, `%llm reset` and `%%chat -s`, in real kernels: what is said, and what is then sent."""

from __future__ import annotations

import re

import pytest
from commanding import answered, said, turns
from kernels import Kernel
from servers.paced import ModelServer
from test_completion import matches

from llm_jupyter.magics.sessions import VERBS

# -- names


@pytest.mark.parametrize("written", ["my talk", '"my talk"', "'my talk'"])
def test_a_conversation_with_a_name_is_left_and_taken_up_again(
    notebook: Kernel, server: ModelServer, written: str
) -> None:
    notebook.run("%chat one")
    name = f"{len(written)} {written.strip(chr(34) + chr(39))}"
    quoted = written.replace("my talk", name)
    assert said(notebook, f"%llm session name {quoted}") == f"This conversation is called {name}.\n"
    assert f"%llm session use {name} returns to the old one" in said(notebook, "%llm reset")
    notebook.run("%chat aside")
    assert server.contents() == ["aside"]
    assert said(notebook, f"%llm session use {quoted}").startswith(f"Resumed 1 turn of {name}")
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]
    current = next(line for line in said(notebook, "%llm session list").splitlines() if line.startswith("→"))
    assert name in current
    assert name in said(notebook, "%llm session")
    said(notebook, f"%llm session delete --yes {name}")


@pytest.mark.parametrize("verb", ["name", "new", "fork"])
def test_a_name_that_is_taken_is_refused_and_nothing_is_lost(notebook: Kernel, server: ModelServer, verb: str) -> None:
    notebook.run(f"%chat -s 'taken by {verb}' hello")
    notebook.run("%chat one")
    ran = notebook.run(f"%llm session {verb} taken by {verb}")
    assert ran.error[0] == f"SessionError: there is a conversation 'taken by {verb}' already"
    assert len(ran.error) == 2
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_a_conversation_is_begun_with_a_name(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    assert said(notebook, "%llm session new fresh one").endswith("It is called fresh one.\n")
    notebook.run("%chat two")
    assert server.contents() == ["two"]


def test_a_cell_that_runs_again_begins_a_conversation_once_and_goes_on_with_it(
    notebook: Kernel, server: ModelServer
) -> None:
    for place in ("--new the project", "the project --new"):
        line = said(notebook, f"%llm session use {place}", "begin")
        assert line.endswith("It is called the project.\n" if place.startswith("--new") else "This is the project.\n")
        notebook.run("%chat one", "one")
        assert server.contents() == ["one"]
    notebook.run("%llm reset")
    assert said(notebook, "%llm session use --new the project").startswith("Resumed 1 turn of the project")


def test_a_copy_and_its_original_go_on_apart(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    notebook.run("%llm session name original")
    line = said(notebook, "%llm session fork the copy")
    assert line == "This is the copy, a copy of original; %llm session use original returns to that.\n"
    notebook.run("%chat in the copy")
    assert server.contents() == ["one", "Heard: one", "in the copy"]
    said(notebook, "%llm session use original")
    notebook.run("%chat in the original")
    assert server.contents() == ["one", "Heard: one", "in the original"]
    said(notebook, "%llm session use the copy")
    notebook.run("%chat on")
    assert server.contents() == ["one", "Heard: one", "in the copy", "Heard: in the copy", "on"]


def test_a_copy_that_got_no_name_is_called_after_the_original_as_the_list_shows_both(notebook: Kernel) -> None:
    def names(words: str = "") -> list[str]:
        head, *lines = said(notebook, f"%llm session list {words}").splitlines()
        start, end = head.index("name"), head.index("turns")
        return [line[start:end].strip() for line in lines if not line.startswith("The last")]

    notebook.run("%chat where do\tfish sleep?")
    first = said(notebook, "%llm session fork")
    assert first.startswith("This is where do fish sleep? (copy), a copy of “where do fish sleep?”; %llm session use ")
    second = said(notebook, "%llm session fork")
    assert second == (
        "This is where do fish sleep? (copy 2), a copy of where do fish sleep? (copy); "
        "%llm session use where do fish sleep? (copy) returns to that.\n"
    )
    shown = ["where do fish sleep? (copy 2)", "where do fish sleep? (copy)", "“where do fish sleep?”"]
    assert names()[:3] == shown
    assert names("FISH sleep? (copy") == shown[:2]
    assert said(notebook, "%llm session list whales").startswith('No conversation is called "whales"; ')
    back = re.search(r"%llm session use \w+", first)
    assert back is not None
    assert "Resumed 1 turn of “where do fish sleep?”" in said(notebook, back[0])
    for name in shown[:2]:
        said(notebook, f"%llm session delete --yes {name}")


def test_the_line_of_a_reset_says_how_to_return(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    back = re.search(r"%llm session use \w+", said(notebook, "%llm reset"))
    assert back is not None
    said(notebook, back[0])
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_a_delete_asks_first(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    notebook.run("%llm session name doomed")
    assert notebook.run("%llm session delete doomed").error[1] == "Add --yes to do it without asking."
    question = "Delete doomed with its 1 turn? [y/N] "
    assert answered(notebook, "%llm session delete doomed", "n") == (question, "Nothing was deleted.\n")
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]
    asked, line = answered(notebook, "%llm session delete doomed", "y")
    assert (asked, line) == (
        question.replace("1 turn", "2 turns"),
        "Deleted doomed with its 2 turns. A fresh conversation begins here.\n",
    )
    notebook.run("%chat three")
    assert server.contents() == ["three"]
    assert "doomed" not in said(notebook, "%llm session list")


MEANINGLESS = [
    "%llm session nme x", "%llm session name", "%llm session name a/b", "%llm session use", "%llm session use nobody",
    "%llm session delete", "%llm session delete nobody --yes", "%llm session export talk.pdf",
    "%llm session export /nowhere/talk.md", "%llm session import", "%llm session import nothing.json",
    "%llm session import talk.ipynb", "%llm session resume", "%llm session resume nobody",
    "%llm session resume nothing.ipynb", "%llm session list -n all", "%llm history nobody", "%llm history -n few",
    "%llm history --search", "%llm reset now", "%llm private maybe", "%llm purge", "%llm purge --older 3",
    "%chat -s", "%chat -s a/b hi", "%chat --context some hi", "%chat --dry-rnu hi",
]  # fmt: skip


def test_what_cannot_be_meant_is_said_with_the_next_step_and_loses_nothing(
    notebook: Kernel, server: ModelServer
) -> None:
    notebook.run("%chat one")
    for command in MEANINGLESS:
        ran = notebook.run(command)
        assert (ran.status, len(ran.outputs)) == ("error", 1), command
        assert 1 <= len(ran.error) <= 3, command
        assert all(len(line) <= 160 for line in ran.error), command
        assert len(ran.error) > 1 or "it must be" in ran.error[0], f"{command}: there is no next step"
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]


# -- conversations beside the notebook's own


def test_a_question_in_another_conversation_leaves_this_one_alone(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    began = notebook.run("%%chat -s 'beside it'\nuno")
    assert "This began the conversation beside it" in began.footers[-1]
    again = notebook.run("%%chat -s 'beside it'\ndue")
    assert "began" not in again.footers[-1]
    assert server.contents() == ["uno", "Heard: uno", "due"]
    notebook.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_what_ran_without_asking_is_left_out_of_each_conversation_that_it_was_in(
    notebook: Kernel, server: ModelServer
) -> None:
    notebook.run("%chat one", "a")
    notebook.run("%chat two", "b")
    notebook.run("b = 'retyped to code'", "b")
    notebook.run("%chat -s elsewhere hello", "c")
    notebook.run("%chat three", "d")
    assert server.contents() == ["one", "Heard: one", "three"]


def test_append_adds_a_turn_where_the_cell_would_replace_its_own(notebook: Kernel, server: ModelServer) -> None:
    for _ in range(2):
        notebook.run("%chat --append same", "a")
    assert server.contents() == ["same", "Heard: same", "same"]


# -- history


def test_history_counts_versions_and_marks_what_was_answered_under_an_earlier_one(notebook: Kernel) -> None:
    for cell, text in (("a", "one"), ("b", "two"), ("a", "uno")):
        notebook.run(f"%chat {text}", cell)
    assert list(turns(said(notebook, "%llm history")).values()) == [
        "uno Heard: uno 2",
        "two Heard: two under an earlier version",
    ]
    notebook.run("%chat three", "c")  # which sees what stands there now
    assert list(turns(said(notebook, "%llm history")).values())[2] == "three Heard: three"
    for cell, text in (("b", "two"), ("c", "three")):
        notebook.run(f"%chat {text}", cell)
    assert list(turns(said(notebook, "%llm history")).values()) == [
        "uno Heard: uno 2", "two Heard: two 2", "three Heard: three 2"
    ]  # fmt: skip


def test_an_older_version_is_looked_at_and_brought_back(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one", "a")
    notebook.run("%chat uno", "a")
    (turn,) = turns(said(notebook, "%llm history"))
    shown = said(notebook, f"%llm history {turn}")
    assert said(notebook, f"%llm history {turn[:6]}") == shown
    assert re.findall(r"^(?:Heard: )?(?:one|uno)$", shown, re.MULTILINE) == ["one", "Heard: one", "uno", "Heard: uno"]
    older = re.search(r"── (\w+), [-\d: ]+, earlier version", shown)
    assert older is not None
    assert said(notebook, f"%llm history {older[1]} restore").startswith(f"{older[1]} counts again: one")
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", "Heard: one", "two"]
    assert said(notebook, f"%llm history {older[1]} restore") == f"{older[1]} counts already.\n"


def test_a_turn_that_was_left_out_is_brought_back_and_it_is_said_until_when(
    notebook: Kernel, server: ModelServer
) -> None:
    notebook.run("%chat one", "a")
    notebook.run("1 + 1", "a")
    (turn,) = turns(said(notebook, "%llm history"))
    first, second = said(notebook, f"%llm history {turn} restore").splitlines()
    assert first == f"{turn} counts again: one"
    assert second == (
        "It was left out, as its cell last ran without asking; now what comes after it sees it, until that asks again."
    )
    notebook.run("%chat two", "b")
    assert server.contents() == ["one", "Heard: one", "two"]


def test_a_long_history_is_short_to_look_at(notebook: Kernel) -> None:
    notebook.run("%%chat\n" + "a very long question\n" * 500, "a")
    notebook.run("%chat brief", "b")
    printed = said(notebook, "%llm history")
    assert "a very long question a very…" in printed
    assert max(map(len, printed.splitlines())) <= 120
    last = said(notebook, "%llm history -n 1")
    assert next(iter(turns(last).values())) == "brief Heard: brief"
    assert "The last 1 of 2 turns; -n N shows more." in last


def test_a_search_finds_the_words_of_older_versions_in_all_conversations(notebook: Kernel) -> None:
    notebook.run("%chat a marmot whistles", "a")
    notebook.run("%chat a chamois whistles", "a")
    notebook.run("%llm session name animals")
    notebook.run("%llm reset")
    found = said(notebook, "%llm history --search marmot whis")
    assert re.search(r"^animals +\w+ +.*marmot whistles.* earlier version$", found, re.MULTILINE)
    assert said(notebook, "%llm history --search dodo") == "Nothing that is kept has 'dodo' in it.\n"


# -- nothing to do


def test_a_conversation_in_which_nothing_was_asked_is_not_written(notebook: Kernel) -> None:
    ran = notebook.run("%llm session export empty.md")
    assert ran.error == ["SessionError: nothing was asked in it yet, so nothing was written", "%chat your question"]
    assert not (notebook.home / "empty.md").exists()


@pytest.mark.parametrize("sure", ["", " --yes"])
def test_a_purge_of_nothing_says_so_and_asks_nobody(notebook: Kernel, sure: str) -> None:
    notebook.run("%chat one")
    assert said(notebook, f"%llm purge --older 30d{sure}").startswith("Nothing is that old")


def test_a_look_at_a_fresh_conversation_says_nothing_that_sounds_like_a_fault(notebook: Kernel) -> None:
    text = said(notebook, "%llm session")
    assert re.search(r"^when too long +the oldest turns are left out$", text, re.MULTILINE)


# -- completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%llm session ", [*VERBS]), ("%llm session ex", ["export"]), ("%llm private ", ["on", "off"]),
        ("%llm history --", ["--search"]), ("%llm purge --o", ["--older"]), ("%%chat --context ", ["above", "last", "none"]),
        ("%%chat --save", ["--save-prompt"]), ("%%chat --context=l", ["last"]),
    ],
)  # fmt: skip
def test_verbs_options_and_values_are_completed(notebook: Kernel, typed: str, offered: list[str]) -> None:
    assert matches(notebook, typed) == sorted(offered)


def test_a_conversation_is_deleted_by_who_says_yes_at_the_end(notebook: Kernel) -> None:
    notebook.run("%chat -s other one", "a")
    assert said(notebook, "%llm last").startswith("model")
    assert said(notebook, "%llm session delete other --yes").startswith("Deleted other with its 1 turn.")
