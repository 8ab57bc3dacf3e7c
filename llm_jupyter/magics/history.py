"""`%llm history`: what was said in a conversation, the versions of a turn, and where words stand in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.args import COUNT, SEARCH, parse
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, shortened, table
from llm_jupyter.sessions import LLMSession
from llm_jupyter.sessions.history import why_left_out
from llm_jupyter.sessions.order import SILENT
from llm_jupyter.store import Hit, TurnRecord, TurnState
from llm_jupyter.types import FinishReason

USUALLY = 20
"""Turns that are shown, where nobody says how many."""

HINT = "%llm history TURN shows one whole, with its versions and their ids; %llm history ID restore brings one back."


def history(kernel: KernelServices, line: str) -> None:
    """`%llm history [-n N] [--search TEXT] [TURN [restore]]`."""
    values, rest = parse(line, [COUNT, SEARCH], "%llm history")
    current, count = kernel.session(), values.get("count", USUALLY)
    if text := values.get("search"):
        text = f"{text} {rest}".strip()
        _say_hits(current.store.search(text, limit=count), text)
    elif rest:
        turn, _, verb = rest.partition(" ")
        _one_turn(current, turn, verb.strip())
    else:
        _say_turns(current, count)


def _say_turns(current: LLMSession, count: int) -> None:
    shown = current.history(count)
    if not shown:
        say(["Nothing was asked yet."])
        return
    rows = [
        (one.turn.id, shortened(_in_line(one.turn.template or one.turn.prompt.content), 28),
         shortened(_in_line(_answer(one.turn)), 30), str(one.versions) if one.versions > 1 else "",
         _remarks(one.turn, one.is_stale))
        for one in shown
    ]  # fmt: skip
    lines = table(("turn", "question", "answer", "versions", ""), rows, right="versions")
    if (total := len(current.store.places(current.id))) > len(shown):
        lines.append(f"The last {len(shown)} of {total} turns; -n N shows more.")
    say([*lines, "", HINT])


def _answer(turn: TurnRecord) -> str:
    return turn.answers[-1].response.text if turn.answers else ""


def _remarks(turn: TurnRecord, is_stale: bool) -> str:
    """What is to be known of a turn."""
    remarks = [why_left_out(turn)] if turn.left_out else []
    if turn.state is not TurnState.COMPLETE:
        remarks.append(str(turn.state))
    elif turn.answers and turn.answers[-1].response.finish_reason is FinishReason.LENGTH:
        remarks.append("cut")
    if is_stale:
        remarks.append("under an earlier version")
    return ", ".join(remarks)


def _one_turn(current: LLMSession, name: str, verb: str) -> None:
    turn = current.find_turn(name)
    if verb == "restore":
        _restore(current, turn)
        return
    if verb:
        raise InvalidInputError(
            f"%llm history {name} knows restore, not {verb[:40]!r}",
            next_step=f"%llm history {name} alone shows its versions.",
        )
    lines = []
    for version in current.store.versions(current.id, turn.slot):
        at = datetime.fromtimestamp(version.created).strftime("%Y-%m-%d %H:%M")
        lines += [
            f"── {version.id}, {at}, {'counts' if version.is_current else 'earlier version'}",
            version.template or version.prompt.content,
        ]
        if version.filled:
            lines.append(f"(with {', '.join(f'{one.name}: {one.size}' for one in version.filled)})")
        for answer in version.answers:
            who = f"{answer.response.provider}/{answer.response.model}"
            lines += [f"── {who}, {answer.response.finish_reason}", answer.response.text]
    say(lines)


def _restore(current: LLMSession, turn: TurnRecord) -> None:
    if turn.is_current and not turn.left_out:
        say([f"{turn.id} counts already."])
        return
    was_out = current.restore(turn.id)
    asked = shortened(_in_line(turn.template or turn.prompt.content), 60)
    effect = "What comes after it sees that version; its cell still shows the other."
    if was_out:
        until = "until that asks again" if was_out == SILENT else "without a cell, until %llm reset"
        effect = f"It was left out, as {was_out}; now what comes after it sees it, {until}."
    say([f"{turn.id} counts again: {asked}", effect])


def _say_hits(hits: Sequence[Hit], text: str) -> None:
    if not hits:
        say([f"Nothing that is kept has {text!r} in it."])
        return
    rows = [
        (hit.session.name or hit.session.id, hit.turn.id, shortened(_in_line(hit.excerpt), 70),
         "" if hit.turn.is_current else "earlier version")
        for hit in hits
    ]  # fmt: skip
    say(table(("conversation", "turn", "words", ""), rows))


def _in_line(text: str) -> str:
    return " ".join(text.split())
