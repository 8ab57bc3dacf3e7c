"""What was asked, in one form: questions that mean the same have the same key, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import GenerationOptions, Image, Message

_NO_OPTIONS = GenerationOptions()
_HALVES = re.compile("[\ud800-\udfff]")
_EXACT = 2.0**53
"""Up to here every whole number has a float of its own."""


class Who(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model answered: the kind of its provider, its name there, and the digest of its weights where that is known.

    `settings` stands for what the settings say about this model: they change its answers like any option.
    """

    kind: str
    model: str
    digest: str | None = None
    settings: str | None = None

    def may_be(self, other: Who) -> bool:
        """Whether the other is the same model, as far as both digests are known."""
        same = (self.kind, self.model, self.settings) == (other.kind, other.model, other.settings)
        return same and (None in (self.digest, other.digest) or self.digest == other.digest)


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """The canonical form of a question: everything that changes the answer and nothing else, so no key and no URL.

    What was left at its default is left out: an option that a later version adds changes no key. Of an image it holds
    the digest. A whole number is the same number with a decimal point, as it is in Python and in JSON.
    """

    messages: list[dict[str, Any]]
    options: dict[str, Any] = {}
    completion: bool = False

    @classmethod
    def of(cls, messages: Sequence[Message], options: GenerationOptions, *, completion: bool = False) -> Request:
        """The canonical form; `completion` says that the last message's text is continued, which alone counts then.

        Raises `InvalidInputError` for an option that JSON cannot carry: no server could be asked this either.
        """
        said = {
            name: value
            for name in options.__struct_fields__
            if name != "timeout" and (value := getattr(options, name)) != getattr(_NO_OPTIONS, name)
        }
        try:
            return cls([_canonical(m) for m in (messages[-1:] if completion else messages)], _plain(said), completion)
        except (TypeError, RecursionError) as error:
            raise InvalidInputError(f"the question holds what JSON cannot carry: {error}") from None

    @property
    def digest(self) -> str:
        """The SHA-256 of this form, in hexadecimal."""
        return _sha256([_plain(self.messages), _plain(self.options), self.completion])

    @property
    def prompt(self) -> str:
        """What was asked last."""
        return str(self.messages[-1].get("content", "")) if self.messages else ""


def key(request: Request, who: Who) -> str:
    """The SHA-256 of a question to one model, in hexadecimal."""
    return _sha256([request.digest, who.kind, who.model, who.digest, who.settings])


def fingerprint(value: Any) -> str:
    """A short digest of a value that JSON can carry. Raises `TypeError` for any other."""
    return _sha256(_plain(value))[:16]


def whole(text: str) -> str:
    """The text, with replacement characters for halves of surrogate pairs, which no file can hold."""
    return _HALVES.sub("\ufffd", text)


def _canonical(message: Message) -> dict[str, Any]:
    optional = {
        "images": [_described(image) for image in message.images],
        "tool_calls": message.tool_calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    # An empty id is an id; empty lists are none.
    said = {name: value for name, value in optional.items() if value not in (None, [], ())}
    return {"role": message.role.value, "content": whole(message.content), **_plain(said)}


def _described(image: Image) -> dict[str, str]:
    return {"sha256": hashlib.sha256(image.data).hexdigest(), "media_type": image.media_type}


def _plain(value: Any) -> Any:
    """The value in JSON's own types, equal for equal values. Raises `TypeError` where there is no such form."""
    return _evened(msgspec.to_builtins(value, str_keys=True, order="deterministic", enc_hook=_as_dictionary))


def _as_dictionary(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def _evened(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None  # as it is sent
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if isinstance(value, list | tuple):
        return [_evened(entry) for entry in value]
    if isinstance(value, dict):
        return {whole(name): _evened(entry) for name, entry in value.items()}
    return value


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
