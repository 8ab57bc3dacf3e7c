"""Many prompts to many models: side by side while they answer, then as a table, a difference, a plot."""

from llm_jupyter.comparison.comparing import compare
from llm_jupyter.comparison.comparison import Comparison
from llm_jupyter.comparison.contender import Contender, ContenderLike, contenders_of
from llm_jupyter.comparison.difference import Difference
from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.comparison.running import beats, run
from llm_jupyter.comparison.spread import Range, Spread, Spreads
from llm_jupyter.comparison.trial import Trial

__all__ = [
    "Comparison",
    "Contender",
    "ContenderLike",
    "Difference",
    "Lane",
    "LaneState",
    "Range",
    "Spread",
    "Spreads",
    "Trial",
    "beats",
    "compare",
    "contenders_of",
    "run",
]
