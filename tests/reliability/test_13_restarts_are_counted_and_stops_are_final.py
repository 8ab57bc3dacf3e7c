"""At most 5 restarts in 60 s with doubling delays, then FAILED with exit code, signal and last lines; stop leaves nothing.

The figures of the back-off on a simulated clock, then real processes.
"""

from __future__ import annotations

import json
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hosts.children import ask, folder_of, hosting, is_dead, names, problem, started_below, tell
from hypothesis import given
from hypothesis import strategies as st
from live import eventually

from llm_jupyter._supervisor.backoff import FIRST_DELAY, JITTER, LONGEST_DELAY, MOST_RESTARTS, WINDOW, RestartPolicy
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event, HostFailed, HostRestarting, HostStopped
from llm_jupyter.hosts import HostSpec, LLMHostManager

# -- when, on a simulated clock

UPTIMES = st.lists(st.floats(0, 200), min_size=1, max_size=60)
CHANCES = st.floats(0, 1)


def restarts_of(uptimes: list[float], chance: float) -> tuple[list[float], list[float], bool]:
    """Let a host live for so many seconds again and again: when it was restarted, after what delays, and if it is left."""
    now = 0.0
    policy = RestartPolicy(clock=lambda: now, chance=lambda: chance)
    moments, delays = [], []
    for uptime in uptimes:
        now += uptime
        delay = policy.died()
        if delay is None:
            return moments, delays, True
        now += delay
        moments.append(now)
        delays.append(delay)
    return moments, delays, False


def test_the_figures_are_the_promised_ones() -> None:
    assert (FIRST_DELAY, LONGEST_DELAY, JITTER, MOST_RESTARTS, WINDOW) == (0.5, 30.0, 0.2, 5, 60.0)


def test_a_host_that_dies_at_once_each_time_is_restarted_five_times_with_doubling_delays_and_then_given_up() -> None:
    moments, delays, given_up = restarts_of([0.0] * 9, 0.5)
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert given_up
    assert moments[-1] == 15.5


@given(UPTIMES, CHANCES)
def test_no_minute_ever_sees_more_than_five_restarts(uptimes: list[float], chance: float) -> None:
    moments, _, _ = restarts_of(uptimes, chance)
    for start in moments:
        assert sum(start <= moment <= start + WINDOW for moment in moments) <= MOST_RESTARTS


@given(UPTIMES, CHANCES)
def test_every_delay_stays_within_its_jitter_of_a_doubling_from_half_a_second_to_thirty(
    uptimes: list[float], chance: float
) -> None:
    _, delays, _ = restarts_of(uptimes, chance)
    factor = 1 + JITTER * (2 * chance - 1)
    steps = [min(LONGEST_DELAY, FIRST_DELAY * 2**step) for step in range(40)]
    for delay in delays:
        assert any(abs(delay / factor - step) < 1e-9 for step in steps)
        assert 0.4 <= delay <= 36.0


@given(st.lists(st.floats(61, 500), min_size=1, max_size=40), CHANCES)
def test_a_host_that_runs_for_a_minute_each_time_is_never_given_up_and_starts_over_with_the_shortest_delay(
    uptimes: list[float], chance: float
) -> None:
    _, delays, given_up = restarts_of(uptimes, chance)
    assert not given_up
    assert all(delay <= FIRST_DELAY * (1 + JITTER) for delay in delays)


def test_the_delay_grows_to_thirty_seconds_and_no_further() -> None:
    _, delays, given_up = restarts_of([20.0] * 30, 1.0)
    assert not given_up
    assert delays[-1] == 36.0


@given(st.integers(0, 5), CHANCES)
def test_the_sixth_death_within_a_minute_is_the_last(quick: int, chance: float) -> None:
    _, delays, given_up = restarts_of([0.0] * quick, chance)
    assert len(delays) == quick
    assert not given_up
    assert restarts_of([0.0] * 6, chance)[2]


# -- with real processes


async def killed_until_given_up(hosts: LLMHostManager, events: list[Event], last: str) -> None:
    """Kill a host as often as it comes back."""
    for death in range(6):
        await eventually(lambda death=death: names(events).count("Ready") == death + 1, within=20)
        running = hosts.running(problem())
        while running is None:
            running = await hosts.ensure(problem())
        tell(running.url, last if death == 5 else "exit/7")
        await eventually(lambda death=death: names(events).count("Stopped") == death + 1, within=5)


@pytest.mark.parametrize(("last", "code", "words"), [("exit/7", 7, "exit code 7"), ("abort", -9, "killed by SIGKILL")])
async def test_the_sixth_death_in_a_minute_is_the_last_and_says_why(
    tmp_path: Path, last: str, code: int, words: str
) -> None:
    async with hosting(tmp_path, problem=problem()) as (hosts, events):
        await hosts.ensure(problem())
        await killed_until_given_up(hosts, events, last)
        await eventually(lambda: names(events)[-1] == "Failed", within=5)
        assert [event.attempt for event in events if isinstance(event, HostRestarting)] == [1, 2, 3, 4, 5]
        failed = events[-1]
        assert isinstance(failed, HostFailed)
        assert failed.exit_code == code
        assert words in failed.reason
        assert "ending on command" in failed.log_tail
        status = hosts.one("problem")
        assert (status.state, status.exit_code, status.restarts) == ("failed", code, 5)
        with pytest.raises(HostError, match=words) as caught:
            await hosts.ensure(problem())
        assert "ending on command" in caught.value.log_tail
        assert ask((await hosts.ensure(problem())).url, "health")  # said once; whoever asks again wants it again


async def test_the_delays_double_within_their_jitter(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        await hosts.ensure(problem())
        await killed_until_given_up(hosts, events, "exit/7")
        (journal,) = folder_of(tmp_path).glob("journal.*")
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        delays = [event.delay for event in events if isinstance(event, HostRestarting)]
        for line, following in pairwise(lines):
            if line["kind"] == "restarting":
                assert following["kind"] == "started"
                assert following["at"] - line["at"] >= line["delay"] - 0.005
    for step, delay in enumerate(delays):
        assert 0.8 <= delay / (0.02 * 2**step) <= 1.2


async def test_one_that_serves_once_and_then_no_more_is_given_up_too(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem("problem", "once", str(tmp_path / "was here")))
        tell(running.url, "abort")
        await eventually(lambda: names(events)[-1] == "Failed", within=20)
        assert names(events).count("Restarting") == 5
        failed = events[-1]
        assert isinstance(failed, HostFailed)
        assert failed.exit_code == 9


def test_a_host_has_ten_seconds_to_end_unless_it_is_set_otherwise() -> None:
    assert HostSpec("x", ("x",)).stop_grace == 10.0


async def test_a_stop_waits_its_grace_and_then_leaves_nothing(tmp_path: Path) -> None:
    spec = problem("problem", "deaf", stop_grace=1.5)
    async with hosting(tmp_path, problem=spec) as (hosts, _):
        running = await hosts.ensure(spec)
        family = [running.pid, ask(running.url, "fork"), ask(running.url, "daemon")]
        started = time.monotonic()
        await hosts.stop("problem")
        assert 1.5 <= time.monotonic() - started < 3.5
        assert all(map(is_dead, family))
        assert started_below(tmp_path) == []


async def test_a_stop_of_one_that_obeys_does_not_wait(tmp_path: Path) -> None:
    async with hosting(tmp_path, problem=problem()) as (hosts, events):
        running = await hosts.ensure(problem())
        started = time.monotonic()
        await hosts.stop("problem")
        assert time.monotonic() - started < 1.5
        assert is_dead(running.pid)
        stopped = events[-1]
        assert isinstance(stopped, HostStopped)
        assert stopped.exit_code == -signal.SIGTERM


async def test_what_a_dead_host_left_is_ended_before_it_is_started_again(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        left = [ask(running.url, "fork"), ask(running.url, "daemon")]
        tell(running.url, "abort")
        await eventually(lambda: names(events).count("Ready") == 2, within=10)
        assert all(map(is_dead, left))
