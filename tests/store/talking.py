"""What children of the tests do with a store. It imports little, so that they start within milliseconds."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import NamedTuple

import msgspec
from store.samples import answer, session, storing, turn

from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter.store import Store, TurnState
from llm_jupyter.types import Image, Message

TEXT = "0123456789" * 400
PIECE = 50
PICTURE = Image(bytes(range(256)) * 800)
"""Large, so that a good part of the time goes into writing, and a kill falls into the midst of that."""


class Fact(NamedTuple):
    """Something that a process was told is kept: a turn, so many characters of its answer, or its end."""

    turn: str
    characters: int
    is_whole: bool = False


class Outcome(NamedTuple):
    """How it went for a process: what is wrong with its store, who it is, and whether it holds the conversation."""

    trouble: str
    holder: str = ""
    has_claimed: bool = False


def talk(say: Callable[[Fact], object], path: Path, run: int, is_remote: bool, seed: int) -> None:
    """Turns and growing answers without end; each thing is said as soon as the store has returned from it."""
    dice = random.Random(seed)
    store = Store(path, is_remote=lambda _: is_remote)
    store.save_session(session())
    for number in count():
        name = f"{run}.{number}"
        replaces = dice.random() < 0.3 and number > 0
        record = turn(name, float(number), slot=f"{run}.{number - 1}" if replaces else name)
        if dice.random() < 0.5:
            record = msgspec.structs.replace(record, prompt=Message.user("see", [PICTURE]))
        store.add(record)
        say(Fact(name, 0))
        for length in range(PIECE, dice.randrange(1, 12) * PIECE, PIECE):
            store.grow("talk", name, 1, TEXT[:length], "")
            say(Fact(name, length))
        store.answered("talk", name, 1, answer(TEXT), TurnState.COMPLETE)
        say(Fact(name, len(TEXT), is_whole=True))


def take_turns(say: Callable[[Outcome], object], path: Path, name: str, turns: int, is_remote: bool) -> None:
    """So many turns at the end of a conversation that others continue at the same time."""
    store = Store(path, is_remote=lambda _: is_remote)
    for number in range(turns):
        identity = f"{name}.{number}"
        store.add(turn(identity, store.last_position("talk") + 1))
        store.grow("talk", identity, 1, "half", "")
        store.answered("talk", identity, 1, answer(f"say {identity}"), TurnState.COMPLETE)
    store.close()
    say(Outcome(store.trouble))


def open_at_once(say: Callable[[Outcome], object], path: Path, name: str, barrier: Barrier) -> None:
    """Open a store at the moment at which others do, and use it."""
    store = Store(path)
    barrier.wait()
    store.save_session(session(name))
    found = store.search("unicorns")
    store.close()
    say(Outcome(store.trouble or ("" if found or not path.with_suffix(".old").exists() else "nothing was found")))


def claim(say: Callable[[Outcome], object], path: Path, expected: str | None) -> None:
    """Make this process the holder, and take some turns if it could."""
    this = ProcessIdentity.own()
    holder = f"{machine()}.{this.pid}.{this.start}"
    store = Store(path)
    has_claimed = store.claim("talk", holder, expected=expected)
    store.close()
    say(Outcome(store.trouble, holder, has_claimed))


def go_on(store: Store) -> list[str]:
    """Do with a store all that a conversation needs; what is not as it should be."""
    store.save_session(session("more", kernel="kernel"))
    start = store.last_position("more")
    for number in range(3):
        name = f"{start}.{number}"
        store.add(turn(name, start + number + 1, session="more", prompt="pterodactyls", cell="cell"))
        store.grow("more", name, 1, "half", "thinking")
        store.answered("more", name, 1, answer("whole"), TurnState.COMPLETE)
    store.add(turn(f"{start} under way", start + 9, session="more"))
    store.fork("more", session(f"copy {start}"))
    checks = {
        "before": [one.id for one in store.before("more", start + 9, limit=3)] == [f"{start}.{n}" for n in (2, 1, 0)],
        "answers": all(one.answers[0].response.text == "whole" for one in store.before("more", start + 9, limit=3)),
        "of_cell": len(store.of_cell("more", "cell")) >= 3,
        "settle": store.settle("more") == 1,
        "places": len(store.places("more")) == len(store.places(f"copy {start}")) >= 4,
        "sessions": {"more", f"copy {start}"} <= {record.id for record in store.sessions()},
        "sessions_of": [record.id for record in store.sessions_of(kernel="kernel")] == ["more"],
        "search": len(store.search("pterodactyl", limit=6)) == 6,
        "delete": store.delete(f"copy {start}"),
    }
    return [name for name, is_right in checks.items() if not is_right]


def read_only(say: Callable[[tuple[object, ...]], object], path: Path, is_remote: bool) -> None:
    """Use a store that this process may not write; first prove that it may not."""
    proof = []
    for file in (path, path.with_name("new")):
        try:
            file.open("r+b" if file == path else "xb").close()
        except OSError as error:
            proof.append(error.errno)
    with storing(path, is_remote=lambda _: is_remote) as (store, events):
        found = [[one.id for one in store.before("talk", None, limit=9)], [one.id for one in store.sessions()]]
        wrong = go_on(store)
        found.append([one.id for one in store.before("other", None, limit=9)])
        say((proof, found, wrong, [event.reason for event in events]))


def damage(say: Callable[[object], object], path: Path, seed: float) -> None:
    """Write noise over some pages of a file that others have open, or cut it off."""
    dice = random.Random(seed)
    with path.open("r+b") as file:
        pages = path.stat().st_size // 4096
        if dice.random() < 0.2:
            file.truncate(dice.randrange(pages) * 4096)
        else:
            for page in dice.sample(range(pages), pages // 3):
                file.seek(page * 4096)
                file.write(dice.choice((bytes(4096), dice.randbytes(4096))))
