"""The commands of `%llm` about conversations: which there are, which one goes on, and what becomes of them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_jupyter.errors import InvalidInputError, SessionError
from llm_jupyter.magics.args import COUNT, NEW, OLDER, YES, Option, parse
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import duration, say, shortened, table
from llm_jupyter.portable import conversation_of, export, file_name, from_json
from llm_jupyter.store import SessionRecord

UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
USUALLY = 20
"""Conversations that are listed, where nobody says how many."""

NOTHING = "Nothing was deleted."


# -- %llm session


def session(kernel: KernelServices, line: str) -> None:
    """`%llm session [VERB ...]`."""
    verb, _, rest = line.strip().partition(" ")
    kernel.session()
    if not verb:
        _show(kernel)
    elif verb in VERBS:
        action, is_of_the_stored = VERBS[verb]
        if is_of_the_stored:
            kernel.factory.sessions.expect_stored(f"%llm session {verb}")
        action(kernel, rest.strip())
    else:
        raise InvalidInputError(
            f"%llm session has no {verb[:40]!r}",
            next_step=f"There are: {', '.join(VERBS)}. %llm session alone shows this one.",
        )


def _show(kernel: KernelServices) -> None:
    current, sessions = kernel.session(), kernel.factory.sessions
    record = current.store.session(current.id)
    rows = [
        ("conversation", current.name or current.id),
        ("turns", str(record.turns if record is not None else 0)),
        ("model", current.wanted_model or "none chosen; %llm says which one answers"),
        ("system", shortened(current.system or "", 80)),
        ("when too long", "is refused" if current.policy == "strict" else "the oldest turns are left out"),
        ("kept", "in memory only" if not current.is_kept else str(kernel.factory.store.path)),
    ]
    lines = [f"{name:<13} {value}" for name, value in rows if value]
    if sessions.is_private:
        lock = _lock_on_private(kernel)
        back = f"that is {lock}" if lock else "%llm private off goes back to the one that is stored"
        lines.append(f"It is private; {back}.")
    elif not current.is_kept:
        lines.append("The store cannot be used; %llm doctor tells why.")
    say(lines)


def _new(kernel: KernelServices, line: str) -> None:
    name = _unquoted(line)
    _begin_anew(kernel, name or None)
    if name:
        say([f"It is called {name}."])


def _list(kernel: KernelServices, line: str) -> None:
    values, words = parse(line, [COUNT], "%llm session list")
    current, kept = kernel.session(), kernel.factory.sessions.all()
    records = [record for record in kept if record.is_called(words)]
    if not records:
        none = f'No conversation is called "{words}"; %llm history --search TEXT looks through what was said.'
        say([none if kept else "No conversation is kept yet."])
        return
    shown = records[: values.get("count", USUALLY)]
    rows = [_row(record, is_current=record.id == current.id) for record in shown]
    lines = table(("", "id", "name", "turns", "used", "notebook"), rows, right="turns")
    if len(shown) < len(records):
        lines.append(f"The last {len(shown)} of {len(records)}; -n N shows more.")
    say(lines)


def _row(record: SessionRecord, *, is_current: bool) -> tuple[str, ...]:
    seconds = max(0.0, time.time() - record.updated)
    used = f"{duration(seconds)} ago" if seconds >= 60 else "just now"
    notebook = Path(record.notebook).name if record.notebook else ""
    name = record.name or ("" if notebook else record.quoted)
    return "→" if is_current else "", record.id, name, str(record.turns), used, notebook


def _use(kernel: KernelServices, line: str) -> None:
    values, name = _with_flag(line, NEW, "%llm session use")
    sessions, name = kernel.factory.sessions, _one_name(name, "use")
    if values.get("new") and sessions.store.named(name) is None and sessions.store.session(name) is None:
        _new(kernel, name)
        return
    used = sessions.use(name)
    _say_notices(kernel, otherwise=f"This is {used.name or used.id}.")


def _name(kernel: KernelServices, line: str) -> None:
    if not (name := _unquoted(line)):
        raise InvalidInputError("%llm session name needs a name", next_step="For example: %llm session name my talk")
    kernel.factory.sessions.rename(name)
    say([f"This conversation is called {name}."])


def _fork(kernel: KernelServices, line: str) -> None:
    old, name, sessions = kernel.session(), _unquoted(line), kernel.factory.sessions
    fork = sessions.fork(name or None)
    original = sessions.one(old.id).title
    say([f"This is {fork.name}, a copy of {original}; %llm session use {old.name or old.id} returns to that."])


def _with_flag(line: str, flag: Option, command: str) -> tuple[dict[str, Any], str]:
    """Options and the name; people also put them at the end."""
    values, name = parse(line, [flag], command)
    first, _, last = name.rpartition(" ")
    return ({**values, flag.name: True}, first.rstrip()) if first and last in flag.flags else (values, name)


def _delete(kernel: KernelServices, line: str) -> None:
    values, name = _with_flag(line, YES, "%llm session delete")
    record = kernel.factory.sessions.one(_one_name(name, "delete"))
    is_current = record.id == kernel.session().id
    what = f"{record.name or record.id} with its {_count(record.turns, 'turn')}"
    if values.get("yes") or kernel.asks(f"Delete {what}? [y/N] "):
        kernel.factory.sessions.delete(record.id)
        say([f"Deleted {what}.{' A fresh conversation begins here.' if is_current else ''}"])
    else:
        say([NOTHING])


def _export(kernel: KernelServices, line: str) -> None:
    values, name = _with_flag(line, YES, "%llm session export")
    current = kernel.session()
    path = Path(_unquoted(name) or f"{file_name(current.name or 'conversation')}.md").expanduser()

    def may_replace() -> bool:
        return bool(values.get("yes")) or kernel.asks(f"Replace {path}, which is no export? [y/N] ")

    is_written = export(current.record, current.store.all_turns(current.id), path, may_replace)
    say([f"Written to {path.absolute()}." if is_written else "Nothing was written."])


def _import(kernel: KernelServices, line: str) -> None:
    path = Path(_one_name(line, "import")).expanduser()
    if path.suffix == ".ipynb":
        raise InvalidInputError(f"{path.name} is a notebook", next_step=f"%llm session resume {path} goes on with it.")
    try:
        record, turns = from_json(path.read_bytes())
    except OSError as error:
        next_step = "%llm session export FILE.json writes such a file."
        raise SessionError(f"{path} cannot be read: {error.strerror}", next_step=next_step) from None
    sessions = kernel.factory.sessions
    sessions.take_in(record, turns, f"from {path.name}")
    if record.name is not None and sessions.current.name is None:
        sessions.notices.append(f"Another one here is called {record.name}; %llm session name gives this one a name.")
    _say_notices(kernel, otherwise=f"Taken from {path.name}; there are no turns in it.")


def _resume(kernel: KernelServices, line: str) -> None:
    """Take a conversation up from a notebook's file alone: `[FILE.ipynb] [NAME]`. One of that name that is kept goes on."""
    file, name = _file_and_name(line)
    path = Path(file).expanduser() if file else kernel.notebook()
    if name and not file and not _is_only_shown(kernel, name, path):
        _use(kernel, name)
        return
    if path is None:
        raise SessionError("this kernel does not know its notebook", next_step="%llm session resume PATH.ipynb")
    if not path.exists():
        raise SessionError(f"there is no {path}", next_step="Save the notebook first, or give its path.")
    kernel.factory.sessions.rebuild(conversation_of(path, name or None), path)
    _say_notices(kernel)


def _file_and_name(line: str) -> tuple[str, str]:
    """The notebook and the conversation that a line names; empty where it names none."""
    whole = _unquoted(line)
    if whole.endswith(".ipynb"):
        return whole, ""
    found = re.fullmatch(r"(.*\.ipynb\W?)\s+(.+)", line)
    return (_unquoted(found[1]), _unquoted(found[2])) if found else ("", whole)


def _is_only_shown(kernel: KernelServices, name: str, path: Path | None) -> bool:
    """Whether a notebook shows a conversation of that name, and none is kept here."""
    with contextlib.suppress(SessionError):
        kernel.factory.sessions.one(name)
        return False
    with contextlib.suppress(InvalidInputError):
        return path is not None and bool(conversation_of(path, name).turns)
    return False


VERBS: dict[str, tuple[Callable[[KernelServices, str], None], bool]] = {
    "new": (_new, False), "list": (_list, False), "use": (_use, True), "name": (_name, True), "fork": (_fork, True),
    "delete": (_delete, True), "export": (_export, False), "import": (_import, True), "resume": (_resume, True),
}  # fmt: skip
"""What each verb does, and whether it is about conversations that are stored."""


def _say_notices(kernel: KernelServices, otherwise: str = "") -> None:
    notices = kernel.factory.sessions.notices
    say(notices or [otherwise])
    notices.clear()


def _one_name(line: str, verb: str) -> str:
    if not (name := _unquoted(line)):
        what = "a file" if verb == "import" else "a name or an id"
        raise InvalidInputError(f"%llm session {verb} needs {what}", next_step="%llm session list shows what there is.")
    return name


def _unquoted(line: str) -> str:
    """A name as it stands, or in quotes, as options need it where it has blanks."""
    return line[1:-1].strip() if len(line) > 1 and line[0] == line[-1] and line[0] in "'\"" else line


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- %llm reset, private, purge


def reset(kernel: KernelServices, line: str) -> None:
    """`%llm reset`."""
    if line:
        raise InvalidInputError("%llm reset takes nothing", next_step="%llm session new NAME begins one with a name.")
    _begin_anew(kernel, None)


def _begin_anew(kernel: KernelServices, name: str | None) -> None:
    old, sessions = kernel.session(), kernel.factory.sessions
    sessions.reset(name)
    kernel.last = None
    kept = f"; %llm session use {old.name or old.id} returns to the old one" if old.is_stored and old.is_kept else ""
    private = " Nothing of it is stored either." if sessions.is_private else ""
    say([f"A fresh conversation. The model stays the same{kept}.{private}"])


def private(kernel: KernelServices, line: str) -> None:
    """`%llm private [on|off]`."""
    if line not in ("on", "off", ""):
        raise InvalidInputError(
            f"%llm private is on or off, not {line[:40]!r}", next_step="%%chat --private asks one question privately."
        )
    kernel.session()
    sessions, lock = kernel.factory.sessions, _lock_on_private(kernel)
    was_private = sessions.is_private
    if line and lock and (line == "on") != was_private:
        raise InvalidInputError(
            f"session.private cannot be changed: it is {lock}",
            next_step="Whoever looks after this machine can change it there.",
        )
    if line:
        sessions.private(line == "on")
    if sessions.is_private:
        back = f"that is {lock}" if lock else "%llm private off goes back to the conversation that is"
        say([f"Nothing that is asked from here on is stored; {back}."])
    elif was_private:
        say(["Conversations are stored again. What was asked privately is gone."])
        kernel.session()
    else:
        say(["Conversations are stored."])


def _lock_on_private(kernel: KernelServices) -> str:
    """Where it is locked whether conversations are private; empty where it is not."""
    settings = kernel.factory.settings
    return settings.origin("session.private") if settings.is_locked("session.private") else ""


def purge(kernel: KernelServices, line: str) -> None:
    """`%llm purge --older 30d [--yes]`."""
    values, rest = parse(line, [OLDER, YES], "%llm purge")
    if rest or "older" not in values:
        raise InvalidInputError("%llm purge takes --older TIME", next_step="For example: %llm purge --older 30d")
    seconds, factory = _seconds(values["older"]), kernel.factory
    current = kernel.session()
    if factory.sessions.is_private:
        raise SessionError("the conversation that %llm private off goes back to would not be spared", next_step="%llm private off first.")  # fmt: skip
    before = time.time() - seconds
    in_use = {current.id, *factory.sessions.in_use_elsewhere()}
    doomed = [record for record in factory.sessions.all() if record.updated < before and record.id not in in_use]
    if not doomed and not factory.portal.run(factory.cache.answers.holds_older(seconds)):
        say(["Nothing is that old: no conversation that is not in use, and no cached answer."])
        return
    what = f"{_count(len(doomed), 'conversation')} not used for {values['older']}, and cached answers as old"
    if not values.get("yes") and not kernel.asks(f"Delete for good: {what}? [y/N] "):
        say([NOTHING])
        return
    purged = factory.store.purge(older=before, spare=in_use)
    answers = factory.portal.run(factory.cache.clear(older=seconds))
    gone = f"{_count(purged.sessions, 'conversation')} with {_count(purged.turns, 'turn')}"
    say([f"Deleted {gone}, and {_count(answers, 'cached answer')}. Conversations in use stay, and so do recordings."])


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([hdw])", text)
    if found is None:
        raise InvalidInputError(f"--older cannot be {text[:20]!r}", next_step="Write 12h, 30d or 4w.")
    return int(found[1]) * float(UNITS[found[2]])
