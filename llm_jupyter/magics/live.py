"""What `%config LLMMagics.NAME = VALUE` means for services that stand already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import load_settings, with_overrides

if TYPE_CHECKING:
    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.settings import LLMSettings, SessionSettings

AT_START = ("connection", "limits", "models", "providers", "hosts")
"""The tables by which the services are made."""


def check(factory: LLMFactory | None, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Whether `%config` may say what is `wanted` in place of what it has `said`; `factory` is what stands already.

    Raises `ConfigurationError`. What is wrong elsewhere stands in nobody's way: it is told when the files are needed.
    """
    if factory is None:
        try:
            load_settings(wanted)
        except ConfigurationError:
            if _can_be_read(said):
                raise
        return
    settings = with_overrides(factory.settings, wanted)
    before, after = _at_start(factory.settings), _at_start(settings)
    if changed := [name for name in AT_START if before[name] != after[name]]:
        raise ConfigurationError(
            f"[{changed[0]}] cannot be changed while the kernel runs",
            next_step="Restart the kernel, and set it before the first question; or keep it: %llm config set.",
        )


def follow(factory: LLMFactory, overrides: Mapping[str, Any], name: str) -> None:
    """Let what stands go by what `%config` says now of one setting; what a lock holds stays."""
    before, settings = factory.settings, with_overrides(factory.settings, overrides)
    factory.settings = settings
    factory.providers.local_only, factory.providers.fallback = settings.local_only, settings.fallback
    factory.cache.recording, factory.cache.pace = settings.recording, settings.replay_pace
    factory.sessions.current.services.timeout = settings.timeout
    if name == "default_model" or settings.default_model != before.default_model:
        factory.providers.default_model = settings.default_model
        factory.sessions.current.forget_choice()
    if name == "offline":  # which %llm offline changes too
        factory.cache.mode = settings.offline
    if name == "event_log":
        factory.log_events()
    if name == "session":
        _converse(factory, before.session, settings.session)


def _converse(factory: LLMFactory, before: SessionSettings, now: SessionSettings) -> None:
    """The conversation goes on under other settings. Only a `private` that is taken back lets it be stored again."""
    sessions = factory.sessions
    if now.private or before.private:
        sessions.private(now.private)
    if now.system != before.system:
        sessions.system = sessions.current.system = now.system
    if now.context != before.context:
        sessions.policy = sessions.current.policy = now.context


def _can_be_read(overrides: Mapping[str, Any]) -> bool:
    try:
        load_settings(overrides)
    except ConfigurationError:
        return False
    return True


def _at_start(settings: LLMSettings) -> dict[str, Any]:
    """The tables of `AT_START`, without the one field of theirs that has another name besides."""
    fixed = {name: getattr(settings, name) for name in AT_START}
    return {**fixed, "connection": settings.connection.model_copy(update={"first_token_timeout": 0.0})}
