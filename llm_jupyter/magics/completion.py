"""Completion of the magics' options and of `%llm`'s commands."""

from __future__ import annotations

import re

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from llm_jupyter.magics.args import COMPLETION, MEMORYLESS, OPTIONS

COMMANDS = (
    "models", "use", "info", "pull", "rm", "load", "unload", "again", "last", "reset", "status", "providers", "connect",
    "disconnect", "hosts", "host", "events", "doctor", "config", "help",
)  # fmt: skip
"""The commands of `%llm`; named here too because their module is only imported when one runs. A test keeps them equal."""

_OPTION = re.compile(r"^\s*%%?(chat|llm)\s(?:.*\s)?(--?[\w-]*)$")
_COMMAND = re.compile(r"^\s*%llm\s+(\w*)$")


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
        return found[1], [name for name in COMMANDS if name.startswith(found[1])]
    if found := _OPTION.match(line):
        options = (*MEMORYLESS, COMPLETION) if found[1] == "llm" else OPTIONS
        return found[2], [flag for option in options for flag in option.flags if flag.startswith(found[2])]
    return "", []
