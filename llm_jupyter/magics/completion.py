"""Completion of the magics' options, and of `%llm`'s commands with their verbs and options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from llm_jupyter.magics.args import COMPARED, COMPLETION, MEMORYLESS, OF_COMMANDS, OPTIONS, Option

COMMANDS = (
    "models", "use", "info", "pull", "rm", "load", "unload", "again", "last", "reset", "status", "providers", "connect",
    "session", "history", "private", "purge", "offline", "cache", "disconnect", "hosts", "host", "events", "doctor", "config", "help", "dash",
)  # fmt: skip
"""The commands of `%llm`; named here too because their module is only imported when one runs. A test keeps them equal."""

VERBS: dict[str, dict[str, str]] = {
    "session": {
        "new [NAME]": "begin a fresh one; the old one is kept",
        "list": "those that are kept",
        "use NAME [--new]": "go on with another one",
        "name NAME": "give this one a name",
        "fork [NAME]": "go on in a copy",
        "delete NAME": "for good, by its name or id",
        "export [FILE]": "write it as Markdown (.md) or JSON (.json)",
        "import FILE": "take an exported one in",
        "resume [FILE]": "take it up from a notebook's file",
    },
    "offline": {
        "off": "each question asks a model",
        "auto": "where nobody can answer, an answer from before is given",
        "record": "answers are recorded beside the notebook",
        "replay": "nobody is asked: answers come from recordings",
        "status": "which of these it is",
    },
    "cache": {"stats": "how many answers are kept", "clear": "forget them; recordings stay"},
    "private": {"on": "store nothing from here on", "off": "go back to the conversation that is stored"},
    "host": {
        "start NAME": "start it, or join the one that runs",
        "stop NAME": "end it",
        "restart NAME": "stop and start it",
        "logs NAME": "the last lines that it wrote",
    },
    "dash": dict.fromkeys(("status", "hosts", "models", "sessions", "chat", "events", "compare"), ""),
    "config": {"set NAME VALUE": "keep it in the settings file", "unset NAME": "take it out of there"},
}
"""What follows a command first, how it goes on, and what that does; empty where the command's own line says it."""


def verbs(command: str) -> list[str]:
    """The words that may follow a command."""
    return [usage.partition(" ")[0] for usage in VERBS.get(command, ())]


CELLS = ("above", "last", "none")
"""The values of `--context`, a number aside."""

_OPTION = re.compile(r"^\s*%%?(chat|compare|llm)\s(?:.*\s)?(--?[\w-]*)$")
_COMMAND = re.compile(r"^\s*%llm\s+(\w*)$")
_VERB = re.compile(r"^\s*%llm\s+(\w+)\s+(\w*)$")
_FLAG = re.compile(r"^\s*%llm\s+(\w+)\s(?:.*\s)?(--?[\w-]*)$")
_NAMED = tuple(
    (kind, re.compile(place))
    for kind, place in (
        ("setting", r"^\s*%llm\s+config\s+(?:un)?set\s+(\S*)$"),
        ("setting", r"^\s*%llm\s+config\s+((?!-)\S*)$"),
        ("host", r"^\s*%llm\s+host\s+(?:start|stop|restart|logs)\s+(\S*)$"),
        ("provider", r"^\s*%llm\s+(?:dis)?connect\s+(\S*)$"),
        ("model", r"^\s*%llm\s+(?:use|info|load|unload|rm)\s+(?:--\w+\s+)?((?!-)\S*)$"),
        ("model", r"^\s*%%?(?:chat|compare|llm)\s(?:.*\s)?(?:-m|--model)(?:\s+|=)[\"']?((?!-)[^\s\"']*)$"),
    )
)
"""Where a name of each kind is to follow."""

_CONTEXT = re.compile(r"^\s*%%?chat\s(?:.*\s)?--context[ =](\w*)$")

Names = Callable[[str], Iterable[str]]
"""What is known of a kind, which is `model`, `provider`, `host` or `setting`."""


def matcher(names: Names) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """IPython's `custom_matchers` protocol, in its second version: the first one only tells the last word, without
    its dashes.
    """

    @context_matcher(identifier="llm_jupyter")  # type: ignore[untyped-decorator]  # IPython's has no types
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        fragment, words = offered(context.text_until_cursor, names)
        completions = [SimpleCompletion(word, type="param") for word in words]
        return {"completions": completions, "matched_fragment": fragment, "suppress": bool(words)}

    return complete  # type: ignore[no-any-return]


def offered(line: str, names: Names = lambda kind: ()) -> tuple[str, list[str]]:
    """The end of a line up to the cursor that is to be completed, and the words that it can become."""
    for kind, place in _NAMED:
        if found := place.match(line):
            own = verbs("config") if re.fullmatch(r"\s*%llm\s+config\s+\S*", line) else []
            return found[1], _beginning(found[1], [*own, *names(kind)])
    if found := _COMMAND.match(line):
        return found[1], _beginning(found[1], COMMANDS)
    if (found := _VERB.match(line)) and found[1] in VERBS:
        return found[2], _beginning(found[2], verbs(found[1]))
    if found := _FLAG.match(line):
        return found[2], _beginning(found[2], _flags(OF_COMMANDS.get(found[1], ())))
    if found := _CONTEXT.match(line):
        return found[1], _beginning(found[1], CELLS)
    if found := _OPTION.match(line):
        options = {"llm": (*MEMORYLESS, COMPLETION), "compare": COMPARED}.get(found[1], OPTIONS)
        return found[2], _beginning(found[2], _flags(options))
    return "", []


def _flags(options: Iterable[Option]) -> list[str]:
    return [flag for option in options for flag in option.flags]


def _beginning(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]
