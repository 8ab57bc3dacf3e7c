"""Whom an examination asks, decided before anybody is asked: nobody remote or another's unless the person named them."""

from __future__ import annotations

from dataclasses import dataclass

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding, Remedy, note
from llm_jupyter.doctor.servers import SERVERS, Seen
from llm_jupyter.errors import ForeignServerError, InvalidInputError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers._http import without_secrets
from llm_jupyter.selection import Recipe

OFF, REMOTE, FOREIGN = "off", "remote", "foreign"
"""The codes of why one is left alone."""


@dataclass(frozen=True, slots=True)
class Services:
    """Services that start no host, and can reach no provider but those that are asked.

    `recipes` are all providers, `apart` those that are left alone, by name; `trouble` is why some could not be read.
    """

    factory: LLMFactory
    recipes: list[Recipe]
    apart: dict[str, Seen]
    trouble: LLMError | None = None


def quiet_services(case: Case) -> Services:
    """Services for looking on. Raises `LLMError` where they cannot be made at all."""
    factory = LLMFactory(case.settings, environment=case.environment, holds_hosts=False)
    trouble = None
    try:
        factory.open()
    except LLMError as failure:
        trouble = failure
    recipes = factory.registry.recipes()
    reasons = [(one, _reason(case, one, is_foreign=factory.registry.is_foreign(one))) for one in recipes]
    apart = {one.name: Seen(one, (reason,)) for one, reason in reasons if reason is not None}
    for recipe in recipes:
        if recipe.enabled and recipe.name in apart:
            factory.registry.disable(recipe.name, apart[recipe.name].findings[0].what)
    return Services(factory, recipes, apart, trouble)


def _reason(case: Case, recipe: Recipe, *, is_foreign: bool) -> Finding | None:
    """Why it is left alone; `None` where it is asked."""
    name = recipe.name
    if not recipe.enabled:
        return note(SERVERS, OFF, f"{name}: {recipe.reason or 'switched off in your settings'}")
    if not recipe.is_local and case.settings.local_only:
        return note(SERVERS, REMOTE, f"{name}: remote, and local_only is set")
    if not recipe.is_local and not (name == case.default_provider or case.remote):
        where = f" ({without_secrets(recipe.base_url)})" if recipe.base_url else ""
        said = f"{name}: remote{where}, so it is not asked"
        return note(SERVERS, REMOTE, said, Remedy("To ask it", (case.llm("doctor", "--remote"),)))
    if is_foreign:
        found, taken = "another user's server, asked only when it is named", "what is at its port is another user's"
        return note(SERVERS, FOREIGN, f"{name}: {found if recipe.was_found else taken}")
    return None


def refusal(seen: Seen) -> LLMError:
    """Why a model of one that is left alone does not answer, as an error."""
    (finding,) = seen.findings
    kind = ForeignServerError if finding.code == FOREIGN else InvalidInputError
    return kind(finding.what)
