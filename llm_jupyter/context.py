"""What goes to the model: as much of a conversation as its window holds, and whether the server has read all of it.

The instructions and the question always go; of the turns before, the oldest are left out, whole, until the rest and the
answer fit. Lengths are estimates at first, and the server's own tokenizer is asked only where they leave it open whether
a turn fits, so that short conversations cost nothing and long ones no more than what is sent of them.

The same turns and the same window give the same messages: where there is a tokenizer, what was learned from earlier
answers decides nothing. Where there is none, it may move the point at which turns are left out by a few of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from llm_jupyter.choice import Choice
from llm_jupyter.errors import ContextExceededError
from llm_jupyter.providers._tokens import least_tokens, most_tokens, too_long
from llm_jupyter.providers.base import Window
from llm_jupyter.types import GenerationOptions, Message, ToolDefinition, Usage

Policy = Literal["window", "strict"]

PAGE = 32
"""Turns that are asked for at once."""

COUNTS = 3
"""How often the tokenizer is asked for one question."""

TOKENS_PER_BYTE = 1 / 3.3
"""Of UTF-8, until a model's answers have told."""

PER_MESSAGE, PER_IMAGE = 4, 1000
"""Tokens, as a first estimate."""

FEWEST, MOST = 0.5, 4
"""A prompt has no fewer and no more tokens than so many first estimates: words of six bytes may be one token each, and a
byte one token with 16 more around each message."""

LEAST_LEARNED, MOST_LEARNED = FEWEST * TOKENS_PER_BYTE, 1.0
"""Tokens for each byte; what lies beyond is an error of measurement."""

SHORTEST_LESSON = 256
"""Bytes of a prompt that says more about a tokenizer than about its template."""

USUAL_ANSWER = 1024
"""Tokens that are kept for an answer of unknown length, at most; never more than a quarter of the window."""

NEARLY = 0.9
"""How much of a prompt or of a window is as good as all of it, where servers count a little differently."""

LONGER = 1.25
"""How many estimates a prompt is taken for at least that a server has refused."""

ALONE = "Shorten it or its instructions, or give the model a larger window."
CUT = "Shorten it, leave out the conversation so far (--no-history), or give the model a larger window."
STRICT = (
    "%llm reset starts over, --no-history asks without it; "
    'context = "window" in [session], or by %config, leaves out the oldest turns.'
)


class Exchange(msgspec.Struct, frozen=True):
    """One earlier turn as the model sees it: `turn` is its id."""

    turn: str
    messages: tuple[Message, ...]


class Earlier(Protocol):
    """The turns before a question."""

    async def latest(self, skip: int, count: int) -> Sequence[Exchange]:
        """The nearest ones first, without the first `skip`; fewer than `count` where there are no more."""


class Fitted(msgspec.Struct, frozen=True):
    """What is sent, and what is known of it.

    `tokens` is its length, counted by the server's tokenizer where `is_exact`. `turns` earlier turns are in it and
    `left_out` are not (`None` where they are more than were looked at). `reserve` tokens are kept for the answer.
    """

    messages: tuple[Message, ...]
    tokens: int
    is_exact: bool
    window: Window | None
    turns: int
    left_out: int | None
    reserve: int


class _Length(msgspec.Struct, frozen=True):
    """What is known of the length of some messages: bytes, tokens around them, and the bounds of all their tokens."""

    size: int
    around: int
    least: int
    most: int

    @classmethod
    def of(cls, messages: Sequence[Message]) -> _Length:
        around = PER_MESSAGE * len(messages) + PER_IMAGE * sum(len(message.images) for message in messages)
        return cls(sum(map(_size, messages)), around, least_tokens(messages), sum(map(most_tokens, messages)))

    def __add__(self, other: _Length) -> _Length:
        return _Length(
            self.size + other.size, self.around + other.around, self.least + other.least, self.most + other.most
        )

    def estimate(self, tokens_per_byte: float = TOKENS_PER_BYTE) -> int:
        return self.around + round(tokens_per_byte * self.size)

    @property
    def ceiling(self) -> int:
        """It is hardly longer."""
        return min(self.most, MOST * self.estimate())


def _size(message: Message) -> int:
    """Bytes that make tokens: of white space, which a tokenizer takes in one gulp, a blank between two words."""
    words = message.content.split()
    calls = sum(len(call.name) + len(call.arguments.encode(errors="replace")) for call in message.tool_calls)
    return len("".join(words).encode(errors="replace")) + len(words) + calls


class TokenEstimates:
    """How many tokens a text is for a model, learned from what its answers report."""

    def __init__(self) -> None:
        self._learned: dict[str, float] = {}

    def observe(self, model: str, messages: Sequence[Message], prompt_tokens: int) -> None:
        """These messages were so many tokens for this model (`provider/model`)."""
        length = _Length.of(messages)
        if length.size < SHORTEST_LESSON or any(message.images for message in messages):
            return
        seen = (prompt_tokens - length.around) / length.size
        learned = (self.tokens_per_byte(model) + seen) / 2
        self._learned[model] = min(max(learned, LEAST_LEARNED), MOST_LEARNED)

    def refused(self, model: str, messages: Sequence[Message], prompt_tokens: int) -> None:
        """These messages were at least so many tokens."""
        size = sum(map(_size, messages))
        if size:
            seen = (prompt_tokens - PER_MESSAGE * len(messages)) / size
            self._learned[model] = min(max(self.tokens_per_byte(model), seen), MOST_LEARNED)

    def tokens_per_byte(self, model: str) -> float:
        """What was learned of a model; each lesson weighs as much as all before it."""
        return self._learned.get(model, TOKENS_PER_BYTE)

    def estimate(self, model: str, messages: Sequence[Message]) -> int:
        """About how many tokens these messages are for this model."""
        return _Length.of(messages).estimate(self.tokens_per_byte(model))

    @staticmethod
    def least(messages: Sequence[Message]) -> int:
        """They cannot be fewer, whatever the tokenizer."""
        return least_tokens(messages)

    @staticmethod
    def most(messages: Sequence[Message]) -> int:
        """They cannot be more."""
        return sum(map(most_tokens, messages))


Measure = Callable[[_Length], float]


class _Talk:
    """The question, and the turns before it that were looked at; `lengths[n]` is that of the prompt with `n` of them."""

    def __init__(
        self, system: str | None, prompt: Message, tools: Sequence[ToolDefinition], window: Window | None, reserve: int
    ) -> None:
        self.window = window
        self.reserve = reserve
        self.turns: list[Exchange] = []
        self.is_all = False
        self._system = [Message.system(system)] if system else []
        self._prompt = prompt
        offered = [Message.system(msgspec.json.encode(tools).decode())] if tools else []
        self.lengths = [_Length.of([*self._system, *offered, prompt])]

    def limit(self, turns: int) -> int:
        """How long the prompt may be; without any earlier turn it may use what is kept for the answer, all but one token."""
        assert self.window is not None
        return self.window.tokens - (self.reserve if turns else 1)

    async def look(self, earlier: Earlier) -> None:
        """Take in turns until there are no more, or far more than can fit."""
        while not self.is_all:
            page = await earlier.latest(len(self.turns), PAGE)
            for exchange in page:
                self.turns.append(exchange)
                self.lengths.append(self.lengths[-1] + _Length.of(exchange.messages))
            self.is_all = len(page) < PAGE
            if self.window is not None and FEWEST * self.lengths[-1].estimate() > self.limit(len(self.turns)):
                return

    def most_turns(self, measure: Measure) -> int:
        """With how many turns the prompt fits if it is as long as `measure` says; -1 where it does not even alone."""
        numbers = range(len(self.lengths))
        return bisect_right(numbers, 0.0, key=lambda n: measure(self.lengths[n]) - self.limit(n)) - 1

    def shortened(self, turns: int, count: int) -> int:
        """With how many turns it fits for certain, if it has `count` tokens with `turns` of them; -1 where that tells nothing."""
        return self.most_turns(lambda length: count - self.lengths[turns].least + length.least)

    def messages(self, turns: int) -> tuple[Message, ...]:
        """What is sent with so many turns."""
        said = (message for exchange in reversed(self.turns[:turns]) for message in exchange.messages)
        return (*self._system, *said, self._prompt)


class ContextBuilder:
    """Fits conversations into windows, and learns from what the answers report."""

    def __init__(self, estimates: TokenEstimates) -> None:
        self.estimates = estimates
        self._told: dict[str, Window] = {}

    async def fit(
        self, choice: Choice, *, system: str | None, earlier: Earlier, prompt: Message, options: GenerationOptions,
        policy: Policy, may_count: bool = True,
    ) -> Fitted:  # fmt: skip
        """What to send to the chosen model, with the options that the request will have; `may_count` lets its tokenizer read
        it, which sends it there.

        Where nobody tells the window, everything is sent. Raises `ContextExceededError` where instructions and question
        do not fit alone, and under the policy `strict` where a turn would have to be left out.
        """
        window = await choice.provider.context_window(choice.model, options) or self._told.get(choice.full_name)
        talk = _Talk(system, prompt, options.tools, window, _reserve(options.max_tokens, window))
        await talk.look(earlier)
        counts: dict[int, int] = {}
        turns, looked = len(talk.turns), len(talk.turns)
        if window is not None:
            turns = await self._settle(choice, talk, options, counts, may_count)
            if turns < 0:
                raise _alone(choice, talk, window, counts.get(0))
            if policy == "strict" and not (talk.is_all and turns == looked):
                raise _not_whole(choice, talk, window, counts.get(looked))
        about = talk.lengths[turns].estimate(self.estimates.tokens_per_byte(choice.full_name))
        return Fitted(
            talk.messages(turns), counts.get(turns, about), turns in counts, window, turns,
            looked - turns if talk.is_all else None, talk.reserve,
        )  # fmt: skip

    def check(self, choice: Choice, fitted: Fitted, usage: Usage) -> None:
        """Learn from an answer's figures. Raises `ContextExceededError` where they tell that the prompt was cut.

        `choice` is who answered, and who it was fitted for.
        """
        if usage.prompt_tokens is None:
            return
        cached = usage.cached_tokens or 0
        read = usage.prompt_tokens + cached  # some servers count only what they had not read before: never too few
        expected = _least_expected(fitted)
        if read < expected:
            raise ContextExceededError(
                f"the server cut the prompt and said nothing: it read {read:,} of {expected:,} tokens or more",
                where=choice.provider.where,
                prompt_tokens=expected,
                context_length=fitted.window.tokens if fitted.window is not None else None,
                next_step=CUT,
            )
        is_whole = usage.prompt_tokens >= max(cached, least_tokens(fitted.messages))
        self.estimates.observe(choice.full_name, fitted.messages, usage.prompt_tokens if is_whole else read)

    def refused(self, choice: Choice, fitted: Fitted, error: ContextExceededError) -> bool:
        """Learn from a refusal. Whether it is worth while to fit the question again: less of the conversation will go."""
        if fitted.window is None and error.context_length:
            self._told[choice.full_name] = Window(error.context_length, "as its server said when it refused")
        if not fitted.turns or fitted.is_exact or not (fitted.window or error.context_length):
            return False
        longer = max(error.prompt_tokens or 0, round(LONGER * fitted.tokens))
        self.estimates.refused(choice.full_name, fitted.messages, longer)
        return True

    async def _settle(
        self, choice: Choice, talk: _Talk, options: GenerationOptions, counts: dict[int, int], may_count: bool
    ) -> int:
        """With how many turns the prompt fits, -1 where it does not even alone; `counts` gathers what was counted."""
        low = talk.most_turns(lambda length: length.ceiling)
        high = talk.most_turns(lambda length: length.least) + 1
        guess = len(talk.turns) if talk.is_all else talk.most_turns(lambda length: length.estimate())
        while low + 1 < high and len(counts) < COUNTS:
            guess = min(max(guess, low + 1), high - 1)
            messages = talk.messages(guess)
            count = await choice.provider.count_tokens(messages, choice.model, options) if may_count else None
            if count is None:
                return self._estimated(choice, talk, low, high)
            counts[guess] = count
            if count <= talk.limit(guess):
                low = guess
            else:
                high = guess
                low = max(low, talk.shortened(guess, count))
            guess = _next_guess(talk, guess, low, counts)
        return low

    def _estimated(self, choice: Choice, talk: _Talk, low: int, high: int) -> int:
        """The same without a tokenizer. Whether a question fits that may or may not is left to the server."""
        learned = self.estimates.tokens_per_byte(choice.full_name)
        turns = min(max(talk.most_turns(lambda length: length.estimate(learned)), low), high - 1)
        is_open = high > 0 and FEWEST * talk.lengths[0].estimate() <= talk.limit(0)
        return max(turns, 0) if is_open else turns


def _reserve(max_tokens: int | None, window: Window | None) -> int:
    """Tokens that are kept for the answer; a limit that is no smaller than the window says nothing of its length."""
    if window is None:
        return max_tokens or 0
    return max_tokens if max_tokens and max_tokens < window.tokens else min(USUAL_ANSWER, window.tokens // 4)


def _next_guess(talk: _Talk, last: int, low: int, counts: dict[int, int]) -> int:
    """The last count tells how long a first estimate is for this text; whether a question fits alone must come out."""
    if low < 0 and len(counts) == COUNTS - 1:
        return 0
    scale = counts[last] / talk.lengths[last].estimate()
    return talk.most_turns(lambda length: scale * length.estimate())


def _least_expected(fitted: Fitted) -> int:
    """The fewest tokens that a server can have read if it has read the whole prompt."""
    window = fitted.window
    if window is None:
        return least_tokens(fitted.messages)
    if TokenEstimates.most(fitted.messages) <= window.tokens:
        return 0  # nothing had to be cut, whatever the server counts
    is_nearly_full = fitted.tokens + fitted.reserve > NEARLY * window.tokens
    counted = round(NEARLY * fitted.tokens) if fitted.is_exact and is_nearly_full else 0
    return max(counted, least_tokens(fitted.messages))


def _alone(choice: Choice, talk: _Talk, window: Window, count: int | None) -> ContextExceededError:
    length = talk.lengths[0]
    tokens, counted = (count, "") if count is not None else (length.least, "at least ")
    if tokens < window.tokens:
        tokens, counted = length.estimate(), "about "
    return too_long(tokens, window.tokens, where=choice.provider.where, next_step=ALONE, counted=counted)


def _not_whole(choice: Choice, talk: _Talk, window: Window, count: int | None) -> ContextExceededError:
    looked = len(talk.turns)
    about = max(talk.lengths[looked].estimate(), talk.limit(looked) + 1)
    counted = "" if count is not None else "about " if talk.is_all else "more than "
    return too_long(
        about if count is None else count, window.tokens, where=choice.provider.where, next_step=STRICT,
        counted=counted, reserve=talk.reserve, what="conversation",
    )  # fmt: skip
