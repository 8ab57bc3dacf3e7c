"""The states of a connection, and which may follow which."""

from __future__ import annotations

import time
from collections.abc import Mapping

from llm_jupyter.errors import (
    AuthenticationError,
    FirstTokenTimeoutError,
    ForeignServerError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ModelLoadingError,
    RateLimitedError,
    ServerError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.events import ConnectionStateChanged, ProviderConnected, ProviderLost, ProviderRecovered
from llm_jupyter.types import ProviderState

_S = ProviderState

TRANSITIONS: Mapping[ProviderState, frozenset[ProviderState]] = {
    # A request may be the first contact, so whatever it shows may follow.
    _S.DISCONNECTED: frozenset({_S.CONNECTING, _S.LOADING, _S.CONNECTED, _S.DEGRADED, _S.FAILED}),
    _S.CONNECTING: frozenset({_S.DISCONNECTED, _S.LOADING, _S.CONNECTED, _S.DEGRADED, _S.FAILED}),
    # Whoever answers is connected already: no way back to `connecting` but through a failure or a disconnect.
    _S.LOADING: frozenset({_S.DISCONNECTED, _S.CONNECTED, _S.DEGRADED, _S.FAILED}),
    _S.CONNECTED: frozenset({_S.DISCONNECTED, _S.LOADING, _S.DEGRADED, _S.FAILED}),
    _S.DEGRADED: frozenset({_S.DISCONNECTED, _S.LOADING, _S.CONNECTED, _S.FAILED}),
    _S.FAILED: frozenset({_S.DISCONNECTED, _S.CONNECTING, _S.LOADING, _S.CONNECTED, _S.DEGRADED}),
}
"""Which state may follow which. None follows itself: a change is one event, and no change is none."""

ANSWERING = frozenset({_S.LOADING, _S.CONNECTED, _S.DEGRADED})
"""The states in which somebody answers there."""

LOST = frozenset({_S.DISCONNECTED, _S.FAILED})
"""The states after which it may be another who answers there."""


_STATES_AFTER: tuple[tuple[tuple[type[LLMError], ...], ProviderState], ...] = (
    ((ModelLoadingError,), _S.LOADING),
    (
        (FirstTokenTimeoutError, ServerError, RateLimitedError, StreamTruncatedError, StreamStalledError, MalformedResponseError),
        _S.DEGRADED,
    ),
    ((LLMConnectionError, AuthenticationError, ForeignServerError), _S.FAILED),
)  # fmt: skip


def state_after(error: LLMError) -> ProviderState | None:
    """The state that a request's error shows; `None` where the error is about the request and not about the server."""
    return next((state for kinds, state in _STATES_AFTER if isinstance(error, kinds)), None)


class ConnectionState:
    """Where a connection stands, since when and why."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._was_connected = False
        self._is_lost = False
        self.state = ProviderState.DISCONNECTED
        self.since = time.time()
        self.reason = ""

    def enter(self, new: ProviderState, reason: str = "") -> ConnectionStateChanged | None:
        """Go to a state and return the one event that says so; `None` where it is the present one.

        Raises `ValueError` for a state that cannot follow the present one.
        """
        old = self.state
        if new is old:
            self.reason = reason
            return None
        if new not in TRANSITIONS[old]:
            raise ValueError(f"{self._provider}: {new} cannot follow {old}")
        self.state, self.since, self.reason = new, time.time(), reason
        return self._kind(old, new)(provider=self._provider, old=old, new=new, reason=reason)

    def _kind(self, old: ProviderState, new: ProviderState) -> type[ConnectionStateChanged]:
        """The most telling kind: connected once, then lost and recovered by turns, until it is disconnected."""
        if new is ProviderState.DISCONNECTED:
            self._was_connected = self._is_lost = False
        elif new is ProviderState.FAILED and old in ANSWERING and not self._is_lost:
            self._is_lost = True
            return ProviderLost
        elif new is ProviderState.CONNECTED and (self._is_lost or not self._was_connected):
            was_lost, self._is_lost, self._was_connected = self._is_lost, False, True
            return ProviderRecovered if was_lost else ProviderConnected
        return ConnectionStateChanged
