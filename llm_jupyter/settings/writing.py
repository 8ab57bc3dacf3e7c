"""The one setting that a command writes."""

from __future__ import annotations

import os
from pathlib import Path

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.problems import no_toml


def write_default_model(file: Path, model: str) -> None:
    """Set `default_model` in the settings file; comments and all else in it stay as they are.

    A file that calls it `session.model` goes on doing so. Raises `ConfigurationError`.
    """
    import tomlkit.exceptions  # only this one act needs it

    file = file.resolve()  # a link stays a link
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
        session = document.get("session")
        if isinstance(session, dict) and "model" in session:
            session["model"] = model
        if not isinstance(session, dict) or "model" not in session or "default_model" in document:
            document["default_model"] = model
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.touch(mode=0o600)  # the file may hold keys
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        temporary.replace(file)
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
