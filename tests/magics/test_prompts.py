"""What is typed, through a real kernel, to the request that the server receives."""

from __future__ import annotations

from typing import Any

import pytest
from kernels import Kernel, kinds
from servers.paced import ModelServer
from servers.scripted import answer

from llm_jupyter.magics.args import COMPLETION, MEMORYLESS, OPTIONS


@pytest.mark.parametrize(
    ("cell", "prompt"),
    [
        ("%chat what is a monad?", "what is a monad?"),
        ("%chat what's up", "what's up"),
        ("%chat -t 0 {nope} $HOME", "{nope} $HOME"),
        ('%chat say "hi" \\n ?', 'say "hi" \\n ?'),
        ("x = 1\nfor _ in range(1):\n    %chat a?", "a?"),
        ("%%chat\nwhat's\n\n  {this} $HOME?\n", "what's\n\n  {this} $HOME?"),
        ("%%chat -t 0\n>>> 1 + 1\n2", ">>> 1 + 1\n2"),
        ("%%llm\nwhat's {this}?", "what's {this}?"),
        ("%chat -- --not an option", "--not an option"),
    ],
)
def test_a_prompt_arrives_as_typed(notebook: Kernel, server: ModelServer, cell: str, prompt: str) -> None:
    ran = notebook.run(cell)
    assert ran.status == "ok", ran.error
    assert [chat["messages"] for chat in server.chats] == [[{"role": "user", "content": prompt}]]
    assert ran.texts == [f"Heard: {prompt}"]


def test_a_question_inside_a_string_asks_nobody(notebook: Kernel, server: ModelServer) -> None:
    ran = notebook.run('x = """\n%chat a?\n"""\nprint(x)')
    assert ran.printed == "\n%chat a?\n\n"
    assert server.chats == []


@pytest.mark.parametrize("magic", ["%chat", "%%chat", "%llm", "%%llm"])
def test_a_question_mark_alone_is_help_with_every_option(notebook: Kernel, server: ModelServer, magic: str) -> None:
    ran = notebook.run(f"{magic}?")
    (page,) = [entry for entry in ran.reply["payload"] if entry["source"] == "page"]
    text = page["data"]["text/plain"]
    for option in (*MEMORYLESS, COMPLETION) if "llm" in magic else OPTIONS:
        assert ", ".join(option.flags) in text
        assert option.help in text
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ("-t 0.5", {"temperature": 0.5}),
        ("--temperature=0", {"temperature": 0.0}),
        ("--max-tokens 7", {"max_tokens": 7}),
        ("--top-p 0.25", {"top_p": 0.25}),
        ("--seed 42", {"seed": 42}),
        ("--stop END --stop '\\n\\n'", {"stop": ["END", "\n\n"]}),
        ("--option top_k=5 --option 'grammar=root ::= x'", {"top_k": 5, "grammar": "root ::= x"}),
        ("-m local/other-model", {"model": "other-model"}),
        ("-m other-model", {"model": "other-model"}),
    ],
)
@pytest.mark.parametrize("form", ["%chat {} hi", "%%chat {}\nhi", "%%llm {}\nhi"])
def test_an_option_reaches_the_request(
    notebook: Kernel, server: ModelServer, options: str, fields: dict[str, Any], form: str
) -> None:
    ran = notebook.run(form.format(options))
    assert ran.status == "ok", ran.error
    (chat,) = server.chats
    assert {name: chat.get(name) for name in fields} == fields
    assert chat["messages"] == [{"role": "user", "content": "hi"}]


def test_thinking_is_asked_for_and_left_out(notebook: Kernel, server: ModelServer) -> None:
    for line in ("%chat --think --no-history hi", "%chat --no-think --no-history hi", "%chat --no-history hi"):
        assert notebook.run(line).status == "ok"
    on, off, unsaid = server.chats
    assert on != off != unsaid != on
    assert on["messages"] == off["messages"] == unsaid["messages"]


def test_a_system_text_stands_first(notebook: Kernel, server: ModelServer) -> None:
    assert notebook.run("%chat --system 'Speak French.' hi").status == "ok"
    assert server.chats[0]["messages"] == [
        {"role": "system", "content": "Speak French."},
        {"role": "user", "content": "hi"},
    ]


def test_the_answer_is_kept_in_a_variable(notebook: Kernel, server: ModelServer) -> None:
    server.next(answer("Hel", "lo"))
    assert notebook.run("%chat -o kept hi").texts == ["Hello"]
    assert notebook.value("(type(kept).__name__, kept.text, kept.provider, kept.model, str(kept.finish_reason))") == (
        "LLMResponse", "Hello", "local", "m", "stop",
    )  # fmt: skip


def test_quiet_shows_nothing_and_keeps_the_turn(notebook: Kernel, server: ModelServer) -> None:
    ran = notebook.run("%chat -q -o kept hi")
    assert (ran.status, ran.outputs, [kind for _, kind, _ in ran.messages]) == ("ok", [], ["execute_input"])
    assert notebook.value("kept.text") == "Heard: hi"
    notebook.run("%chat and?")
    assert server.contents() == ["hi", "Heard: hi", "and?"]


def test_no_history_neither_sees_nor_joins_the_conversation(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    notebook.run("%chat --no-history aside")
    notebook.run("%%llm\nanother aside")
    notebook.run("%chat two")
    assert [server.contents(n) for n in range(4)] == [
        ["one"], ["aside"], ["another aside"], ["one", "Heard: one", "two"],
    ]  # fmt: skip


def test_a_completion_continues_raw_text(notebook: Kernel, server: ModelServer) -> None:
    ran = notebook.run("%%llm --completion --max-tokens 3\nOnce upon")
    assert ran.texts == ["continued"]
    (body,) = server.asked("/v1/completions")
    assert (body["prompt"], body["max_tokens"]) == ("Once upon", 3)
    assert server.chats == []


@pytest.mark.parametrize(
    ("cell", "kind", "said"),
    [
        ("%chat --temprature 0 hi", "InvalidInputError", "Did you mean --temperature?"),
        ("%chat --max-tokens none hi", "InvalidInputError", "it must be a whole number"),
        ("%chat -m", "InvalidInputError", "-m needs a value"),
        ("%chat", "InvalidInputError", "%chat? for help"),
        ("%chat -t 0", "InvalidInputError", "there is nothing to ask"),
        ("%%chat\n  \n", "InvalidInputError", "there is nothing to ask"),
        ("%%chat local/m\nhi", "InvalidInputError", "Did you mean -m local/m?"),
        ("%%llm --completion --system x\nhi", "InvalidInputError", "knows no --system"),
        ("%chat -m local/other-modle hi", "ModelNotFoundError", "Did you mean local/other-model?"),
        ("%chat -m othermodel hi", "ModelNotFoundError", "Did you mean local/other-model"),
        ("%chat -m lokal/m hi", "ModelNotFoundError", "local/m"),
    ],
)
def test_what_cannot_be_meant_is_said_in_few_lines(
    notebook: Kernel, server: ModelServer, cell: str, kind: str, said: str
) -> None:
    ran = notebook.run(cell)
    assert ran.status == "error"
    assert kinds(ran.outputs) == ["error"]
    assert 1 <= len(ran.error) <= 3
    assert ran.error[0].startswith(f"{kind}: ")
    assert said in "\n".join(ran.error)
    assert server.chats == []
