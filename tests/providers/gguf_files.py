"""GGUF files made to measure, for tests: sound ones, and ones whose counts lie."""

import struct
from collections.abc import Sequence

UINT32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    """A string as GGUF writes it: its length, then its bytes."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def fact(key: str, kind: int, value: bytes) -> bytes:
    """One key with its value."""
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, values: Sequence[bytes]) -> bytes:
    """The value of a fact of kind `ARRAY`."""
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def tensor(name: str, shape: Sequence[int], offset: int) -> bytes:
    """The description of one tensor of 32-bit floats."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)


def gguf(
    facts: Sequence[bytes],
    tensors_described: Sequence[bytes],
    *,
    version: int = 3,
    tensors: int | None = None,
    facts_count: int | None = None,
    data: int = 0,
) -> bytes:
    """A whole file; `data` zeros stand for the tensors, and the two counts can be made to lie."""
    counts = struct.pack(
        "<IQQ",
        version,
        len(tensors_described) if tensors is None else tensors,
        len(facts) if facts_count is None else facts_count,
    )
    return b"GGUF" + counts + b"".join(facts) + b"".join(tensors_described) + bytes(data)


def giant(context: int = 8192) -> bytes:
    """A small file whose header tells of a model with an enormous cache."""
    number = struct.Struct("<I").pack
    return gguf(
        [
            fact("general.architecture", STRING, text("llama")),
            fact("general.name", STRING, text("Giant")),
            fact("llama.context_length", UINT32, number(context)),
            fact("llama.block_count", UINT32, number(100_000)),
            fact("llama.embedding_length", UINT32, number(65_536)),
            fact("llama.attention.head_count", UINT32, number(64)),
        ],
        [tensor("t", [4], 0)],
        data=64,
    )
