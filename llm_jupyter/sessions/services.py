"""What every conversation of a kernel works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_jupyter.cache import LLMCache
from llm_jupyter.context import ContextBuilder, TokenEstimates
from llm_jupyter.events import EventBus
from llm_jupyter.manager import LLMProviderManager


@dataclass(frozen=True, slots=True)
class Services:
    """Models and their cache, the events, and what fits conversations into windows."""

    providers: LLMProviderManager
    events: EventBus
    cache: LLMCache
    context: ContextBuilder = field(default_factory=lambda: ContextBuilder(TokenEstimates()))
