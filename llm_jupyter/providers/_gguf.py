"""The header of a GGUF file: what a model is, without loading it.

Source of the format: the GGUF specification of the ggml project (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jupyter.errors import ModelLoadError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

MOST_TENSORS, MOST_PAIRS, MOST_DIMENSIONS = 1 << 20, 1 << 16, 4
"""Beyond what any model has (the last is ggml's own limit): a damaged count is noticed before it is counted up to."""

# general.file_type of the specification, for those in use.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a file tells of its model. `size` in bytes, lengths in tokens."""

    path: Path
    size: int
    name: str
    architecture: str
    parameters: int
    context_length: int | None
    quantization: str | None
    license: str | None
    chat_template: str
    layers: int
    key_value_width: int

    def cache_bytes(self, context: int) -> int:
        """Bytes of the key-value cache for a window of so many tokens, in 16-bit floats."""
        return 2 * 2 * self.layers * self.key_value_width * context


def read_header(path: Path) -> GGUFHeader:
    """Read a file's header. Raises `ModelLoadError` if it cannot be read, is no GGUF file, or is cut short."""
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=64)
def _read(path: Path, size: int, _mtime: int) -> GGUFHeader:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelLoadError(
                f"{path} is not a GGUF file", next_step="%llm models lists the models that can be used."
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _parse(_Cursor(data), path, size)
            except (struct.error, IndexError, ValueError, OverflowError, MemoryError) as error:
                raise ModelLoadError(f"{path} is damaged or cut short: {error}", next_step="Fetch it again.") from None


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = self.take("<Q")
        if self.at + length > len(self.data):
            raise ValueError("a string goes beyond the end")
        value = self.data[self.at : self.at + length]
        self.at += length
        return value.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_form(kind))
        inner, count = self.take("<I"), self.take("<Q")
        if count > len(self.data):
            raise ValueError("an array goes beyond the end")
        if inner == _STRING:
            for _ in range(count):
                self._skip_text()
        else:  # arrays of arrays are refused: llama.cpp does not read them either
            self.at += struct.calcsize(_form(inner)) * count
        return None  # no array is of use here

    def _skip_text(self) -> None:
        self.at += 8 + int.from_bytes(self.data[self.at : self.at + 8], "little")
        if self.at > len(self.data):
            raise ValueError("a string goes beyond the end")


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    return _SCALARS[kind]


def _parse(cursor: _Cursor, path: Path, size: int) -> GGUFHeader:
    version = cursor.take("<I")
    if version not in (2, 3):
        raise ModelLoadError(f"{path} is a GGUF file of version {version}, which is not known here")
    tensors, pairs = cursor.take("<Q"), cursor.take("<Q")
    if tensors > MOST_TENSORS or pairs > MOST_PAIRS:
        raise ValueError(f"{tensors} tensors and {pairs} facts are more than any model has")
    facts: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.text()
        facts[key] = cursor.value(cursor.take("<I"))
    parameters, last_offset = 0, 0
    for _ in range(tensors):
        cursor.text()
        dimensions = cursor.take("<I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions")
        shape = [cursor.take("<Q") for _ in range(dimensions)]
        cursor.take("<I")
        last_offset = max(last_offset, cursor.take("<Q"))
        parameters += math.prod(shape)
    if cursor.at + last_offset >= size:
        raise ValueError(f"{size} bytes are fewer than its tensors need")
    architecture = str(facts.get("general.architecture", "unknown"))
    return _described(path, size, architecture, parameters, facts)


def _described(path: Path, size: int, architecture: str, parameters: int, facts: dict[str, Any]) -> GGUFHeader:
    def number(key: str) -> int | None:
        value = facts.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and value > 0 else None

    def words(key: str) -> str | None:
        value = facts.get(key)
        return value if isinstance(value, str) and value else None

    width, heads = number("embedding_length") or 0, number("attention.head_count") or 1
    return GGUFHeader(
        path=path,
        size=size,
        name=words("general.name") or path.stem,
        architecture=architecture,
        parameters=parameters,
        context_length=number("context_length"),
        quantization=_FILE_TYPES.get(facts.get("general.file_type", -1)),
        license=words("general.license"),
        chat_template=words("tokenizer.chat_template") or "",
        layers=number("block_count") or 0,
        key_value_width=width // heads * (number("attention.head_count_kv") or heads),
    )
