"""However a connection's state changes, exactly one event says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from routes import Faulty, Routes
from servers.scripted import End, Script, delta, head, reply, sse

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    LLMConnectionError,
    LLMError,
    ModelLoadingError,
    RateLimitedError,
    ServerError,
    StreamTruncatedError,
    UnreachableError,
)
from llm_jupyter.events import ConnectionStateChanged, ProviderConnected, ProviderLost, ProviderRecovered
from llm_jupyter.providers._state import ConnectionState
from llm_jupyter.types import ProviderState

S = ProviderState
FORBIDDEN = {(S.LOADING, S.CONNECTING), (S.CONNECTED, S.CONNECTING), (S.DEGRADED, S.CONNECTING)}
"""Whoever answers is connected already; no connection begins anew without an end."""


def checked(changes: Sequence[ConnectionStateChanged], last: ProviderState) -> None:
    """Whether these changes can be a connection's whole life up to that state."""
    state, is_lost, was_connected = S.DISCONNECTED, False, False
    for change in changes:
        assert change.old is state, "no gap"
        assert change.new is not state, "a change changes something"
        assert (change.old, change.new) not in FORBIDDEN
        expected: type[ConnectionStateChanged] = ConnectionStateChanged
        if change.new is S.FAILED and state in (S.LOADING, S.CONNECTED, S.DEGRADED) and not is_lost:
            expected, is_lost = ProviderLost, True
        elif change.new is S.CONNECTED and is_lost:
            expected, is_lost, was_connected = ProviderRecovered, False, True
        elif change.new is S.CONNECTED and not was_connected:
            expected, was_connected = ProviderConnected, True
        elif change.new is S.DISCONNECTED:
            is_lost = was_connected = False
        assert type(change) is expected
        state = change.new
    assert state is last


LOADING = reply({"error": {"code": 503, "message": "Loading model"}}, 503)
LISTINGS: dict[str, Script | None] = {
    "listed": None,
    "listing failed": reply("", 500),
    "listing hung up": [End.RESET],
    "listing refused": reply({"error": {"message": "key"}}, 401),
    "listing unknown": reply("", 404),
    "listing loads": LOADING,
    "listing is a page": reply("<html>", content_type="text/html"),
}
CHATS: dict[str, Script | None] = {
    "answered": None,
    "failed": reply("", 500),
    "busy": reply("", 503),
    "too many": reply("", 429, headers=[("Retry-After", "60")]),
    "hung up": [End.RESET],
    "died": [head(200, "text/event-stream"), End.RESET],
    "cut": sse(delta("half"), End.CLOSE),
    "loads": LOADING,
    "key": reply("", 401),
    "unknown": reply("", 404),
    "too long": reply({"error": {"type": "exceed_context_size_error", "message": "x"}}, 400),
}
WAYS = ("connect", "disconnect", "check", "get_status", "ask", "time passes")
steps = st.tuples(st.sampled_from(WAYS), st.sampled_from(sorted(LISTINGS)), st.sampled_from(sorted(CHATS)))


async def take(routes: Routes, way: str) -> None:
    """One thing that somebody does with a provider, whatever comes of it."""
    connection = routes.connection("local")
    with contextlib.suppress(LLMError):
        if way == "connect":
            await connection.connect()
        elif way == "disconnect":
            await connection.aclose()
            await connection.provider.disconnect()
        elif way == "check":
            await connection.check()
        elif way == "get_status":
            await connection.provider.get_status()
        elif way == "ask":
            await routes.ask(timeout=0.6)
        else:
            routes.clock.now += 7.0


@settings(max_examples=60)
@given(st.lists(steps, max_size=12))
async def test_the_events_are_the_whole_history_of_the_state(taken: list[tuple[str, str, str]]) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        for way, listing, chat in taken:
            server.listing, server.chat = LISTINGS[listing], CHATS[chat]
            before, known = routes.state("local"), len(routes.heard(ConnectionStateChanged))
            await take(routes, way)
            changes = routes.heard(ConnectionStateChanged)
            assert (len(changes) > known) or (routes.state("local") is before)
            checked(changes, routes.state("local"))
        await routes.manager.aclose()
        checked(routes.heard(ConnectionStateChanged), S.DISCONNECTED)


@settings(max_examples=25)
@given(st.lists(st.lists(steps, min_size=2, max_size=5), max_size=3))
async def test_so_they_are_when_much_happens_at_once(rounds: list[list[tuple[str, str, str]]]) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        for together in rounds:
            server.listing, server.chat = LISTINGS[together[0][1]], CHATS[together[0][2]]
            ways = [way for way, _, _ in together]
            await asyncio.gather(*(take(routes, way) for way in ways), return_exceptions=True)
            checked(routes.heard(ConnectionStateChanged), routes.state("local"))


OUTCOMES: list[LLMError | None] = [
    None, UnreachableError("refused"), LLMConnectionError("hung up"), ServerError("failed"), RateLimitedError("busy"),
    StreamTruncatedError("cut"), ModelLoadingError("loading"), AuthenticationError("key"), ContextExceededError("long"),
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["request", "look"]), st.sampled_from(OUTCOMES)), max_size=30))
async def test_so_they_are_whatever_requests_and_looks_show(outcomes: list[tuple[str, LLMError | None]]) -> None:
    async with Routes({"local": "http://127.0.0.1:9/v1"}) as routes:
        connection = routes.connection("local")
        for way, error in outcomes:
            with contextlib.suppress(LLMError):
                async with connection.attempt(forced=True) if way == "request" else connection.look():
                    if error is not None:
                        raise error
        checked(routes.heard(ConnectionStateChanged), routes.state("local"))


@given(st.lists(st.sampled_from(ProviderState), max_size=30))
def test_a_state_that_cannot_follow_changes_nothing(wanted: list[ProviderState]) -> None:
    connection, changes = ConnectionState("local"), list[ConnectionStateChanged]()
    for state in wanted:
        before, since, known = connection.state, connection.since, list(changes)
        try:
            change = connection.enter(state, "because")
        except ValueError:
            assert (connection.state, connection.since) == (before, since)
            continue
        if change is None:
            assert state is before
            assert connection.since == since
        else:
            changes.append(change)
            assert (change.provider, change.reason) == ("local", "because")
        assert changes[: len(known)] == known
        checked(changes, connection.state)


def test_every_state_can_be_left_and_reached() -> None:
    reached = set[tuple[ProviderState, ProviderState]]()
    for old in ProviderState:
        for new in ProviderState:
            connection = ConnectionState("local")
            connection.state = old
            with contextlib.suppress(ValueError):
                if connection.enter(new) is not None:
                    reached.add((old, new))
    everything = {(old, new) for old in ProviderState for new in ProviderState if old is not new}
    # What is disconnected connects or is asked; and what is connecting or asked is not connecting again.
    assert everything - reached == FORBIDDEN
