"""The options of the chat magics: one table that is parser, help text and completion at once.

Only leading options are parsed. From the first word that is none, everything is the prompt, to the letter: apostrophes,
backslashes, braces, `$x`, `?`. That is why neither argparse nor shlex is used: both would read the prompt.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_jupyter.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `convert` reads its value and is `None` for a switch; a `repeated` one gathers a list."""

    flags: tuple[str, ...]
    name: str
    help: str
    convert: Callable[[str], Any] | None = None
    metavar: str = ""
    repeated: bool = False
    constant: Any = True


def _number(kind: type[int] | type[float], low: float, high: float = float("inf")) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(
                f"it must be {low:g} or more" if high == float("inf") else f"it must be {low:g} to {high:g}"
            )
        return value

    return convert


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError("it must be more than 0")
    return value


def _variable(text: str) -> str:
    if not text.isidentifier():
        raise ValueError("it must be the name of a variable")
    return text


def _cells(text: str) -> str:
    if text not in ("above", "last", "none") and not text.isdigit():
        raise ValueError("it must be above, last, none, or a number of cells")
    return text


def _stop(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")


ASKS_IN_ITS_LINE = "%chat"
"""The magic whose options are followed by a prompt."""

OURS = ("model", "messages", "prompt", "stream")
"""Fields of a request that say who is asked what, and how the answer comes: what was said of them would be untrue."""


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError("write key=value")
    if key in OURS:
        raise ValueError("write -m MODEL" if key == "model" else f"it must be another field than {key}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


MODEL = Option(
    ("-m", "--model"), "model", "who answers this one question: provider/model, a model, or a GGUF file", str, "MODEL"
)
OPTIONS: tuple[Option, ...] = (
    MODEL,
    Option(("--system",), "system", "instructions for the model, from this turn on (quote them)", str, "TEXT"),
    Option(
        ("-t", "--temperature"),
        "temperature",
        "0 for the likeliest words, more for more variety",
        _number(float, 0, 10),
        "NUMBER",
    ),
    Option(("--max-tokens",), "max_tokens", "the longest answer, in tokens", _number(int, 1), "N"),
    Option(
        ("--top-p",), "top_p", "draw from the likeliest words that make up this share", _number(float, 0, 1), "NUMBER"
    ),
    Option(("--seed",), "seed", "the same seed and options give the same answer again", int, "N"),
    Option(
        ("--stop",), "stop", "end the answer before this text; can be given several times", _stop, "TEXT", repeated=True
    ),
    Option(
        ("--option",),
        "option",
        "any other field of the request; can be given several times",
        _pair,
        "KEY=VALUE",
        repeated=True,
    ),
    Option(("--think",), "think", "let the model think first, where it can"),
    Option(("--no-think",), "think", "answer without thinking, where the model can leave it", constant=False),
    Option(("--timeout",), "timeout", "seconds to wait for the first token", _positive, "SECONDS"),
    Option(("-o", "--output"), "output", "keep the answer as an LLMResponse in this variable", _variable, "NAME"),
    Option(("-q", "--quiet"), "quiet", "show nothing; for use with -o"),
    Option(("--raw",), "raw", "fill in no variables: braces stay as they are"),
    Option(
        ("-s", "--session"), "session", "ask in the conversation of this name; a new one if there is none", str, "NAME"
    ),
    Option(("--append",), "append", "add a turn, where the cell would replace its own"),
    Option(("--private",), "private", "see the conversation, and leave nothing in it nor on disk"),
    Option(("--no-history",), "no_history", "neither see nor join the conversation"),
    Option(
        ("--context",),
        "context",
        "add cells that ran before, with their results: above, last, a number, or none",
        _cells,
        "CELLS",
    ),
    Option(("--dry-run",), "dry_run", "show what would be sent and what was left out, and send nothing"),
    Option(("--save-prompt",), "save_prompt", "save filled-in values in the notebook too"),
)
OUTPUT = next(option for option in OPTIONS if option.name == "output")
COUNT = Option(("-n",), "count", "how many are shown", _number(int, 1), "N")
SEARCH = Option(("--search",), "search", "in all conversations: turns with these words", str, "TEXT")
OLDER = Option(("--older",), "older", "not used for so long: 30d, 12h, 4w", str, "TIME")
YES = Option(("--yes", "-y"), "yes", "do it without asking")

NEW = Option(("--new",), "new", "begin it where there is none")
KEPT_AS = Option(("-o", "--output"), "output", "keep the dashboard in this variable", _variable, "NAME")
REMOTE = Option(("--remote",), "remote", "ask the remote providers too")

OF_A_CONVERSATION = ("system", "no_history", "session", "append", "private", "save_prompt", "context", "dry_run")
"""Options that mean nothing to a question with no memory."""

MEMORYLESS: tuple[Option, ...] = (
    *(option for option in OPTIONS if option.name not in OF_A_CONVERSATION),
    Option(("--system",), "system", "instructions for the model (quote them)", str, "TEXT"),
)
COMPARED: tuple[Option, ...] = (
    Option(
        ("-m", "--model"), "models", 'who is compared; several times, each with options of its own: -m "MODEL -t 0"', str,
        "MODEL", repeated=True,
    ),
    *(option for option in MEMORYLESS if option.name not in ("model", "output")),
    Option(("--repeat",), "repeat", "ask everybody so often, and show how far the answers lie apart", _number(int, 1), "N"),
    Option(("-o", "--output"), "output", "keep the comparison in this variable", _variable, "NAME"),
)  # fmt: skip
"""The options of `%%compare`."""

OF_A_CONTENDER = tuple(o for o in MEMORYLESS if o.name not in ("model", "output", "quiet", "raw"))
"""What may stand behind a model in the quotes of `-m`."""

COMPLETION = Option(("--completion",), "completion", "continue the text as it stands, without chat roles")

OF_COMMANDS: dict[str, tuple[Option, ...]] = {
    "again": tuple(option for option in OPTIONS if option.name not in (*OF_A_CONVERSATION, "raw")),
    "config": (Option(("--all",), "all", "list every setting"),),
    "dash": (KEPT_AS,),
    "doctor": (Option(("--live",), "live", "ask for one token, too: that may load a model"), REMOTE),
    "events": (COUNT,),
    "history": (COUNT, SEARCH),
    "last": (OUTPUT,),
    "models": (REMOTE,),
    "purge": (OLDER, YES),
    "rm": (YES,),
    "session": (COUNT, NEW, YES),
    "use": (Option(("--default",), "default", "in new sessions too"),),
}
"""The options of `%llm`'s commands."""

HELP = ("-h", "--help")
"""What asks every magic and every command how it is used."""


class HelpAsked(Exception):
    """Nothing is to be done but to tell how `magic` is used."""

    def __init__(self, magic: str) -> None:
        super().__init__(magic)
        self.magic = magic


_FLAG = re.compile(r"(--?[A-Za-z][\w-]*)(?==|\s|$)")
_VALUE = re.compile(r"\"((?:[^\"\\]|\\.)*)\"(?=\s|$)|'((?:[^'\\]|\\.)*)'(?=\s|$)|([^\s\"']\S*)")


def parse(line: str, options: Sequence[Option], magic: str) -> tuple[dict[str, Any], str]:
    """The leading options of a line by name, and the rest of it to the letter.

    Raises `InvalidInputError`, and `HelpAsked` where one of them is `--help`.
    """
    by_flag = {flag: option for option in options for flag in option.flags}
    values: dict[str, Any] = {}
    rest = line.lstrip()
    while found := _FLAG.match(rest):
        flag = found[1]
        if flag in HELP:
            raise HelpAsked(magic)
        if flag not in by_flag:
            raise _unknown(flag, by_flag, magic)
        option = by_flag[flag]
        rest = rest[found.end() :]
        if option.convert is None:
            if rest.startswith("="):
                raise InvalidInputError(f"{magic}: {flag} takes no value")
            values[option.name] = option.constant
        else:
            text, rest = _value(rest, option, flag, magic)
            value = _converted(option, flag, text, magic)
            values[option.name] = [*values.get(option.name, ()), value] if option.repeated else value
        rest = rest.lstrip()
    if rest == "--" or rest.startswith(("-- ", "--\n")):
        rest = rest[2:].lstrip()
    return values, rest


def _value(rest: str, option: Option, flag: str, magic: str) -> tuple[str, str]:
    rest = rest[1:] if rest.startswith("=") else rest.lstrip()
    found = _VALUE.match(rest)
    if found is None and rest.startswith(("'", '"')):
        raise InvalidInputError(f"{magic}: the quotation after {flag} does not end", next_step=f"It began: {rest[:40]}")
    if found is None:
        raise InvalidInputError(f"{magic}: {flag} needs a value", next_step=f"Write {flag} {option.metavar}.")
    quoted = found[1] if found[1] is not None else found[2]
    text = found[3] if quoted is None else re.sub(r"\\([\"'\\])", r"\1", quoted)
    return text, rest[found.end() :]


def _converted(option: Option, flag: str, text: str, magic: str) -> Any:
    assert option.convert is not None
    try:
        return option.convert(text)
    except ValueError as error:
        words = str(error)
        number = "a whole number" if option.metavar == "N" else "a number"
        reason = words if words.startswith(("it must", "write")) else f"it must be {number}"
        raise InvalidInputError(f"{magic}: {flag} cannot be {text[:60]!r}: {reason}") from None


def _unknown(flag: str, by_flag: dict[str, Option], magic: str) -> InvalidInputError:
    near = difflib.get_close_matches(flag, (*by_flag, *HELP), 1, 0.7)
    hint = f"Did you mean {near[0]}?" if near else f"{magic.partition(' -')[0]}? lists the options."
    if magic == ASKS_IN_ITS_LINE:
        hint += " (A prompt that begins with a dash goes after --.)"
    return InvalidInputError(f"{magic} has no option {flag}", next_step=hint)


def options_alone(line: str, options: Sequence[Option], magic: str, instead: Callable[[str], str]) -> dict[str, Any]:
    """The options on the first line of a cell magic, where nothing else may stand; `instead` says what to do with that.

    Raises `InvalidInputError`, and `HelpAsked` for a question mark.
    """
    values, rest = parse(line, options, magic)
    rest = rest.strip()
    if rest == "?":
        raise HelpAsked(magic)
    if rest:
        raise InvalidInputError(
            f"{magic} takes only options on its first line, not {rest[:60]!r}", next_step=instead(rest)
        )
    return values


def late_option(prompt: str) -> str | None:
    """A long option that stands in a prompt, where it is no option any more."""
    flags = {flag for option in OPTIONS for flag in option.flags if flag.startswith("--")}
    return next((word for word in prompt.split() if word in flags), None)


def help_lines(options: Sequence[Option]) -> str:
    """The options as an aligned list."""
    names = [", ".join(option.flags) + (f" {option.metavar}" if option.metavar else "") for option in options]
    width = max(map(len, names))
    return "\n".join(f"  {name:<{width}}  {option.help}" for name, option in zip(names, options, strict=True))
