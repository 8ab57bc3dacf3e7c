"""A host dies within 2 s of its last holder's death, however that comes; one that we did not start is never stopped."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from counts import times
from hosts.children import (
    FOLDER,
    Holder,
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
)
from live import eventually

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter.errors import HostError
from llm_jupyter.events import HostAdopted, HostStopped

KILLS = times(100)
PROMISE = 2.0
"""Seconds."""


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_holders_killed_at_any_moment_leave_no_process_and_no_lease(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    took, serving = [], 0
    for number in range(KILLS):
        home = tmp_path / str(number)
        holder = await Holder.start(home, problem("problem", "deaf"))
        if number % 2:
            await holder.says()
        else:  # while it imports, joins, starts the supervisor, or the host does not serve yet
            await asyncio.sleep(random.random() * 0.8)
        serving += state_of(home).get("phase") == "ready"
        await holder.kill()
        took.append(await eventually(lambda home=home: not started_below(home), within=PROMISE + 0.5))
        assert leases_in(home) == []
    report(
        f"{KILLS} holders killed ({serving} while the host served): 0 orphans, 0 leases, gone after {max(took):.2f} s"
    )
    assert max(took) < PROMISE
    assert serving >= KILLS // 2


@pytest.mark.parametrize("words", [("deaf",), ()], ids=["hears no TERM", "leaves others that hear none"])
async def test_a_host_that_hears_no_term_goes_with_all_that_it_started(tmp_path: Path, words: tuple[str, ...]) -> None:
    async with holding(tmp_path, problem("problem", *words)) as (holder, host):
        family = [host["pid"], ask(host["url"], "fork"), ask(host["url"], "daemon"), supervisor_of(tmp_path)]
        await holder.kill()
        await eventually(lambda: all(map(is_dead, family)), within=PROMISE)
    assert leases_in(tmp_path) == []


async def test_a_host_that_is_being_stopped_patiently_goes_at_once_when_its_last_holder_does(tmp_path: Path) -> None:
    async with holding(tmp_path, problem("problem", "deaf", stop_grace=60.0)) as (holder, host):
        HostFolder(folder_of(tmp_path)).ask("restart")
        await eventually(lambda: state_of(tmp_path)["phase"] == "restarting", within=PROMISE)
        await holder.kill()
        await eventually(lambda: is_dead(host["pid"]) and not started_below(tmp_path), within=PROMISE)
    assert leases_in(tmp_path) == []


async def test_a_host_lives_for_as_long_as_any_of_its_holders(tmp_path: Path) -> None:
    holders = [await Holder.start(tmp_path, problem()) for _ in range(4)]
    pids = {(await holder.says())["pid"] for holder in holders}
    assert len(pids) == 1
    (pid,) = pids
    for left, holder in ((3, holders[0]), (2, holders[1]), (1, holders[2])):
        await holder.kill()
        await eventually(
            lambda left=left: len(leases_in(tmp_path)) == left, within=PROMISE
        )  # its supervisor has seen it
        assert not is_dead(pid)
    await holders[-1].kill()
    await eventually(lambda: not started_below(tmp_path), within=PROMISE)


async def test_a_frozen_holder_still_holds(tmp_path: Path) -> None:
    async with holding(tmp_path, problem()) as (holder, host):
        holder.process.send_signal(signal.SIGSTOP)
        async with hosting(tmp_path) as (hosts, _):
            assert (await hosts.ensure(problem())).pid == host["pid"]
        assert not is_dead(host["pid"])
        await eventually(lambda: len(leases_in(tmp_path)) == 1, within=1)


async def test_a_killed_supervisor_takes_its_host_along_and_the_next_look_ends_what_that_left(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        left = [ask(running.url, "fork"), ask(running.url, "daemon")]
        os.kill(supervisor_of(tmp_path), signal.SIGKILL)
        await eventually(lambda: is_dead(running.pid), within=PROMISE)
        await eventually(lambda: all(map(is_dead, left)), within=PROMISE)
        await eventually(lambda: names(events)[-1] == "Stopped", within=PROMISE)
        stopped = events[-1]
        assert isinstance(stopped, HostStopped)
        assert (stopped.pid, stopped.expected) == (running.pid, False)
        again = await hosts.ensure(problem())
        assert again.pid != running.pid
        assert ask(again.url, "health")
    assert started_below(tmp_path) == []


async def test_when_kernel_and_supervisor_are_killed_together_the_next_kernel_tidies_up(tmp_path: Path) -> None:
    async with holding(tmp_path, problem()) as (holder, host):
        left = ask(host["url"], "daemon")
        os.kill(supervisor_of(tmp_path), signal.SIGKILL)
        await holder.kill()
    await eventually(lambda: is_dead(host["pid"]), within=PROMISE)
    assert not is_dead(left)
    async with hosting(tmp_path) as (hosts, _):
        await hosts.ensure(problem())
        assert is_dead(left)
        assert len(leases_in(tmp_path)) == 1


async def test_a_process_whose_number_was_given_to_somebody_else_holds_nothing(tmp_path: Path) -> None:
    async with holding(tmp_path, problem()) as (holder, _):
        impostor = ProcessIdentity(os.getpid(), ProcessIdentity.own().start - 1)
        HostFolder(folder_of(tmp_path)).take_lease(impostor)
        await holder.kill()
        await eventually(lambda: not started_below(tmp_path), within=PROMISE)
    assert leases_in(tmp_path) == []


async def test_leases_of_other_machines_hold_nothing_and_are_not_swept(tmp_path: Path) -> None:
    own = ProcessIdentity.own()
    name, boot, space = machine().rsplit("-", 2)
    forged = [
        f"elsewhere-{boot}-{space}.{own.pid}.{own.start}.aaaaaaaaaaaa",
        f"{name}-{'0' * len(boot)}-{space}.{own.pid}.{own.start}.bbbbbbbbbbbb",
        f"{name}-{boot}-1.999999.1.cccccccccccc",
        "no lease at all",
    ]
    async with holding(tmp_path, problem()) as (holder, _):
        for lease in forged:
            (folder_of(tmp_path) / "leases" / lease).touch()
        await holder.kill()
        await eventually(lambda: not started_below(tmp_path), within=PROMISE)
        assert sorted(leases_in(tmp_path)) == sorted(forged)


async def test_the_state_of_another_machine_is_neither_believed_nor_removed(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        with pytest.raises(HostError):
            await hosts.ensure(problem("problem", "exit", "1"))
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # noqa: ASYNC220
    try:
        identity = ProcessIdentity.of(bystander.pid)
        assert identity is not None
        folder = HostFolder(folder_of(tmp_path))
        state = folder.read_state()
        assert state is not None
        state.machine, state.phase, state.url = "elsewhere-0-0", "ready", "http://127.0.0.1:1"
        state.host = state.supervisor = identity
        folder.write_state(state)
        async with hosting(tmp_path) as (hosts, _):
            with pytest.raises(HostError, match="exit code 1"):
                await hosts.ensure(problem("problem", "exit", "1"))
        assert bystander.poll() is None
        kept = HostFolder(folder.path)
        kept.state_file = folder.path / "state.elsewhere-0-0.json"
        assert kept.read_state() == state
    finally:
        bystander.kill()
        bystander.wait()


# -- what somebody else started


@contextmanager
def persons_own(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that a person has started in a terminal."""
    command = [sys.executable, "-S", str(FOLDER / "problem_host.py"), str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def found(tmp_path: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with persons_own(port) as process:
        await eventually(lambda: _answers(port), within=20)
        yield process, port


def _answers(port: int) -> bool:
    try:
        return bool(ask(f"http://127.0.0.1:{port}", "health"))
    except OSError:
        return False


async def test_a_host_that_a_person_started_is_adopted_and_never_stopped(tmp_path: Path) -> None:
    async with found(tmp_path) as (process, port):
        async with hosting(tmp_path, problem=problem(port=port)) as (hosts, events):
            status = await hosts.start("problem")
            assert (status.adopted, status.ours, status.pid) == (True, False, process.pid)
            assert status.rss is not None
            assert status.rss > 1 << 20
            assert [type(event) for event in events] == [HostAdopted]
            for refused in (hosts.stop("problem"), hosts.restart("problem")):
                with pytest.raises(HostError, match="was not started by llm_jupyter") as caught:
                    await refused
                assert len(caught.value.lines()) == 2
        assert process.poll() is None
        assert ask(f"http://127.0.0.1:{port}", "health")


async def test_a_host_that_a_person_started_is_not_stopped_by_a_kernel_that_never_saw_it(tmp_path: Path) -> None:
    async with found(tmp_path) as (process, port), hosting(tmp_path, problem=problem(port=port)) as (hosts, _):
        with pytest.raises(HostError, match="was not started by llm_jupyter"):
            await hosts.stop("problem")
        with pytest.raises(HostError, match=rf"port {port} is taken by process {process.pid} \(python"):
            await hosts.ensure(problem(port=port))
        assert process.poll() is None


async def test_one_server_is_adopted_once_and_has_the_name_that_it_is_commanded_by(tmp_path: Path) -> None:
    async with found(tmp_path) as (process, port), hosting(tmp_path, problem=problem(port=port)) as (hosts, events):
        for name in ("first", "second", "first"):
            await hosts.adopt(name, f"http://127.0.0.1:{port}")
        assert [status.name for status in hosts.status() if status.state == "running"] == ["first"]
        assert (await hosts.start("first")).pid == process.pid, "it runs, as was wanted"
        with pytest.raises(HostError, match="first was not started by llm_jupyter"):
            await hosts.restart("first")
        for _ in range(2):
            assert (await hosts.start("problem")).adopted
        assert hosts.names() == ["problem"]
        assert names(events) == ["Adopted", "Adopted"]


async def test_an_adopted_host_that_ends_is_told_of_once(tmp_path: Path) -> None:
    async with found(tmp_path) as (process, port), hosting(tmp_path) as (hosts, events):
        await hosts.adopt("mine", f"http://127.0.0.1:{port}")
        process.kill()
        await eventually(lambda: names(events) == ["Adopted", "Stopped"], within=PROMISE)
        assert hosts.one("mine").state == "stopped"
        await hosts.adopt("mine", f"http://127.0.0.1:{port}")
        assert [event.pid for event in events if isinstance(event, HostAdopted)] == [process.pid, None]


async def test_what_carries_the_mark_of_a_living_supervisor_is_left_alone_by_others(tmp_path: Path) -> None:
    """Somebody removes the folder under a running host; the next kernel must not take the first one's host for a leftover."""
    async with holding(tmp_path, problem()) as (_, first):
        folder = folder_of(tmp_path)
        folder.rename(tmp_path / "removed")
        async with hosting(tmp_path) as (hosts, _):
            second = await hosts.ensure(problem())
            assert second.pid != first["pid"]
            assert ask(first["url"], "health")
    await eventually(lambda: is_dead(first["pid"]), within=PROMISE)
