"""Hosts that run because another kernel started them, and of which this one knows nothing but what is on disk."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hosts.children import Holder, folder_of, holding, hosting, is_dead, leases_in, names, problem, state_of
from live import eventually
from routes import free_port

from llm_jupyter.errors import HostError


async def test_what_another_kernel_runs_is_seen_and_commanded_without_holding_it(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events), holding(tmp_path, problem()) as (_, other):
        (seen,) = hosts.status()
        assert (seen.name, seen.state, seen.pid, seen.url) == ("problem", "running", other["pid"], other["url"])
        assert (seen.ours, seen.adopted, seen.holders, seen.held) == (True, False, 1, False)
        assert seen.rss
        assert seen.uptime is not None
        assert (hosts.one("problem").pid, (await hosts.start("problem")).pid) == (seen.pid, seen.pid)
        assert hosts.log("problem") == []
        restarted = await hosts.restart("problem")
        assert (restarted.state, restarted.pid in (None, seen.pid)) == ("running", False)
        assert len(leases_in(tmp_path)) == 1
        assert hosts.spec("problem") is None
        await hosts.stop("problem")
        assert is_dead(restarted.pid or 0)
        assert (hosts.names(), hosts.status(), names(events)) == ([], [], [])
        with pytest.raises(HostError, match="there is no host 'problem'"):
            await hosts.stop("problem")


async def test_one_is_listed_once_whether_it_is_held_described_or_only_seen(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _), holding(tmp_path, problem()) as (_, other):
        assert hosts.names() == ["problem"]
        await hosts.ensure(problem())
        (held,) = hosts.status()
        assert (held.pid, held.holders, held.held) == (other["pid"], 2, True)
        await hosts.release(problem())
        (seen,) = hosts.status()
        assert (seen.pid, seen.holders, seen.held) == (other["pid"], 1, False)
        hosts.add(problem())
        assert [status.pid for status in hosts.status()] == [other["pid"]]


async def test_one_whose_name_means_another_here_goes_by_its_folders_name(tmp_path: Path) -> None:
    async with hosting(tmp_path, problem=problem("problem", "another")) as (hosts, _):
        async with holding(tmp_path, problem()) as (_, other):
            key = folder_of(tmp_path).name
            assert hosts.names() == ["problem", key]
            assert (hosts.one("problem").state, hosts.one(key).pid) == ("stopped", other["pid"])
            await hosts.stop("problem")
            assert not is_dead(other["pid"])
            assert [status.state for status in hosts.status()] == ["stopped", "running"]
            await hosts.stop(key)
        assert hosts.names() == ["problem"]


async def test_one_that_is_watched_under_another_name_is_not_listed_twice(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _), holding(tmp_path, problem(port=free_port())) as (_, other):
        await hosts.adopt("theirs", f"http://127.0.0.1:{urlsplit(other['url']).port}/v1")
        assert [(status.name, status.pid) for status in hosts.status()] == [("theirs", other["pid"])]


async def test_one_whose_kernel_was_killed_is_seen_no_more(tmp_path: Path) -> None:
    holder = await Holder.start(tmp_path, problem())
    await holder.says()
    async with hosting(tmp_path) as (hosts, _):
        assert hosts.names() == ["problem"]
        await holder.kill()
        await eventually(lambda: not hosts.status(), within=5)


async def test_what_is_damaged_or_of_another_machine_is_not_seen(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, _), holding(tmp_path, problem()):
        folder, state = folder_of(tmp_path), state_of(tmp_path)
        for name, text in {"torn": '{"run": "1", "mach', "moved": json.dumps({**state, "machine": "another"})}.items():
            (folder.parent / name).mkdir()
            (folder.parent / name / "state.json").write_text(text)
        (folder.parent / "a file").write_text("")
        assert hosts.names() == ["problem"]
