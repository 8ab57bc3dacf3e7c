"""The breaker's finer points; what it promises is in `reliability/test_09_breaker_and_health.py`."""

from __future__ import annotations

import math

import pytest
from clocks import JumpingClock
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker, spread, tells_of_the_server
from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    FirstTokenTimeoutError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ModelLoadingError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    StreamTruncatedError,
    UnreachableError,
)

REFUSED = UnreachableError("refused")
FAILED = ServerError("failed", status=500)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def breaker(clock: JumpingClock) -> Breaker:
    return Breaker(clock.monotonic, lambda: 0.5)


@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_a_spread_time_is_longer_or_shorter_by_that_share_at_most(seconds: float, chance: float, share: float) -> None:
    assert spread(seconds, lambda: 0.5, share) == pytest.approx(seconds)
    near = 1e-9 * seconds
    assert seconds * (1 - share) - near <= spread(seconds, lambda: chance, share) <= seconds * (1 + share) + near


@pytest.mark.parametrize(
    ("told", "waits"),
    [(7.0, 7.0), (3600.0, 3600.0), (None, 1.0), (0.0, 1.0), (-3.0, 1.0), (math.inf, 1.0), (math.nan, 1.0)],
)
def test_after_too_many_requests_it_waits_as_long_as_it_was_told(
    breaker: Breaker, told: float | None, waits: float
) -> None:
    breaker.fail(RateLimitedError("too many", retry_after=told))
    assert breaker.wait == pytest.approx(waits)
    assert not breaker.closed_by_a_look


def test_too_many_requests_are_no_failure_that_counts(breaker: Breaker, clock: JumpingClock) -> None:
    for _ in range(5):
        breaker.fail(RateLimitedError("too many", retry_after=1.0))
        clock.now += 1.1
        breaker.enter()
        breaker.succeed()
    breaker.fail(FAILED)
    breaker.fail(FAILED)
    assert not breaker.is_open


def test_a_look_closes_what_a_refused_connection_opened_and_not_what_answers_did(breaker: Breaker) -> None:
    breaker.fail(REFUSED)
    assert breaker.closed_by_a_look
    breaker.succeed()
    for _ in range(3):
        breaker.fail(FAILED)
    assert breaker.is_open
    assert not breaker.closed_by_a_look
    breaker.fail(REFUSED)  # it went away altogether: what comes back is another
    assert breaker.closed_by_a_look


def test_what_was_once_refused_is_forgotten_when_too_many_requests_follow(breaker: Breaker) -> None:
    breaker.fail(REFUSED)
    breaker.succeed()
    breaker.fail(RateLimitedError("too many", retry_after=20.0))
    assert not breaker.closed_by_a_look


def test_looks_that_fail_double_the_pause_and_take_nobody_s_try(breaker: Breaker, clock: JumpingClock) -> None:
    breaker.fail(LLMConnectionError("silent"), is_certain=True)
    assert breaker.wait == pytest.approx(1.0)
    clock.now += 1.0
    tries = breaker.enter()
    assert tries
    breaker.fail(LLMConnectionError("silent"), is_certain=True)
    assert breaker.wait == pytest.approx(2.0)
    clock.now += 2.0
    assert not breaker.admits()
    breaker.leave(tries)
    assert breaker.admits()


def test_a_failure_of_a_request_that_left_before_does_not_double_the_pause(breaker: Breaker) -> None:
    early = breaker.enter()
    breaker.fail(REFUSED)
    breaker.fail(REFUSED, early)
    assert breaker.wait == pytest.approx(FIRST_PAUSE)


def test_whoever_has_another_to_ask_opens_it_at_once(breaker: Breaker, clock: JumpingClock) -> None:
    breaker.fail(FAILED)
    assert not breaker.is_open
    breaker.trip()
    assert breaker.wait == pytest.approx(FIRST_PAUSE)
    clock.now += 0.5
    breaker.trip()
    assert breaker.wait == pytest.approx(0.5)


def test_the_pause_never_grows_beyond_its_limit_however_often_it_fails(breaker: Breaker, clock: JumpingClock) -> None:
    for _ in range(100):
        breaker.fail(REFUSED, breaker.enter())
        assert breaker.wait <= LONGEST_PAUSE
        clock.now += breaker.wait


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (REFUSED, True), (LLMConnectionError("x"), True), (FirstTokenTimeoutError("x"), True), (FAILED, True),
        (RateLimitedError("x"), True), (StreamTruncatedError("x"), True), (MalformedResponseError("x"), True),
        (RequestError("x", status=400), False), (ContextExceededError("x"), False), (ModelNotFoundError("x"), False),
        (AuthenticationError("x"), False), (ModelLoadingError("x"), False),
    ],
)  # fmt: skip
def test_only_what_tells_of_the_server_counts_against_it(error: LLMError, counts: bool) -> None:
    assert tells_of_the_server(error) is counts
