"""How full the context of the open conversation is: what a question at its end would send, of what the model's window holds."""

from __future__ import annotations

import asyncio
from typing import Any

from llm_jupyter.choice import Choice
from llm_jupyter.errors import LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.sessions import LLMSession
from llm_jupyter.widgets import session_rows as rows
from llm_jupyter.widgets.session_view import View

NOT_CHOSEN = "Which model answers is chosen with the first question; Refresh finds out now."


async def measured(llm: LLMFactory, view: View, *, may_ask: bool) -> dict[str, Any]:
    """The figures, or under `problem` why there are none; no question is sent.

    Its provider is asked for the model's window alone, and other servers nothing, unless `may_ask` lets them be asked who
    answers.
    """
    try:
        talk = await asyncio.to_thread(view.talk, llm)
        choice = await _answerer(llm, talk, may_ask)
        if choice is None and not llm.cache.is_replaying:
            return {"problem": NOT_CHOSEN}
        return rows.meter(*await talk.preview(talk.ask("", choice=choice).asked))
    except LLMError as error:
        return {"problem": rows.line(error.what)}


async def _answerer(llm: LLMFactory, talk: LLMSession, may_ask: bool) -> Choice | None:
    """Who would answer; `None` where servers would have to be asked for that, and may not be."""
    chosen = talk.choice or (llm.sessions.current.choice if talk.model is None else None)
    if chosen is not None or llm.cache.is_replaying:
        return chosen
    provider, named, _ = (talk.wanted_model or "").partition("/")
    if named and provider in llm.registry:
        return await llm.providers.resolve(f"{talk.wanted_model}", trusting=True)
    if not may_ask:
        return None
    return await (talk if talk.model is not None else llm.sessions.current).current_choice()


def in_words(meter: dict[str, Any]) -> str:
    """The same as a line of text."""
    if "problem" in meter:
        return str(meter["problem"])
    window = f" of {meter['window']:,}" if meter["window"] else ""
    return f"The next question would send about {meter['tokens']:,}{window} tokens."
