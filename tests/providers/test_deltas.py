"""What the deltas of a stream mean: text, thinking, tool calls, figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec
import pytest
from servers.recorded import chunks_of, response_of, sse
from servers.scripted import DONE, delta, event, finish

from llm_jupyter.providers._openai_wire import ThinkSplitter
from llm_jupyter.types import FinishReason, ToolCall

THOUGHTS = [
    ("<think>so it is</think>\n\nYes.", "so it is", "Yes."),
    ("\n <think>a < b</thin k></think>Yes </think>", "a < b</thin k>", "Yes </think>"),
    ("<think></think>Yes.", "", "Yes."),
    ("<think>never closed </thi", "never closed </thi", ""),
    ("<thinking>is no tag", "", "<thinking>is no tag"),
    ("<thi", "", "<thi"),
    ("  Say <think>this</think> later", "", "  Say <think>this</think> later"),
    ("<think>only thought</think>\n\n", "only thought", ""),
]


def split(pieces: Iterable[str]) -> tuple[str, str]:
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.finish()]
    return "".join(thinking for _, thinking in parts), "".join(text for text, _ in parts)


@pytest.mark.parametrize(("answer", "thinking", "text"), THOUGHTS)
def test_thinking_is_taken_out_the_same_at_every_cut(answer: str, thinking: str, text: str) -> None:
    assert split([answer]) == (thinking, text)
    assert split(answer) == (thinking, text)
    for first, second in itertools.combinations(range(len(answer) + 1), 2):
        assert split([answer[:first], answer[first:second], answer[second:]]) == (thinking, text), (first, second)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own_is_kept_apart(field: str) -> None:
    stream = delta(**{field: "hm"}) + delta(**{field: " so"}) + delta("Yes") + finish() + DONE
    chunks = chunks_of(sse([stream]))
    assert [(chunk.thinking, chunk.text) for chunk in chunks] == [("hm", ""), (" so", ""), ("", "Yes"), ("", "")]


# -- deltas


def test_there_is_one_chunk_for_each_delta_and_one_that_closes() -> None:
    texts = [f"w{i} " for i in range(500)]
    stream = delta(None, role="assistant") + b"".join(map(delta, texts)) + finish("length") + DONE
    chunks = chunks_of(sse([stream]))
    assert [chunk.text for chunk in chunks] == [*texts, ""]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 500 + [FinishReason.LENGTH]


def tool_piece(**fields: object) -> bytes:
    return delta(tool_calls=[fields])


def test_pieces_of_tool_calls_are_put_together_by_their_index() -> None:
    stream = (
        tool_piece(index=0, id="a", type="function", function={"name": "add", "arguments": ""})
        + tool_piece(index=0, function={"arguments": '{"x": '})
        + tool_piece(index=1, id="b", type="function", function={"name": "mul", "arguments": '{"y"'})
        + tool_piece(index=0, function={"arguments": "1}"})
        + tool_piece(index=1, function={"arguments": ": 2}"})
        + finish("tool_calls")
        + DONE
    )
    response = response_of(chunks_of(sse([stream])))
    assert response.tool_calls == (ToolCall("a", "add", '{"x": 1}'), ToolCall("b", "mul", '{"y": 2}'))
    assert response.finish_reason is FinishReason.TOOL_CALLS


def test_whole_tool_calls_without_numbers_stay_apart() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("one", "two")]
    response = response_of(chunks_of(sse([delta(tool_calls=calls) + finish("tool_calls") + DONE])))
    assert response.tool_calls == (ToolCall("one", "one", "{}"), ToolCall("two", "two", "{}"))


def test_usage_and_the_servers_own_timing_stand_on_the_last_chunk() -> None:
    figures = {
        "choices": [],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 34,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
        "timings": {"prompt_ms": 250.0, "predicted_ms": 500, "predicted_per_second": 68.0},
    }
    *chunks, last = chunks_of(sse([delta("a") + delta("b") + finish() + event(figures) + DONE]))
    assert [chunk.usage for chunk in chunks] == [None, None]
    assert last.usage is not None
    assert msgspec.structs.astuple(last.usage) == (12, 34, 5, 6)
    assert last.timing is not None
    assert (last.timing.prompt, last.timing.generation, last.timing.tokens_per_second) == (0.25, 0.5, 68.0)
    assert last.timing.first_token is not None
    assert last.timing.total is not None
    assert 0 < last.timing.first_token <= last.timing.total
    assert last.model == "m"
