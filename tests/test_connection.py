"""What one connection learns from requests and from looks at its server."""

from __future__ import annotations

import asyncio

import pytest
from clocks import ManualClock
from routes import Faulty, Routes, free_port
from servers.scripted import End, Gate, Script, delta, reply, sse

from llm_jupyter.admission import Admission
from llm_jupyter.catalogue import Catalogue
from llm_jupyter.errors import (
    ContextExceededError,
    LLMConnectionError,
    LLMError,
    RateLimitedError,
    RequestError,
    ServerError,
    StreamTruncatedError,
    UnreachableError,
)
from llm_jupyter.events import ConnectionStateChanged, HealthChecked
from llm_jupyter.types import ProviderState

REFUSED = UnreachableError("nothing answers: the connection was refused")


async def test_a_status_asks_nobody() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        status = routes.connection("local").status()
        assert (status.state, status.latency, status.is_live) == (ProviderState.DISCONNECTED, None, None)
        assert routes.manager.connections.statuses() == [status]
        assert server.visits == []


async def test_a_look_tells_state_and_latency_and_nothing_of_answers() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        status = await routes.connection("local").check()
        assert status.state is ProviderState.CONNECTED
        assert status.latency is not None
        assert 0 < status.latency < 5
        assert status.is_live is None
        (check,) = routes.heard(HealthChecked)
        assert (check.provider, check.healthy, check.latency, check.reason) == ("local", True, status.latency, "")


async def test_a_look_that_fails_says_why() -> None:
    async with Routes({"local": f"http://127.0.0.1:{free_port()}/v1"}) as routes:
        status = await routes.connection("local").check()
        assert status.state is ProviderState.FAILED
        assert "refused" in status.reason
        (check,) = routes.heard(HealthChecked)
        assert (check.healthy, check.latency, check.reason) == (False, None, status.reason)


@pytest.mark.parametrize("health_interval", [0.0, 5.0])
async def test_a_server_that_hangs_costs_its_limit_once_and_is_asked_again_when_it_may_be_back(
    health_interval: float,
) -> None:
    clock, gate = ManualClock(), Gate()
    async with Faulty() as server, Routes({"local": server}, clock=clock, health_interval=health_interval) as routes:
        server.listing = [gate]

        async def asked(limit: float) -> str:
            services = routes.registry, Admission(routes.registry), routes.manager.connections, routes.manager.get
            (shelf,) = await Catalogue(*services, limit=limit).shelves([routes.registry.recipe("local")])
            return shelf.error.what if shelf.error is not None else f"{len(shelf.models)} model"

        for _ in range(3):
            assert await asked(0.2) == "it did not answer within 0.2 s"
        assert len(server.visits) == 1
        assert (routes.state("local"), routes.connection("local").breaker.is_open) == (ProviderState.FAILED, True)
        gate.open()
        server.listing = None
        clock.advance(10)
        if health_interval:  # the watch finds it back
            await routes.until(lambda: routes.state("local") is ProviderState.CONNECTED)
        assert await asked(5) == "1 model"


async def test_a_server_that_is_busy_with_our_own_question_has_not_failed() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        await routes.ask()
        server.listing = [Gate()]
        routes.connection("local").provider.in_flight = 1
        with pytest.raises(LLMConnectionError, match="it did not answer"):
            async with routes.connection("local").look(0.05):
                await routes.connection("local").provider.probe()
        assert routes.state("local") is ProviderState.CONNECTED


async def test_a_request_to_one_that_is_left_alone_ends_at_once_and_says_when_it_is_asked_again() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock) as routes:
        connection = routes.connection("local")
        connection.failed(REFUSED)
        for advance, seconds in ((0.0, 1), (0.4, 1)):
            clock.advance(advance)
            with pytest.raises(LLMConnectionError) as caught:
                async with connection.attempt():
                    raise AssertionError("nothing is to be asked")
            assert f"refused; it is asked again in {seconds} s" in str(caught.value)
            assert "%llm connect local" in str(caught.value)
            assert server.base_url in str(caught.value)
        clock.advance(0.6)
        async with connection.attempt():
            with pytest.raises(LLMConnectionError):
                async with connection.attempt():
                    raise AssertionError("one at a time tries")
        async with connection.attempt():
            assert not connection.breaker.is_open


async def test_one_who_leaves_while_he_tries_lets_the_next_one_try() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock) as routes:
        connection = routes.connection("local")
        connection.failed(REFUSED)
        clock.advance(2)
        for stops in (asyncio.CancelledError, KeyboardInterrupt, ContextExceededError):
            assert connection.breaker.admits()
            with pytest.raises(stops):
                async with connection.attempt():
                    raise stops("stop")
        assert connection.breaker.is_open
        async with connection.attempt():
            pass
        assert not connection.breaker.is_open


async def test_what_a_person_asked_wrongly_says_nothing_of_the_server() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        await routes.ask()
        before = routes.heard(ConnectionStateChanged)
        for _ in range(5):
            server.next(reply("", 400))
            with pytest.raises(RequestError):
                await routes.ask()
        assert not routes.connection("local").breaker.is_open
        assert routes.heard(ConnectionStateChanged) == before


async def test_one_failed_look_on_the_way_to_a_request_counts_once() -> None:
    clock = ManualClock()
    async with Routes({"local": f"http://127.0.0.1:{free_port()}/v1"}, clock=clock, retries=0) as routes:
        connection = routes.connection("local")
        for pause in (1, 2, 4):
            with pytest.raises(LLMConnectionError):
                await routes.ask()
            assert connection.breaker.wait == pytest.approx(pause)
            clock.advance(connection.breaker.wait)


@pytest.mark.parametrize(("listing", "state", "is_open"), [
    (reply("", 401), ProviderState.FAILED, False),
    (reply("", 404), ProviderState.FAILED, False),
    (reply({"error": {"code": 503, "message": "Loading model"}}, 503), ProviderState.LOADING, False),
    (reply("", 500), ProviderState.FAILED, True),
    ([End.RESET], ProviderState.FAILED, True),
])  # fmt: skip
async def test_only_a_server_that_is_not_there_is_left_alone_after_a_look(
    listing: Script, state: ProviderState, is_open: bool
) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.listing = listing
        assert (await routes.connection("local").check()).state is state
        assert routes.connection("local").breaker.is_open is is_open
        routes.connection("local").breaker.succeed()
        with pytest.raises(LLMError):
            await routes.connection("local").connect()
        assert (routes.state("local"), routes.connection("local").breaker.is_open) == (state, is_open)


async def test_connecting_asks_whatever_happened_before_and_closes_what_was_open() -> None:
    async with Faulty() as server, Routes({"local": server}, clock=ManualClock()) as routes:
        connection = routes.connection("local")
        for _ in range(3):
            connection.failed(ServerError("failed"))
        assert connection.breaker.is_open
        assert (await connection.connect()).state is ProviderState.CONNECTED
        assert not connection.breaker.is_open


async def test_too_many_requests_are_no_loss_and_a_look_does_not_end_their_wait() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock) as routes:
        connection = routes.connection("local")
        connection.failed(RateLimitedError("too many requests", retry_after=20.0))
        assert routes.state("local") is ProviderState.DEGRADED
        await connection.check()
        assert connection.breaker.wait == pytest.approx(20)
        assert routes.state("local") is ProviderState.DEGRADED


async def test_one_that_breaks_off_after_a_token_is_degraded_and_still_asked() -> None:
    async with Faulty() as server, Routes({"local": server}, clock=ManualClock()) as routes:
        server.chat = sse(delta("half"), End.RESET)
        for _ in range(4):
            with pytest.raises(StreamTruncatedError):
                await routes.ask()
            assert routes.state("local") is ProviderState.DEGRADED
            assert routes.connection("local").breaker.admits()


async def test_a_closed_connection_sleeps_no_more_until_its_next_look() -> None:
    clock = ManualClock()
    async with Faulty() as server, Routes({"local": server}, clock=clock, health_interval=5.0) as routes:
        connection = routes.connection("local")
        await connection.connect()
        connection.watch()
        await clock.until_asleep()
        assert len(clock.due) == 1  # watching twice is watching once
        await connection.aclose()
        await connection.aclose()
        assert clock.due == []


async def test_closing_ends_a_look_under_way() -> None:
    gate = Gate()
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.listing = [gate]
        looking = asyncio.create_task(routes.connection("local").check())
        await asyncio.to_thread(gate.reached.wait, 5)
        await routes.connection("local").aclose()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await server.visits[0].until_left()


async def test_each_provider_has_one_connection() -> None:
    async with Faulty() as first, Faulty() as second, Routes({"first": first, "second": second}) as routes:
        assert routes.connection("first") is routes.connection("first")
        assert routes.connection("first") is not routes.connection("second")
        routes.connection("first").failed(REFUSED)
        assert routes.connection("second").breaker.admits()


async def test_a_look_wanted_anew_begins_when_the_one_under_way_has_ended() -> None:
    gate = Gate()
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.listing = [gate, *reply({"object": "list", "data": []})]
        looking = asyncio.create_task(routes.connection("local").check())
        await asyncio.to_thread(gate.reached.wait, 5)
        server.listing = None
        shared = asyncio.create_task(routes.connection("local").check())
        anew = asyncio.create_task(routes.connection("local").check(anew=True))
        gate.open()
        await asyncio.gather(looking, shared, anew)
        assert len(server.visits) == 2
