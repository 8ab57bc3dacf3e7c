"""The embedded model against a real Ollama: live, and with one of them killed in the midst of its answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
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


def kill_embedded(llm: LLMFactory, ollama: Ollama) -> None:
    provider = llm.providers.get("embedded")
    assert isinstance(provider, LlamaCppProvider)
    os.kill(provider.process_id or 0, signal.SIGKILL)


def kill_ollama(llm: LLMFactory, ollama: Ollama) -> None:
    ollama.stop(kill=True)


@pytest.mark.parametrize(
    ("doomed", "kill", "survivor"),
    [(EMBEDDED, kill_embedded, OLLAMA), (OLLAMA, kill_ollama, EMBEDDED)],
    ids=["embedded", "ollama"],
)
def test_one_that_is_killed_in_mid_stream_is_a_row_and_leaves_the_other_whole(
    llm: LLMFactory, ollama: Ollama, doomed: str, kill: Callable[[LLMFactory, Ollama], None], survivor: str
) -> None:
    was_killed = False

    def strike(comparison: Comparison) -> None:
        nonlocal was_killed
        dead, other = comparison.progress
        if not was_killed and dead.tokens > 3 and other.state in (LaneState.STREAMING, LaneState.DONE):
            was_killed = True
            kill(llm, ollama)

    models = [{"model": doomed, "max_tokens": 1000}, {"model": survivor, "max_tokens": 30}]
    try:
        comparison = compare(COUNT, models, llm=llm, temperature=0, on_tick=strike)
    finally:
        if ollama.process is None:
            ollama.start()  # for the tests that share it
    assert was_killed
    dead, other = comparison
    assert (dead.finish, other.finish, other.error) == ("error", "length", "")
    assert dead.answer
    assert "broke off" in dead.error
    assert other.tokens == 30
    assert comparison.failure is None
    assert "broke off" in repr(comparison)
    assert [(row.count, row.failures, row.error) for row in comparison.spread()] == [(0, 1, dead.error), (1, 0, "")]
