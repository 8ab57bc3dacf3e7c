"""Completion of the magics' options, and of `%llm`'s commands with their verbs and options."""

from __future__ import annotations

import re
from collections.abc import Iterable

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from llm_jupyter.magics.args import COMPARED, COMPLETION, MEMORYLESS, OF_A_CONVERSATION, OPTIONS

COMMANDS = (
    "models", "use", "info", "pull", "rm", "load", "unload", "again", "last", "reset", "status", "providers", "connect",
    "session", "history", "private", "purge", "offline", "cache", "disconnect", "hosts", "host", "events", "doctor", "config", "help", "dash",
)  # fmt: skip
"""The commands of `%llm`; named here too because their module is only imported when one runs. A test keeps them equal."""

VERBS: dict[str, tuple[str, ...]] = {
    "session": ("new", "list", "use", "name", "fork", "delete", "export", "import", "resume"),
    "offline": ("off", "auto", "record", "replay", "status"), "cache": ("stats", "clear"), "private": ("on", "off"),
    "host": ("start", "stop", "restart", "logs"),
    "dash": ("status", "hosts", "models", "sessions", "chat", "events", "compare"),
}  # fmt: skip
"""What follows a command first."""

_OF_AGAIN = [option for option in OPTIONS if option.name not in (*OF_A_CONVERSATION, "raw")]
FLAGS: dict[str, tuple[str, ...]] = {
    "history": ("-n", "--search"), "purge": ("--older", "--yes"), "session": ("-n", "--new", "--yes"), "models": ("--remote",),
    "use": ("--default",), "rm": ("--yes",), "last": ("-o", "--output"), "doctor": ("--live", "--remote"),
    "events": ("-n",), "dash": ("-o", "--output"), "config": ("--all",), "again": tuple(flag for option in _OF_AGAIN for flag in option.flags),
}  # fmt: skip
"""The options of commands."""

CELLS = ("above", "last", "none")
"""The values of `--context`, a number aside."""

_OPTION = re.compile(r"^\s*%%?(chat|compare|llm)\s(?:.*\s)?(--?[\w-]*)$")
_COMMAND = re.compile(r"^\s*%llm\s+(\w*)$")
_VERB = re.compile(r"^\s*%llm\s+(\w+)\s+(\w*)$")
_FLAG = re.compile(r"^\s*%llm\s+(\w+)\s(?:.*\s)?(--?[\w-]*)$")
_CONTEXT = re.compile(r"^\s*%%?chat\s(?:.*\s)?--context[ =](\w*)$")


@context_matcher(identifier="llm_jupyter")  # type: ignore[untyped-decorator]  # IPython's has no types
def complete(context: CompletionContext) -> SimpleMatcherResult:
    """IPython's `custom_matchers` protocol, in its second version: the first one only tells the last word, without
    its dashes.
    """
    fragment, words = offered(context.text_until_cursor)
    completions = [SimpleCompletion(word, type="param") for word in words]
    return {"completions": completions, "matched_fragment": fragment, "suppress": bool(words)}


def offered(line: str) -> tuple[str, list[str]]:
    """The end of a line up to the cursor that is to be completed, and the words that it can become."""
    if found := _COMMAND.match(line):
        return found[1], _beginning(found[1], COMMANDS)
    if (found := _VERB.match(line)) and found[1] in VERBS:
        return found[2], _beginning(found[2], VERBS[found[1]])
    if found := _FLAG.match(line):
        return found[2], _beginning(found[2], FLAGS.get(found[1], ()))
    if found := _CONTEXT.match(line):
        return found[1], _beginning(found[1], CELLS)
    if found := _OPTION.match(line):
        options = {"llm": (*MEMORYLESS, COMPLETION), "compare": COMPARED}.get(found[1], OPTIONS)
        return found[2], _beginning(found[2], [flag for option in options for flag in option.flags])
    return "", []


def _beginning(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]
