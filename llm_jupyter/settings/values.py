"""The kinds of value that a setting can have: how each is read, and how its range is said to people."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

NOTHING = ("", "none")
"""How a variable says that there is no limit; TOML says it by leaving the key out."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be given, in words that follow "must be"."""

    text: str


def memory_size(value: Any) -> int:
    """Bytes, of a number or of a text such as `4 GiB` or `512MB`. Raises `ValueError` for anything else.

    The units are those of IEC 80000-13: kB is 1,000 bytes and KiB 1,024.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("no size")
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?i?)b?", str(value).strip().lower(), re.ASCII)
    if match is None or match[2] == "i":
        raise ValueError("no size")
    return int(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]


def written_size(count: int) -> str:
    """A number of bytes in the largest unit that keeps it exact, as `memory_size` reads it."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (10**9, "GB"), (10**6, "MB"), (2**10, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _number_or_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in NOTHING else _number(value)


def _size_or_none(value: Any) -> Any:
    value = _number_or_none(value)
    return None if value is None else memory_size(value)


def _name_list(value: Any) -> Any:
    """A list as TOML has it; in a variable, JSON or words between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _command(value: Any) -> Any:
    """A list as TOML has it; in a variable, JSON or a line as one types it."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else tuple(shlex.split(value))


def _command_or_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in NOTHING else _command(value)


def _yes_no_or_path(value: Any) -> Any:
    words = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
    if not isinstance(value, str | bool | Path):
        raise ValueError("neither yes, no nor a path")
    value = value if isinstance(value, bool) else str(value)
    if value == "":
        raise ValueError("neither yes, no nor a path")
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    """Ollama reads a bare number as seconds, but a text only with a unit (its `api.Duration`)."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NOTHING):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("no duration")
    text = str(value).strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if not re.fullmatch(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+", text):
        raise ValueError("no duration")
    return text


def _full_name(name: str) -> str:
    if not all(name.partition("/")):
        raise ValueError('must be named "provider/model", in quotes: [models."ollama/qwen3:4b"]')
    return name


Seconds = Annotated[float, Field(gt=0), BeforeValidator(_number), Allowed("a number of seconds, more than 0")]
OptionalSeconds = Annotated[
    float | None, Field(gt=0), BeforeValidator(_number_or_none), Allowed('a number of seconds, more than 0, or "none"')
]
Count = Annotated[int, Field(ge=0), BeforeValidator(_number), Allowed("a whole number, 0 or more")]
Whole = Annotated[int, BeforeValidator(_number), Allowed("a whole number")]
OptionalWhole = Annotated[int | None, BeforeValidator(_number_or_none), Allowed('a whole number, or "none"')]
OptionalCount = Annotated[
    int | None, Field(ge=1), BeforeValidator(_number_or_none), Allowed('a whole number, 1 or more, or "none"')
]
Port = Annotated[
    int | None, Field(ge=1, le=65535), BeforeValidator(_number_or_none), Allowed('a port from 1 to 65535, or "none"')
]
Temperature = Annotated[
    float | None, Field(ge=0, le=10), BeforeValidator(_number_or_none), Allowed('a number from 0 to 10, or "none"')
]
Share = Annotated[
    float | None, Field(ge=0, le=1), BeforeValidator(_number_or_none), Allowed('a number from 0 to 1, or "none"')
]
SIZE = Allowed('bytes, or a size such as "4 GiB", or "none"')
MemorySize = Annotated[int | None, Field(gt=0), BeforeValidator(_size_or_none), SIZE]
FullModelName = Annotated[str, AfterValidator(_full_name)]
Duration = Annotated[
    int | str | None, BeforeValidator(_duration), Allowed('seconds, or a time such as "10m", or -1 for ever')
]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_name_list),
    Allowed('a list such as ["ollama/qwen3:4b"]'),
]
Command = Annotated[
    tuple[str, ...], BeforeValidator(_command), Allowed('a list such as ["llama-server", "--port", "8080"]')
]
OptionalCommand = Annotated[
    tuple[str, ...] | None, BeforeValidator(_command_or_none), Allowed('a list such as ["lms", "server", "stop"]')
]
YesNoOrPath = Annotated[bool | str, BeforeValidator(_yes_no_or_path), Allowed("true, false or the path of a file")]
