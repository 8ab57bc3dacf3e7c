"""Whether a token comes: the only look that may load a model, and so only on request."""

from __future__ import annotations

import asyncio
import time

from llm_jupyter.doctor.case import LIVE, Case
from llm_jupyter.doctor.findings import Finding, error, note, ok
from llm_jupyter.errors import LLMError
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.types import Capability, GenerationOptions, LLMModelInfo

STEP = "live"


async def one_token(case: Case, provider: LLMProvider, model: str | None) -> Finding:
    """Whether a token comes. The model may be loaded for it."""
    if model is None:
        return note(STEP, "not-live", f"{provider.name}: it has no model that could be asked")
    started = time.perf_counter()
    try:
        async with asyncio.timeout(LIVE):
            await provider.prepare(model)
            await provider.generate_chat_completion("Hi", model=model, options=GenerationOptions(max_tokens=1))
    except TimeoutError:
        return error(STEP, "not-live", f"{provider.name}: {model} gave no token within {LIVE:g} s")
    except LLMError as failure:
        return error(STEP, "not-live", f"{provider.name}: {model}: {failure.what}", case.advice(failure))
    return ok(STEP, "live", f"{provider.name}: {model} gave a token after {time.perf_counter() - started:.1f} s")


def model_to_ask(case: Case, provider: str, models: tuple[LLMModelInfo, ...]) -> str | None:
    """Which model of a server to ask for a token: the one that is to answer, a loaded one, any that chats."""
    prefix, _, name = (case.settings.default_model or "").partition("/")
    if prefix == provider and name:
        return name
    chatting = [model for model in models if Capability.CHAT in model.capabilities]
    return next((model.id for model in chatting if model.loaded), chatting[0].id if chatting else None)
