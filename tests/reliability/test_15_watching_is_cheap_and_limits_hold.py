"""Watching costs < 0.2 % of a core at 1 Hz and tells the truth; a limit on memory is an event and then what was chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hosts.children import ask, hosting, is_dead, leases_in, names, problem, started_below, supervisor_of, tell
from live import eventually

from llm_jupyter.events import HostLimitExceeded, HostMeasured, HostStopped

LIMIT = 64 << 20
SECONDS = 10.0
SHARE = 0.002
"""Of one core."""


def processor_seconds(pid: int) -> float:
    """What a process has taken so far: on Linux to the nanosecond, elsewhere in steps of the system's clock."""
    threads = Path(f"/proc/{pid}/task")
    if threads.is_dir():
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads.iterdir()) / 1e9
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def test_following_a_host_with_every_limit_set_costs_less_than_two_thousandths_of_a_core(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    async with hosting(tmp_path) as (hosts, _):
        await hosts.ensure(problem(memory_limit=1 << 40, idle_unload=3600.0))
        supervisor = supervisor_of(tmp_path)
        before = processor_seconds(supervisor)
        await asyncio.sleep(SECONDS)
        taken = (processor_seconds(supervisor) - before) / SECONDS
        report(f"the supervisor of a host took {taken:.3%} of a core")
        assert taken <= SHARE


async def test_a_kernel_that_watches_five_hosts_pays_less_than_two_thousandths_of_a_core_for_each(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    async with hosting(tmp_path) as (hosts, events):
        for number in range(5):
            await hosts.ensure(problem(f"number{number}"))
        with hosts.watch():
            await eventually(lambda: "Measured" in names(events), within=5)
            before = processor_seconds(psutil.Process().pid)
            await asyncio.sleep(SECONDS)
            taken = (processor_seconds(psutil.Process().pid) - before) / SECONDS
        report(f"a kernel that watches five hosts took {taken:.3%} of a core")
        assert taken / 5 <= SHARE
        assert len([event for event in events if isinstance(event, HostMeasured)]) >= 5 * (SECONDS - 1)


async def test_measurements_come_once_a_second_only_while_somebody_wants_them_and_tell_the_truth(
    tmp_path: Path,
) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        ask(running.url, "grow/50")
        assert "Measured" not in names(events)
        with hosts.watch():
            await eventually(lambda: names(events).count("Measured") == 1, within=2)
            working = asyncio.create_task(asyncio.to_thread(ask, running.url, "work/1.5"))
            await eventually(lambda: names(events).count("Measured") == 3, within=4)
            await working
        measured = [event for event in events if isinstance(event, HostMeasured)]
        process = psutil.Process(running.pid)
        last = measured[-1]
        assert last.pid == running.pid
        assert abs(last.rss - process.memory_info().rss) < 4 << 20
        assert last.threads >= 1
        assert max(event.cpu for event in measured) > 0.2
        assert 0 < last.uptime < 60
        count = len(measured)
        await asyncio.sleep(1.2)
        assert names(events).count("Measured") == count


async def test_what_a_host_has_started_counts_with_it(tmp_path: Path) -> None:
    async with hosting(tmp_path, problem=problem()) as (hosts, _):
        running = await hosts.ensure(problem())
        alone = hosts.one("problem")
        ask(running.url, "fork")
        both = hosts.one("problem")
        assert alone.rss is not None
        assert both.rss is not None
        assert alone.threads is not None
        assert both.threads is not None
        assert both.rss > alone.rss + (2 << 20)
        assert both.threads > alone.threads - 1


@pytest.mark.parametrize("action", ["warn", "restart", "stop"])
async def test_a_host_beyond_its_memory_is_told_of_once_and_then_the_chosen_thing_happens(
    tmp_path: Path, action: str
) -> None:
    spec = problem(memory_limit=LIMIT, on_memory=action)
    async with hosting(tmp_path, problem=spec) as (hosts, events):
        running = await hosts.ensure(spec)
        await asyncio.to_thread(tell, running.url, "grow/80")
        after = {"warn": [], "restart": ["Stopped", "Restarting", "Started", "Ready"], "stop": ["Stopped"]}[action]
        await eventually(lambda: names(events)[2:] == ["LimitExceeded", *after], within=8)
        exceeded = next(event for event in events if isinstance(event, HostLimitExceeded))
        assert exceeded.rss > exceeded.limit == LIMIT
        assert exceeded.action == action
        assert is_dead(running.pid) == (action != "warn")
        for event in events:
            if isinstance(event, HostStopped):
                assert (event.expected, event.reason) == (True, "it took more memory than it may")
        if action == "warn":
            await asyncio.sleep(2.2)
            assert names(events).count("LimitExceeded") == 1
            assert ask(running.url, "health")
        status = hosts.one("problem")
        assert status.state == ("stopped" if action == "stop" else "running")
        assert status.reason == ("" if action == "warn" else "it took more memory than it may")


async def test_a_host_that_nobody_uses_is_unloaded_and_comes_back_when_it_is_needed(tmp_path: Path) -> None:
    spec = problem(idle_unload=1.5)
    async with hosting(tmp_path, problem=spec) as (hosts, events):
        running = await hosts.ensure(spec)
        await eventually(lambda: names(events)[-1] == "Stopped", within=8)
        stopped = events[-1]
        assert isinstance(stopped, HostStopped)
        assert (stopped.expected, stopped.reason) == (True, "idle for 1.5 s")
        assert started_below(tmp_path) == []
        assert leases_in(tmp_path) == []
        again = await hosts.ensure(spec)
        assert again.pid != running.pid
        assert ask(again.url, "health")


async def test_a_host_that_works_or_is_used_is_not_idle(tmp_path: Path) -> None:
    spec = problem(idle_unload=1.5)
    async with hosting(tmp_path, problem=spec) as (hosts, events):
        running = await hosts.ensure(spec)
        await asyncio.to_thread(ask, running.url, "work/3")  # nobody touches the lease meanwhile
        assert names(events) == ["Started", "Ready"]
        for _ in range(30):
            assert hosts.running(spec, used=True) == running
            await asyncio.sleep(0.1)
        assert names(events) == ["Started", "Ready"]
        await eventually(lambda: names(events)[-1] == "Stopped", within=8)
