from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.args import (
    COMPARED,
    COMPLETION,
    HELP,
    OF_COMMANDS,
    OPTIONS,
    HelpAsked,
    help_lines,
    options_alone,
    parse,
)
from llm_jupyter.magics.completion import COMMANDS, VERBS, offered, verbs
from llm_jupyter.magics.hosts import ACTIONS
from llm_jupyter.magics.llm import COMMANDS as COMMAND_TABLE
from llm_jupyter.magics.sessions import VERBS as SESSION_VERBS
from llm_jupyter.widgets import DASHBOARDS


def chat(line: str) -> tuple[dict[str, Any], str]:
    return parse(line, OPTIONS, "%chat")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("-m local/m", {"model": "local/m"}),
        ("--model=local/m", {"model": "local/m"}),
        ("--system 'be brief, \"please\"'", {"system": 'be brief, "please"'}),
        ('--system "it\'s \\"you\\""', {"system": 'it\'s "you"'}),
        ("--system=''", {"system": ""}),
        ("-t 0", {"temperature": 0.0}),
        ("--temperature=1.5", {"temperature": 1.5}),
        ("--max-tokens 12", {"max_tokens": 12}),
        ("--top-p .9", {"top_p": 0.9}),
        ("--seed -3", {"seed": -3}),
        ("--stop END --stop '\\n\\n'", {"stop": ["END", "\n\n"]}),
        ("--option top_k=5 --option name=x=y", {"option": [("top_k", 5), ("name", "x=y")]}),
        ("--option 'stops=[\"a\", 1]'", {"option": [("stops", ["a", 1])]}),
        ("--think", {"think": True}),
        ("--no-think", {"think": False}),
        ("--timeout 2.5", {"timeout": 2.5}),
        ("-o answer", {"output": "answer"}),
        ("--output answer", {"output": "answer"}),
        ("-q --no-history", {"quiet": True, "no_history": True}),
    ],
)
def test_leading_options_are_read_and_the_rest_is_the_prompt(line: str, values: dict[str, Any]) -> None:
    assert chat(f"{line} what's {{x}} -t 5?") == (values, "what's {x} -t 5?")
    assert chat(f"  {line}") == (values, "")


@pytest.mark.parametrize(
    "prompt", ["-5 degrees", "- one", "-", "--- ruled", "don't -t 0", "'a' \"b", "$HOME {x} \\n ?"]
)
def test_what_is_no_option_is_prompt_to_the_letter(prompt: str) -> None:
    assert chat(prompt) == ({}, prompt)
    assert chat(f"-t 0 {prompt}") == ({"temperature": 0.0}, prompt)


@pytest.mark.parametrize("prompt", ["-t 0", "--nonsense", "-- twice", "hi"])
def test_after_two_dashes_everything_is_prompt(prompt: str) -> None:
    assert chat(f"-- {prompt}") == ({}, prompt)
    assert chat(f"-q -- {prompt}") == ({"quiet": True}, prompt)
    assert chat("--") == ({}, "")


@pytest.mark.parametrize(
    ("line", "nearest"),
    [("--temprature 0 hi", "--temperature"), ("--maxtokens 5 hi", "--max-tokens"), ("--nohistory hi", "--no-history")],
)
def test_a_near_miss_is_answered_with_the_nearest_option(line: str, nearest: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        chat(line)
    assert f"Did you mean {nearest}?" in caught.value.next_step
    assert len(caught.value.lines()) == 2


def test_an_option_that_resembles_none_is_answered_with_where_they_are_listed() -> None:
    with pytest.raises(InvalidInputError) as caught:
        chat("--zzzzzz hi")
    assert "%chat? lists the options" in caught.value.next_step
    assert "--" in caught.value.next_step


@pytest.mark.parametrize("flag", HELP)
def test_help_is_asked_for_among_the_options_and_not_in_a_prompt(flag: str) -> None:
    for line in (flag, f"-q {flag} hi"):
        with pytest.raises(HelpAsked):
            chat(line)
    assert chat(f"what does ls {flag} say")[0] == {}
    assert chat(f"-- {flag}") == ({}, flag)
    with pytest.raises(HelpAsked):
        options_alone("-m a ?", COMPARED, "%%compare", str)


@pytest.mark.parametrize("magic", ["%%chat", "%llm history", "%%compare -m local/m"])
def test_only_where_a_prompt_may_follow_it_is_said_how_one_begins_with_a_dash(magic: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse("--zzzzzz hi", OPTIONS, magic)
    assert caught.value.next_step == f"{magic.removesuffix(' -m local/m')}? lists the options."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-t hot hi", "-t cannot be 'hot': it must be a number"),
        ("-t -1 hi", "it must be 0 to 10"),
        ("-t nan hi", "it must be 0 to 10"),
        ("--top-p 2 hi", "it must be 0 to 1"),
        ("--max-tokens 0 hi", "it must be 1 or more"),
        ("--max-tokens many hi", "it must be a whole number"),
        ("--seed 1.5 hi", "--seed cannot be '1.5': it must be a whole number"),
        ("--timeout 0 hi", "it must be more than 0"),
        ("--timeout nan hi", "it must be more than 0"),
        ("--timeout inf hi", "it must be more than 0"),
        ("--option alone hi", "write key=value"),
        ("--option =1 hi", "write key=value"),
        ("--option model=other hi", "write -m MODEL"),
        ("--option stream=false hi", "it must be another field than stream"),
        ("-o not-a-name hi", "it must be the name of a variable"),
        ("-q=yes hi", "-q takes no value"),
        ("-m", "-m needs a value"),
        ("--system 'not closed", "the quotation after --system does not end"),
        ('--system "a"b hi', "the quotation after --system does not end"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_do(line: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        chat(line)
    assert said in caught.value.what
    assert caught.value.what.startswith("%chat: ")
    assert len(caught.value.lines()) <= 2


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1))
def test_a_quoted_value_arrives_as_written(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert chat(f'--system "{quoted}" -- x') == ({"system": text}, "x")


@given(st.text(st.characters(exclude_characters="\n\r")))
def test_no_line_makes_the_parser_fail_in_another_way_than_its_own(line: str) -> None:
    try:
        values, rest = chat(line)
    except InvalidInputError as error:
        values, rest = {}, "\n".join(error.lines())
        assert line.lstrip().startswith("-")
        assert rest.count("\n") < 3
    except HelpAsked:
        assert "-h" in line
    else:
        assert line.endswith(rest)
        assert values or rest == line.lstrip() or line.lstrip().startswith("--")


def test_the_help_lists_every_flag_and_every_meaning_once() -> None:
    text = help_lines((*OPTIONS, COMPLETION))
    assert len(text.splitlines()) == len(OPTIONS) + 1
    for option in (*OPTIONS, COMPLETION):
        row = next(line for line in text.splitlines() if option.help in line)
        assert row.split("  ")[1].startswith(", ".join(option.flags))
        assert option.metavar in row


def test_the_commands_that_are_completed_are_those_that_there_are() -> None:
    assert set(COMMANDS) == set(COMMAND_TABLE)
    assert len(COMMANDS) == len(COMMAND_TABLE)
    assert {*VERBS, *OF_COMMANDS} <= {*COMMANDS}
    assert verbs("session") == [*SESSION_VERBS]
    assert verbs("host") == [*ACTIONS]
    assert verbs("dash") == [*DASHBOARDS]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%llm ", [*COMMANDS]),
        ("%llm mo", ["models"]),
        ("  %llm re", ["reset"]),
        ("%chat --t", ["--temperature", "--top-p", "--think", "--timeout"]),
        ("%%chat -t 0 --no-", ["--no-think", "--no-history"]),
        ("%%llm --comp", ["--completion"]),
        ("%chat --comp", []),
        ("%chat hel", []),
        ("models", []),
        ("%llm models ", []),
    ],
)  # fmt: skip
def test_options_and_commands_are_completed(text: str, words: list[str]) -> None:
    fragment, found = offered(text)
    assert found == words
    assert text.endswith(fragment)
    assert all(word.startswith(fragment) for word in found)
