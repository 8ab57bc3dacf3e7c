"""Start, join, stop, restart, log: what a host goes through, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import psutil
import pytest
from hosts.children import (
    ask,
    folder_of,
    holding,
    hosting,
    is_dead,
    leases_in,
    names,
    problem,
    started_below,
    state_of,
    supervisor_of,
    tell,
)
from live import eventually

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.lock import take_patiently
from llm_jupyter.errors import HostError
from llm_jupyter.events import HostFailed, HostReady, HostRestarting, HostStopped
from llm_jupyter.hosts import HostSpec


async def test_a_host_is_started_once_it_is_needed_and_gone_when_the_manager_closes(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        assert not (tmp_path / "hosts").exists()
        running = await hosts.ensure(problem())
        assert ask(running.url, "health") == {"status": "ok"}
        assert hosts.running(problem()) == running
        assert len(leases_in(tmp_path)) == 1
    assert is_dead(running.pid)
    assert names(events) == ["Started", "Ready", "Stopped"]
    stopped = events[-1]
    assert isinstance(stopped, HostStopped)
    assert (stopped.pid, stopped.expected) == (running.pid, True)
    assert started_below(tmp_path) == []
    assert leases_in(tmp_path) == []
    assert state_of(tmp_path) == {}


async def test_what_is_on_disk_is_for_this_user_alone_and_the_key_stands_on_no_command_line(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem(environment={"THE_KEY": "{api_key}", "AT": "port {port}"}))
        folder = folder_of(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {
            path.name.split(".")[0]: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()
        }
        assert modes["state"] == modes["journal"] == 0o600
        assert len(running.api_key) >= 43
        assert ask(running.url, "environment/THE_KEY") == running.api_key
        assert ask(running.url, "environment/AT") == f"port {running.url.rpartition(':')[2]}"
        for process in started_below(tmp_path):
            assert running.api_key not in " ".join(process.cmdline())
        assert running.api_key not in repr(running) + repr(events) + repr(hosts.status())
        ask(running.url, f"say/{running.api_key}")
        await eventually(lambda: "***" in hosts.log("problem"), within=5)
        assert running.api_key not in "".join(hosts.log("problem"))


async def test_two_users_in_one_kernel_hold_one_host_until_the_last_has_gone(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        first = await hosts.ensure(problem(), user="a")
        second = await hosts.ensure(problem(), user="b")
        assert first == second
        await hosts.release(problem(), user="a")
        assert not is_dead(first.pid)
        await hosts.release(problem(), user="b")
        assert is_dead(first.pid)
        assert names(events) == ["Started", "Ready", "Stopped"]


async def test_one_who_joins_hears_that_it_is_ready_and_then_all_that_happens_once(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events), holding(tmp_path, problem()) as (holder, other):
        running = await hosts.ensure(problem())
        assert running.pid == other["pid"]
        tell(running.url, "exit/7")
        await eventually(lambda: names(events).count("Ready") == 2, within=10)
        assert names(events) == ["Ready", "Stopped", "Restarting", "Started", "Ready"]
        while (heard := await holder.has_heard("HostReady")).count("HostReady") < 2:
            pass
        assert heard == ["HostStarted", "HostReady", "HostStopped", "HostRestarting", "HostStarted", "HostReady"]
        stopped = events[1]
        assert isinstance(stopped, HostStopped)
        assert (stopped.exit_code, stopped.expected) == (7, False)


async def test_a_host_that_dies_serves_again_elsewhere(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        first = await hosts.ensure(problem())
        tell(first.url, "abort")
        await eventually(lambda: is_dead(first.pid), within=2)
        second = await hosts.ensure(problem())
        while second.pid == first.pid:  # its supervisor has not seen the death yet
            second = await hosts.ensure(problem())
        assert ask(second.url, "health")
        assert second.generation != first.generation
        assert hosts.status()[0].restarts == 1
        restarting = next(event for event in events if isinstance(event, HostRestarting))
        assert restarting.attempt == 1


async def test_a_host_that_never_was_ready_is_given_up_at_once_with_its_last_words(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        with pytest.raises(HostError, match=r"exit code 3.*this cannot work") as caught:
            await hosts.ensure(problem("problem", "exit", "3"))
        assert caught.value.log_tail == ("this cannot work",)
        assert 1 <= len(caught.value.lines()) <= 3
        assert names(events) == ["Started", "Stopped", "Failed"]
        failed = events[-1]
        assert isinstance(failed, HostFailed)
        assert (failed.exit_code, failed.log_tail) == (3, ("this cannot work",))
    assert leases_in(tmp_path) == []


async def test_a_command_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError, match=r"/nowhere/ollama cannot be run: No such file") as caught:
            await hosts.ensure(HostSpec("x", ("/nowhere/ollama", "serve")))
        assert caught.value.next_step == "Install it, or give its whole path as the first word of command in [hosts.x]."
    assert leases_in(tmp_path) == []


async def test_a_host_that_never_answers_is_given_up_after_its_time_and_ended(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError, match=r"not ready within 1 s: nothing answers at port \d+") as caught:
            await hosts.ensure(problem("problem", "never", "deaf", start_timeout=1.0))
        assert caught.value.next_step.startswith("Its command is to listen at {port}, which is ")
        assert started_below(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "ready", "answer", "setting"),
    [
        (("slow", "60"), "/health", "/health answers 503", "start_timeout"),
        ((), "/healthz", "/healthz answers 404", "ready"),
    ],
)
async def test_one_that_answers_but_is_never_ready_says_what_it_answers_and_which_setting_that_is_about(
    tmp_path: Path, words: tuple[str, ...], ready: str, answer: str, setting: str
) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError, match=answer) as caught:
            await hosts.ensure(problem("problem", *words, ready=ready, start_timeout=1.5))
        assert f"{setting} in [hosts.problem]" in caught.value.next_step


async def test_a_command_that_returns_is_asked_for_what_stops_its_server(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError, match="it ended with exit code 0") as caught:
            await hosts.ensure(problem("problem", "exit", "0"))
        assert "stop_command of [hosts.problem]" in caught.value.next_step


async def test_one_that_is_still_loading_is_waited_for_and_says_so(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        spec = problem("problem", "slow", "0.6")
        starting = asyncio.create_task(hosts.ensure(spec))
        await eventually(lambda: state_of(tmp_path).get("phase") == "loading", within=10)
        assert [status.state for status in hosts.status()] == ["loading"]
        running = await starting
        assert ask(running.url, "health") == {"status": "ok"}


async def test_a_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        starting = asyncio.create_task(hosts.ensure(problem("problem", "never", "deaf")))
        await eventually(lambda: state_of(tmp_path).get("host"), within=10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert started_below(tmp_path) == []
        assert leases_in(tmp_path) == []


async def test_stop_takes_it_from_all_who_use_it_and_the_next_use_starts_it_anew(tmp_path: Path) -> None:
    spec = problem()
    async with hosting(tmp_path, problem=spec) as (hosts, events), holding(tmp_path, spec) as (holder, other):
        await hosts.start("problem")
        await hosts.stop("problem")
        assert is_dead(other["pid"])
        assert (hosts.one("problem").state, hosts.one("problem").reason) == ("stopped", "stopped on request")
        assert "HostFailed" not in await holder.has_heard("HostStopped")
        status = await hosts.start("problem")
        assert status.state == "running"
        assert status.pid not in (None, other["pid"])
        stopped = [event for event in events if isinstance(event, HostStopped)]
        assert [(event.expected, event.reason) for event in stopped] == [(True, "stopped on request")]


async def test_stopping_what_does_not_run_does_nothing(tmp_path: Path) -> None:
    async with hosting(tmp_path, problem=problem()) as (hosts, events):
        await hosts.stop("problem")
        assert events == []
        with pytest.raises(HostError, match="no host 'prblem'") as caught:
            await hosts.stop("prblem")
        assert caught.value.next_step == "Did you mean problem?"


async def test_stopping_what_was_given_up_lets_that_be_forgotten(tmp_path: Path) -> None:
    async with hosting(tmp_path, broken=HostSpec("broken", ("/nowhere/ollama",))) as (hosts, _):
        with pytest.raises(HostError, match="cannot be run"):
            await hosts.start("broken")
        assert hosts.one("broken").state == "failed"
        await hosts.stop("broken")
        assert (hosts.one("broken").state, hosts.one("broken").reason) == ("stopped", "")


async def test_restart_gives_everybody_a_new_process(tmp_path: Path) -> None:
    spec = problem()
    async with hosting(tmp_path, problem=spec) as (hosts, events):
        before = await hosts.start("problem")
        after = await hosts.restart("problem")
        assert after.state == "running"
        assert after.pid != before.pid
        assert before.pid is not None
        assert is_dead(before.pid)
        assert names(events) == ["Started", "Ready", "Stopped", "Started", "Ready"]
        assert after.restarts == 0  # nobody's fault


async def test_the_log_can_be_read_while_it_runs_and_after(tmp_path: Path) -> None:
    async with hosting(tmp_path, problem=problem()) as (hosts, _):
        status = await hosts.start("problem")
        for number in range(60):
            ask(status.url, f"say/line{number}")
        await eventually(lambda: "line59" in hosts.log("problem"), within=5)
        assert hosts.log("problem", 3) == ["line57", "line58", "line59"]
        await hosts.stop("problem")
        assert hosts.log("problem", 1) == ["line59"]


async def test_the_host_ignores_no_signal_that_its_supervisor_ignores(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        assert ask(running.url, "signals") == []
        os.kill(supervisor_of(tmp_path), signal.SIGINT)
        os.kill(supervisor_of(tmp_path), signal.SIGHUP)
        tell(running.url, "abort")  # it still does its work
        await eventually(lambda: names(events).count("Ready") == 2, within=10)


async def test_a_supervisor_that_is_told_to_end_takes_its_host_with_it(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        os.kill(supervisor_of(tmp_path), signal.SIGTERM)
        await eventually(lambda: "Stopped" in names(events), within=5)
        assert is_dead(running.pid)
        again = await hosts.ensure(problem())
        assert ask(again.url, "health")


async def test_a_host_of_a_settings_port_comes_back_on_that_port(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        probe = await hosts.ensure(problem("probe"))
        port = int(probe.url.rpartition(":")[2])
        await hosts.release(problem("probe"))
        running = await hosts.ensure(problem(port=port))
        assert running.url == f"http://127.0.0.1:{port}"
        tell(running.url, "abort")
        await eventually(lambda: names(events)[-1] == "Ready" and len(events) > 6, within=10)
        ready = events[-1]
        assert isinstance(ready, HostReady)
        assert ready.url == running.url
        assert psutil.pid_exists(ready.pid or 0)


async def test_closing_while_a_host_starts_ends_the_wait_and_leaves_nothing(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        starting = asyncio.create_task(hosts.ensure(problem("problem", "never")))
        await eventually(lambda: state_of(tmp_path).get("host"), within=10)
        await hosts.aclose()
        with pytest.raises(HostError, match="given back while it started"):
            await starting
        assert started_below(tmp_path) == []
        assert leases_in(tmp_path) == []


async def test_a_home_behind_a_link_is_the_same_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    async with hosting(tmp_path / "real") as (hosts, _), hosting(tmp_path / "link") as (others, events):
        running = await hosts.ensure(problem())
        assert (await others.ensure(problem())).pid == running.pid
        left = ask(running.url, "daemon")
        os.kill(supervisor_of(tmp_path / "real"), signal.SIGKILL)
        await eventually(lambda: is_dead(left), within=10)
        await eventually(lambda: names(events) == ["Ready", "Stopped"], within=10)


async def test_what_a_killed_supervisor_left_is_ended_even_if_its_locks_stay_taken_for_a_while(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        left = ask(running.url, "daemon")
        folder = HostFolder(folder_of(tmp_path))
        joining, living = folder.lock(), folder.alive()
        assert take_patiently(joining, 10)
        os.kill(supervisor_of(tmp_path), signal.SIGKILL)
        assert take_patiently(living, 10)
        await eventually(lambda: names(events) == ["Started", "Ready", "Stopped"], within=10)
        joining.let_go()
        await asyncio.sleep(0.3)
        assert not is_dead(left)  # nobody may clear up yet
        living.let_go()
        await eventually(lambda: is_dead(left), within=10)
        await eventually(lambda: not state_of(tmp_path), within=10)
        assert names(events) == ["Started", "Ready", "Stopped"]


async def test_a_command_that_no_command_line_can_hold_says_so(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError, match="cannot be run: embedded null byte"):
            await hosts.ensure(HostSpec("x", ("serve", "a\0b")))


async def test_a_host_runs_in_the_home_of_its_person(tmp_path: Path) -> None:
    """A host pins no folder of ours: it runs where its person is at home."""
    async with hosting(tmp_path) as (hosts, _):
        running = await hosts.ensure(problem())
        assert psutil.Process(running.pid).cwd() == str(Path.home().resolve())


async def test_a_killed_supervisor_is_missed_by_every_kernel_whichever_clears_up(tmp_path: Path) -> None:
    for _ in range(5):
        async with hosting(tmp_path) as (hosts, first), hosting(tmp_path) as (others, second):
            running = await hosts.ensure(problem())
            assert (await others.ensure(problem())).pid == running.pid
            os.kill(supervisor_of(tmp_path), signal.SIGKILL)
            await eventually(lambda: all(names(events)[-1] == "Stopped" for events in (first, second)), within=10)
            assert [names(first).count("Stopped"), names(second).count("Stopped")] == [1, 1]
