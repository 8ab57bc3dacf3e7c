"""The conversations of this kernel, and which of them the notebook goes on with."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replaced

from llm_jupyter.context import Policy
from llm_jupyter.documents import NotebookFile, read_document
from llm_jupyter.errors import SessionError
from llm_jupyter.events import SessionDeleted, SessionForked, SessionRenamed, SessionResumed
from llm_jupyter.portable import Rebuilt
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.holding import HELD, is_held_by_another, own_holder
from llm_jupyter.sessions.identity import Found, How, Whereabouts, belongs, find, taken_from
from llm_jupyter.sessions.naming import expect_name, name_of_copy, turns_of
from llm_jupyter.sessions.rebuilding import as_session, others, shortcomings, taken_in
from llm_jupyter.sessions.services import Services
from llm_jupyter.sessions.session import LLMSession
from llm_jupyter.sessions.turns import asked_in
from llm_jupyter.store import SessionRecord, Store, TurnRecord

ELSEWHERE = "This notebook shows a conversation that is not kept here; %llm session resume goes on with it."


class LLMSessionManager:
    """`current` is the conversation that the notebook speaks with; `arrive` says where this kernel is.

    Conversations are kept in `store`, and while `is_private` holds in memory alone.
    """

    def __init__(
        self, services: Services, store: Store, *, system: str | None = None, policy: Policy = "window",
        private: bool = False,
    ) -> None:  # fmt: skip
        self.store = store
        self.notices: list[str] = []
        """What the person is to be told once, at the next answer."""
        self._services = services
        self.system = system
        self.policy: Policy = policy
        self._here: Whereabouts | None = None
        self._file = NotebookFile()
        self._is_settled = False
        self._stored: LLMSession | None = None
        self._beside: dict[str, LLMSession] = {}
        self.current = self.new(private=private)

    # -- the current conversation

    @property
    def is_private(self) -> bool:
        """Whether nothing of the current conversation is stored."""
        return self.current.is_private

    def new(self, *, private: bool = False) -> LLMSession:
        """A fresh conversation, not yet the current one."""
        return self._session(None, Store(None) if private else self.store)

    @property
    def notebook(self) -> Path | None:
        """The notebook's file, as far as this kernel was told; also under the name that it was given since."""
        return self._here.notebook if self._here is not None else None

    def arrive(self, here: Whereabouts) -> None:
        """Say where this kernel is. The first time, the conversation that belongs here becomes the current one."""
        here = replace(here, notebook=self._file.locate(here.notebook, self._is_ours))
        before, self._here = self._here, here
        if self.is_private:
            return
        if not self._is_settled:
            self._settle_in(here)
        elif here.notebook is not None and before != here:
            self._carry(self.current.notebook)
            self._bind(self.current)  # the notebook was renamed

    def _settle_in(self, here: Whereabouts) -> None:
        self._is_settled = True
        document = read_document(here.notebook) if here.notebook is not None else None
        found = find(self.store, here, document)
        if found.record is None:
            self._bind(self.current)
            is_known = document is None or not document.sessions or self.store.sessions_of(ids=document.sessions)
            if not is_known and self._services.cache.mode != "replay":  # which goes through the notebook anew
                self.notices.append(ELSEWHERE)
        elif found.how is How.FORKED:
            self._go_on_with_a_copy(found)
        elif self._claim(found.record):
            self._carry(found.origin)
            self._go_on_with(found.record, found.reason)
        else:
            self._go_on_with_a_copy(replace(found, how=How.FORKED, reason=HELD))  # it came first, at the same moment

    def _carry(self, origin: Path | str | None, *, session: str | None = None) -> None:
        """The notebook was called otherwise, or is a copy: what the cells of the other have asked is its own cells'."""
        if origin is not None and self.notebook is not None and str(origin) != str(self.notebook):
            self.store.carry(str(origin), str(self.notebook), session=session)

    def _is_ours(self, path: Path) -> bool:
        """Whether a notebook belongs to the current conversation, as far as it was saved."""
        document = read_document(path)
        return document is not None and belongs(self.current.store, self.current.record, document)

    def reset(self, name: str | None = None) -> LLMSession:
        """Begin a fresh current conversation, under a name if one is given; its model stays, and the old one is kept.

        Raises `SessionError` for a name that is taken, or is no name, and begins nothing then.
        """
        if name is not None:
            self.expect_stored("a name")
            self._check_name(name)
        old, fresh = self.current, self.new(private=self.is_private)
        fresh.choice, fresh.model = old.choice, old.model
        self._let_go(old)
        self.current = self._bind(fresh)
        if name is not None:
            self.rename(name)
        return fresh

    def use(self, name: str) -> LLMSession:
        """Go on with another conversation, named by its name or id. Raises `SessionError`.

        One that another kernel goes on with is continued as a copy.
        """
        record = self.one(name)
        if record.id == self.current.id:
            return self.current
        self._let_go(self.current)
        if not self._claim(record):
            self._go_on_with_a_copy(Found(How.FORKED, record, HELD))
        else:
            self._go_on_with(record, "you asked for it")
        return self.current

    def fork(self, name: str | None = None, *, of: str | None = None) -> LLMSession:
        """Go on with a copy of a conversation, of the current one unless told otherwise; the original stays as it is.

        Without a name the copy is called after the original, as the list shows that then. Raises `SessionError`.
        """
        if self.is_private:
            raise SessionError("a private conversation is not kept, so it has no copy", next_step="%llm private off")
        if name is not None:
            self._check_name(name)
        original = self.current if of is None else self.look_at(of)
        if not original.is_stored:
            raise SessionError("there is nothing to copy yet", next_step="Ask something first: %chat your question")
        self._let_go(self.current)
        kept = self.store.session(original.id) or original.record
        self._copy(kept, name or name_of_copy(kept, self._is_taken), "you asked for it")
        return self.current

    def private(self, on: bool) -> LLMSession:
        """Go on in memory alone, with what was said so far; or go back to the conversation that is kept.

        What is said in between is then gone.
        """
        if on and not self.is_private:
            self._stored = self.current
            copy = self.new(private=True)
            copy.adopt(self.current)
            self.current = copy
        elif not on and self.is_private:
            self.current, self._stored = self._stored or self.new(), None
            if self._here is not None:
                self.arrive(self._here)
        return self.current

    def named(self, name: str) -> LLMSession:
        """The conversation of that name, for a question that is not of the current one; a fresh one if there is none.

        Raises `SessionError` while another kernel goes on with it.
        """
        if name in (self.current.name, self.current.id):
            return self.current
        if self.is_private:
            raise SessionError("nothing is stored now, so no conversation has a name", next_step="%llm private off")
        if (known := self._beside.get(name)) is None:
            record = self.store.named(name) or self.store.session(name)
            if record is not None and not self._claim(record):
                raise SessionError(
                    f"another kernel goes on with {name!r}",
                    next_step=f"%llm session use {name} continues a copy of it.",
                )
            known = self._beside[name] = self._session(record, self.store)
            if record is None:
                self._check_name(name)
                known.save(name=name)
            else:
                self.store.settle(record.id)
        known.notebook = self.notebook or known.notebook
        return known

    def hear(self, news: Callable[[str], CellPlace]) -> None:
        """Tell each conversation in use at once what its cells have become: a restart forgets what was not told."""
        for session in (self.current, *self._beside.values()):
            if session.is_stored:
                session.hear(news(session.id))

    def expect_stored(self, what: str) -> None:
        """Raise `SessionError` while nothing is stored, for what is about conversations that are."""
        if self.is_private:
            raise SessionError(
                f"nothing is stored now, and {what} is about what is stored",
                next_step="%llm private off goes back to it.",
            )

    # -- all conversations

    def all(self) -> list[SessionRecord]:
        """Those that are kept, the latest first."""
        return self.store.sessions()

    def in_use_elsewhere(self) -> set[str]:
        """The ids of those that other living kernels go on with."""
        return {record.id for record in self.all() if is_held_by_another(record.holder)}

    def one(self, name: str) -> SessionRecord:
        """The conversation of that name, or whose id begins so. Raises `SessionError`."""
        if (record := self.store.named(name) or self.store.session(name)) is not None:
            return record
        near = [record for record in self.all() if record.id.startswith(name)] if len(name) >= 4 else []
        if len(near) == 1:
            return near[0]
        raise SessionError(f"there is no conversation {name[:60]!r}", next_step="%llm session list shows them.")

    def look_at(self, name: str) -> LLMSession:
        """A conversation to be looked at without going on with it, named by its name or id. Raises `SessionError`."""
        if name in (self.current.id, self.current.name):
            return self.current
        record = self.one(name)
        in_use = (self.current, *self._beside.values())
        return next((one for one in in_use if one.id == record.id), None) or self._session(record, self.store)

    def rename(self, name: str, *, of: str | None = None) -> None:
        """Give a conversation a name, the current one unless told otherwise.

        Raises `SessionError` for a name that is taken, or is no name, and where another kernel goes on with it.
        """
        session = self.current if of is None else self._to_change(of)
        if name != session.name:
            self._check_name(name)
        if session is self.current:
            session.save(name=name)
        else:
            self._forget(session.id)
            self.store.save_session(replaced(session.record, name=name))
        self._services.events.publish(SessionRenamed(session=session.id, name=name))

    def restore(self, turn: str, *, of: str) -> None:
        """Let an older version of a turn count again. Raises `SessionError` as `rename`, and where there is none of that id."""
        self._to_change(of).restore(turn)

    def delete(self, name: str) -> SessionRecord:
        """Delete a conversation with all its turns; deleting the current one begins a fresh one. Raises `SessionError`."""
        record = self._to_change(name).record
        if record.id == self.current.id:
            self.reset()
        self._forget(record.id)
        self.store.delete(record.id)
        self._services.events.publish(SessionDeleted(session=record.id))
        return record

    def take_in(
        self, record: SessionRecord, turns: Sequence[TurnRecord], reason: str = "you asked for it", *,
        cells_of: Path | None = None,
    ) -> None:  # fmt: skip
        """Store a conversation that came from elsewhere, and go on with it; under an id of its own where that is taken.

        The cells that its turns name are those of the notebook `cells_of`; of this one, if it shows answers of it; else
        they say nothing.
        """
        document = read_document(self.notebook) if self.notebook is not None else None
        if cells_of is None and document is not None and record.id in document.sessions:
            cells_of = self.notebook
        record = taken_in(record, self.store, time.time())
        self.store.take_in(record, [replaced(asked_in(cells_of, turn), session=record.id) for turn in turns])
        self._let_go(self.current)
        kept = self.store.session(record.id)
        self._go_on_with(kept or record, reason)

    def rebuild(self, rebuilt: Rebuilt, path: Path) -> None:
        """Go on with the conversation that a notebook's file shows, unless it is the current one or what that is a copy of.

        Raises `SessionError` where it shows none.
        """
        is_own = self.notebook is not None and path.resolve() == self.notebook.resolve()
        more = others(rebuilt, "%llm session resume" if is_own else f"%llm session resume {path}")
        if not rebuilt.turns:
            next_step = " ".join((*shortcomings(rebuilt), *more)) or "Its %%chat cells have no saved answers."
            raise SessionError(f"{path.name} shows no conversation", next_step=next_step)
        own = self.current.record
        if self.current.is_stored and rebuilt.session is not None and rebuilt.session in (own.id, own.parent):
            kept = self.store.session(own.id) or own
            self.notices += [f"This conversation is kept here with its {turns_of(kept)}, and goes on.", *more]
            return
        record, turns = as_session(rebuilt, time.time())
        self.notices = [line for line in self.notices if line != ELSEWHERE]  # it is done
        self.take_in(record, turns, "from the file alone", cells_of=path.resolve())
        self.notices += [*shortcomings(rebuilt), *more]

    def close(self) -> None:
        """Let other kernels go on with the current conversation."""
        for session in (self._stored or self.current, *self._beside.values()):
            if session.is_stored and session.store is self.store:
                self.store.release(session.id, own_holder())
        self.store.close()

    # -- inside

    def _to_change(self, name: str) -> LLMSession:
        """A conversation that is to be changed from outside, which its own kernel would not notice."""
        session = self.look_at(name)
        if is_held_by_another(session.record.holder):
            raise SessionError("another kernel goes on with that conversation", next_step="Shut it down first.")
        return session

    def _forget(self, session: str) -> None:
        """Take up what is stored of it when it is next named."""
        self._beside = {name: known for name, known in self._beside.items() if known.id != session}

    def _check_name(self, name: str) -> None:
        expect_name(name)
        if self._is_taken(name):
            next_step = f"%llm session use {name} goes on with it (with --new, where there is none, it begins one)."
            raise SessionError(f"there is a conversation {name!r} already", next_step=next_step)

    def _is_taken(self, name: str) -> bool:
        return self.store.named(name) is not None

    def _session(self, record: SessionRecord | None, store: Store) -> LLMSession:
        return LLMSession(self._services, store, record, system=self.system, policy=self.policy)

    def _bind(self, session: LLMSession) -> LLMSession:
        """Let this kernel and its notebook find that conversation again."""
        here = self._here or Whereabouts()
        notebook = str(here.notebook) if here.notebook is not None else session.record.notebook
        session.record = replaced(session.record, kernel=here.kernel, notebook=notebook)
        session.notebook = here.notebook
        if session.is_stored:
            session.save()
        return session

    def _let_go(self, session: LLMSession) -> None:
        """A conversation that is no longer this kernel's: it is that notebook's from which it was taken here, if it was;
        else nothing finds it but its name, until it is used again.
        """
        if session.is_stored:
            session.save(kernel=None, notebook=taken_from(session.store, session.id, self.notebook), holder=None)

    def _claim(self, record: SessionRecord) -> bool:
        """Whether this process got it: nobody goes on with it, and of all that may want it at this moment this one was first."""
        return not is_held_by_another(record.holder) and self.store.claim(
            record.id, own_holder(), expected=record.holder
        )

    def _go_on_with(self, record: SessionRecord, reason: str) -> None:
        if self.store.settle(record.id):
            record = self.store.session(record.id) or record
        self._forget(record.id)  # what was asked in it beside, and where that stood
        session = self._session(record, self.store)
        self.current = self._bind(session)
        self._services.events.publish(SessionResumed(session=record.id, turns=record.turns, reason=reason))
        if record.turns:
            self.notices.append(
                f"Resumed {turns_of(record)} of {self.current.record.title} ({reason}); %llm reset starts over."
            )

    def _go_on_with_a_copy(self, found: Found) -> None:
        assert found.record is not None
        self._copy(found.record, None, found.reason)
        self._carry(found.origin, session=self.current.id)
        self.notices.append(
            f"This is a copy of {found.record.title} with its {turns_of(found.record)}, for {found.reason}; "
            "%llm reset starts over."
        )

    def _copy(self, record: SessionRecord, name: str | None, reason: str) -> None:
        now = time.time()
        notebook = str(self.notebook) if self.notebook is not None else None
        copy = replaced(
            record, id=uuid.uuid4().hex[:12], name=name, parent=record.id, created=now, updated=now, kernel=None,
            notebook=notebook, holder=own_holder(),
        )  # fmt: skip
        if copy.title == record.title:  # one could not be told from the other
            copy = replaced(copy, name=name_of_copy(record, self._is_taken))
        self.store.fork(record.id, copy)
        if self.store.settle(copy.id):
            copy = self.store.session(copy.id) or copy
        self.current = self._bind(self._session(copy, self.store))
        self._services.events.publish(
            SessionForked(session=copy.id, parent=record.id, turns=record.turns, reason=reason)
        )
