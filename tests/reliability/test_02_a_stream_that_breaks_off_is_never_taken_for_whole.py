"""Neither its closing word nor a finish reason was seen: the answer broke off, and what had come of it is kept."""

from __future__ import annotations

import pytest
from servers.scripted import DONE, End, Pause, Script, Step, chunked, delta, finish
from servers.spoken import OPENAI, Spoken, both, failing, hearing

from llm_jupyter.errors import StreamTruncatedError
from llm_jupyter.types import FinishReason

# Some systems throw away what a reader has not taken yet when a reset comes: hence the pause before it.
LEAVES = {
    "a clean end": [],
    "a reset": [Pause(0.05), End.RESET],
    "a half-close": [End.HALF_CLOSE],
    "a closed connection": [End.CLOSE],
}  # fmt: skip
CUTS = ("between messages", "inside a message", "inside a character")


def truncated(spoken: Spoken, leave: str, cut: str, is_chunked: bool) -> Script:
    """Two whole pieces, perhaps some of a third, and then that end."""
    whole = spoken.piece("né")
    third = whole[: (0, 30, whole.index("é".encode()) + 1)[CUTS.index(cut)]]
    steps: list[Step] = [spoken.piece("Hel"), spoken.piece("lo"), *([third] if third else []), *LEAVES[leave]]
    return spoken.script(*steps, is_chunked=is_chunked)


@both
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "until it closes"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("leave", LEAVES)
async def test_an_answer_that_breaks_off_is_an_error_that_keeps_what_came(
    spoken: Spoken, leave: str, cut: str, is_chunked: bool
) -> None:
    error = await failing(spoken, truncated(spoken, leave, cut, is_chunked))
    assert isinstance(error, StreamTruncatedError)
    assert error.partial_text == "Hello"


@both
async def test_a_cut_inside_an_http_chunk_is_a_break(spoken: Spoken) -> None:
    script = [*spoken.script(spoken.piece("Hello"), End.CLOSE)[:-1], chunked(spoken.piece("never"))[:20]]
    error = await failing(spoken, script)
    assert isinstance(error, StreamTruncatedError)
    assert error.partial_text == "Hello"


@both
async def test_a_stream_cut_anywhere_before_its_end_never_looks_complete(spoken: Spoken) -> None:
    body = spoken.piece("né") + spoken.piece("🙂") + spoken.end[0]
    whole = len(body.rstrip())
    scripts = [spoken.script(body[:cut], is_chunked=False) for cut in range(whole)]
    kept = set()
    async with hearing(spoken, *scripts) as (provider, _):
        for cut in range(whole):
            with pytest.raises(StreamTruncatedError) as caught:
                await provider.generate_chat_completion("hi", model="m")
            assert "né🙂".startswith(caught.value.partial_text), cut
            kept.add(caught.value.partial_text)
    assert kept == {"", "né", "né🙂"}


async def test_a_cut_inside_the_closing_word_is_a_break() -> None:
    error = await failing(OPENAI, OPENAI.script(delta("Hello"), b"data: [DON", is_chunked=False))
    assert isinstance(error, StreamTruncatedError)


@both
async def test_an_empty_stream_is_no_empty_success(spoken: Spoken) -> None:
    for is_chunked in (True, False):
        assert isinstance(await failing(spoken, spoken.script(is_chunked=is_chunked)), StreamTruncatedError)


@both
async def test_a_streams_reader_hears_of_the_break_where_it_reads(spoken: Spoken) -> None:
    script = spoken.script(spoken.piece("Hel"), spoken.piece("lo"), End.CLOSE)
    async with hearing(spoken, script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        with pytest.raises(StreamTruncatedError):
            await anext(stream)


@pytest.mark.parametrize(
    "ending",
    [
        (DONE,),
        (b"data: [DONE]",),
        (finish(),),
        (finish().rstrip(),),
        (finish(), b"data: [DON"),
        (finish(), DONE, End.HOLD),
    ],
    ids=["done", "done without newline", "finish reason", "finish without newline", "cut after it", "held open"],
)
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_an_answer_that_says_that_it_is_complete_is_one(ending: tuple[Step, ...], is_chunked: bool) -> None:
    script = OPENAI.script(delta("Hel"), delta("lo"), *ending, is_chunked=is_chunked)
    async with hearing(OPENAI, script) as (provider, _):
        response = await provider.generate_chat_completion("hi", model="m")
    assert response.text == "Hello"
    assert response.finish_reason is (FinishReason.OTHER if ending[0] in (DONE, b"data: [DONE]") else FinishReason.STOP)


@both
async def test_a_last_message_without_its_line_end_completes_the_answer(spoken: Spoken) -> None:
    body = spoken.answer("Hel", "lo")
    for end in (body.rstrip(b"\n"), body.rstrip(b"\n") + b"\r\n"):
        async with hearing(spoken, spoken.script(end, is_chunked=False)) as (provider, _):
            assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"
