"""The last step: which model answers when none is named, and who does while it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llm_jupyter.choice import Choice, find
from llm_jupyter.doctor.asking import refusal
from llm_jupyter.doctor.case import FAR, Case
from llm_jupyter.doctor.findings import Finding, error, note, ok
from llm_jupyter.doctor.models import judged
from llm_jupyter.doctor.servers import Seen
from llm_jupyter.errors import LLMConnectionError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.failover import GIVES_WAY
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.types import Capability

SESSION = "session"


async def chosen(case: Case, factory: LLMFactory, apart: Mapping[str, Seen]) -> Choice | LLMError:
    """The model that is to answer, or why it does not; `apart` are those who are not asked."""
    if (seen := apart.get(case.default_provider)) is not None:
        return refusal(seen)
    try:
        async with asyncio.timeout(FAR):
            return await factory.providers.choose(announce=False)
    except LLMError as failure:
        return failure
    except TimeoutError:
        return LLMConnectionError("it takes long to tell which model answers")


def look_at_session(case: Case, answer: Choice | LLMError, seen: Mapping[str, Seen], *, has_errors: bool) -> Finding:
    """Who answers. Nobody is asked for it: others are told of by what they showed."""
    if isinstance(answer, Choice):
        where = "local" if answer.is_local else "remote"
        return ok(SESSION, "session", f"{answer.full_name} ({where}) answers when no model is named: {answer.reason}")
    if said := _despite(case, answer, seen):
        return ok(SESSION, "session", said)
    if has_errors:
        return note(SESSION, "no-answer", f"nothing answers before the errors above are mended: {answer.what}")
    if case.settings.default_model:
        return error(SESSION, "no-answer", answer.what, case.setting(("default_model", None), words="Do without it"))
    return error(SESSION, "no-answer", answer.what, case.advice(answer))


def _despite(case: Case, failure: LLMError, seen: Mapping[str, Seen]) -> str:
    """Why there will be an answer all the same, in one sentence; empty where there will be none.

    Who may answer in place of another is as `failover` has it: holders of the same model, then what is listed.
    """
    name = case.settings.default_model or ""
    if (verdict := judged(case, name, seen)) is not None and verdict.waits:
        return f"{name} answers when no model is named; its host starts with the first question"
    if not isinstance(failure, GIVES_WAY):
        return ""
    if holders := _holders(name, seen):
        return f"{' or '.join(holders)} answers meanwhile, since it holds the same model: {failure.what}"
    chosen_place = seen.get(case.default_provider)
    is_local = chosen_place is None or chosen_place.recipe.is_local
    for other in case.settings.fallback:
        verdict = judged(case, other, seen)
        if verdict is not None and verdict.answers and (verdict.is_local or not is_local):
            start = ", once its host has started" if verdict.waits else ""
            return f"{other} answers meanwhile{start}, since it is listed as fallback: {failure.what}"
        place = seen.get(other.partition("/")[0])
        if not is_local and place is not None and not (place.recipe.is_local or case.settings.local_only):
            return f"{other} is asked meanwhile, since it is listed as fallback; it was not asked now: {failure.what}"
    return ""


def _holders(name: str, seen: Mapping[str, Seen]) -> list[str]:
    """The same model on other servers of this machine."""
    prefix, _, wanted = name.partition("/")
    others = [shelf for place, shelf in seen.items() if place not in (prefix, EMBEDDED) and shelf.recipe.is_local]
    found = [model for shelf in others if wanted and (model := find(shelf.models or (), wanted)) is not None]
    return [model.full_name for model in found if model.is_local and Capability.CHAT in model.capabilities]
