"""`%llm doctor` and `%llm config set`: what is wrong, and what to type."""

from __future__ import annotations

import shlex

from llm_jupyter.errors import InvalidInputError, LLMError
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say

SWITCHES = ("--json", "--live", "--remote")


def doctor(kernel: KernelServices, line: str) -> None:
    """`%llm doctor [--json] [--live] [--remote]`. It looks at the settings as they stand now, not as the kernel read them."""
    from llm_jupyter.doctor import report
    from llm_jupyter.portal import Portal

    words = line.split()
    if wrong := next((word for word in words if word not in SWITCHES), None):
        raise InvalidInputError(f"%llm doctor takes no {wrong[:40]!r}", next_step=f"It knows: {', '.join(SWITCHES)}.")
    portal = Portal()  # the kernel's own services may be what cannot be made
    try:
        looking = report(
            overrides=kernel.overrides(), face="cell", live="--live" in words, remote="--remote" in words,
            notebook=kernel.notebook(), trouble=_trouble(kernel),
        )  # fmt: skip
        found = portal.run(looking)
    finally:
        portal.close()
    say([found.json()] if "--json" in words else found.lines())


def _trouble(kernel: KernelServices) -> str:
    """Why this kernel keeps its conversations in memory; empty where it does not, or has nothing to keep them with."""
    try:
        return kernel.factory.store.trouble
    except LLMError:
        return ""


def _quoted(value: str) -> str:
    return shlex.quote(value) if set('"\\') & set(value) else f'"{value}"'


def set_config(kernel: KernelServices, line: str) -> None:
    """`%llm config set KEY VALUE` and `%llm config unset KEY`; `line` is what follows `config`."""
    from llm_jupyter.doctor.config import set_value, unset
    from llm_jupyter.settings import FILE_NAME, home_folder

    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidInputError(f"%llm config: {error}") from None
    file = home_folder() / FILE_NAME
    match words:
        case ["set", key, value]:
            change = set_value(file, key, value, kernel.overrides())
        case ["unset", key]:
            change = unset(file, key, kernel.overrides())
        case ["set", key, *several] if len(several) > 1:
            raise InvalidInputError(
                f"%llm config set takes one value, not {len(several)}",
                next_step=f"In quotes it is one: %llm config set {key} {_quoted(' '.join(several))}",
            )
        case _:
            raise InvalidInputError(
                "%llm config takes set KEY VALUE or unset KEY",
                next_step="As in: %llm config set default_model ollama/qwen3",
            )
    say([change.in_a_kernel])
