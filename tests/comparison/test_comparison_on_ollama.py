"""The embedded model against a real Ollama: live, and with one of them killed in the midst of its answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import place
from servers.real_ollama import Ollama

from llm_jupyter import compare
from llm_jupyter.comparison import Comparison, LaneState
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers.llamacpp import LlamaCppProvider

pytestmark = pytest.mark.live

EMBEDDED, OLLAMA = "embedded/smollm2-135m", "ollama/smollm2:135m"
COUNT = "Count from one to three hundred in words."


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory, weights: Path, ollama: Ollama) -> Iterator[LLMFactory]:
    home = tmp_path_factory.mktemp("home")
    place(weights, home)
    with LLMFactory(environment={"LLM_JUPYTER_HOME": str(home), "OLLAMA_HOST": ollama.url}) as llm:
        yield llm


def test_the_embedded_model_and_ollama_answer_side_by_side(llm: LLMFactory) -> None:
    comparison = compare("Say hello.", [EMBEDDED, OLLAMA], llm=llm, temperature=0, max_tokens=8)
    for trial, name in zip(comparison, (EMBEDDED, OLLAMA), strict=True):
        assert (trial.model, trial.answered_by, trial.error) == (name, "", "")
        assert trial.finish in ("stop", "length")
        assert trial.answer
        assert trial.tokens is not None
        assert 0 < trial.tokens <= 8
        assert trial.prompt_tokens
        assert trial.tokens_per_second
        assert trial.first_token is not None
        assert trial.total is not None
        assert 0 < trial.first_token <= trial.total
    assert comparison.to_dataframe()["tokens"].notna().all()
    assert [row.failures for row in comparison.spread()] == [0, 0]


def test_one_that_is_killed_in_mid_stream_is_a_row_and_leaves_the_other_whole(llm: LLMFactory) -> None:
    provider = llm.providers.get("embedded")
    assert isinstance(provider, LlamaCppProvider)
    killed: list[int] = []

    def kill(comparison: Comparison) -> None:
        dead, other = comparison.progress
        if not killed and dead.tokens > 3 and other.state in (LaneState.STREAMING, LaneState.DONE):
            killed.append(provider.process_id or 0)
            os.kill(killed[0], signal.SIGKILL)

    models = [{"model": EMBEDDED, "max_tokens": 1000}, {"model": OLLAMA, "max_tokens": 30}]
    comparison = compare(COUNT, models, llm=llm, temperature=0, on_tick=kill)
    assert killed
    dead, other = comparison
    assert (dead.finish, other.finish, other.error) == ("error", "length", "")
    assert dead.answer
    assert "broke off" in dead.error
    assert other.tokens == 30
    assert comparison.failure is None
    assert "broke off" in repr(comparison)
