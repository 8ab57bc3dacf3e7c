"""A server that loads its model is waited for as long as it makes progress, and says so meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clocks import ManualClock
from routes import Faulty, Routes, free_port
from servers.scripted import Script, reply

from llm_jupyter.effort import MEMORY_STEP, PROCESSOR_STEP, Effort
from llm_jupyter.errors import ModelLoadingError
from llm_jupyter.events import (
    ConnectionStateChanged,
    ModelLoading,
    ProviderConnected,
    RequestFailedOver,
    RequestRetried,
)
from llm_jupyter.failover import LOADING_PAUSE
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import ProviderState


class Hidden(OpenAICompatibleProvider):
    """A server elsewhere, as far as its provider can tell."""

    @property
    def is_local(self) -> bool:
        return False


LOADING: Script = reply({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503)

# Says that it loads to so many questions and takes as many bytes of memory with each; then it answers.
SERVER = """
import http.server, json, sys
port, loads, size = map(int, sys.argv[1:])
taken = []
class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, status, kind, body):
        self.send_response(status); self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        self.say(200, "application/json", b'{"object": "list", "data": [{"id": "m"}]}')
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if len(taken) < loads:
            taken.append(b"x" * size)
            return self.say(503, "application/json", b'{"error": {"code": 503, "message": "Loading model"}}')
        said = {"choices": [{"delta": {"content": "loaded"}, "finish_reason": "stop"}]}
        self.say(200, "text/event-stream", b"data: " + json.dumps(said).encode() + b"\\n\\ndata: [DONE]\\n\\n")
    def address_string(self): return "somebody"
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextmanager
def loader(loads: int, size: int) -> Iterator[str]:
    """The base URL of a real process that takes its time."""
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port), str(loads), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


async def test_it_is_waited_for_with_events_and_then_answers() -> None:
    clock = ManualClock()
    async with (
        Faulty() as server,
        Faulty(["n"]) as other,
        Routes({"local": server, "other": other}, fallback=["other/n"], clock=clock) as routes,
    ):
        server.next(*[LOADING] * 5)
        asking = asyncio.create_task(routes.ask())
        for _ in range(5):
            await clock.until_asleep()
            assert routes.state("local") is ProviderState.LOADING
            assert not routes.connection("local").breaker.is_open
            clock.advance(LOADING_PAUSE)
        response = await asking
        assert (response.text, response.tried) == ("Heard: hi", ())
        waited = routes.heard(ModelLoading)
        assert [event.elapsed for event in waited] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])
        assert {(event.provider, event.model) for event in waited} == {("local", "m")}
        changes = [(type(e), e.new) for e in routes.heard(ConnectionStateChanged) if e.provider == "local"]
        assert changes[-2:] == [
            (ConnectionStateChanged, ProviderState.LOADING), (ConnectionStateChanged, ProviderState.CONNECTED),
        ]  # fmt: skip
        assert routes.heard(RequestRetried) == routes.heard(RequestFailedOver) == []
        assert other.visits == []


async def test_a_server_whose_very_list_of_models_waits_for_the_load_is_waited_for_too() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock) as routes:
        server.listing = LOADING
        asking = asyncio.create_task(routes.ask())
        for _ in range(3):
            await clock.until_asleep()
            assert routes.state("local") is ProviderState.LOADING
            assert server.chats == []
            clock.advance(LOADING_PAUSE)
        await clock.until_asleep()
        server.listing = None
        clock.advance(LOADING_PAUSE)
        assert (await asking).text == "Heard: hi"
        assert len(routes.heard(ModelLoading)) == 4


async def test_as_long_as_it_makes_progress_there_is_no_limit() -> None:
    with loader(14, MEMORY_STEP + MEMORY_STEP // 8) as url:
        async with Routes({"local": url}) as routes:
            assert (await routes.ask(timeout=2)).text == "loaded"  # seven seconds, of which none went by idle
            assert [event.elapsed for event in routes.heard(ModelLoading)][-1] > 3 * 2


@pytest.mark.parametrize(("asked", "settings"), [(3.0, 300.0), (None, 3.0)])
async def test_without_progress_it_ends_at_the_first_token_limit(asked: float | None, settings: float) -> None:
    with loader(1000, 10) as url:
        async with Routes({"local": url}, first_token_timeout=settings) as routes:
            with pytest.raises(ModelLoadingError) as caught:
                await routes.ask(timeout=asked)
            elapsed = [event.elapsed or 0 for event in routes.heard(ModelLoading)]
            assert elapsed == sorted(set(elapsed))
            assert 2.5 <= elapsed[-1] <= 4
            assert routes.heard(RequestRetried) == []
            assert not routes.connection("local").breaker.is_open
            (line,) = caught.value.lines()
            assert "loading" in line
            assert "%llm use" in line


async def test_where_nobody_can_tell_of_progress_it_ends_at_the_limit_too() -> None:
    def hidden(name: str) -> Hidden:
        return Hidden(name, server.base_url)

    async with Faulty() as server, Routes({"local": hidden}, recipes={"local": {"is_local": False}}) as routes:
        server.chat = LOADING
        assert await routes.connection("local").loading_mark() is None
        with pytest.raises(ModelLoadingError):
            await routes.ask(timeout=3)
        assert len(server.chats) == 8


async def test_one_that_makes_no_progress_gives_way_to_another() -> None:
    with loader(1000, 10) as url:
        async with Faulty(["n"]) as other, Routes({"local": url, "other": other}, fallback=["other/n"]) as routes:
            response = await routes.ask(timeout=3)
            assert response.provider == "other"
            assert "loading" in response.tried[0]


async def test_who_waits_may_leave() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock) as routes:
        server.chat = LOADING
        asking = asyncio.create_task(routes.ask())
        await clock.until_asleep()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert clock.due == []  # nobody is left who would ask again
        assert len(server.chats) == 1


async def test_a_look_at_a_server_that_loads_is_no_failure() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock, health_interval=5.0) as routes:
        connection = routes.connection("local")
        server.listing = LOADING
        with pytest.raises(ModelLoadingError):
            await connection.connect()
        assert (routes.state("local"), connection.breaker.is_open) == (ProviderState.LOADING, False)
        assert (await connection.check()).state is ProviderState.LOADING
        assert not connection.breaker.is_open
        server.listing = None
        await clock.until_asleep()
        clock.advance(5)
        await routes.until(lambda: routes.state("local") is ProviderState.CONNECTED)
        assert len(routes.heard(ProviderConnected)) == 1


# -- what counts as progress


async def test_memory_that_grows_is_progress_and_a_few_answers_are_none() -> None:
    with loader(3, 3 * MEMORY_STEP) as url:
        effort = Effort(url)
        before = effort.mark()
        assert before is not None
        assert [effort.mark() for _ in range(5)] == [before] * 5
        async with Routes({"local": url}) as routes:
            await routes.ask()
        after = effort.mark()
        assert after is not None
        assert after[1] > before[1]


def test_work_is_progress_also_where_a_child_does_it() -> None:
    burn = "import time\nwhile time.process_time() < 1.5: pass\nprint('done', flush=True)\ntime.sleep(60)"
    listens = (
        "import socket, subprocess, sys\n"
        "listener = socket.create_server(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True)\n"
        f"sys.stdin.readline(); subprocess.run([sys.executable, '-c', {burn!r}])"
    )
    command = [sys.executable, "-c", listens]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            effort = Effort(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
            before = effort.mark()
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            after = effort.mark()
            assert before is not None
            assert after is not None
            assert after[0] - before[0] >= 1 / PROCESSOR_STEP
        finally:
            os.killpg(process.pid, 9)


def test_where_nobody_listens_there_is_nothing_to_tell() -> None:
    port = free_port()
    effort = Effort(f"http://127.0.0.1:{port}/v1")
    assert effort.mark() is None
    with loader(0, 0) as url:
        assert Effort(url).mark() is not None
    assert effort.mark() is None
