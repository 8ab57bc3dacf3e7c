"""A comparison as plain text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.comparison.spread import HEAD
from llm_jupyter.comparison.trial import Trial
from llm_jupyter.comparison.words import seconds
from llm_jupyter.tables import one_line, table
from llm_jupyter.wording import visible

if TYPE_CHECKING:
    from llm_jupyter.comparison.comparison import Comparison

LONGEST_LINE = 400
"""Characters of a line of an error."""

LOADED_FIRST = "the model was loaded first"
"""Said of an answer whose first token is slower for that."""

QUEUE_WORTH_A_WORD = 0.05
"""Seconds of waiting for a turn that nobody would notice."""


def progress(comparison: Comparison) -> str:
    """How far it is, in a line: how many answers came to their own end, and how the others ended."""
    count = Counter(lane.state for lane in comparison.progress)
    ends = [f"{count[state]} {state}" for state in (LaneState.FAILED, LaneState.STOPPED) if count[state]]
    return ", ".join([f"{count[LaneState.DONE]} of {len(comparison.progress)} answers", *ends])


def under_way(comparison: Comparison) -> str:
    """As `progress`, in words that stay true in a file: the kernel may be gone before it is shown once more."""
    return f"{progress(comparison)}; the comparison was still under way when this was last shown."


def rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of the table: the figures of each contender, what it waited, and how its answers ended."""
    found = [
        (*spread.cells(), _waited(lanes := comparison.lanes_of(spread.contender)), _votes(lanes), _ended(lanes))
        for spread in comparison.spread()
    ]
    return (*HEAD, "queued", "votes", "ended"), found


def plain(comparison: Comparison) -> str:
    """The table, and below it why answers failed: each reason of a contender once."""
    reasons = dict.fromkeys(
        f"{one_line(lane.contender)} failed: " + "\n    ".join(why(lane)) for lane in comparison.progress if lane.error
    )
    return "\n".join([*table(*rows(comparison)), *(["", *reasons] if reasons else [])])


def why(lane: Lane) -> list[str]:
    """Why it failed and what to do about it, in lines of a sane length."""
    return [one_line(line, LONGEST_LINE) for line in lane.error]


def answers(comparison: Comparison) -> str:
    """What was answered, one after the other, for a terminal."""
    return "\n".join(
        f"── {_title(lane)}\n{visible(lane.text).strip() or ''.join(why(lane)[:1]) or said_of(lane)}\n"
        for lane in comparison.progress
    )


def _title(lane: Lane) -> str:
    again = f" · run {lane.repeat + 1}" if lane.repeat else ""
    return f"{visible(lane.contender)}{again}"


def said_of(lane: Lane) -> str:
    """How a question stands, or what is known of its answer, in a line; nothing where that is only `why` it failed."""
    if (trial := lane.trial) is None:
        return _so_far(lane)
    tokens, rate = counted(trial)
    waited = f"queued {seconds(trial.queued)}" if (trial.queued or 0) >= QUEUE_WORTH_A_WORD else ""
    ended = "" if lane.error else trial.finish
    parts = [
        f"first token {seconds(trial.first_token)}" if trial.first_token is not None else "",
        LOADED_FIRST if trial.was_loaded else "",
        f"{rate} tokens/s" if rate else "",
        f"{tokens} tokens" if tokens else "",
        waited,
        f"{trial.vote} votes" if trial.vote else "",
        f"answered by {trial.answered_by}" if trial.answered_by else "",
        "recorded earlier" if trial.from_cache else "",
        "" if ended == "stop" else ended,
    ]
    return " · ".join(part for part in parts if part) or ended


def counted(trial: Trial) -> tuple[str, str]:
    """Its tokens and how many came in a second, in words; the pieces that came, as being about them, where no server told."""
    if trial.tokens is not None:
        return f"{trial.tokens:,}", f"{trial.tokens_per_second:.1f}" if trial.tokens_per_second else ""
    rate = trial.pieces_per_second
    return f"~{trial.pieces:,}" if trial.pieces else "", f"~{rate:.1f}" if rate else ""


def _so_far(lane: Lane) -> str:
    """What a question waits for, or how fast its answer comes."""
    if lane.is_replayed:
        return "replayed"
    first = f" · first token {seconds(lane.first_token)}" if lane.first_token is not None else ""
    count = f" · ~{lane.tokens:,} tokens" if lane.tokens else ""
    return f"{lane.state}{first}{count} · {lane.seconds:.0f} s"


def _waited(lanes: list[Lane]) -> str:
    longest = max((lane.trial.queued or 0 for lane in lanes if lane.trial is not None), default=0)
    return seconds(longest) if longest >= QUEUE_WORTH_A_WORD else ""


def _votes(lanes: list[Lane]) -> str:
    return str(sum(lane.trial.vote for lane in lanes if lane.trial is not None) or "")


def _ended(lanes: list[Lane]) -> str:
    """How the answers ended, or where they are, each way once."""
    ways = [lane.state.value if lane.trial is None else lane.trial.finish for lane in lanes]
    return one_line(", ".join(dict.fromkeys(ways)), 80)
