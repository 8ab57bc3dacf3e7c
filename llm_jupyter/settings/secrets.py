"""Keys: where they are got from, and how whatever may hold one is shown without it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "********"
KEYRING_SERVICE = "llm_jupyter"
"""The keyring's service where `api_key_keyring = true` names none."""

_SECRET_WORDS = {
    *("key", "apikey", "token", "secret", "password", "passwd", "passphrase", "pwd", "bearer"),
    *("authorization", "auth", "credential", "credentials", "cookie"),
}
_ENDS_OF_PLAIN_NAMES = {"env", "keyring", "file", "path", "timeout", "limit"}
"""`api_key_env` names the place of a key, and `first_token_timeout` has nothing to do with one."""


def names_a_secret(name: str) -> bool:
    """Whether what stands under this name is a secret: `api_key`, `HF_TOKEN`, `X-Api-Key`, `--api-key`."""
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)]
    return words[-1] not in _ENDS_OF_PLAIN_NAMES and any(word in _SECRET_WORDS for word in words)


def without_secrets(name: str, value: Any) -> Any:
    """The value under `name` with a mask in place of every secret in it: keys, a URL's password, a command's `--api-key`."""
    if value is None:
        return None
    if names_a_secret(name) or hasattr(value, "get_secret_value"):
        return MASK
    if isinstance(value, Mapping):
        return {key: without_secrets(str(key), inner) for key, inner in value.items()}
    if isinstance(value, str):
        return _text_without_secrets(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return _words_without_secrets(value)
    return value


def _text_without_secrets(text: str) -> str:
    text = re.sub(r"(?<=://)[^/?#]*@", f"{MASK}@", text)
    return re.sub(
        r"(?<![\w-])([\w-]+)=([^&\s]+)",
        lambda found: f"{found[1]}={MASK}" if names_a_secret(found[1]) else found[0],
        text,
    )


def _words_without_secrets(words: Sequence[Any]) -> tuple[Any, ...]:
    masked, before = [], ""
    for word in words:
        follows_flag = before.startswith("-") and "=" not in before and names_a_secret(before)
        masked.append(MASK if follows_flag and not str(word).startswith("--") else without_secrets("", word))
        before = str(word)
    return tuple(masked)


def read_keyring(service: str, user: str) -> tuple[str | None, str]:
    """The password that the system's keyring holds, or `None` and in one sentence why there is none.

    A machine without the package `keyring`, without a backend, or with one that is locked has no key; it is no error.
    """
    try:
        found = importlib.util.find_spec("keyring") is not None
    except ValueError:
        found = False
    if not found:
        return None, "the package keyring is not installed: %pip install keyring"
    try:
        password: str | None = importlib.import_module("keyring").get_password(service, user)
    except Exception as error:  # backends are plug-ins over D-Bus, the Keychain or files, and raise what they like
        return None, f"the system's keyring cannot be used here ({type(error).__name__})"
    if not password:
        return None, f"the keyring holds no key for service {service!r} and user {user!r}: keyring set {service} {user}"
    return password, ""
