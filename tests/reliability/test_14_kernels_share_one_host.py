"""Two kernels that want one host get one process; a kill of the first does not break the second's stream."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from counts import times
from hosts.children import Holder, folder_of, holding, is_dead, leases_in, problem, started_below, state_of
from live import eventually
from routes import free_port

STARTS = times(50)
TOKENS = 150
ANSWER = """
import asyncio, json, sys
from pathlib import Path
from llm_jupyter.hosts import LLMHostManager, SharedLlama
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import GenerationOptions

async def main():
    home = Path(sys.argv[1])
    hosts = LLMHostManager(home)
    provider = LlamaCppProvider(home=home, context=2048, threads=1, slots=2, launcher=SharedLlama(hosts))
    endless = GenerationOptions(max_tokens=int(sys.argv[2]), extra={"ignore_eos": True})
    async with provider.stream_completion("Once upon a time", model="smollm2-135m", options=endless) as stream:
        count = 0
        async for chunk in stream:
            count += 1
            print(json.dumps({"pid": provider.process_id, "count": count}), flush=True)
    print(json.dumps({"whole": chunk.finish_reason}), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


ASK = """
import asyncio, json, sys
from llm_jupyter.factory import LLMFactory

async def main():
    async with LLMFactory() as llm:
        if sys.argv[2] == "start":
            print(json.dumps({"pid": (await llm.hosts.start("mine")).pid}), flush=True)
            await asyncio.sleep(60)
        async with llm.sessions.current.ask("hi") as answering:
            while batch := await answering.read_batch():
                print(json.dumps({"pid": llm.hosts.one("mine").pid}), flush=True)
        print(json.dumps({"whole": answering.response.finish_reason}), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
HOSTED = Path(__file__).parents[1] / "servers" / "hosted.py"


class Answering(Holder):
    """A process in which the shared embedded model answers without end, or one that does what its script says."""

    @classmethod
    async def begin(cls, home: Path, what: int | str, script: str = ANSWER) -> Answering:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(home), str(what), env={**os.environ, "LLM_JUPYTER_HOME": str(home)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return cls(process)

    async def pieces(self, number: int) -> int:
        """Wait for so many more pieces of its answer; the process id of the model."""
        said = {}
        for _ in range(number):
            said = await self.says()
        pid: int = said["pid"]
        return pid


@pytest.mark.live
async def test_a_kill_of_the_first_kernel_does_not_break_the_seconds_answer_and_the_model_goes_with_the_second(
    llm_home: Path,
) -> None:
    first = await Answering.begin(llm_home, 1800)
    model = await first.pieces(1)
    second = await Answering.begin(llm_home, TOKENS)
    assert await second.pieces(5) == model
    await first.kill()
    await eventually(lambda: len(leases_in(llm_home)) == 1, within=2)
    assert await second.pieces(TOKENS - 20) == model
    while "whole" not in (last := await second.says()):
        pass
    assert last["whole"] == "length"
    assert not is_dead(model)
    await second.kill()
    await eventually(lambda: not started_below(llm_home), within=2)
    assert is_dead(model)
    assert leases_in(llm_home) == []


async def test_the_second_of_a_host_of_the_settings_only_asked_it_and_holds_it_all_the_same(tmp_path: Path) -> None:
    command = json.dumps([sys.executable, "-S", str(HOSTED), "{port}", "8", "0.3"])
    table = f"[hosts.mine]\ncommand = {command}\nport = {free_port()}\n"
    (tmp_path / "config.toml").write_text(f'default_model = "mine/m"\n{table}')
    first = await Answering.begin(tmp_path, "start", ASK)
    host = await first.pieces(1)
    second = await Answering.begin(tmp_path, "ask", ASK)
    assert await second.pieces(1) == host
    await first.kill()
    await eventually(lambda: len(leases_in(tmp_path)) == 1, within=2)
    assert await second.pieces(6) == host
    while "whole" not in (last := await second.says()):
        pass
    assert last["whole"] == "stop"
    assert not is_dead(host)
    await second.kill()
    await eventually(lambda: not started_below(tmp_path), within=2)
    assert is_dead(host)
    assert leases_in(tmp_path) == []


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_kernels_that_start_a_host_at_one_moment_get_one_process(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    for number in range(STARTS):
        home = tmp_path / str(number)
        holders = await asyncio.gather(*(Holder.start(home, problem()) for _ in range(3)))
        said = await asyncio.gather(*(holder.says() for holder in holders))
        assert len({host["pid"] for host in said}) == 1, said
        hosts = [process for process in started_below(home) if "problem_host.py" in " ".join(process.cmdline())]
        assert [process.pid for process in hosts] == [said[0]["pid"]]
        await asyncio.gather(*(holder.kill() for holder in holders))
        await eventually(lambda home=home: not started_below(home), within=2)
        assert leases_in(home) == []
    report(f"{STARTS} times three kernels started one host at one moment: one process each time, none left")


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_one_who_comes_while_the_last_one_leaves_gets_a_host_that_lives(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    async with holding(tmp_path, problem()) as (last, _):
        for number in range(STARTS):
            following = await Holder.start(tmp_path, problem())
            await asyncio.sleep(0.01 * (number % 40))
            leaving = asyncio.create_task(last.told("close"))
            host = await following.says()
            await leaving
            assert "pid" in host, host
            await eventually(lambda host=host: state_of(tmp_path).get("host", [0])[0] == host["pid"], within=2)
            assert not is_dead(host["pid"])
            assert len([p for p in started_below(tmp_path) if "problem_host.py" in " ".join(p.cmdline())]) == 1
            last = following
        await last.kill()
    await eventually(lambda: not started_below(tmp_path), within=2)
    assert leases_in(tmp_path) == []
    report(f"{STARTS} times one kernel came as another left: always one host, and a living one")


async def test_a_shutdown_of_the_first_kernels_whole_process_group_takes_nothing_from_the_second(
    tmp_path: Path,
) -> None:
    """What a front end does to a kernel that will not end."""
    async with holding(tmp_path, problem()) as (first, host), holding(tmp_path, problem()) as (_, other):
        assert other["pid"] == host["pid"]
        os.killpg(first.pid, signal.SIGINT)
        os.killpg(first.pid, signal.SIGKILL)
        await first.process.wait()
        await eventually(lambda: len(leases_in(tmp_path)) == 1, within=2)
        assert state_of(tmp_path)["generation"] == 1
        assert not is_dead(host["pid"])


@pytest.mark.live
async def test_another_user_of_the_machine_can_neither_use_the_model_nor_read_its_key(llm_home: Path) -> None:
    model = await Answering.begin(llm_home, 1800)
    pid = await model.pieces(1)
    try:
        state = state_of(llm_home)
        sockets = psutil.Process(pid).net_connections("inet")
        assert {(s.laddr.ip, s.status) for s in sockets if s.status == psutil.CONN_LISTEN} == {("127.0.0.1", "LISTEN")}
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "a", "max_tokens": 1}
            async with session.post(f"{state['url']}/v1/completions", json=body) as reply:
                assert reply.status == 401
        assert len(state["api_key"]) >= 43
        for process in (psutil.Process(pid), psutil.Process(state["supervisor"][0])):
            assert state["api_key"] not in " ".join(process.cmdline())
            assert state["api_key"] not in json.dumps(process.environ())
        for path, mode in ((folder_of(llm_home), 0o700), (folder_of(llm_home) / "state.json", 0o600)):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        if os.getuid() == 0:  # the tests' own user reads everything; an ordinary one must not
            nobody = pwd.getpwnam("nobody").pw_uid
            setpriv = shutil.which("setpriv")
            assert setpriv is not None
            for folder in (llm_home.parent, *llm_home.parent.parents):
                if folder == Path("/tmp"):
                    break
                folder.chmod(folder.stat().st_mode | 0o055)
            command = [setpriv, f"--reuid={nobody}", "--clear-groups", "cat", str(folder_of(llm_home) / "state.json")]
            reading = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, complaint = await reading.communicate()
            assert out == b""
            assert b"Permission denied" in complaint
    finally:
        await model.kill()
    await eventually(lambda: is_dead(pid), within=2)
