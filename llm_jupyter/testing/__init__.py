"""Doubles and cases for those who build on llm_jupyter, and for its own tests.

`ScriptedProvider` answers from a script, `record_events` tells what happened on a bus. `ProviderContract` and, for what
talks HTTP, `ServerContract` are what every provider must do, as classes of pytest cases; they alone need `pytest` and
`pytest-asyncio`, which are imported when one of them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llm_jupyter.testing.record import EventRecord as EventRecord
from llm_jupyter.testing.record import record_events as record_events
from llm_jupyter.testing.scripted import Asked as Asked
from llm_jupyter.testing.scripted import ScriptedProvider as ScriptedProvider

if TYPE_CHECKING:
    from llm_jupyter.testing.contract import ProviderContract as ProviderContract
    from llm_jupyter.testing.contract import Subject as Subject
    from llm_jupyter.testing.server_contract import ServerContract as ServerContract

_CASES = {"ProviderContract": "contract", "ServerContract": "server_contract", "Subject": "contract"}

__all__ = sorted([*_CASES, "Asked", "EventRecord", "ScriptedProvider", "record_events"])


def __getattr__(name: str) -> Any:
    if name not in _CASES:
        raise AttributeError(f"module 'llm_jupyter.testing' has no attribute {name!r}")
    import pytest

    modules = [f"{__name__}.{module}" for module in sorted(set(_CASES.values()))]
    pytest.register_assert_rewrite(*modules)  # modules of cases: their asserts shall speak as a test's do
    return getattr(importlib.import_module(f"{__name__}.{_CASES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
