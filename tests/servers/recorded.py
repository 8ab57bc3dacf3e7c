"""Recorded streams of real servers, and what our decoders make of streams."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from llm_jupyter.providers._openai_wire import CompletionEvent, StreamReader
from llm_jupyter.providers._wire import NDJSONDecoder, SSEDecoder
from llm_jupyter.providers.base import ResponseBuilder
from llm_jupyter.types import Chunk, LLMResponse

RECORDINGS = Path(__file__).parent.parent / "providers" / "recordings"
STREAMS = ("chat", "completion")

Decode = Callable[[Iterable[bytes]], list[bytes]]


def sse(blocks: Iterable[bytes]) -> list[bytes]:
    decoder = SSEDecoder()
    return [*itertools.chain.from_iterable(map(decoder.feed, blocks)), *decoder.finish()]


def ndjson(blocks: Iterable[bytes]) -> list[bytes]:
    decoder = NDJSONDecoder()
    return [*itertools.chain.from_iterable(map(decoder.feed, blocks)), *decoder.finish()]


def recorded(name: str) -> bytes:
    return (RECORDINGS / f"{name}.sse").read_bytes()


def as_ndjson(stream: bytes) -> bytes:
    """The same real messages, one on each line."""
    return b"\n".join(message for message in sse([stream]) if message != b"[DONE]") + b"\n"


def chunks_of(messages: Iterable[bytes]) -> list[Chunk]:
    reader = StreamReader(time.perf_counter())
    found: list[Chunk | None] = []
    for message in messages:
        if message == b"[DONE]":
            break
        found.append(reader.chunk(msgspec.json.decode(message, type=CompletionEvent)))
    return [chunk for chunk in found if chunk is not None] + reader.last()


def response_of(chunks: Iterable[Chunk]) -> LLMResponse:
    builder = ResponseBuilder(provider="p", model="m", is_local=True)
    for chunk in chunks:
        builder.add(chunk)
    return builder.response()
