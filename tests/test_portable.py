"""Conversations as files: Markdown that stays whole whatever was said, and JSON that brings everything back."""

from __future__ import annotations

import json
from typing import Any

import mistune
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.portable import as_json, as_markdown, from_json
from llm_jupyter.store.records import AnswerRecord, Filled, SessionConfig, SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import FinishReason, Image, LLMResponse, Message, Timing, ToolCall, Usage

SESSION = SessionRecord(id="s1", name="Prime numbers", created=1767225600.0, updated=1767225700.0)


def response(text: str, **more: Any) -> LLMResponse:
    return LLMResponse(text=text, **{"model": "m", "provider": "p", **more})


def turn(number: int, prompt: str | Message, *answers: LLMResponse, **more: Any) -> TurnRecord:
    """The turn with this number, one place after the one before."""
    records = tuple(AnswerRecord(number=n, response=r, created=1.0, is_whole=True) for n, r in enumerate(answers, 1))
    fields = {"id": f"t{number}", "slot": f"slot{number}", "position": float(number), **more}
    message = Message.user(prompt) if isinstance(prompt, str) else prompt
    return TurnRecord(session="s1", prompt=message, created=1.0, state=TurnState.COMPLETE, answers=records, **fields)


def test_a_conversation_reads_like_one() -> None:
    picture = Message.user("What is this?", [Image(b"x" * 12_345)])
    session = SessionRecord(
        id="s1", name="Two\nlines", created=0.0, updated=0.0, config=SessionConfig(system="Be\nbrief.")
    )
    turns = [
        turn(2, picture, response("A *picture*.", thinking="Hm.\n\nYes.", finish_reason=FinishReason.INTERRUPTED)),
        turn(1, "Hello", response("first"), response("again", model="other"), system="Be kind."),
        turn(3, "No luck"),
        turn(4, "Old version", response("gone"), slot="slot1", is_current=False),
        turn(5, "Its cell is gone", response("gone"), left_out="gone"),
        turn(6, "Use it", response("", tool_calls=(ToolCall("1", "add", '{"a": 1}'),))),
    ]
    assert (
        as_markdown(session, turns)
        == """# Two lines

*1970-01-01 00:00 UTC*

> Be
> brief.

> Be kind.

**You**

Hello

**p/other**

again

**You**

What is this?

*(image/png, 12.3 kB)*

**p/m**

<details><summary>Thinking</summary>

> Hm.
>
> Yes.

</details>

A *picture*.

*The answer was interrupted here.*

**You**

No luck

*There is no answer.*

**You**

Use it

**p/m**

> The model asks for add({"a": 1})
"""
    )


def test_a_conversation_without_turns_name_or_date_is_still_a_file() -> None:
    assert as_markdown(SessionRecord(id="s", created=1e300, updated=0.0), []) == "# Conversation\n"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("```python\nx < y\n<b>", "```python\nx < y\n<b>\n```"),
        ("````\n```\nx", "````\n```\nx\n````"),
        ("~~~\n```", "~~~\n```\n~~~"),
        ("```\nx\n  ```\ny", "```\nx\n  ```\ny"),
        ("```not a fence``` x", "```not a fence``` x"),
        ("- a\n  ```\n  b\nc", "> - a\n>   ```\n>   b\n> c"),
        ("> ```\n> x", "> > ```\n> > x"),
        ("a <!-- b <div> 1 < 2 <https://x.org>", "a <\u200b!-- b <\u200bdiv> 1 < 2 <https://x.org>"),
        ("![x](http://x.org/y.png)", "!\u200b[x](http://x.org/y.png)"),
        ("half \ud83d", "half ?"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
    ],
)
def test_what_was_said_stays_within_its_place(said: str, written: str) -> None:
    assert (
        as_markdown(SESSION, [turn(1, said, response("."))]).split("**You**\n\n")[1].split("\n\n**p/m**")[0] == written
    )


pieces = st.sampled_from(
    ["```", "````", "~~~", "```python", "  ```", "   ~~~~", "    ```", "- ```", "1. a", "  b", "> c", "> ~~~", "", "", "- d",
     "<details>", "<!--", "<script>", "<pre>", "</details>", "text", "    code", "`", "$$", "# title", "---", "===", "| a | b |",
     "|---|---|", "[x]: y", "<https://a.org>", "\t```", "``` `x`", "-->", "&lt;", "\\"]
)  # fmt: skip
nasty = st.lists(pieces, max_size=8).map("\n".join)


@settings(max_examples=400)
@given(st.lists(st.tuples(nasty, nasty, nasty), min_size=1, max_size=3), nasty)
def test_no_text_swallows_what_follows_it(spoken: list[tuple[str, str, str]], system: str) -> None:
    turns = [
        turn(n, prompt, response(text or "a", thinking=thinking)) for n, (prompt, thinking, text) in enumerate(spoken)
    ]
    session = SessionRecord(id="s1", name="N", created=0.0, updated=0.0, config=SessionConfig(system=system))
    blocks = mistune.create_markdown(renderer=None)(as_markdown(session, turns))
    assert isinstance(blocks, list)
    speakers = [
        block["children"][0]["children"][0]["raw"]
        for block in blocks
        if block["type"] == "paragraph" and [child["type"] for child in block["children"]] == ["strong"]
    ]
    assert speakers == ["You", "p/m"] * len(turns)
    assert all(
        "<details><summary>" in b["raw"] or "</details>" in b["raw"] for b in blocks if b["type"] == "block_html"
    )


any_text = st.text() | st.text(
    st.characters()
).map(  # half characters too, where they do not happen to make up a whole one
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
names = st.none() | any_text
moments = st.floats(allow_nan=False, allow_infinity=False)
counts = st.none() | st.integers(0, 2**40)
calls = st.lists(st.builds(ToolCall, any_text, any_text, any_text), max_size=2).map(tuple)
images = st.lists(st.builds(Image, st.binary(), any_text), max_size=2).map(tuple)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | moments | any_text, lambda inner: st.lists(inner), max_leaves=3
)
responses = st.builds(
    LLMResponse, text=any_text, thinking=any_text, tool_calls=calls, finish_reason=st.sampled_from(FinishReason),
    usage=st.builds(Usage, counts, counts), timing=st.builds(Timing, moments), model=any_text, provider=any_text,
    is_local=st.booleans(), from_cache=st.booleans(), tried=st.lists(any_text, max_size=2).map(tuple),
)  # fmt: skip
configs = st.builds(
    SessionConfig, model=names, system=names, options=st.dictionaries(any_text, plain, max_size=3), context=names
)
sessions = st.builds(
    SessionRecord, id=any_text, name=names, created=moments, updated=moments, kernel=names, notebook=names, parent=names,
    holder=names, config=configs, turns=st.integers(0, 100),
)  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> tuple[SessionRecord, tuple[TurnRecord, ...]]:
    """A session with turns of one to three versions, one of which counts."""
    session = draw(sessions)
    turns = []
    for slot in range(draw(st.integers(0, 3))):
        versions = draw(st.integers(1, 3))
        current = draw(st.integers(1, versions))
        for version in range(1, versions + 1):
            answers = draw(st.lists(st.tuples(responses, moments, st.booleans()), max_size=2))
            turns.append(
                TurnRecord(
                    id=f"{slot}.{version}", session=session.id, slot=str(slot), version=version, position=draw(moments),
                    cell=draw(names), client=draw(names), execution=draw(names), system=draw(names), created=draw(moments),
                    prompt=Message.user(draw(any_text), draw(images)), state=draw(st.sampled_from(TurnState)),
                    is_current=version == current, left_out=draw(any_text), was_saved=draw(st.booleans()),
                    stamp=draw(any_text), under=draw(any_text), template=draw(names),
                    filled=tuple(draw(st.lists(st.builds(Filled, name=any_text, size=any_text), max_size=2))),
                    answers=tuple(
                        AnswerRecord(number=n, response=answer, created=at, is_whole=is_whole)
                        for n, (answer, at, is_whole) in enumerate(answers, 1)
                    ),
                )
            )  # fmt: skip
    return session, tuple(turns)


@given(conversations())
def test_what_was_exported_comes_back_whole(conversation: tuple[SessionRecord, tuple[TurnRecord, ...]]) -> None:
    session, turns = conversation
    written = as_json(session, turns)
    found, found_turns = from_json(written)
    assert found_turns == turns
    assert (found.kernel, found.notebook, found.holder) == (None, None, None)
    same = ("id", "name", "created", "updated", "parent", "config", "turns")
    assert [getattr(found, name) for name in same] == [getattr(session, name) for name in same]
    assert as_json(found, found_turns) == written
    as_markdown(session, turns).encode()


def test_an_export_says_nothing_of_the_machine_that_it_comes_from() -> None:
    session = SessionRecord(
        id="s1",
        created=0.0,
        updated=0.0,
        kernel="kernel-1",
        notebook="/home/ann/n.ipynb",
        holder="host.12.34",
        name="näme",
    )
    written = as_json(session, [turn(1, "Hello", response("hi"))]).decode()
    assert not [word for word in ("kernel-1", "/home/ann", "host.12.34") if word in written]
    assert '"name": "näme"' in written
    assert json.loads(written)["format"] == "llm_jupyter.session"
    assert json.loads(written)["version"] == 1


GOOD: dict[str, Any] = json.loads(as_json(SESSION, [turn(1, "a", response("b"))]))
TURN: dict[str, Any] = GOOD["turns"][0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (as_json(SESSION, [turn(1, "a")])[:-20], "cut off"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "no exported conversation"),
        ({"nbformat": 4, "cells": []}, "no exported conversation"),
        ({**GOOD, "version": 2}, "newer llm_jupyter"),
        ({**GOOD, "version": "1"}, "damaged"),
        ({**GOOD, "session": {}}, "damaged"),
        ({**GOOD, "turns": [{**TURN, "state": "odd"}]}, "damaged"),
        ({**GOOD, "turns": [TURN, TURN]}, "twice"),
        ({**GOOD, "turns": [TURN, {**TURN, "id": "t2"}]}, "two versions"),
        ({**GOOD, "turns": [{**TURN, "session": "s2"}]}, "another conversation"),
    ],
)
def test_a_file_that_is_damaged_or_none_of_ours_is_told_in_one_line(content: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        from_json(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert len(caught.value.lines()) == 1


def test_a_field_that_a_later_version_adds_is_passed_over() -> None:
    content = {**GOOD, "new": 1, "turns": [{**TURN, "new": 1}]}
    assert from_json(json.dumps(content).encode()) == (SESSION, (turn(1, "a", response("b")),))


@given(
    st.binary()
    | st.sampled_from(list(GOOD)).flatmap(lambda key: st.text().map(lambda v: json.dumps({**GOOD, key: v}).encode()))
)
def test_no_content_raises_anything_but_an_error_of_one_line(content: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        from_json(content)
    assert len(caught.value.lines()) == 1
