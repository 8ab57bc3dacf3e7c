"""A comparison as a data frame of pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_jupyter.comparison.trial import Trial
from llm_jupyter.errors import ResourceError

if TYPE_CHECKING:
    from pandas import DataFrame

INSTALL = "Type: %pip install 'jupyter-llm[compare]'"

COLUMNS = {
    "prompt": "prompt", "contender": "contender", "model": "model", "repeat": "repeat", "answer": "answer",
    "first_token_s": "first_token", "tokens_per_s": "tokens_per_second", "tokens": "tokens",
    "prompt_tokens": "prompt_tokens", "total_s": "total", "queued_s": "queued", "finish": "finish", "error": "error",
    "from_cache": "from_cache", "vote": "vote",
}  # fmt: skip
"""Each column and the field that it shows."""

KINDS = {
    "first_token_s": "float64", "tokens_per_s": "float64", "total_s": "float64", "queued_s": "float64", "tokens": "Int64",
    "prompt_tokens": "Int64",
}  # fmt: skip
"""The types of columns in which a value may be missing, also of those in which all are."""


def frame(trials: Sequence[Trial]) -> DataFrame:
    """A row for each answer. Raises `ResourceError` where pandas is missing."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise ResourceError("a data frame needs pandas, which is not installed", next_step=INSTALL) from None
    columns = {column: [getattr(trial, field) for trial in trials] for column, field in COLUMNS.items()}
    return DataFrame(columns).astype(KINDS)
