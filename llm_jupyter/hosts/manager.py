"""The model-server processes that this kernel uses, starts, or watches."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llm_jupyter._supervisor.journal import End
from llm_jupyter._supervisor.probe import READY_NOW, is_taken, look
from llm_jupyter._supervisor.state import FAILED, RESTART, STOP, HostState
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event, HostMeasured
from llm_jupyter.foreign import is_foreign
from llm_jupyter.hosts._meter import Meter
from llm_jupyter.hosts.adopted import AdoptedHosts
from llm_jupyter.hosts.seat import LOCK_TIMEOUT, Seat
from llm_jupyter.hosts.sight import LOOK, SeenHosts, Sight
from llm_jupyter.hosts.spec import HostSpec, HostStatus, Running

logger = logging.getLogger(__name__)

FOLLOW_INTERVAL = 0.2
"""Seconds between two looks at the hosts that this kernel holds: what happens to them is told that late at most."""

STOP_MARGIN = 5.0
"""Seconds that a stop may take longer than the grace of the host."""

MEASURE_INTERVAL = 1.0
PERSON = "a person"
"""Who holds a host that was started by its name."""


class LLMHostManager:
    """Starts, joins, watches and stops hosts; all its methods belong to one event loop.

    `home` is the folder of everything that is kept; `specs` are the hosts that can be started by name. Whatever happens
    to a host that this kernel holds, whoever caused it, is published exactly once here.
    """

    def __init__(
        self,
        home: Path,
        publish: Callable[[Event], object] = lambda event: None,
        specs: Mapping[str, HostSpec] | None = None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        self._root = home.resolve() / "hosts"  # as a supervisor sees its working folder
        self._publish = publish
        self._specs = dict(specs or {})
        self._lock_timeout = lock_timeout
        self._seats: dict[str, Seat] = {}
        self._users: dict[str, dict[object, Callable[[], object]]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._adopted = AdoptedHosts(publish, self._ours_at)
        self._others = SeenHosts(self._root)
        self._meter = Meter()
        self._follower: asyncio.Task[None] | None = None
        self._measurer: asyncio.Task[None] | None = None
        self._watchers = 0

    # -- by spec: for what needs a host

    async def ensure(
        self, spec: HostSpec, *, user: object = PERSON, again: bool = False, starts: bool = True,
        looked: Callable[[], object] = lambda: None,
    ) -> Running:  # fmt: skip
        """Start the host or join it (only join it, unless it `starts`), hold it for `user`, and wait until it serves.

        `looked` is called after each look at what becomes of it, until `user` needs it no more or it is stopped.
        Raises `HostError`. A host that was given up says so once; the next call, or `again`, starts it anew. A start that
        is cancelled leaves nothing behind.
        """
        async with self._turn(spec.key):
            seat = self._seat(spec)
            users = self._users.setdefault(spec.key, {})
            self._follow()
            try:
                running = await seat.ensure(again=again, starts=starts)
            except BaseException:
                if not users:
                    await self._leave(seat)
                raise
            users[user] = looked
            return running

    async def release(self, spec: HostSpec, *, user: object = PERSON) -> None:
        """`user` needs it no more; where nobody else does, in any kernel, it is gone when this returns. Idempotent."""
        async with self._turn(spec.key):
            users = self._users.get(spec.key, {})
            users.pop(user, None)
            seat = self._seats.get(spec.key)
            if seat is not None and not users:
                await self._leave(seat)

    def running(self, spec: HostSpec, *, used: bool = False) -> Running | None:
        """The host, if this kernel holds it and it serves. Costs microseconds; `used` keeps it from being idle."""
        seat = self._seats.get(spec.key)
        if seat is None or (used and not seat.used()):
            return None
        return seat.running()

    def state(self, spec: HostSpec) -> HostState | None:
        """What a host that this kernel holds is doing; `None` where nobody looks after it. Costs microseconds."""
        seat = self._seats.get(spec.key)
        return seat.attended() if seat is not None else None

    def is_up(self, spec: HostSpec) -> bool:
        """Whether any kernel of this user has it started already."""
        return self._seat_of(spec).is_up()

    def seen(self, spec: HostSpec) -> HostState | None:
        """What a host is doing, whichever kernel of this user started it; `None` where nobody looks after it."""
        return self._seat_of(spec).attended()

    def last_end(self, spec: HostSpec) -> End | None:
        """Why a host was put down or died last; `None` where nobody wrote that down."""
        return self._seat_of(spec).last_end()

    # -- by name: for people

    def names(self) -> list[str]:
        """What can be named: the hosts that can be started, those held, those adopted, those that other kernels run."""
        return [*self._own_names(), *self._seen()]

    def port(self, name: str) -> int | None:
        """The port of a host that always has the same; `None` for others, and for unknown names."""
        spec = self.spec(name)
        return spec.port or None if spec is not None else None

    def spec(self, name: str) -> HostSpec | None:
        """What starts a host; `None` for one that is only watched or seen, and for unknown names."""
        held = {seat.spec.name: seat.spec for seat in self._seats.values()}
        return held.get(name) or self._specs.get(name)

    def specs(self) -> list[HostSpec]:
        """The hosts that can be started by their names."""
        return list(self._specs.values())

    def add(self, spec: HostSpec) -> None:
        """Let a host be started by its name."""
        self._specs[spec.name] = spec

    async def start(
        self, name: str, *, user: object = PERSON, looked: Callable[[], object] = lambda: None
    ) -> HostStatus:
        """Start a host by its name, and hold it as `ensure` does. One that somebody else runs at its port is adopted instead.

        Raises `HostError`.
        """
        if name not in self._specs and self._adopted.living(name) is not None:
            return self.one(name)
        if (other := self._other(name)) is not None:
            return self._status(name, other)
        spec = self._spec(name)
        if spec.port and not self._is_attended(spec) and is_taken(spec.port):
            self._require_own(spec)
            if look(spec.port, spec.ready or "/", spec.ready_field) == READY_NOW:
                await self._adopted.add(name, f"http://127.0.0.1:{spec.port}", renames=True)
                self._follow()
                return self.one(name)
        await self.ensure(spec, user=user, again=True, looked=looked)
        self._adopted.forget(name, spec.port)
        return self.one(name)

    async def stop(self, name: str) -> None:
        """Stop a host, whoever else uses it: TERM, its grace, KILL. Does nothing where it does not run.

        Raises `HostError` for one that llm_jupyter did not start.
        """
        if (other := self._other(name)) is not None:
            await other.order(STOP)
            return
        spec = self._spec(name)
        await self._commanded(name, STOP)
        async with self._turn(spec.key):
            if (seat := self._seats.get(spec.key)) is not None:
                await self._leave(seat)
        await self._seat_of(spec).forget_failure()

    async def restart(self, name: str) -> HostStatus:
        """Stop a host and start it again, for all who use it. Raises `HostError`."""
        if (other := self._other(name)) is not None:
            await other.order(RESTART)
            return self._status(name, other)
        spec = self._spec(name)
        before = self._seat_of(spec).running()
        if self._commandable(name, spec) is None:
            return await self.start(name)
        await self.ensure(spec)
        await self._commanded(name, RESTART)
        end = time.monotonic() + spec.stop_grace + spec.start_timeout
        while time.monotonic() < end:
            running = await self.ensure(spec)
            if before is None or running.generation != before.generation:
                break
            await asyncio.sleep(LOOK)
        return self.one(name)

    def log(self, name: str, lines: int = 50) -> list[str]:
        """The last lines that a host wrote, whichever kernel started it. Raises `HostError` for an unknown name."""
        if name in self._adopted:
            raise HostError(f"{name} was not started by llm_jupyter, so its output is not kept here")
        return self._sight(name).log(lines)

    async def adopt(self, name: str, url: str) -> None:
        """Watch a server that somebody else runs, and never stop it. Raises `HostError` where its URL names no port.

        Nothing is added where a host of ours runs at that port, or one that is watched under another name.
        """
        await self._adopted.add(name, url)
        self._follow()

    # -- what is known

    def status(self) -> list[HostStatus]:
        """Every host that can be named, as it is now."""
        self._meter.forget_the_dead()
        own = [self.one(name) for name in self._own_names()]
        return own + [self._status(name, sight) for name, sight in self._seen().items()]

    def one(self, name: str) -> HostStatus:
        """One host as it is now. Raises `HostError` for an unknown name."""
        if (adopted := self._adopted.get(name)) is not None and (adopted.is_alive or self.spec(name) is None):
            return self._meter.measured(adopted.status(), adopted.process)
        return self._status(name, self._sight(name))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Publish a `HostMeasured` for each running host once a second, for as long as somebody wants it."""
        self._watchers += 1
        if self._measurer is None:
            self._measurer = asyncio.get_running_loop().create_task(self._measure())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._measurer is not None:
                self._measurer.cancel()
                self._measurer = None

    async def aclose(self) -> None:
        """Need no host any more. Those that no other kernel uses are gone when this returns. Idempotent."""
        self._users.clear()
        seats = list(self._seats.values())
        await asyncio.gather(*(self._leave(seat) for seat in seats))
        for task in (self._follower, self._measurer):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._follower = self._measurer = None
        self._adopted.clear()

    # -- inside

    def _turn(self, key: str) -> asyncio.Lock:
        return self._turns.setdefault(key, asyncio.Lock())

    def _seat(self, spec: HostSpec) -> Seat:
        if spec.key not in self._seats:
            self._seats[spec.key] = Seat(self._root, spec, self._publish, self._lock_timeout)
        return self._seats[spec.key]

    def _seat_of(self, spec: HostSpec) -> Seat:
        """The seat, or a look from outside."""
        return self._seats.get(spec.key) or Seat(self._root, spec, self._publish)

    def _own_names(self) -> list[str]:
        held = [seat.spec.name for seat in self._seats.values()]
        return list(dict.fromkeys([*self._specs, *held, *self._adopted]))

    def _seen(self) -> dict[str, Sight]:
        """The hosts that only other kernels know, by name. One that is adopted under another name is that one."""
        known = {*self._seats, *(spec.key for spec in self._specs.values())}
        found = self._others.by_name(known, self._own_names())
        return {name: sight for name, sight in found.items() if not self._adopted.is_at(sight.port)}

    def _other(self, name: str) -> Sight | None:
        """The host of that name, if only other kernels know it."""
        return self._seen().get(name) if self.spec(name) is None else None

    def _sight(self, name: str) -> Sight:
        """A look at a host that llm_jupyter started. Raises `HostError` for an unknown name."""
        return self._other(name) or self._seat_of(self._spec(name))

    def _status(self, name: str, sight: Sight) -> HostStatus:
        state = sight.attended()
        return self._meter.measured(sight.status(name), state.host if state is not None else None)

    async def _leave(self, seat: Seat) -> None:
        await seat.release()
        self._seats.pop(seat.spec.key, None)
        self._say_looked(self._users.pop(seat.spec.key, {}))

    def _spec(self, name: str) -> HostSpec:
        if (spec := self.spec(name)) is not None:
            return spec
        if name in self._adopted:
            raise HostError(
                f"{name} was not started by llm_jupyter: it is only watched", next_step="Do that where it was started."
            )
        near = difflib.get_close_matches(name, self.names(), 1)
        known = ", ".join(self.names()) or "none"
        hint = (
            f"Did you mean {near[0]}?" if near else f"There are: {known}. Add one as [hosts.{name}] in your settings."
        )
        raise HostError(f"there is no host {name!r}", next_step=hint)

    def _is_attended(self, spec: HostSpec) -> bool:
        """Whether it is ours to look after now, if only to end it."""
        return (state := self.seen(spec)) is not None and state.phase != FAILED

    def _ours_at(self, port: int) -> HostSpec | None:
        """The host of ours that runs at a port."""
        return next((spec for spec in self.specs() if spec.port == port and self._is_attended(spec)), None)

    def _require_own(self, spec: HostSpec) -> None:
        if (other := self._ours_at(spec.port)) is not None:
            raise HostError(
                f"port {spec.port} is taken by the host {other.name}",
                where=spec.where,
                next_step=f"%llm host stop {other.name} ends that one; or set another port for [hosts.{spec.name}].",
            )
        if is_foreign(f"http://127.0.0.1:{spec.port}"):
            raise HostError(
                f"another user of this machine runs a server on port {spec.port}",
                where=spec.where,
                next_step=f"Set another port for [hosts.{spec.name}].",
            )

    def _commandable(self, name: str, spec: HostSpec) -> Seat | None:
        """The seat of a host that runs and that we may command. Raises `HostError` where it is not ours."""
        refused = f"{name} was not started by llm_jupyter, so it is not stopped either"
        if self._adopted.living(name) is not None:
            raise HostError(refused, next_step="Stop it where it was started.")
        seat = self._seat_of(spec)
        if seat.is_up():
            if spec.stoppable_by == "never":
                raise HostError(f"{name} is set to be stopped by nobody", where=spec.where)
            return seat
        if spec.port and is_taken(spec.port) and self._ours_at(spec.port) is None:
            raise HostError(refused, next_step="Stop it where it was started.")
        return None

    async def _commanded(self, name: str, verb: str) -> None:
        """Ask the supervisor for something, if there is one, and wait until that is done."""
        spec = self._spec(name)
        if (seat := self._commandable(name, spec)) is not None:
            await seat.order(verb, spec.stop_grace + STOP_MARGIN)

    def _follow(self) -> None:
        if self._follower is None or self._follower.done():
            self._follower = asyncio.get_running_loop().create_task(self._follow_all())

    async def _follow_all(self) -> None:
        while True:
            for seat in list(self._seats.values()):
                if not self._turn(seat.spec.key).locked():  # whoever has the turn hears by itself
                    async with self._turn(seat.spec.key):
                        with contextlib.suppress(OSError):  # a disk that fails: the next look may do better
                            await seat.follow()
                self._say_looked(self._users.get(seat.spec.key, {}))
            self._adopted.follow()
            await asyncio.sleep(FOLLOW_INTERVAL)

    def _say_looked(self, users: Mapping[object, Callable[[], object]]) -> None:
        for looked in list(users.values()):
            try:
                looked()
            except Exception:  # the other hosts, and the other users, are followed on
                logger.exception("following a host failed")

    async def _measure(self) -> None:
        while True:
            for status in self.status():
                if status.state == "running" and status.pid is not None and status.rss is not None:
                    self._publish(
                        HostMeasured(
                            host=status.name, pid=status.pid, rss=status.rss, cpu=status.cpu or 0.0,
                            threads=status.threads or 0, uptime=status.uptime or 0.0, gpu_memory=status.gpu_memory,
                        )
                    )  # fmt: skip
            await asyncio.sleep(MEASURE_INTERVAL)
