"""Writing the settings file, and whose it may be."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.problems import no_toml

PRIVATE = 0o600
"""The mode of a new file: it may hold keys."""


def expect_own(file: Path, found: os.stat_result) -> None:
    """Raise `ConfigurationError` for a settings file that another ordinary user owns: it could send questions anywhere.

    For root it is no question of trust: in a container, say, root works in the folders of the person.
    """
    if os.name != "nt" and os.geteuid() != 0 and found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{file} belongs to another user (uid {found.st_uid}), who could have your questions sent anywhere",
            next_step="Set LLM_JUPYTER_HOME to a folder of your own; or read that file, and put a copy in its place.",
        )


def write_default_model(file: Path, model: str) -> None:
    """Set `default_model` in the settings file; comments and all else in it stay as they are.

    A file that calls it `session.model` goes on doing so. Raises `ConfigurationError`.
    """
    import tomlkit.exceptions  # only this one act needs it

    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8-sig")) if file.exists() else tomlkit.document()
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    session = document.get("session")
    if isinstance(session, dict) and "model" in session:
        session["model"] = model
    if not isinstance(session, dict) or "model" not in session or "default_model" in document:
        document["default_model"] = model
    write(file, tomlkit.dumps(document))


def write(file: Path, text: str) -> None:
    """Put a text in place of the settings file; whose it is and who may read it stays. Raises `ConfigurationError`."""
    target = file.resolve()  # a link stays a link
    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.touch(mode=PRIVATE)
        new.write_text(text, encoding="utf-8")
        if target.exists():
            _make_alike(new, target.stat())
        new.replace(target)
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror}", next_step="jupyter llm doctor says what to do."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


def _make_alike(file: Path, other: os.stat_result) -> None:
    """Give a file the owner and the mode of another. Raises `OSError` where it would change hands."""
    own = file.stat()
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (other.st_uid, other.st_gid):
        os.chown(file, other.st_uid if own.st_uid != other.st_uid else -1, other.st_gid)
    file.chmod(stat.S_IMODE(other.st_mode))
