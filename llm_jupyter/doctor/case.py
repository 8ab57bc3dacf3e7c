"""What an examination goes by, and how its remedies are to be typed there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llm_jupyter.doctor.findings import Remedy
from llm_jupyter.errors import LLMError
from llm_jupyter.ports import port_of
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.selection import Recipe
from llm_jupyter.settings import LLMSettings, Source
from llm_jupyter.settings.keys import ALIASES, written

Face = Literal["terminal", "cell"]
LOOK = 1.5
"""Seconds that a server gets to show what it is; all are asked at once."""

FAR = 2.5
"""The same for a remote one, and for telling which model answers."""

LIVE = 60.0
"""Seconds that a server gets for a first token, where one was asked for: it may have to load its model."""


@dataclass(frozen=True, slots=True)
class Case:
    """One examination: the settings, the environment, where remedies will be typed, and what may be asked.

    `live`: a one-token answer may load a model. `remote`: remote providers are asked too. `notebook` is the one that is
    open, `trouble` why its kernel keeps its conversations in memory, if it does.
    """

    settings: LLMSettings
    environment: Mapping[str, str]
    face: Face = "terminal"
    live: bool = False
    remote: bool = False
    notebook: Path | None = None
    trouble: str = ""

    @property
    def default_provider(self) -> str:
        """What stands before the slash of the model that is to answer: a provider's name, if it is one."""
        return (self.settings.default_model or "").partition("/")[0]

    def host_of(self, recipe: Recipe) -> str:
        """The host of the settings that serves a provider, by its name or else its port; empty where none does."""
        hosts, url = self.settings.hosts, recipe.base_url or ""
        if not is_loopback(url) or recipe.name in hosts:
            return recipe.name if is_loopback(url) else ""
        return next((name for name, host in hosts.items() if host.port == port_of(url)), "")

    def advice(self, failure: LLMError) -> Remedy:
        """What an error says to do. Its commands are for cells."""
        words = failure.next_step.strip().rstrip(".")
        return Remedy(f"In a notebook: {words}" if self.face == "terminal" and "%" in words else words)

    def llm(self, *words: str) -> str:
        """A command of this project: `jupyter llm ...` in a terminal, `%llm ...` in a cell."""
        return " ".join(["%llm" if self.face == "cell" else "jupyter llm", *map(shlex.quote, words)])

    def setting(self, *changes: tuple[str, str | None], words: str = "") -> Remedy:
        """How to change settings, each where it stands now (`None` takes it out)."""
        remedies = [self._change(key, value) for key, value in changes]
        commands = tuple(command for command, _ in remedies if command)
        hints = dict.fromkeys(hint for _, hint in remedies if hint)
        return Remedy("; ".join([*([words] if words else []), *hints]), commands)

    def _change(self, key: str, value: str | None) -> tuple[str, str]:
        """The command that changes a setting where its value comes from, and what else there is to say."""
        parts = self.settings.key(key)
        layer = self.settings.provenance.giver(parts)
        source = layer.source if layer is not None else None
        if layer is not None and source is Source.LOCK:
            return "", f"{key} is locked by {layer.name}: whoever looks after this machine changes it there"
        if source is Source.CONFIG:
            return f"%config LLMMagics.{key} = {value!r}", ""
        if layer is not None and source is Source.ENVIRONMENT:
            return self.variable(layer.origin(ALIASES.get(parts, parts)), value), self.before_start
        name = written(layer.key_as_written(ALIASES.get(parts, parts))) if layer is not None else written(parts)
        if source is Source.SYSTEM and value is None:
            return "", f"{key} is set in {layer.name if layer else ''}"
        words = ("config", "unset", name) if value is None else ("config", "set", name, value)
        return self.llm(*words), "restart the kernel afterwards" if self.face == "cell" else ""

    @property
    def before_start(self) -> str:
        """When an environment variable has to be typed, to be of use to a kernel."""
        return "in the terminal, before Jupyter is started from it" if self.face == "cell" else ""

    def variable(self, name: str, value: str | None) -> str:
        """A shell's command that sets an environment variable, or (`None`) takes it out."""
        if os.name == "nt":
            return f"Remove-Item Env:{name}" if value is None else f"$env:{name} = '{value}'"
        return f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"

    def secret(self, name: str) -> str:
        """A shell's command that asks for a secret without showing it, and keeps it in a variable."""
        if os.name == "nt":
            return f"$env:{name} = Read-Host -MaskInput '{name}'"
        return f"read -rs {name} && export {name}"
