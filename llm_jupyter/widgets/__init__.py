"""The dashboards: live pictures of what the services do, drawn from the event stream. Each is made on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_jupyter.widgets.base import Dashboard
    from llm_jupyter.widgets.chat import ChatDashboard
    from llm_jupyter.widgets.compare import CompareDashboard
    from llm_jupyter.widgets.events import EventsDashboard
    from llm_jupyter.widgets.hosts import HostsDashboard
    from llm_jupyter.widgets.models import ModelsDashboard
    from llm_jupyter.widgets.sessions import SessionsDashboard
    from llm_jupyter.widgets.status import StatusDashboard

DASHBOARDS = {
    "status": ("StatusDashboard", "how every provider is, and which model answers"),
    "hosts": ("HostsDashboard", "the processes that serve models, and what they take"),
    "models": ("ModelsDashboard", "every model: search, fetch, load, free, delete, use"),
    "sessions": ("SessionsDashboard", "the conversations that are kept, and their turns"),
    "chat": ("ChatDashboard", "the notebook's conversation in a panel"),
    "events": ("EventsDashboard", "what happens, as it happens"),
    "compare": ("CompareDashboard", "one prompt to several models, side by side"),
}
"""By the name that `%llm dash` knows: the class, in the module of that name, and what it shows."""

_MODULES = {kind: f"llm_jupyter.widgets.{name}" for name, (kind, _) in DASHBOARDS.items()}

__all__ = [
    "DASHBOARDS",
    "ChatDashboard",
    "CompareDashboard",
    "Dashboard",
    "EventsDashboard",
    "HostsDashboard",
    "ModelsDashboard",
    "SessionsDashboard",
    "StatusDashboard",
]


def __getattr__(name: str) -> Any:
    module = "llm_jupyter.widgets.base" if name == "Dashboard" else _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)
