"""Any turn and any conversation whatever, halves of surrogate pairs in their texts among them."""

from __future__ import annotations

from hypothesis import strategies as st

from llm_jupyter.store import AnswerRecord, Filled, SessionConfig, SessionRecord, TurnRecord, TurnState
from llm_jupyter.types import FinishReason, Image, LLMResponse, Message, Role, Timing, ToolCall, Usage

any_text = st.text(st.characters(exclude_categories=()), max_size=12)
some_text = st.none() | any_text
number = st.floats(allow_nan=False, allow_infinity=False)
images = st.builds(Image, st.binary(max_size=20), any_text)
calls = st.builds(ToolCall, any_text, any_text, any_text)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | number | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)
prompts = st.builds(
    Message,
    role=st.sampled_from(Role),
    content=any_text,
    images=st.lists(images, max_size=2).map(tuple),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=some_text,
    name=some_text,
)
responses = st.builds(
    LLMResponse,
    text=any_text,
    thinking=any_text,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    finish_reason=st.sampled_from(FinishReason),
    usage=st.builds(Usage, *[st.none() | st.integers()] * 4),
    timing=st.builds(Timing, *[st.none() | number] * 5),
    model=any_text,
    provider=any_text,
    is_local=st.booleans(),
    from_cache=st.booleans(),
    tried=st.lists(any_text, max_size=2).map(tuple),
)
answers = st.lists(st.tuples(responses, number, st.booleans()), max_size=3).map(
    lambda found: tuple(
        AnswerRecord(number=count, response=response, created=created, is_whole=is_whole)
        for count, (response, created, is_whole) in enumerate(found, 1)
    )
)
turns = st.builds(
    TurnRecord,
    id=any_text,
    session=any_text,
    slot=any_text,
    version=st.integers(-5, 5),
    position=number,
    cell=some_text,
    notebook=some_text,
    client=some_text,
    execution=some_text,
    prompt=prompts,
    system=some_text,
    state=st.sampled_from(TurnState),
    created=number,
    is_current=st.booleans(),
    left_out=any_text,
    was_saved=st.booleans(),
    stamp=any_text,
    under=any_text,
    filled=st.lists(st.builds(Filled, any_text, any_text), max_size=2).map(tuple),
    template=some_text,
    answers=answers,
)
configs = st.builds(
    SessionConfig,
    model=some_text,
    system=some_text,
    options=st.dictionaries(any_text, plain, max_size=3),
    context=some_text,
)
sessions = st.builds(
    SessionRecord,
    id=any_text,
    name=some_text,
    created=number,
    updated=number,
    kernel=some_text,
    notebook=some_text,
    parent=some_text,
    holder=some_text,
    config=configs,
)
