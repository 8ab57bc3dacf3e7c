"""What every conversation of a kernel works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_jupyter.cache import LLMCache
from llm_jupyter.context import ContextBuilder, TokenEstimates
from llm_jupyter.events import EventBus
from llm_jupyter.manager import LLMProviderManager


@dataclass(slots=True)
class Services:
    """Models and their cache, the events, and what fits conversations into windows.

    `timeout` is in seconds to the first token, where neither the question nor its conversation says; it may change.
    """

    providers: LLMProviderManager
    events: EventBus
    cache: LLMCache
    context: ContextBuilder = field(default_factory=lambda: ContextBuilder(TokenEstimates()))
    timeout: float | None = None
