"""The key of a question: the same for what means the same, another for anything else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.cache import Request, Who, key
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import GenerationOptions, Image, Message, Role, ToolCall, ToolDefinition

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8)
objects = st.dictionaries(texts, values, max_size=4)
messages = st.builds(
    Message,
    st.sampled_from(Role),
    texts,
    st.lists(st.builds(Image, st.binary(max_size=4), st.sampled_from(["image/png", "image/jpeg"])), max_size=2).map(
        tuple
    ),
    st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
    st.none() | texts,
    st.none() | texts,
)
options = st.builds(
    GenerationOptions,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 100),
    top_p=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, 9),
    stop=st.lists(texts, max_size=2).map(tuple),
    think=st.none() | st.booleans(),
    timeout=st.none() | st.floats(1, 9),
    tools=st.lists(st.builds(ToolDefinition, texts, texts, objects), max_size=2).map(tuple),
    tool_choice=st.none() | texts,
    json_schema=st.none() | objects,
    extra=objects,
)
conversations = st.lists(messages, min_size=1, max_size=3)


def shuffled(value: Any, chance: random.Random) -> Any:
    """An equal value whose dictionaries were filled in another order."""
    if isinstance(value, dict):
        entries = [(name, shuffled(entry, chance)) for name, entry in value.items()]
        chance.shuffle(entries)
        return dict(entries)
    if isinstance(value, list):
        return [shuffled(entry, chance) for entry in value]
    return value


@given(conversations, options, st.booleans())
def test_equal_questions_have_equal_keys(
    conversation: list[Message], given_options: GenerationOptions, raw: bool
) -> None:
    copies = [msgspec.convert(msgspec.to_builtins(message), Message) for message in conversation]
    copy = msgspec.convert(msgspec.to_builtins(given_options), GenerationOptions)
    one = Request.of(conversation, given_options, completion=raw)
    assert one == Request.of(copies, copy, completion=raw)
    assert one.digest == Request.of(copies, copy, completion=raw).digest


@given(options, st.randoms())
def test_the_order_in_which_a_dictionary_was_filled_does_not_matter(
    given_options: GenerationOptions, chance: random.Random
) -> None:
    other = msgspec.structs.replace(
        given_options,
        extra=shuffled(given_options.extra, chance),
        json_schema=shuffled(given_options.json_schema, chance),
        tools=tuple(
            msgspec.structs.replace(tool, parameters=shuffled(tool.parameters, chance)) for tool in given_options.tools
        ),
    )
    prompt = [Message.user("hi")]
    assert Request.of(prompt, given_options).digest == Request.of(prompt, other).digest


@given(conversations, options, options)
def test_another_option_is_another_key_except_for_the_time_limit(
    conversation: list[Message], one: GenerationOptions, other: GenerationOptions
) -> None:
    other = msgspec.structs.replace(other, timeout=one.timeout)
    for field in one.__struct_fields__:
        changed = msgspec.structs.replace(one, **{field: getattr(other, field)})
        same = as_json(getattr(changed, field)) == as_json(getattr(one, field))
        assert (Request.of(conversation, changed).digest == Request.of(conversation, one).digest) == same
    timed = msgspec.structs.replace(one, timeout=4711.0)
    assert Request.of(conversation, timed).digest == Request.of(conversation, one).digest


@given(messages, messages)
def test_another_field_of_a_message_is_another_key(one: Message, other: Message) -> None:
    for field in one.__struct_fields__:
        changed = msgspec.structs.replace(one, **{field: getattr(other, field)})
        same = getattr(one, field) == getattr(other, field)
        assert (digest(changed) == digest(one)) == same


@given(conversations, options)
def test_a_question_is_the_same_after_it_was_written_down(
    conversation: list[Message], given_options: GenerationOptions
) -> None:
    request = Request.of(conversation, given_options)
    assert msgspec.json.decode(msgspec.json.encode(request), type=Request).digest == request.digest


def test_the_key_covers_who_is_asked() -> None:
    request = Request.of([Message.user("hi")], GenerationOptions())
    who = Who("ollama", "m")
    others = [
        Who("lmstudio", "m"),
        Who("ollama", "n"),
        Who("ollama", "m", "sha256:1"),
        Who("ollama", "m", settings="1"),
    ]
    assert len({key(request, one) for one in (who, *others)}) == 5
    assert key(request, who) == key(request, Who("ollama", "m"))


def test_each_default_that_is_spelled_out_is_the_default() -> None:
    plain = Request.of([Message.user("hi")], GenerationOptions())
    assert plain.options == {}
    assert plain.messages == [{"role": "user", "content": "hi"}]
    assert digest(Message.user("hi")) == plain.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GenerationOptions(temperature=0), GenerationOptions(temperature=0.0)),
        (GenerationOptions(extra={"top_k": 40}), GenerationOptions(extra={"top_k": 40.0})),
        (GenerationOptions(extra={"a": (1, 2)}), GenerationOptions(extra={"a": [1, 2]})),
    ],
)
def test_what_is_one_number_to_python_is_one_key(one: GenerationOptions, other: GenerationOptions) -> None:
    prompt = [Message.user("hi")]
    assert Request.of(prompt, one).digest == Request.of(prompt, other).digest


def test_yes_is_not_one() -> None:
    prompt = [Message.user("hi")]
    keys = {Request.of(prompt, GenerationOptions(extra={"a": value})).digest for value in (True, 1, "1", "true", None)}
    assert len(keys) == 5


def test_text_to_continue_is_another_question_than_a_message_and_stands_alone() -> None:
    context = [Message.system("be brief"), Message.user("Once upon")]
    raw = Request.of(context, GenerationOptions(), completion=True)
    assert raw.digest == Request.of(context[1:], GenerationOptions(), completion=True).digest
    assert raw.digest != Request.of(context[1:], GenerationOptions()).digest


def test_of_an_image_only_its_digest_is_written_down() -> None:
    data = b"\x89PNG secret pixels"
    request = Request.of([Message.user("what is it?", [Image(data)])], GenerationOptions())
    assert request.messages[0]["images"] == [{"sha256": hashlib.sha256(data).hexdigest(), "media_type": "image/png"}]
    assert b"pixels" not in msgspec.json.encode(request)


def test_halves_of_characters_do_no_harm() -> None:
    request = Request.of([Message.user("a\ud800b")], GenerationOptions(extra={"\udc00": ["\ud83d\ude00"]}))
    assert request.messages[0]["content"] == "a\ufffdb"
    assert msgspec.json.decode(msgspec.json.encode(request), type=Request).digest == request.digest


def test_an_option_that_json_cannot_carry_is_an_error_of_one_line() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (object(), {1, object()}, endless):
        with pytest.raises(InvalidInputError) as caught:
            Request.of([Message.user("hi")], GenerationOptions(extra={"a": value}))
        assert len(caught.value.lines()) == 1


def test_the_key_is_the_same_in_every_process() -> None:
    program = (
        "from llm_jupyter.cache import Request, Who, key\n"
        "from llm_jupyter.types import GenerationOptions, Message, ToolDefinition\n"
        "options = GenerationOptions(temperature=0.5, stop=('a', 'b'), extra={'x': {'c', 'a', 'b'}, 'y': 1},\n"
        "    tools=(ToolDefinition('f', 'd', {'type': 'object', 'required': []}),))\n"
        "print(key(Request.of([Message.system('s'), Message.user('hi')], options), Who('ollama', 'm', 'sha256:0')))\n"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 64


def digest(message: Message) -> str:
    return Request.of([message], GenerationOptions()).digest


def as_json(value: Any) -> Any:
    """What a value is to a server: there the order of names means nothing and yes is not one."""

    def evened(entry: Any) -> Any:
        if isinstance(entry, float) and entry.is_integer() and abs(entry) < 2**53:
            return int(entry)
        if isinstance(entry, list):
            return [evened(one) for one in entry]
        return {name: evened(one) for name, one in entry.items()} if isinstance(entry, dict) else entry

    return json.dumps(evened(msgspec.to_builtins(value)), sort_keys=True)
