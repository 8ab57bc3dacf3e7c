"""What goes to the model fits its window, keeps the newest turns, costs what is sent, and is noticed where it was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.choice import Choice
from llm_jupyter.context import COUNTS, PAGE, ContextBuilder, Exchange, Fitted, Policy, TokenEstimates
from llm_jupyter.errors import ContextExceededError
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.base import DEFAULT_OPTIONS, LLMProvider, Window
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.testing import ScriptedProvider
from llm_jupyter.types import GenerationOptions, Image, Message, ToolDefinition, Usage

user, assistant = Message.user, Message.assistant
BRIEF = GenerationOptions(temperature=0.0, max_tokens=2)


# -- doubles at two seams: a provider that tells its window and counts, and the turns before a question


@dataclass(frozen=True)
class Tokenizer:
    """Makes a token of so many bytes of a word, and puts so many around each message."""

    bytes_per_token: int = 4
    around: int = 5

    def __call__(self, messages: Sequence[Message]) -> int:
        words = [word.encode() for message in messages for word in message.content.split()]
        return self.around * len(messages) + sum(-(-len(word) // self.bytes_per_token) for word in words)


class Measured(ScriptedProvider):
    """A provider with a window, and with a tokenizer unless it has none; it remembers what it was to count."""

    def __init__(self, window: int | None, tokenizer: Callable[[Sequence[Message]], int] | None = None) -> None:
        super().__init__("ok")
        self.window = window
        self.tokenizer = tokenizer
        self.counted: list[Sequence[Message]] = []

    async def context_window(self, model: str, options: GenerationOptions = DEFAULT_OPTIONS) -> Window | None:
        return None if self.window is None else Window(self.window, "the test")

    async def count_tokens(
        self, messages: Sequence[Message], model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> int | None:
        if self.tokenizer is None:
            return None
        self.counted.append(messages)
        return self.tokenizer(messages)


@dataclass
class Turns:
    """Earlier turns by their number, the newest is 0; it remembers which pages were asked for."""

    total: int
    text: Callable[[int], str] = lambda number: f"turn {number} " + "ship " * 20
    pages: list[tuple[int, int]] = field(default_factory=list)

    async def latest(self, skip: int, count: int) -> Sequence[Exchange]:
        self.pages.append((skip, count))
        return [self.exchange(number) for number in range(skip, min(skip + count, self.total))]

    def exchange(self, number: int) -> Exchange:
        return Exchange(f"t{number}", (user(self.text(number)), assistant("Yes.")))

    def newest(self, count: int) -> list[Message]:
        return [message for number in reversed(range(count)) for message in self.exchange(number).messages]


def chosen(provider: LLMProvider, model: str = "m") -> Choice:
    return Choice(provider, model, "it is the only one", is_local=True)


async def fit(
    provider: LLMProvider, earlier: Turns, prompt: str | Message = "Why?", *, system: str | None = None,
    options: GenerationOptions = DEFAULT_OPTIONS, policy: Policy = "window", estimates: TokenEstimates | None = None,
    model: str = "m",
) -> Fitted:  # fmt: skip
    builder = ContextBuilder(estimates or TokenEstimates())
    asked = user(prompt) if isinstance(prompt, str) else prompt
    return await builder.fit(
        chosen(provider, model), system=system, earlier=earlier, prompt=asked, options=options, policy=policy
    )


async def outcome(*arguments: Any, **named: Any) -> Fitted | ContextExceededError:
    """What `fit` gives or raises."""
    try:
        return await fit(*arguments, **named)
    except ContextExceededError as error:
        return error


# -- what holds for every conversation

texts = st.lists(st.text(st.sampled_from("ab cdé船\n"), max_size=120), max_size=80)
tokenizers = st.builds(Tokenizer, st.integers(1, 6), st.integers(0, 16))
systems = st.none() | st.sampled_from(["Be brief.", "You are a sailor. " * 5])
windows = st.integers(64, 3000)


@given(texts, st.text("ab 船", max_size=200), systems, windows, tokenizers, st.none() | st.integers(1, 4000))
async def test_what_is_sent_fits_by_the_servers_own_count_and_leaves_out_only_the_oldest(
    said: list[str], prompt: str, system: str | None, window: int, tokenizer: Tokenizer, max_tokens: int | None
) -> None:
    earlier = Turns(len(said), said.__getitem__)
    provider = Measured(window, tokenizer)
    options = GenerationOptions(max_tokens=max_tokens)
    alone = [*([Message.system(system)] if system else []), user(prompt)]
    fitted = await outcome(provider, earlier, prompt, system=system, options=options)
    if isinstance(fitted, ContextExceededError):
        assert tokenizer(alone) >= window
        assert (fitted.prompt_tokens or 0) >= window == fitted.context_length
        return
    assert len(provider.counted) <= COUNTS
    assert list(fitted.messages) == [*alone[:-1], *earlier.newest(fitted.turns), alone[-1]]
    assert tokenizer(fitted.messages) + (fitted.reserve if fitted.turns else 1) <= window
    assert not fitted.is_exact or fitted.tokens == tokenizer(fitted.messages)
    assert fitted.left_out in (None, len(said) - fitted.turns)


@given(texts, windows, st.none() | tokenizers)
async def test_strict_refuses_exactly_where_window_would_leave_something_out(
    said: list[str], window: int, tokenizer: Tokenizer | None
) -> None:
    earlier = Turns(len(said), said.__getitem__)
    fitted = await fit(Measured(window, tokenizer), earlier)
    strictly = await outcome(Measured(window, tokenizer), earlier, policy="strict")
    if fitted.left_out == 0:
        assert strictly == fitted
        return
    assert isinstance(strictly, ContextExceededError)
    assert (strictly.prompt_tokens or 0) + fitted.reserve > window == strictly.context_length
    assert all(word in str(strictly) for word in ("%llm reset", "--no-history", 'context = "window"', f"{window:,}"))
    assert len(strictly.lines()) == 2


@given(texts, windows, st.floats(0.1, 2.0))
async def test_without_a_tokenizer_what_is_sent_fits_by_the_estimate(
    said: list[str], window: int, tokens_per_byte: float
) -> None:
    estimates = TokenEstimates()
    lesson = [user("ship " * 400)]
    estimates.observe("scripted/m", lesson, round(2000 * tokens_per_byte))
    fitted = await fit(Measured(window), Turns(len(said), said.__getitem__), estimates=estimates)
    assert fitted.tokens == pytest.approx(estimates.estimate("scripted/m", fitted.messages), abs=1)
    assert not fitted.is_exact
    assert fitted.turns == 0 or fitted.tokens + fitted.reserve <= window + 1


# -- how well it fits, and what that costs


@pytest.mark.parametrize("bytes_per_token", [1, 2, 3, 4, 6])
async def test_the_tokenizer_is_asked_three_times_at_most_and_little_room_is_left(bytes_per_token: int) -> None:
    provider = Measured(4096, Tokenizer(bytes_per_token))
    fitted = await fit(provider, Turns(1000))
    assert 0 < len(provider.counted) <= COUNTS
    one_more = fitted.tokens + Tokenizer(bytes_per_token)(Turns(1).newest(1)) + fitted.reserve
    assert fitted.is_exact
    assert fitted.tokens + fitted.reserve <= 4096 < one_more


async def test_uneven_turns_leave_no_more_than_a_tenth_of_the_room() -> None:
    provider = Measured(4096, Tokenizer(3))
    fitted = await fit(
        provider, Turns(400, lambda number: "船 " * 200 if number % 17 == 5 else "I see. " * (number % 9))
    )
    assert 0.9 * (4096 - fitted.reserve) < Tokenizer(3)(fitted.messages) <= 4096 - fitted.reserve


async def test_a_short_conversation_is_not_counted() -> None:
    provider, earlier = Measured(8192, Tokenizer()), Turns(10)
    fitted = await fit(provider, earlier)
    assert (fitted.turns, fitted.left_out, fitted.is_exact) == (10, 0, False)
    assert provider.counted == []
    assert earlier.pages == [(0, PAGE)]


async def test_a_session_of_a_hundred_thousand_turns_costs_as_much_as_one_a_hundredth_as_long() -> None:
    short, long = Turns(1000), Turns(100_000)
    providers = [Measured(4096, Tokenizer()), Measured(4096, Tokenizer())]
    fitted = [await fit(provider, turns) for provider, turns in zip(providers, (short, long), strict=True)]
    assert fitted[0].messages == fitted[1].messages
    assert fitted[1].left_out is None
    assert providers[0].counted == providers[1].counted
    assert long.pages == short.pages == [(PAGE * n, PAGE) for n in range(len(long.pages))]
    assert PAGE * len(long.pages) < 10 * fitted[1].turns


async def test_half_a_character_is_measured_as_what_is_sent_for_it() -> None:
    asked = await fit(Measured(8000), Turns(2, lambda _: "a\udcff.txt"), "Why \udcff?")
    sent = await fit(Measured(8000), Turns(2, lambda _: "a?.txt"), "Why ??")
    assert asked.tokens == sent.tokens


async def test_where_nobody_tells_the_window_everything_is_sent() -> None:
    for policy in ("window", "strict"):
        fitted = await fit(Measured(None), Turns(3 * PAGE), policy=policy)
        assert (fitted.turns, fitted.left_out, fitted.window) == (3 * PAGE, 0, None)


async def test_what_was_learned_decides_nothing_where_there_is_a_tokenizer() -> None:
    taught = TokenEstimates()
    taught.observe("scripted/m", [user("ship " * 400)], 2000)
    fresh, later = [await fit(Measured(2048, Tokenizer()), Turns(200), estimates=e) for e in (TokenEstimates(), taught)]
    assert fresh == later


# -- the room


@pytest.mark.parametrize(
    ("max_tokens", "reserve"), [(None, 1024), (100, 100), (4000, 4000), (8192, 1024), (100_000, 1024)]
)
async def test_room_is_kept_for_the_answer(max_tokens: int | None, reserve: int) -> None:
    fitted = await fit(Measured(8192, Tokenizer()), Turns(2000), options=GenerationOptions(max_tokens=max_tokens))
    assert fitted.reserve == reserve
    assert 8192 - reserve - 60 < fitted.tokens <= 8192 - reserve


async def test_a_question_alone_may_use_the_answers_room_but_one_token() -> None:
    provider = Measured(100, Tokenizer(4, 0))
    fitted = await fit(provider, Turns(5), "ship " * 99)
    assert (fitted.turns, fitted.tokens, fitted.is_exact) == (0, 99, True)
    with pytest.raises(ContextExceededError, match="takes the whole window of 100 tokens, or more"):
        await fit(provider, Turns(5), "ship " * 100)


async def test_a_question_that_fits_is_never_refused_for_what_was_counted_with_turns() -> None:
    def unlike_the_turns(messages: Sequence[Message]) -> int:
        return sum(message.content.count("x") + message.content.count("y") // 6 for message in messages)

    provider = Measured(1000, unlike_the_turns)
    fitted = await fit(provider, Turns(20, lambda number: "y" * 300), "x" * 950)
    assert (fitted.turns, fitted.tokens, fitted.is_exact, len(provider.counted)) == (0, 950, True, COUNTS)


async def test_a_question_beyond_the_window_is_refused_with_both_counts() -> None:
    for tokenizer, said in ((Tokenizer(), "at least 300"), (None, "at least 300")):
        with pytest.raises(ContextExceededError, match=f"{said} tokens do not fit into its window of 100") as caught:
            await fit(Measured(100, tokenizer), Turns(0), "ship " * 300)
        assert (caught.value.prompt_tokens, caught.value.context_length) == (300, 100)
    with pytest.raises(ContextExceededError, match="305 tokens do not fit into its window of 100"):
        await fit(Measured(100, Tokenizer()), Turns(0), "ship" * 300)
    with pytest.raises(ContextExceededError, match="about 459 tokens do not fit into its window of 100"):
        await fit(Measured(100), Turns(0), "船" * 500)


async def test_an_estimate_refuses_nothing_that_may_fit() -> None:
    fitted = await fit(Measured(100), Turns(5), "a1b2c3d4" * 60)
    assert fitted.turns == 0
    assert fitted.tokens > 100


async def test_tools_take_room_too() -> None:
    tool = ToolDefinition("weather", "The weather. " * 100, {"type": "object", "properties": {}})
    plain, offering = [
        await fit(Measured(2048), Turns(200), options=GenerationOptions(tools=tools)) for tools in ((), (tool,))
    ]
    assert 0 < offering.turns < plain.turns - 5
    assert plain.messages[-2 * offering.turns - 1 :] == offering.messages


# -- estimates


def test_estimates_learn_from_what_the_answers_report() -> None:
    estimates = TokenEstimates()
    text = [user("seven letters " * 100)]
    assert estimates.estimate("a/m", text) == 4 + round(1400 / 3.3)
    for _ in range(8):
        estimates.observe("a/m", text, 1000)
    assert estimates.estimate("a/m", text) == pytest.approx(1000, rel=0.01)
    assert estimates.estimate("another/m", text) == 4 + round(1400 / 3.3)


def test_estimates_learn_nothing_from_what_teaches_nothing() -> None:
    estimates = TokenEstimates()
    estimates.observe("a/m", [user("hi")], 40)
    estimates.observe("a/m", [user("ship " * 100, [Image(b"png")])], 3000)
    assert estimates.tokens_per_byte("a/m") == TokenEstimates().tokens_per_byte("a/m")
    assert estimates.estimate("a/m", [user("", [Image(b"png")])]) == 1004


@given(st.text(max_size=300), st.lists(st.integers(0, 100_000), max_size=5))
def test_no_report_makes_estimates_absurd(text: str, reports: list[int]) -> None:
    estimates = TokenEstimates()
    messages = [user(text), assistant("ship " * 100)]
    for report in reports:
        estimates.observe("a/m", messages, report)
    assert 0 <= estimates.least(messages) <= estimates.most(messages)
    assert estimates.estimate("a/m", messages) <= estimates.most(messages)
    assert 1 / 7 < estimates.tokens_per_byte("a/m") <= 1


# -- a prompt that was cut without a word

LONG = (user("ship " * 2000), assistant("Yes."), user("Why?"))


def sent(window: int | None, tokens: int = 2015, *, is_exact: bool = False) -> Fitted:
    told = None if window is None else Window(window, "the test")
    return Fitted(LONG, tokens, is_exact, told, 1, 0, 100)


UNSUSPICIOUS = {
    "no usage": (sent(4096), Usage()),
    "all of it": (sent(None), Usage(2015)),
    "all of it, most of it cached (OpenAI, llama.cpp)": (sent(4096), Usage(2015, cached_tokens=2014)),
    "only what was not cached": (sent(None), Usage(12, cached_tokens=2003)),
    "only what was not cached, where that is not told, and nothing could be cut": (sent(20_000), Usage(12)),
    "a little less than was counted": (sent(2100, is_exact=True), Usage(2003)),
    "less than was counted, but a wide window": (sent(9000, 2600, is_exact=True), Usage(2015)),
}


@pytest.mark.parametrize("case", UNSUSPICIOUS.values(), ids=UNSUSPICIOUS)
def test_an_answer_to_the_whole_prompt_is_no_false_alarm(case: tuple[Fitted, Usage]) -> None:
    ContextBuilder(TokenEstimates()).check(chosen(Measured(None)), *case)


CUT = {
    "fewer than there are words": (sent(4096), Usage(1999), 2002),
    "the same where nobody tells the window": (sent(None), Usage(1024), 2002),
    "the same with a cache": (sent(None), Usage(512, cached_tokens=511), 2002),
    "far fewer than were counted": (sent(3600, 3500, is_exact=True), Usage(2100), 3150),
}


@pytest.mark.parametrize("case", CUT.values(), ids=CUT)
def test_a_prompt_that_was_cut_is_an_error_with_both_counts_and_teaches_nothing(
    case: tuple[Fitted, Usage, int],
) -> None:
    fitted, usage, expected = case
    builder = ContextBuilder(TokenEstimates())
    with pytest.raises(ContextExceededError, match="cut the prompt") as caught:
        builder.check(chosen(Measured(None)), fitted, usage)
    assert caught.value.prompt_tokens == expected
    assert caught.value.context_length == (fitted.window.tokens if fitted.window else None)
    assert len(caught.value.lines()) == 2
    assert builder.estimates.tokens_per_byte("scripted/m") == TokenEstimates().tokens_per_byte("scripted/m")


def test_thinking_that_a_template_leaves_out_is_no_false_alarm() -> None:
    thought = assistant(f"<think>{'hm ' * 500}</think>Yes.")
    fitted = msgspec.structs.replace(sent(None), messages=(user("Why?"), thought, user("Sure?")))
    ContextBuilder(TokenEstimates()).check(chosen(Measured(None)), fitted, Usage(20))


def test_an_answer_teaches_its_models_estimate() -> None:
    for usage in (Usage(4000), Usage(4000, cached_tokens=3999), Usage(1000, cached_tokens=3000)):
        builder = ContextBuilder(TokenEstimates())
        builder.check(chosen(Measured(None)), sent(None), usage)
        taught = TokenEstimates()
        taught.observe("scripted/m", LONG, 4000)
        assert builder.estimates.tokens_per_byte("scripted/m") == taught.tokens_per_byte("scripted/m")


# -- live


@pytest.mark.live
async def test_a_conversation_of_three_windows_is_fitted_exactly_on_the_embedded_model(llm_home: Path) -> None:
    async with LlamaCppProvider(home=llm_home, context=512, threads=1) as provider:
        await provider.prepare(MODEL_ID)
        fitted = await fit(provider, Turns(60), "Name a ship. 船在海上。", model=MODEL_ID)
        assert (fitted.window, fitted.is_exact) == (Window(512, "/props"), True)
        assert 0 < fitted.turns < 60
        builder = ContextBuilder(TokenEstimates())
        for _ in range(2):  # the second time, nearly all of it is cached
            answer = await provider.generate_chat_completion(fitted.messages, model=MODEL_ID, options=BRIEF)
            assert answer.usage.prompt_tokens == fitted.tokens
            builder.check(chosen(provider, MODEL_ID), fitted, answer.usage)
        assert (answer.usage.cached_tokens or 0) > 100
        with pytest.raises(ContextExceededError):
            await fit(provider, Turns(0), "船在海上。" * 512, model=MODEL_ID)
