"""Completion of the magics' options and of `%llm`'s commands."""

from __future__ import annotations

import re

from llm_jupyter.magics.args import COMPLETION, OPTIONS

COMMANDS = ("models", "use", "info", "pull", "again", "last", "reset", "config", "help")
"""The commands of `%llm`; named here too because their module is only imported when one runs. A test keeps them equal."""

_OPTION = re.compile(r"^\s*%%?(chat|llm)\s(?:.*\s)?(--?[\w-]*)$")
_COMMAND = re.compile(r"^\s*%llm\s+(\w*)$")


def complete(text: str) -> list[str]:
    """IPython's `custom_matchers` protocol: the text up to the cursor in, the words that fit out."""
    line = text.rsplit("\n", 1)[-1]
    if found := _COMMAND.match(line):
        return [name for name in COMMANDS if name.startswith(found[1])]
    if found := _OPTION.match(line):
        options = (*OPTIONS, COMPLETION) if found[1] == "llm" else OPTIONS
        return [flag for option in options for flag in option.flags if flag.startswith(found[2])]
    return []
