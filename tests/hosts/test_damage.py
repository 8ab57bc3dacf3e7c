"""What happens to the files of a host: torn, removed, read-only, on a full disk. Never two hosts, never none."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.children import (
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
    tell,
)
from hypothesis import given
from hypothesis import strategies as st
from live import eventually

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.journal import JournalReader, JournalWriter
from llm_jupyter._supervisor.lock import Lock
from llm_jupyter._supervisor.state import HostState
from llm_jupyter.errors import HostError
from llm_jupyter.hosts import LLMHostManager

STATE = HostState("run", "machine", "name", ProcessIdentity(7, 8), host=ProcessIdentity(9, 10), tail=["a"])
DAMAGE: dict[str, Callable[[Path], object]] = {
    "torn": lambda file: file.write_bytes(file.read_bytes()[:40]),
    "empty": lambda file: file.write_bytes(b""),
    "junk": lambda file: file.write_bytes(b"\x00\xff" * 50),
    "another shape": lambda file: file.write_text('{"run": 3, "supervisor": "me"}'),
    "removed": lambda file: file.unlink(),
}


def hosts_of(home: Path) -> list[int]:
    return [process.pid for process in started_below(home) if "problem_host.py" in " ".join(process.cmdline())]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_state_is_mended_and_nobody_starts_a_second_host(tmp_path: Path, damage: str) -> None:
    async with hosting(tmp_path) as (hosts, _):
        running = await hosts.ensure(problem())
        DAMAGE[damage](folder_of(tmp_path) / "state.json")
        async with holding(tmp_path, problem()) as (_, other):  # at once: it has not been mended yet
            assert other["pid"] == running.pid
            assert hosts_of(tmp_path) == [running.pid]
        assert state_of(tmp_path)["host"][0] == running.pid
        assert (await hosts.ensure(problem())).pid == running.pid


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "removed"])
async def test_a_damaged_state_that_nobody_mends_is_in_nobodys_way(tmp_path: Path, damage: str) -> None:
    async with hosting(tmp_path) as (hosts, _):
        await hosts.ensure(problem())
        state = (folder_of(tmp_path) / "state.json").read_bytes()
    file = folder_of(tmp_path) / "state.json"
    file.write_bytes(state)
    DAMAGE[damage](file)
    async with hosting(tmp_path) as (hosts, _):
        assert ask((await hosts.ensure(problem())).url, "health")


async def test_a_folder_that_is_removed_under_a_running_host_ends_no_holder_and_leaves_nothing(tmp_path: Path) -> None:
    async with holding(tmp_path, problem()) as (holder, host):
        supervisor = supervisor_of(tmp_path)
        shutil.rmtree(tmp_path / "hosts")
        async with hosting(tmp_path) as (hosts, _):
            assert (await hosts.ensure(problem())).pid != host["pid"]
            assert ask(host["url"], "health")
        await holder.kill()
        await eventually(lambda: is_dead(host["pid"]) and is_dead(supervisor), within=2)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_damaged_right_after_it_was_written_is_told_from_what_was_written(tmp_path: Path, damage: str) -> None:
    folder = HostFolder(tmp_path)
    written = folder.write_state(STATE)
    assert folder.state_stamp() == written
    DAMAGE[damage](folder.state_file)
    assert folder.state_stamp() != written


@given(st.binary(max_size=300))
def test_no_bytes_whatever_are_taken_for_a_state_or_break_its_reader(text: bytes) -> None:
    assert HostState.from_json(text) is None


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_a_state_with_a_wrong_value_anywhere_is_no_state(value: Any) -> None:
    fields = json.loads(STATE.as_json())
    assert HostState.from_json(json.dumps(fields).encode()) == STATE
    for name in ("run", "supervisor", "phase", "seq", "url", "tail"):
        kind = type(fields[name])
        if not isinstance(value, kind):
            assert HostState.from_json(json.dumps({**fields, name: value}).encode()) is None
    assert HostState.from_json(json.dumps({**fields, "of a later version": value}).encode()) is None


@given(st.data())
def test_a_state_cut_anywhere_is_no_state(data: st.DataObject) -> None:
    text = STATE.as_json()
    assert HostState.from_json(text[: data.draw(st.integers(0, len(text) - 1))]) is None


def test_a_journal_with_torn_lines_tells_the_others_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    writer, reader = JournalWriter(path), JournalReader(path, after=1)
    assert list(reader.read()) == []
    for kind in ("one", "two", "three"):
        writer.append(kind)
        with path.open("ab") as file:
            file.write(b'{"seq": 9, \n[1]\n"text"\n\xff\n')
    with path.open("ab") as file:
        file.write(b'{"seq": 4, "kind": "fo')
    assert [line["kind"] for line in reader.read()] == ["two", "three"]
    with path.open("ab") as file:
        file.write(b'ur"}\n')
    assert [line["kind"] for line in reader.read()] == ["four"]
    assert list(reader.read()) == []
    reader.close()


def test_a_lock_is_held_by_one_and_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from llm_jupyter._supervisor.lock import Lock; "
        "lock = Lock(Path(sys.argv[1])); print(lock.take(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        lock = Lock(path)
        assert not lock.take()
        process.kill()
        process.wait()
        assert lock.take()
        assert not Lock(path).take()
        lock.let_go()
        assert Lock(path).take()


def test_a_lock_whose_file_was_removed_is_nobodys(tmp_path: Path) -> None:
    held = Lock(tmp_path / "lock")
    assert held.take()
    assert held.is_in_place
    (tmp_path / "lock").unlink()
    assert not held.is_in_place
    assert Lock(tmp_path / "lock").take()


# -- a disk that refuses


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """For the time of the block, be somebody whom permissions bind; root is bound by none."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_home(tmp_path: Path) -> Path:
    """A home that every user can reach."""
    home = tmp_path / "home"
    home.mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o055)
    return home


async def test_a_folder_that_is_read_only_is_a_clear_error(open_home: Path) -> None:
    open_home.chmod(0o777)
    with ordinary_user():
        HostFolder(open_home / "reached").make()
    open_home.chmod(0o555)
    async with hosting(open_home) as (hosts, _):
        with ordinary_user(), pytest.raises(HostError) as caught:
            await hosts.ensure(problem())
    first, second = caught.value.lines()
    assert str(open_home) in first
    assert "Permission denied" in first
    assert "LLM_JUPYTER_HOME" in second


async def test_a_disk_that_takes_nothing_is_a_clear_error_and_leaves_nothing_running(tmp_path: Path) -> None:
    holder = await Holder.start(tmp_path, problem(), preexec=no_more_bytes)
    said = await holder.says()
    first, second = said["error"].splitlines()
    assert str(tmp_path) in first
    assert "File too large" in first  # a full disk says something else; a limit can be set without being root
    assert "Make room" in second
    assert await holder.process.wait() == 0
    await eventually(lambda: not started_below(tmp_path), within=5)
    assert leases_in(tmp_path) == []
    async with hosting(tmp_path) as (hosts, _):
        assert ask((await hosts.ensure(problem())).url, "health")


def no_more_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


async def test_a_disk_that_takes_no_more_while_a_host_runs_takes_nothing_from_it(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(problem())
        supervisor = supervisor_of(tmp_path)
        _, hard = resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        tell(running.url, "exit/7")
        await eventually(lambda: is_dead(running.pid), within=2)
        await eventually(lambda: hosts_of(tmp_path), within=5)  # started again, though nothing can be written down
        assert len(events) == 2
        assert state_of(tmp_path)["host"][0] == running.pid
        resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (hard, hard))
        await eventually(lambda: len(events) == 6, within=4)  # and told of as soon as it could be
        assert names(events) == ["Started", "Ready", "Stopped", "Restarting", "Started", "Ready"]
        again = await hosts.ensure(problem())
        assert [again.pid] == hosts_of(tmp_path)
    assert started_below(tmp_path) == []


async def test_a_lock_that_is_held_for_long_is_a_clear_error(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _):
        await hosts.ensure(problem())
        await hosts.release(problem())
        lock = HostFolder(folder_of(tmp_path)).lock()
        assert lock.take()
        impatient = LLMHostManager(tmp_path, lock_timeout=0.2)
        with pytest.raises(HostError, match="another process has held"):
            await impatient.ensure(problem())
        lock.let_go()
        assert ask((await impatient.ensure(problem())).url, "health")
        await impatient.aclose()
