"""The processes that need the host, as its supervisor follows them."""

from __future__ import annotations

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.lock import Lock


class Holders:
    """Whoever has a lease, and lives."""

    def __init__(self, folder: HostFolder) -> None:
        self._folder = folder
        self._known: dict[str, ProcessIdentity] = {}

    @property
    def known(self) -> set[ProcessIdentity]:
        """Those of the last look."""
        return set(self._known.values())

    def any_left(self) -> bool:
        """Whether a living process holds a lease."""
        try:
            self._known = self._folder.sweep_leases()
        except OSError:  # a disk that fails, or a folder that was removed, takes no holder's life
            self._known = {name: holder for name, holder in self._known.items() if holder.is_alive}
        return bool(self._known)

    def are_gone(self, lock: Lock) -> bool:
        """Whether nobody is left for sure: looked at again under the lock, which is then held, so that nobody joins."""
        if self.any_left():
            return False
        try:
            if not lock.take():
                return False  # somebody is joining: the next look will tell
        except OSError:  # nobody can join where there is no folder
            return True
        if self.any_left():
            lock.let_go()
            return False
        return True
