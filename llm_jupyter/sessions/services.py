"""What every conversation of a kernel works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from llm_jupyter.cache import LLMCache
from llm_jupyter.context import ContextBuilder, TokenEstimates
from llm_jupyter.events import EventBus
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.sessions.again import OwnOptions


@dataclass(slots=True)
class Services:
    """Models and their cache, the events, and what fits conversations into windows.

    `timeout` is in seconds to the first token, where neither the question nor its conversation says; it may change.
    `expect_open` raises where their providers are not there yet, or no longer. `asked_with` tells by the ids of turns how they were asked in this kernel: copies of a conversation keep the ids.
    """

    providers: LLMProviderManager
    events: EventBus
    cache: LLMCache
    context: ContextBuilder = field(default_factory=lambda: ContextBuilder(TokenEstimates()))
    timeout: float | None = None
    expect_open: Callable[[], None] = lambda: None
    asked_with: dict[str, OwnOptions] = field(default_factory=dict)
