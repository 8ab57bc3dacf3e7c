"""Whatever the slicing of the bytes, and however a server writes its stream: the same chunks, the same answer."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.recorded import RECORDINGS, STREAMS, Decode, as_ndjson, chunks_of, ndjson, recorded, response_of, sse
from servers.scripted import DONE, delta, finish
from servers.spoken import Spoken, both, hearing

from llm_jupyter.types import FinishReason


def variants(stream: bytes) -> dict[str, bytes]:
    """The same events as other servers would write them."""
    events = stream.split(b"\n\n")[:-1]
    assert len(events) > 10, "the recording is too short to prove anything"
    halves = [line.replace(b',"', b',\ndata: "', 1) for line in events]
    assert sum(b"\n" in event for event in halves) > 10, "nothing to break into lines"
    return {
        "as recorded": stream,
        "CRLF": stream.replace(b"\n", b"\r\n"),
        "no final newline": stream.rstrip(b"\n"),
        "no final blank line": stream[:-1],
        "no space after data": stream.replace(b"data: ", b"data:"),
        "byte order mark": b"\xef\xbb\xbf" + stream,
        "comments": b": hello\n\n" + b"\n:\n\n".join(events) + b"\n: ping\n\n",
        "other fields": b"".join(b"event: delta\nid: 7\n" + e + b"\nretry: 10\n\n" for e in events),
        "empty data": b"data\n\ndata:\n\n" + stream,
        "blank lines": b"\n\n\n" + stream.replace(b"\n\n", b"\n\n\n\n"),
        "data over several lines": b"\n\n".join(halves) + b"\n\n",
    }


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_says_what_the_server_said_without_streaming(name: str) -> None:
    expected = json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))
    response = response_of(chunks_of(sse([recorded(name)])))
    assert response.text == expected["text"]
    assert not response.text.isascii()
    assert response.finish_reason == expected["finish_reason"]
    assert response.usage.prompt_tokens == expected["prompt_tokens"]
    assert response.usage.completion_tokens == expected["completion_tokens"]
    assert response.timing.prompt is not None
    assert response.timing.prompt > 0
    assert response.timing.tokens_per_second is not None
    assert response.timing.tokens_per_second > 1


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_of_a_recorded_stream_gives_the_same_messages(name: str) -> None:
    stream = recorded(name)
    whole = sse([stream])
    assert whole[-1] == b"[DONE]"
    for cut in range(len(stream) + 1):
        assert sse([stream[:cut], stream[cut:]]) == whole, cut


@pytest.mark.parametrize("variant", variants(recorded("chat")))
def test_every_way_of_writing_a_stream_gives_the_same_answer_at_every_cut(variant: str) -> None:
    stream = variants(recorded("chat"))[variant]
    *plain, _ = sse([recorded("chat")])
    messages = sse([stream])
    assert [json.loads(message) for message in messages[:-1]] == [json.loads(message) for message in plain]
    assert messages[-1] == b"[DONE]"
    for cut in range(len(stream) + 1):
        assert sse([stream[:cut], stream[cut:]]) == messages, cut


@pytest.mark.parametrize("variant", variants(recorded("chat")))
def test_one_byte_at_a_time_gives_the_same_messages(variant: str) -> None:
    stream = variants(recorded("chat"))[variant]
    assert sse(stream[i : i + 1] for i in range(len(stream))) == sse([stream])


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n\r\n"], ids=["LF", "CRLF", "with empty lines"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_lines_of_json_are_the_same_at_every_cut(ending: bytes, mark: bytes) -> None:
    plain = as_ndjson(recorded("chat"))
    expected = plain.splitlines()
    stream = mark + plain.replace(b"\n", ending)
    for text in (stream, stream.rstrip(b"\r\n")):
        assert ndjson(text[i : i + 1] for i in range(len(text))) == expected
        for cut in range(len(text) + 1):
            assert ndjson([text[:cut], text[cut:]]) == expected, cut


@st.composite
def sliced(draw: st.DrawFn) -> tuple[list[object], bytes, list[bytes], Decode]:
    """Values, a stream that carries them, and the stream in slices."""
    texts = st.text(
        alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("\u2028\u2029\x85\x0b\x0c\x1c\r\né🙂"))
    )
    values = draw(st.lists(st.dictionaries(texts, texts, min_size=1, max_size=2), max_size=6))
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    is_sse = draw(st.booleans())
    if is_sse:
        starts = st.sampled_from([b"data: ", b"data:", b": note" + end + b"data: "])
        stream = b"".join(draw(starts) + line + end + end for line in lines)
    else:
        stream = b"".join(line + end for line in lines)
    stream = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + stream
    if draw(st.booleans()):
        stream = stream.rstrip(b"\r\n")
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    slices = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    return values, stream, slices, sse if is_sse else ndjson


@given(sliced())
def test_any_values_survive_any_slicing(case: tuple[list[object], bytes, list[bytes], Decode]) -> None:
    values, stream, slices, decode = case
    assert b"".join(slices) == stream
    assert [json.loads(message) for message in decode(slices)] == values


def test_only_line_feeds_end_lines() -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    line = json.dumps({"t": odd}, ensure_ascii=False).encode()
    assert b"\xe2\x80\xa8" in line
    assert sse([b"data: " + line + b"\n\n"]) == [line]
    assert ndjson([line + b"\n"]) == [line]


def test_a_character_cut_in_two_is_put_together_again() -> None:
    stream = delta("né🙂你\u2028") + finish() + DONE
    middle = stream.index("🙂".encode())
    for cut in range(middle - 3, middle + 8):
        assert response_of(chunks_of(sse([stream[:cut], stream[cut:]]))).text == "né🙂你\u2028"


# -- from a real server


@both
@pytest.mark.parametrize("size", [1, 2, 3, 7, 37, 10_000])
async def test_a_reply_in_pieces_of_any_size_has_one_chunk_for_each_delta(spoken: Spoken, size: int) -> None:
    texts = [f"{i} né🙂\u2028\u0085\r\n" for i in range(8)]
    body = spoken.answer(*texts)
    script = spoken.script(*(body[i : i + size] for i in range(0, len(body), size)))
    async with hearing(spoken, script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.text for chunk in chunks] == [*texts, ""]
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].timing is not None


@both
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("rest", ["whole", "no final newline"])
async def test_every_way_of_writing_a_reply_is_the_same_answer(
    spoken: Spoken, ending: bytes, mark: bytes, rest: str
) -> None:
    body = mark + spoken.answer("né🙂\u2028", " and", " more").replace(b"\n", ending)
    if rest == "no final newline":
        body = body.rstrip(b"\r\n")
    middle = body.index("🙂".encode()) + 2
    async with hearing(spoken, spoken.script(body[:middle], body[middle:], is_chunked=False)) as (provider, _):
        response = await provider.generate_chat_completion("hi", model="m")
    assert (response.text, response.finish_reason) == ("né🙂\u2028 and more", FinishReason.STOP)
