"""What is asked of llama.cpp is checked before it starts: three of the values below would crash or hang it."""

from pathlib import Path

import psutil
import pytest
from gguf_files import giant
from holders import no_new_child

from llm_jupyter.errors import (
    InsufficientMemoryError,
    InvalidInputError,
    LLMError,
    ModelLoadError,
    ModelNotFoundError,
)
from llm_jupyter.providers._gguf import read_header
from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import GenerationOptions

BRIEF = GenerationOptions(max_tokens=4, temperature=0.0)


@pytest.mark.parametrize(
    "plan",
    [
        LaunchPlan(threads=0),
        LaunchPlan(threads=-1),
        LaunchPlan(threads=513),
        LaunchPlan(slots=0),
        LaunchPlan(slots=65),
        LaunchPlan(context=0),
        LaunchPlan(context=-5),
        LaunchPlan(context=1_000_000),
    ],
    ids=str,
)
async def test_a_plan_that_would_crash_or_hang_llama_cpp_never_reaches_it(weights: Path, plan: LaunchPlan) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(InvalidInputError) as caught:
        await LlamaProcess.start(weights, MODEL_ID, plan)
    assert 1 <= len(caught.value.lines()) <= 3
    assert no_new_child(before)


@pytest.mark.parametrize("damage", ["junk", "cut short", "empty", "missing"])
async def test_a_file_that_is_no_model_never_reaches_llama_cpp(weights: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.gguf"
    if damage != "missing":
        with weights.open("rb") as source:
            content = {"junk": b"no model" * 9, "cut short": source.read(3 << 20), "empty": b""}[damage]
        file.write_bytes(content)
    before = set(psutil.Process().children())
    wanted: type[LLMError] = ModelNotFoundError if damage == "missing" else ModelLoadError
    async with LlamaCppProvider(home=tmp_path, context=256) as provider:
        with pytest.raises(wanted) as caught:
            await provider.generate_completion("a", model=str(file), options=BRIEF)
    assert 1 <= len(caught.value.lines()) <= 3
    assert no_new_child(before)


async def test_a_model_that_llama_cpp_refuses_is_a_typed_error_with_its_reason(weights: Path, tmp_path: Path) -> None:
    """The header passes, the last tensor is cut."""
    file = tmp_path / "model.gguf"
    with weights.open("rb") as source, file.open("wb") as target:
        target.write(source.read(3 << 20))
        target.truncate(weights.stat().st_size - 1000)
    before = set(psutil.Process().children())
    with pytest.raises(ModelLoadError, match=r"could not load model\.gguf") as caught:
        await LlamaProcess.start(file, "cut", LaunchPlan(256, 1, 1))
    assert 1 <= len(caught.value.lines()) <= 3
    assert no_new_child(before)


async def test_a_model_that_does_not_fit_into_memory_is_refused_with_both_figures(tmp_path: Path) -> None:
    file = tmp_path / "giant.gguf"
    file.write_bytes(giant())
    before = set(psutil.Process().children())
    async with LlamaCppProvider(home=tmp_path, context=8192, slots=4) as provider:
        with pytest.raises(InsufficientMemoryError) as caught:
            await provider.load_model(str(file))
    error = caught.value
    assert error.needed > 4 * 8192 * 100_000 * 65_536 * 4
    assert 0 < error.free <= psutil.virtual_memory().total
    assert len(error.lines()) == 2
    assert f"{error.needed / 2**20:,.0f} MiB" in error.lines()[0]
    assert no_new_child(before)


@pytest.mark.parametrize("context", [16, 32_768])
async def test_a_window_other_than_the_models_own_is_refused_or_cut_to_it(weights: Path, context: int) -> None:
    header = read_header(weights)
    if context == 16:
        with pytest.raises(InvalidInputError, match="64 is the least"):
            LaunchPlan(context).checked(header)
    else:
        assert LaunchPlan(context).checked(header).context == header.context_length == 8192


def test_only_the_demonstration_model_is_kept_short_when_nothing_is_asked(tmp_path: Path) -> None:
    embedded = LlamaCppProvider(home=tmp_path)
    server = LlamaCppProvider(base_url="http://127.0.0.1:9/v1")
    silent, said = GenerationOptions(temperature=0.5), GenerationOptions(max_tokens=9000)
    assert embedded._limited(MODEL_ID, silent) == GenerationOptions(temperature=0.5, max_tokens=512)
    assert embedded._limited(MODEL_ID, said) is said
    assert embedded._limited("other", silent) is silent
    assert server._limited(MODEL_ID, silent) is silent
