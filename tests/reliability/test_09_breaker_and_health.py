"""When a server that failed is left alone, when it is asked again, and how soon its death and its return are noticed."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clocks import JumpingClock, ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from routes import Faulty, Routes, free_port
from servers.scripted import End, Gate, Request, Script, ScriptedServer, reply

from llm_jupyter.breaker import FAILURES, FIRST_PAUSE, JITTER, LONGEST_PAUSE, WINDOW, Breaker
from llm_jupyter.errors import (
    FirstTokenTimeoutError,
    LLMConnectionError,
    LLMError,
    RateLimitedError,
    ServerError,
    StreamTruncatedError,
    UnreachableError,
)
from llm_jupyter.events import HealthChecked, ProviderLost, ProviderRecovered
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.lmstudio import LMStudioProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import ProviderState

REFUSED = UnreachableError("nothing answers: the connection was refused")
FAILED = ServerError("the server failed", status=500)
SLOW = FirstTokenTimeoutError("no first token within 300 s")
CUT = StreamTruncatedError("the answer broke off")
LIMITED = RateLimitedError("too many requests", retry_after=5.0)


def breaker_at(clock: JumpingClock, chance: float = 0.5) -> Breaker:
    return Breaker(clock.monotonic, lambda: chance)


# -- what opens it


def test_one_refused_connection_opens_it() -> None:
    breaker = breaker_at(JumpingClock())
    assert breaker.admits()
    breaker.fail(REFUSED)
    assert breaker.is_open
    assert not breaker.admits()


@pytest.mark.parametrize("error", [FAILED, SLOW, CUT, LLMConnectionError("the server hung up")])
@pytest.mark.parametrize(("gap", "opens"), [(0.0, True), (14.9, True), (15.0, True), (15.1, False), (30.0, False)])
def test_three_failures_within_half_a_minute_open_it_and_over_more_do_not(
    error: LLMError, gap: float, opens: bool
) -> None:
    clock = JumpingClock()
    breaker = breaker_at(clock)
    for number in range(FAILURES):
        assert not breaker.is_open, number
        breaker.fail(error)
        clock.now += gap
    assert breaker.is_open is opens


def test_two_failures_and_an_answer_do_not_count_for_the_third() -> None:
    breaker = breaker_at(JumpingClock())
    for _ in range(5):
        breaker.fail(FAILED)
        breaker.fail(SLOW)
        breaker.succeed()
    breaker.fail(FAILED)
    assert not breaker.is_open


# -- how long it stays open


@pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_the_pause_doubles_from_one_second_to_thirty_with_a_fifth_of_jitter(chance: float, factor: float) -> None:
    clock = JumpingClock()
    breaker = breaker_at(clock, chance)
    breaker.fail(REFUSED)
    pauses = []
    for _ in range(8):
        pauses.append(breaker.wait)
        clock.now += breaker.wait
        breaker.fail(REFUSED, breaker.enter())
    assert pauses == pytest.approx([factor * seconds for seconds in (1, 2, 4, 8, 16, 30, 30, 30)])


def test_one_answer_closes_it_and_the_next_pause_is_short_again() -> None:
    clock = JumpingClock()
    breaker = breaker_at(clock)
    for _ in range(4):
        breaker.fail(REFUSED, breaker.enter())
        clock.now += breaker.wait
    breaker.enter()
    breaker.succeed()
    assert not breaker.is_open
    assert [breaker.admits() for _ in range(5)] == [True] * 5
    breaker.fail(REFUSED)
    assert breaker.wait == pytest.approx(FIRST_PAUSE)


def test_one_request_at_a_time_tries() -> None:
    clock = JumpingClock()
    breaker = breaker_at(clock)
    breaker.fail(REFUSED)
    clock.now += breaker.wait
    tries = breaker.enter()
    assert tries
    assert not breaker.admits()
    assert not breaker.enter()
    breaker.leave(tries)
    assert breaker.admits()


def test_an_old_try_that_another_s_answer_outran_decides_nothing() -> None:
    clock = JumpingClock()
    breaker = breaker_at(clock)
    breaker.fail(REFUSED)
    clock.now += 1.0
    old = breaker.enter()
    breaker.succeed()  # the answer to a request that left earlier
    breaker.fail(FAILED, old)
    assert not breaker.is_open
    breaker.fail(REFUSED)
    clock.now += 1.0
    new = breaker.enter()
    assert new not in (0, old)
    breaker.leave(old)
    assert not breaker.admits()


class BreakerMachine(RuleBasedStateMachine):
    """Requests that begin and end in any order while time goes by."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.clock = JumpingClock()
        self.breaker = Breaker(self.clock.monotonic, lambda: self.chance)
        self.chance = 0.5
        self.trying: set[int] = set()
        self.failed_at: list[float] = []

    @rule(target=requests)
    def begin(self) -> int:
        """A request that the breaker lets pass; the others are not sent."""
        admitted, was_open = self.breaker.admits(), self.breaker.is_open
        if not admitted:
            return 0
        tries = self.breaker.enter()
        assert bool(tries) is was_open
        if tries:
            assert not self.trying, "one request at a time tries"
            self.trying.add(tries)
        return tries

    @rule(request=consumes(requests))
    def answered(self, request: int) -> None:
        self.breaker.succeed()
        assert self.breaker.admits()
        assert not self.breaker.is_open
        self.failed_at.clear()
        self.trying.clear()  # the pause is over for all: who tried is a request as any other now

    @rule(request=consumes(requests))
    def stopped(self, request: int) -> None:
        was_open = self.breaker.is_open
        self.breaker.leave(request)
        assert self.breaker.is_open is was_open
        self.trying.discard(request)

    @rule(
        request=consumes(requests), error=st.sampled_from([REFUSED, FAILED, SLOW, CUT, LIMITED]), chance=st.floats(0, 1)
    )
    def failed(self, request: int, error: LLMError, chance: float) -> None:
        self.chance = chance
        was_open, tried, wait = self.breaker.is_open, request in self.trying, self.breaker.wait
        self.breaker.fail(error, request)
        self.trying.discard(request)
        if error is LIMITED:
            assert self.breaker.wait == pytest.approx(max(wait, 5.0))
            return
        self.failed_at.append(self.clock.now)
        recent = [moment for moment in self.failed_at[-FAILURES:] if self.clock.now - moment <= WINDOW]
        opens = error is REFUSED or len(recent) == FAILURES or tried
        assert self.breaker.is_open is (was_open or opens)
        if opens:
            assert self.breaker.wait >= (1 - JITTER) * FIRST_PAUSE - 1e-6
            assert self.breaker.wait <= max((1 + JITTER) * LONGEST_PAUSE, wait) + 1e-6

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def the_pause_ends(self) -> None:
        self.clock.now += self.breaker.wait

    @invariant()
    def it_admits_when_closed_or_when_its_pause_is_over_and_nobody_tries(self) -> None:
        expected = not self.breaker.is_open or (self.breaker.wait == 0 and not self.trying)
        assert self.breaker.admits() is expected


TestBreakerInAnyOrder = BreakerMachine.TestCase
TestBreakerInAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- never nobody at all


async def test_where_all_are_left_alone_each_is_asked_once() -> None:
    async with Faulty() as first, Faulty(["n"]) as second:
        servers = {"first": first, "second": second}
        async with Routes(servers, fallback=["second/n"], clock=ManualClock(), retries=2) as routes:
            for model in ("first/m", "second/n"):
                await routes.ask(model=model)  # so that each is known
            for name in servers:
                routes.connection(name).failed(REFUSED)
            for server in (first, second):
                server.forget()
            first.chat = second.chat = reply("", 500)
            with pytest.raises(LLMError):
                await routes.ask()
            assert (len(first.chats), len(second.chats)) == (1, 1)
            second.chat = None
            assert (await routes.ask()).provider == "second"
            assert (len(first.chats), len(second.chats)) == (2, 2)


async def test_the_only_one_is_asked_although_it_is_left_alone() -> None:
    async with Faulty() as server, Routes({"local": server}, clock=ManualClock()) as routes:
        routes.connection("local").failed(REFUSED)
        assert (await routes.ask()).text == "Heard: hi"
        assert not routes.connection("local").breaker.is_open


async def test_while_one_tries_the_others_go_elsewhere() -> None:
    gate = Gate()
    async with Faulty() as first, Faulty(["n"]) as second:
        clock = ManualClock()
        async with Routes({"first": first, "second": second}, fallback=["second/n"], clock=clock) as routes:
            await routes.ask()
            for _ in range(3):
                routes.connection("first").failed(FAILED)
            clock.advance(1.3)
            first.forget()
            first.next([gate])
            trying = asyncio.create_task(routes.ask("tries"))
            await asyncio.to_thread(gate.reached.wait, 5)
            answered = [(await routes.ask()).provider for _ in range(3)]
            assert answered == ["second"] * 3
            assert len(first.chats) == 1
            gate.open()
            assert (await trying).provider == "second"


# -- health

INTERVAL = 5.0


@contextmanager
def watched_process() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A real process that lists its models, on a port of its own."""
    port = free_port()
    with serving(port) as process:
        yield process, port


SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def address_string(self): return "somebody"
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


async def looks(routes: Routes, clock: ManualClock, seconds: float) -> int:
    """Let that much time pass, waiting for each look to end; returns how many there were."""
    before, end = len(routes.heard(HealthChecked)), clock.now + seconds
    while True:
        await clock.until_asleep()
        if clock.now + clock.due[0] > end:
            clock.advance(end - clock.now)
            return len(routes.heard(HealthChecked)) - before
        seen = len(routes.heard(HealthChecked))
        clock.advance(clock.due[0])
        await routes.until(lambda seen=seen: len(routes.heard(HealthChecked)) > seen)


@pytest.mark.parametrize("chance", [0.0, 1.0])
async def test_a_killed_server_is_found_within_two_intervals_and_a_recovered_one_within_one(chance: float) -> None:
    clock = ManualClock()
    with watched_process() as (process, port):
        servers = {"local": f"http://127.0.0.1:{port}/v1"}
        async with Routes(servers, clock=clock, health_interval=INTERVAL, random=lambda: chance) as routes:
            assert (await routes.connection("local").connect()).state is ProviderState.CONNECTED
            assert await looks(routes, clock, INTERVAL) == 1
            assert routes.state("local") is ProviderState.CONNECTED
            for _ in range(2):
                process.kill()
                process.wait()
                await looks(routes, clock, 2 * INTERVAL)
                assert routes.state("local") is ProviderState.FAILED
                assert routes.connection("local").breaker.is_open
                with serving(port) as process:
                    await looks(routes, clock, INTERVAL)
                    assert routes.state("local") is ProviderState.CONNECTED
                    assert not routes.connection("local").breaker.is_open
                    assert routes.heard(ProviderRecovered)
                process.wait()


async def test_a_server_that_hangs_is_found_by_the_first_look_and_recovered_by_the_next() -> None:
    clock, interval = ManualClock(), 0.4  # a look may take 0.8 of it, which is real time here
    with watched_process() as (process, port):
        servers = {"local": f"http://127.0.0.1:{port}/v1"}
        async with Routes(servers, clock=clock, health_interval=interval) as routes:
            await routes.connection("local").connect()
            os.kill(process.pid, signal.SIGSTOP)
            assert await looks(routes, clock, interval) == 1
            assert routes.state("local") is ProviderState.FAILED
            assert "did not answer within 0.32 s" in routes.connection("local").status().reason
            os.kill(process.pid, signal.SIGCONT)
            assert await looks(routes, clock, interval) == 1
            assert routes.state("local") is ProviderState.CONNECTED
            assert (len(routes.heard(ProviderLost)), len(routes.heard(ProviderRecovered))) == (1, 1)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 0.8))
async def test_from_look_to_look_it_is_never_longer_than_the_interval_however_long_a_look_takes(
    chance: float, share: float
) -> None:
    clock = JumpingClock()
    moments: list[float] = []
    enough = asyncio.Event()

    class Slow(OpenAICompatibleProvider):
        async def probe(self) -> None:
            moments.append(clock.now)
            clock.now += share * INTERVAL
            if len(moments) == 4:
                enough.set()
                await asyncio.Event().wait()

    async with Routes(
        {"local": lambda name: Slow(name)}, clock=clock, health_interval=INTERVAL, random=lambda: chance
    ) as routes:
        routes.connection("local").watch()
        await asyncio.wait_for(enough.wait(), 5)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(gap <= INTERVAL for gap in gaps)
    # The last look before a death, the whole of the next one, and it is found.
    assert all(gap + share * INTERVAL <= 2 * INTERVAL for gap in gaps)


async def test_a_first_choice_that_never_was_there_is_found_within_one_interval() -> None:
    clock, port = ManualClock(), free_port()
    async with Faulty(["n"]) as other:
        servers = {"first": f"http://127.0.0.1:{port}/v1", "other": other}
        async with Routes(servers, fallback=["other/n"], clock=clock, health_interval=INTERVAL) as routes:
            assert (await routes.ask()).provider == "other"
            async with Faulty(port=port):
                await clock.until_asleep(2)
                clock.advance(INTERVAL)
                await routes.until(lambda: routes.state("first") is ProviderState.CONNECTED)
                assert (await routes.ask()).provider == "first"


async def test_however_many_ask_there_is_one_look() -> None:
    gate = Gate()
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.listing = [gate, *reply({"data": [{"id": "m"}]})]
        asking = [asyncio.create_task(routes.connection("local").check()) for _ in range(20)]
        await asyncio.to_thread(gate.reached.wait, 5)
        asking += [asyncio.create_task(routes.connection("local").check()) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()  # who leaves takes nothing from the others
        gate.open()
        statuses = await asyncio.gather(*asking[1:])
        assert {status.state for status in statuses} == {ProviderState.CONNECTED}
        assert len(server.visits) == len(routes.heard(HealthChecked)) == 1
        await routes.connection("local").check()
        assert len(server.visits) == 2


LISTING: dict[str, tuple[type[LLMProvider], str, set[str]]] = {
    "ollama": (OllamaProvider, "", {"GET /api/tags"}),
    "openai": (OpenAICompatibleProvider, "/v1", {"GET /v1/models"}),
    "lmstudio": (LMStudioProvider, "", {"GET /api/v1/models", "GET /api/v0/models", "GET /v1/models"}),
}


def listed(request: Request) -> Script:
    if request.path == "/api/v1/models":
        return reply({"models": [{"type": "llm", "key": "m", "loaded_instances": []}]})
    if request.path == "/api/tags":
        return reply({"models": [{"name": "m", "model": "m", "digest": "d"}]})
    return reply({"object": "list", "data": [{"id": "m", "object": "model", "type": "llm", "state": "not-loaded"}]})


@pytest.mark.parametrize("kind", LISTING)
async def test_a_look_asks_for_the_list_of_models_only_so_that_none_is_loaded(kind: str) -> None:
    made, path, allowed = LISTING[kind]
    clock = ManualClock()
    async with ScriptedServer(listed) as server:

        def provider(name: str) -> LLMProvider:
            return made(name, server.origin + path)

        async with Routes({"local": provider}, clock=clock, health_interval=INTERVAL) as routes:
            await routes.connection("local").connect()
            assert await looks(routes, clock, 6 * INTERVAL) >= 6
            await routes.connection("local").check()
            assert all(check.healthy for check in routes.heard(HealthChecked))
            assert server.requests
            assert {f"{request.method} {request.path}" for request in server.requests} <= allowed


async def test_a_remote_provider_is_never_looked_at_in_the_background() -> None:
    clock = ManualClock()

    class Remote(OpenAICompatibleProvider):
        @property
        def is_local(self) -> bool:
            return False

    async with Faulty() as far, Faulty() as near:

        def remote(name: str) -> LLMProvider:
            return Remote(name, far.base_url)

        servers = {"far": remote, "near": near}
        async with Routes(
            servers, clock=clock, health_interval=INTERVAL, recipes={"far": {"is_local": False}}
        ) as routes:
            for name in servers:
                await routes.connection(name).connect()
            assert (await routes.ask(model="far/m")).provider == "far"
            routes.connection("far").failed(REFUSED)
            asked = len(far.visits)
            assert await looks(routes, clock, 5 * INTERVAL) >= 5
            assert len(near.visits) >= 5
            assert len(far.visits) == asked


async def test_a_server_is_not_looked_at_while_it_answers() -> None:
    clock, gate = ManualClock(), Gate()
    async with Faulty() as server, Routes({"local": server}, clock=clock, health_interval=INTERVAL) as routes:
        await routes.connection("local").connect()
        server.next([gate])
        asking = asyncio.create_task(routes.ask())
        await asyncio.to_thread(gate.reached.wait, 5)
        for _ in range(3):
            await clock.until_asleep()
            clock.advance(INTERVAL)
        await clock.until_asleep()
        assert routes.heard(HealthChecked) == []
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


# -- there, ready, live


async def test_answers_that_fail_keep_it_open_although_the_listing_works() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock, health_interval=INTERVAL) as routes:
        connection = routes.connection("local")
        await connection.connect()
        server.chat = reply("", 500)
        for number in range(FAILURES):
            with pytest.raises(ServerError):
                await routes.ask()
            assert connection.breaker.is_open is (number == FAILURES - 1)
            await connection.check()  # the list of models is there each time, and says nothing of answers
        assert connection.breaker.is_open
        assert routes.state("local") is ProviderState.FAILED
        assert connection.status().is_live is False
        await looks(routes, clock, 3 * INTERVAL)
        assert all(check.healthy for check in routes.heard(HealthChecked))
        assert connection.breaker.is_open
        assert routes.state("local") is ProviderState.FAILED
        server.chat = None
        await routes.ask()
        assert not connection.breaker.is_open
        assert routes.state("local") is ProviderState.CONNECTED
        assert connection.status().is_live is True


async def test_a_failed_look_is_enough_and_a_good_one_makes_up_for_it() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        connection = routes.connection("local")
        for listing in (reply("", 502), [End.RESET], reply("<html>", content_type="text/html")):
            server.listing = listing
            assert (await connection.check()).state is ProviderState.FAILED
            assert connection.breaker.is_open
            server.listing = None
            assert (await connection.check()).state is ProviderState.CONNECTED
            assert not connection.breaker.is_open
