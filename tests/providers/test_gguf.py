"""Reading GGUF headers: the real file, every kind of damage, and counts that no model has."""

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from gguf_files import ARRAY, STRING, UINT32, array, fact, gguf, tensor, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_jupyter.errors import LLMError, ModelLoadError
from llm_jupyter.providers._gguf import GGUFHeader, read_header

HEAD = 4096
SIZE = 98_362_432
TIME_LIMIT = 2.0
"""Seconds within which any file, sound or not, is understood or refused."""

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def metadata(weights: Path) -> bytearray:
    """The real file's first 4 MiB: all of its header, and a little of its tensors."""
    with weights.open("rb") as file:
        return bytearray(file.read(4 << 20))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def header_or_refusal(file: Path, content: bytes, size: int | None = None) -> GGUFHeader | ModelLoadError:
    """What reading the content comes to; anything but these two, or taking long, fails the test.

    With `size`, a hole follows up to that many bytes.
    """
    file.unlink(missing_ok=True)  # a new file each time: what was read is remembered by size and time
    file.write_bytes(content)
    if size is not None:
        os.truncate(file, size)
    started = time.perf_counter()
    try:
        result: GGUFHeader | ModelLoadError = read_header(file)
    except ModelLoadError as error:
        result = error
    assert time.perf_counter() - started < TIME_LIMIT
    return result


def test_the_real_file_tells_what_it_is(weights: Path) -> None:
    header = read_header(weights)
    assert header.architecture == "llama"
    assert header.parameters == 134_515_008
    assert header.context_length == 8192
    assert header.quantization == "Q4_1"
    assert header.license == "apache-2.0"
    assert header.size == SIZE
    assert (header.layers, header.key_value_width) == (30, 192)
    assert header.cache_bytes(4096) == 2 * 2 * 30 * 192 * 4096
    assert "<|im_start|>" in header.chat_template
    assert "SmolLM2" in header.name.replace(" ", "").replace("Smollm2", "SmolLM2")


def test_a_made_file_is_read_as_it_was_made(file: Path) -> None:
    content = gguf(
        [
            fact("general.architecture", STRING, text("toy")),
            fact("toy.context_length", UINT32, struct.pack("<I", 77)),
            fact("words", ARRAY, array(STRING, [text("a"), text("")])),
            fact("numbers", ARRAY, array(UINT32, [struct.pack("<I", 5)] * 3)),
            fact("general.name", STRING, text("Toy")),
        ],
        [tensor("t", [3, 4], 0), tensor("u", [5], 64)],
        data=128,
    )
    header = header_or_refusal(file, content)
    assert isinstance(header, GGUFHeader)
    assert (header.name, header.context_length, header.parameters) == ("Toy", 77, 17)


@FEW
@given(end=st.integers(0, HEAD))
def test_a_file_cut_in_its_first_4_kb_is_refused(metadata: bytearray, tmp_path: Path, end: int) -> None:
    assert isinstance(header_or_refusal(tmp_path / "cut.gguf", bytes(metadata[:end])), ModelLoadError)


@pytest.mark.parametrize("kept", [2 << 20, 50_000_000, 80_000_000])
def test_a_file_cut_in_its_tensors_is_refused(metadata: bytearray, file: Path, kept: int) -> None:
    refusal = header_or_refusal(file, bytes(metadata), kept)
    assert isinstance(refusal, ModelLoadError)
    assert "damaged or cut short" in refusal.what


@FEW
@given(at=st.integers(0, HEAD - 1), bits=st.integers(1, 255))
def test_a_flipped_byte_gives_a_header_or_a_refusal_at_once(
    metadata: bytearray, tmp_path: Path, at: int, bits: int
) -> None:
    damaged = bytearray(metadata)
    damaged[at] ^= bits
    header_or_refusal(tmp_path / "flipped.gguf", bytes(damaged), SIZE)


@pytest.mark.parametrize("at", [8, 11, 15, 16, 19, 23])
def test_a_flipped_high_byte_of_the_real_files_counts_is_refused(metadata: bytearray, file: Path, at: int) -> None:
    damaged = bytearray(metadata)
    damaged[at] ^= 0x41
    assert isinstance(header_or_refusal(file, bytes(damaged), SIZE), ModelLoadError)


def test_string_lengths_that_lead_beyond_the_end_are_not_followed_there(metadata: bytearray, file: Path) -> None:
    content = bytearray(metadata)
    at = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    assert struct.unpack_from("<Q", content, at) == (49152,)
    struct.pack_into("<Q", content, at, 90_000_000)  # less than the file's size, so not refused for that alone
    refusal = header_or_refusal(file, bytes(content), SIZE)
    assert isinstance(refusal, ModelLoadError)
    assert "beyond the end" in refusal.what


HUGE = 1 << 60
BOMBS = {
    "tensors": gguf([], [], tensors=HUGE),
    "facts": gguf([], [], facts_count=HUGE),
    "facts that zeros would fill": gguf([], [], facts_count=1 << 30, data=1 << 20),
    "string": gguf([fact("k", STRING, struct.pack("<Q", HUGE))], []),
    "key": gguf([struct.pack("<Q", HUGE)], []),
    "array of numbers": gguf([fact("k", ARRAY, struct.pack("<IQ", UINT32, HUGE))], []),
    "array of strings": gguf([fact("k", ARRAY, struct.pack("<IQ", STRING, HUGE))], []),
    "arrays in arrays": gguf([fact("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000)], []),
    "string in an array": gguf([fact("k", ARRAY, struct.pack("<IQQ", STRING, 2, HUGE))], [], data=64),
    "dimensions": gguf([], [text("t") + struct.pack("<I", (1 << 32) - 1)], data=1 << 20),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_a_count_that_no_model_has_is_refused_without_memory_for_it(file: Path, content: bytes) -> None:
    tracemalloc.start()
    try:
        refusal = header_or_refusal(file, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(refusal, ModelLoadError)
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not a GGUF"), (b"GGU", "not a GGUF"), (b"PK\3\4 junk" * 50, "not a GGUF"), (b"GGUF", "damaged")],
)
def test_what_is_no_gguf_file_is_refused_by_name(file: Path, content: bytes, words: str) -> None:
    refusal = header_or_refusal(file, content)
    assert isinstance(refusal, ModelLoadError)
    assert words in refusal.what
    assert str(file) in refusal.what


def test_an_unknown_version_is_named(file: Path) -> None:
    refusal = header_or_refusal(file, gguf([], [], version=9))
    assert isinstance(refusal, ModelLoadError)
    assert "version 9" in refusal.what


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(LLMError) as caught:
            read_header(path)
        assert isinstance(caught.value, ModelLoadError)


def test_a_window_below_one_counts_as_not_told(file: Path) -> None:
    architecture = fact("general.architecture", STRING, text("toy"))
    window = fact("toy.context_length", 5, struct.pack("<i", -8))
    header = header_or_refusal(file, gguf([architecture, window], [], data=8))
    assert isinstance(header, GGUFHeader)
    assert header.context_length is None
