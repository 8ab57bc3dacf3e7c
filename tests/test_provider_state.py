"""The states of a connection; their whole history is in `reliability/test_11_a_change_of_state_is_one_event.py`."""

from __future__ import annotations

import pytest

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    FirstTokenTimeoutError,
    HostError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ModelLoadingError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    StreamStalledError,
    StreamTruncatedError,
    UnreachableError,
)
from llm_jupyter.events import ConnectionStateChanged, ProviderConnected, ProviderLost, ProviderRecovered
from llm_jupyter.providers._state import ANSWERING, TRANSITIONS, ConnectionState, state_after
from llm_jupyter.types import ProviderState

S = ProviderState


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ModelLoadingError("x"), S.LOADING), (FirstTokenTimeoutError("x"), S.DEGRADED), (ServerError("x"), S.DEGRADED),
        (RateLimitedError("x"), S.DEGRADED), (StreamTruncatedError("x"), S.DEGRADED),
        (StreamStalledError("x"), S.DEGRADED), (MalformedResponseError("x"), S.DEGRADED),
        (LLMConnectionError("x"), S.FAILED), (UnreachableError("x"), S.FAILED), (AuthenticationError("x"), S.FAILED),
        (RequestError("x"), None), (ContextExceededError("x"), None), (ModelNotFoundError("x"), None),
        (HostError("x"), None),
    ],
)  # fmt: skip
def test_an_error_shows_a_state_only_where_it_tells_of_the_server(error: LLMError, state: ProviderState | None) -> None:
    assert state_after(error) is state


def test_every_state_has_its_followers_and_none_follows_itself() -> None:
    assert set(TRANSITIONS) == set(ProviderState)
    assert all(state not in followers for state, followers in TRANSITIONS.items())
    assert all(S.DISCONNECTED in followers for state, followers in TRANSITIONS.items() if state is not S.DISCONNECTED)
    assert all(S.CONNECTING not in TRANSITIONS[state] for state in ANSWERING)


LIVES: dict[str, list[tuple[ProviderState, type[ConnectionStateChanged]]]] = {
    "a first contact that fails is no loss": [
        (S.CONNECTING, ConnectionStateChanged), (S.FAILED, ConnectionStateChanged), (S.CONNECTED, ProviderConnected),
    ],
    "lost and recovered by turns": [
        (S.CONNECTED, ProviderConnected), (S.FAILED, ProviderLost), (S.CONNECTED, ProviderRecovered),
        (S.FAILED, ProviderLost), (S.CONNECTING, ConnectionStateChanged), (S.CONNECTED, ProviderRecovered),
    ],
    "a model that loads anew is no new connection": [
        (S.CONNECTED, ProviderConnected), (S.LOADING, ConnectionStateChanged), (S.CONNECTED, ConnectionStateChanged),
    ],
    "one that was degraded from the beginning connects once it answers": [
        (S.DEGRADED, ConnectionStateChanged), (S.CONNECTED, ProviderConnected), (S.DEGRADED, ConnectionStateChanged),
        (S.CONNECTED, ConnectionStateChanged),
    ],
    "what was lost is not lost again before it recovered": [
        (S.CONNECTED, ProviderConnected), (S.FAILED, ProviderLost), (S.DEGRADED, ConnectionStateChanged),
        (S.FAILED, ConnectionStateChanged), (S.LOADING, ConnectionStateChanged), (S.CONNECTED, ProviderRecovered),
    ],
    "after a disconnect it connects as for the first time": [
        (S.CONNECTED, ProviderConnected), (S.FAILED, ProviderLost), (S.DISCONNECTED, ConnectionStateChanged),
        (S.CONNECTED, ProviderConnected),
    ],
}  # fmt: skip


@pytest.mark.parametrize("life", LIVES)
def test_the_kind_of_event_tells_of_the_provider(life: str) -> None:
    connection = ConnectionState("local")
    kinds = [type(connection.enter(state)) for state, _ in LIVES[life]]
    assert kinds == [kind for _, kind in LIVES[life]]


def test_staying_where_it_is_renews_the_reason_and_is_no_event() -> None:
    connection = ConnectionState("local")
    assert connection.enter(S.FAILED, "refused") is not None
    since = connection.since
    assert connection.enter(S.FAILED, "no route") is None
    assert (connection.reason, connection.since) == ("no route", since)


def test_what_cannot_follow_is_refused() -> None:
    connection = ConnectionState("local")
    connection.enter(S.CONNECTED)
    with pytest.raises(ValueError, match="connecting cannot follow connected"):
        connection.enter(S.CONNECTING)
