"""One comparison as the dashboard `compare` shows it, in JSON values: a prompt, and of each contender one of its answers."""

from __future__ import annotations

import random
import string
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_jupyter.choice import Choice, answers
from llm_jupyter.comparison import Comparison, Lane, LaneState, Trial, contenders_of
from llm_jupyter.comparison.plain import LOADED_FIRST, progress
from llm_jupyter.comparison.trial import pace
from llm_jupyter.comparison.words import seconds
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import LLMModelInfo
from llm_jupyter.wording import shortened

IN_HAND = (LaneState.ASKING, LaneState.STREAMING)
UNDER_WAY = (LaneState.QUEUED, *IN_HAND)

SHOWN = 200_000
"""Characters of an answer that the page gets."""

PROMPT_SHOWN = 10_000
"""Characters of a prompt that the page gets."""

MOST_REPEATS = 10
"""Times that each is asked, from a page."""

HIDDEN_ERROR = "It failed; why is shown with the names."

HEADINGS = ("contender", "state", "first token", "tokens/s", "tokens", "total", "queued", "vote", "answer")


class View:
    """How one comparison is looked at: which prompt, which run of each contender, and whether names are hidden.

    Contenders are known by their number. While `is_blind`, they stand in a random order and are called A, B, C; a vote on a
    prompt, or the word that nobody is better, adds their names.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.prompt = 0
        self.runs = [0] * len(comparison.contenders)
        self.is_blind = False
        self.titles = [_in_a_line(prompt, 80) for prompt in comparison.prompts]
        """What each prompt is called in a list to choose from; it never changes, so it travels once."""
        self._orders: dict[int, list[int]] = {}
        self._judged: set[int] = set()
        self._since: dict[tuple[Lane, bool], float] = {}

    # -- what is looked at

    def lane(self, column: int) -> Lane:
        """The question to a contender that is shown."""
        return self._lane(column, self.runs[column])

    def _lane(self, column: int, run: int) -> Lane:
        prompts, contenders = len(self.comparison.messages), len(self.comparison.contenders)
        return self.comparison.progress[(run * prompts + self.prompt) * contenders + column]

    def checked(self, column: int) -> int:
        """A contender's number. Raises `InvalidInputError` where there is no such one."""
        return in_range(column, len(self.comparison.contenders), "column")

    @property
    def is_under_way(self) -> bool:
        """Whether anything is asked now."""
        return any(lane.state in UNDER_WAY for lane in self.comparison.progress)

    # -- judging

    def vote(self, column: int | None) -> None:
        """Let that contender's answer be the better one for this prompt, in place of another; `None`: nobody's is.

        Raises `InvalidInputError` for an answer that is not over.
        """
        lane = None if column is None else self.lane(column)
        if lane is not None and lane.trial is None:
            raise InvalidInputError("that answer is not over yet", next_step="Vote when it is.")
        for one in self._voted():
            self._add(one, -(one.trial.vote if one.trial is not None else 0))
        if lane is not None:
            self._add(lane, 1)
        self._judged.add(self.prompt)

    def _add(self, lane: Lane, points: int) -> None:
        self.comparison.vote(lane.contender, lane.prompt, lane.repeat, points=points)

    def _voted(self) -> list[Lane]:
        """Which answers to this prompt have votes."""
        shown = (lane for lane in self.comparison.progress if lane.prompt == self.prompt)
        return [lane for lane in shown if lane.trial is not None and lane.trial.vote]

    @property
    def is_judged(self) -> bool:
        """Whether somebody has voted on this prompt, if only to say that nobody is better."""
        return self.prompt in self._judged or bool(self._voted())

    @property
    def is_hidden(self) -> bool:
        """Whether the names are hidden."""
        return self.is_blind and not self.is_judged

    @property
    def order(self) -> list[int]:
        """The contenders as they stand side by side."""
        columns = list(range(len(self.comparison.contenders)))
        if not self.is_blind:
            return columns
        return self._orders.setdefault(self.prompt, random.sample(columns, len(columns)))

    def name(self, column: int) -> str:
        """What a contender is called here."""
        label = self.comparison.contenders[column].label
        if not self.is_blind:
            return label
        letter = letters(self.order.index(column))
        return letter if self.is_hidden else f"{letter} · {label}"

    # -- as JSON

    def head(self) -> dict[str, Any]:
        """What is known of it as a whole."""
        lanes = self.comparison.progress
        return {
            "prompt": self.prompt,
            "repeats": self.comparison.repeats,
            "over": sum(lane.is_over for lane in lanes),
            "progress": progress(self.comparison),
            "blind": self.is_blind,
            "hidden": self.is_hidden,
            "judged": self.is_judged,
        }

    def column(self, number: int, ahead: int = 0) -> dict[str, Any]:
        """A contender, and how its answer stands; `since` in seconds since the epoch. Figures and texts travel apart."""
        lane, is_hidden = self.lane(number), self.is_hidden
        trial, label = lane.trial, self.comparison.contenders[number].label
        runs = range(self.comparison.repeats) if self.comparison.repeats > 1 else ()
        return {
            "name": self.name(number),
            "model": "" if is_hidden or label.startswith(lane.model) else lane.model,
            "state": lane.state.value,
            "ahead": ahead,
            "since": self._began(lane),
            "finish": trial.finish if trial is not None else "",
            "error": self._told("\n".join(lane.error)),
            "notes": [] if trial is None or is_hidden else _notes(trial),
            "run": self.runs[number],
            "runs": [self._lane(number, run).state.value for run in runs],
            "better": trial is not None and trial.vote > 0,
        }

    def _began(self, lane: Lane) -> float | None:
        """When it began to wait for its turn, or its turn came."""
        if lane.state not in UNDER_WAY:
            return None
        return self._since.setdefault((lane, lane.state is LaneState.QUEUED), round(time.time() - lane.seconds, 1))

    def spread(self) -> list[dict[str, Any]]:
        """The figures of each contender over all its answers; nothing where it has only one."""
        if len(self.comparison.progress) == len(self.comparison.contenders):
            return []
        rows = [{**msgspec.to_builtins(row), "error": self._told(row.error)} for row in self.comparison.spread()]
        return [{name: value for name, value in row.items() if name != "contender"} for row in rows]

    def _told(self, error: str) -> str:
        """An error as it may be read now: it names the model and its server."""
        return HIDDEN_ERROR if error and self.is_hidden else error


def comparison_of(
    prompt: str, contenders: Sequence[Mapping[str, Any]], repeats: int, *, is_blind: bool = False
) -> Comparison:
    """A comparison of what a page has sent, in which a field that was left empty is `None`. Raises `InvalidInputError`.

    One that is blind asks in a random order: contenders on one server are asked in turn, and whoever typed their names would
    know them by that.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInputError("there is nothing to ask", next_step="Type a prompt first.")
    if not isinstance(repeats, int) or not 1 <= repeats <= MOST_REPEATS:
        raise InvalidInputError(f"each is asked 1 to {MOST_REPEATS} times")
    told = [{name: value for name, value in one.items() if value not in (None, "")} for one in contenders]
    several = contenders_of(told)
    return Comparison(prompt, random.sample(several, len(several)) if is_blind else several, repeats=repeats)


def suggested(models: Sequence[LLMModelInfo], choice: Choice | None) -> list[dict[str, Any]]:
    """Whom to compare where nobody has said it: two local models, or the only one under two settings.

    `choice` is the model that answers now, if one was chosen.
    """
    local = [model.full_name for model in models if answers(model)]
    if choice is not None and choice.is_local:
        local = [choice.full_name, *(name for name in local if name != choice.full_name)]
    if len(local) == 1:
        return [{"model": local[0], "temperature": temperature} for temperature in (0, 1)]
    return [{"model": name} for name in local[:2]]


def queues(comparison: Comparison) -> dict[Lane, int]:
    """How many questions stand before each that waits for its turn, those in hand among them."""
    before = Counter(_server(lane) for lane in comparison.progress if lane.state in IN_HAND)
    ahead = {}
    for lane in comparison.progress:  # it is in the order of the turns
        if lane.state is LaneState.QUEUED:
            ahead[lane] = before[_server(lane)]
            before[_server(lane)] += 1
    return ahead


def figures(lane: Lane) -> dict[str, Any]:
    """What is measured of an answer so far; times in seconds, `more` characters are not shown.

    `about` says that its tokens are the pieces that came, since no server told how many.
    """
    trial = lane.trial
    is_told = trial is not None and trial.tokens is not None
    if trial is None:
        rate = pace(lane.tokens, lane.first_token, lane.seconds)
        measured = {"first_token": lane.first_token, "rate": rate, "tokens": lane.tokens or None}
    else:
        measured = {
            "first_token": trial.first_token, "rate": trial.tokens_per_second if is_told else trial.pieces_per_second,
            "tokens": trial.tokens if is_told else trial.pieces or None, "total": trial.total, "queued": trial.queued,
        }  # fmt: skip
    return {
        **{name: round(value, 3) if value is not None else None for name, value in measured.items()},
        "about": not is_told,
        "more": max(0, len(lane.text) - SHOWN),
    }


def cells(state: dict[str, Any], number: int) -> list[str]:
    """A contender's row in the table of a saved file, from what is shown."""
    column, known = state[f"column:{number}"], state[f"figures:{number}"]
    rate, tokens, about = known["rate"], known["tokens"], "~" if known["about"] else ""
    return [
        column["name"], column["state"], seconds(known["first_token"]), f"{about}{rate:.1f}" if rate else "",
        f"{about}{tokens:,}" if tokens is not None else "", seconds(known.get("total")), seconds(known.get("queued")),
        "better" if column["better"] else "", shortened(state.get(f"text:{number}") or column["error"], 200),
    ]  # fmt: skip


def in_history(number: int, comparison: Comparison) -> dict[str, Any]:
    """What tells a comparison from others."""
    asked, contenders = _in_a_line(comparison.prompts[0], 60), len(comparison.contenders)
    return {"number": number, "prompt": asked, "contenders": contenders}


def letters(number: int) -> str:
    """What a contender is called whose name is hidden."""
    return string.ascii_uppercase[number] if number < len(string.ascii_uppercase) else str(number + 1)


def in_range(number: int, count: int, what: str) -> int:
    """A number that counts from 0. Raises `InvalidInputError` where there are not so many."""
    if not isinstance(number, int) or not 0 <= number < count:
        raise InvalidInputError(f"there is no {what} {number!r:.40}")
    return number


def _in_a_line(prompt: str, width: int) -> str:
    return shortened(" ".join(prompt[: 10 * width].split()), width)


def _server(lane: Lane) -> str:
    return lane.model.partition("/")[0]


def _notes(trial: Trial) -> list[str]:
    answered_by = [f"answered by {trial.answered_by}"] if trial.answered_by else []
    loaded = [LOADED_FIRST] if trial.was_loaded else []
    return [*loaded, *answered_by, *(["recorded earlier"] if trial.from_cache else [])]
