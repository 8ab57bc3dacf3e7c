"""Which process goes on with a conversation: one at a time."""

from __future__ import annotations

from llm_jupyter._supervisor.identity import ProcessIdentity, machine

HELD = "another kernel goes on with it"


def own_holder() -> str:
    """This process, as the holder of a conversation."""
    own = ProcessIdentity.own()
    return f"{machine()}.{own.pid}.{own.start}"


def is_held_by_another(holder: str | None) -> bool:
    """Whether another living process of this machine goes on with a conversation.

    A holder on another machine counts as gone: a hub moves a person's kernels from one to the next, and nobody can tell
    from here whether it lives.
    """
    if holder is None or holder == own_holder():
        return False
    where, _, rest = holder.partition(".")
    pid, _, start = rest.partition(".")
    if where != machine() or not (pid.isdigit() and start.isdigit()):
        return False
    return ProcessIdentity(int(pid), int(start)).is_alive
