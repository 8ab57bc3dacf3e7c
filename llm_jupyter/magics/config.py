"""`%llm config`: the settings, their values, and where each came from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, shortened, table

if TYPE_CHECKING:
    from llm_jupyter.settings import Entry, LLMSettings
    from llm_jupyter.settings.keys import Key

EXAMPLE = (
    "A local server in it:",
    "",
    "[providers.local]",
    'kind = "openai-compatible"',
    'base_url = "http://127.0.0.1:8080/v1"',
)


def config(kernel: KernelServices, line: str) -> None:
    """`%llm config [--all | NAME | set NAME VALUE | unset NAME]`. Raises `InvalidInputError` for what is no setting."""
    words = line.split()
    if words and words[0] in ("set", "unset"):
        from llm_jupyter.magics.doctor import set_config

        set_config(kernel, line)
        return
    if "=" in line:
        raise InvalidInputError(
            "%llm config shows settings, and sets one without a =",
            next_step="%llm config set NAME VALUE keeps it; %config LLMMagics.NAME = VALUE holds for this kernel.",
        )
    if len(words) > 1 or (line.startswith("-") and line != "--all"):
        raise InvalidInputError(
            f"%llm config takes --all or one name, not {line[:40]!r}",
            next_step="%llm config --all lists every setting; %llm config connection those of a table.",
        )
    if words and words[0] != "--all":
        _one(kernel, words[0])
    else:
        _overview(kernel, everything=bool(words))


def _overview(kernel: KernelServices, *, everything: bool) -> None:
    from llm_jupyter.settings import entries

    settings = kernel.factory.settings
    lines = _files(settings)
    shown = [_now(kernel, entry) for entry in entries(settings, everything=True)]
    rows = [entry for entry in shown if everything or entry.origin != "default"]
    lines += ["", *_table(rows)] if rows else ["", "Every setting has its default."]
    if not everything:
        lines += ["", "%llm config --all lists every setting, %llm config NAME says what one means."]
    lines.append("The files are read when a kernel first needs them; after a change, restart the kernel.")
    if not settings.providers and not everything:
        lines += ["", *EXAMPLE]
    say(lines)


def _one(kernel: KernelServices, name: str) -> None:
    from llm_jupyter.settings import entries, explanation, is_table

    settings = kernel.factory.settings
    key = settings.key(name)
    about = explanation(settings, key)
    shown = [_now(kernel, entry) for entry in entries(settings, key, everything=True)]
    if is_table(settings, key):
        say(
            [about.description, "", *(_table(shown) or ["Nothing is set in it."])]
            if about.description
            else _table(shown)
        )
        return
    rows = [(entry.name, entry.value, _origin(entry)) for entry in shown]
    facts = [
        *((label, value) for row in rows for label, value in ((row[0], row[1]), ("from", row[2]))),
        ("default", about.default),
        ("must be", about.allowed),
        ("same as", about.same_as),
        ("variable", about.variable),
    ]
    width = max(len(label) for label, _ in facts)
    lines = [f"{label:<{width}}  {value}" for label, value in facts if value]
    say([*lines, "", about.description] if about.description else lines)


def _files(settings: LLMSettings) -> list[str]:
    from llm_jupyter.settings import Source

    there = "" if settings.file.exists() else " (not there yet)"
    lines = [f"settings file  {settings.file}{there}"]
    system = [layer.name for layer in settings.provenance.layers if layer.source is Source.SYSTEM and layer.text]
    return [*lines, *(f"system's file  {name}" for name in system)]


def _table(rows: list[Entry]) -> list[str]:
    if not rows:
        return []
    return table(("setting", "value", "from"), [(row.name, shortened(row.value), _origin(row)) for row in rows])


def _origin(entry: Entry) -> str:
    return f"{entry.origin} ({entry.note})" if entry.note else entry.origin


def _now(kernel: KernelServices, entry: Entry) -> Entry:
    """The entry as it holds at this moment: a few settings are changed by commands while the kernel runs."""
    from llm_jupyter.settings.keys import ALIASES
    from llm_jupyter.settings.listing import shown
    from llm_jupyter.settings.schema import Schema

    factory = kernel.factory
    settings, key = factory.settings, ALIASES.get(entry.key, entry.key)
    changeable: dict[Key, tuple[object, object, str]] = {
        ("default_model",): (settings.default_model, factory.providers.default_model, "%llm use"),
        ("offline",): (settings.offline, factory.cache.mode, "%llm offline"),
        ("session", "private"): (settings.session.private, factory.sessions.is_private, "%llm private"),
    }
    said, now, command = changeable.get(key, (None, None, ""))
    if now == said:
        return entry
    return replace(entry, value=shown(Schema(type(settings)), key, now), origin=f"{command}, in this kernel")
