"""A comparison as a page: the answers side by side, then the table.

It stands in the notebook's file, so it needs no kernel, no script and no style sheet, and takes its colours from the page.
What a model wrote is text here, and never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from llm_jupyter.comparison.lane import Lane
from llm_jupyter.comparison.plain import rows, said_of, under_way, why
from llm_jupyter.tables import TEXT_ALONE, escaped, html_table, one_line

if TYPE_CHECKING:
    from llm_jupyter.comparison.comparison import Comparison

SHOWN = 20_000
"""Characters of an answer that are shown once it is over."""

MOST_ANSWERS = 60
MOST_CHARACTERS = 300_000
"""How much is shown of all answers together: all of it is saved with the notebook, and somebody scrolls past it."""

GROWING = 1_500
"""Characters of the end of an answer that are shown while it grows: what is sent over and over has to stay small."""

GRID = (
    'style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(16rem,100%),1fr));gap:0.75em;'
    'align-items:start;text-align:left;margin-bottom:0.75em"'
)
COLUMN = (
    'style="min-width:0;padding:0.5em 0.75em;border:1px solid var(--jp-border-color2,gray);border-radius:4px;'
    'text-align:left"'
)
TEXT = 'style="white-space:pre-wrap;overflow-wrap:anywhere;max-height:30em;overflow:auto;margin:0.4em 0" tabindex="0"'
ERROR = 'style="color:var(--jp-error-color1,#c62828);overflow-wrap:anywhere;margin:0.4em 0"'
QUIET = 'style="color:var(--jp-ui-font-color2,gray);overflow-wrap:anywhere"'


def page(comparison: Comparison, notes: Sequence[str] = ()) -> str:
    """All that there is, as HTML; `notes` stand below."""
    shown, grids = _shown(comparison), []
    for prompt, rounds in groupby(shown, lambda lanes: lanes[0].prompt):
        if len(comparison.messages) > 1:
            grids.append(f"<p><strong>{escaped(one_line(comparison.prompts[prompt], 200))}</strong></p>")
        grids.append(_grid([_column(lanes) for lanes in zip(*rounds, strict=True)]))
    count, total = sum(map(len, shown)), len(comparison.progress)
    cut = [f"{count:,} of {total:,} answers are shown; .to_dataframe() has all."] if count < total else []
    return f"<div>{''.join(grids)}{_quiet(cut)}{html_table(*rows(comparison))}{_quiet(notes)}</div>"


def _shown(comparison: Comparison) -> list[Sequence[Lane]]:
    """The answers that are shown, round by round, of each contender as many: the first ones, as far as there is room."""
    lanes, width = comparison.progress, len(comparison.contenders)
    rounds = [lanes[start : start + width] for start in range(0, len(lanes), width)]
    shown: list[Sequence[Lane]] = []
    answers = characters = 0
    for one in sorted(rounds, key=lambda lanes: (lanes[0].prompt, lanes[0].repeat)):
        answers += width
        characters += sum(min(SHOWN, len(text)) for lane in one for text in (lane.text, lane.thinking))
        if shown and (answers > MOST_ANSWERS or characters > MOST_CHARACTERS):
            break
        shown.append(one)
    return shown


def _quiet(notes: Sequence[str]) -> str:
    return "".join(f"<div><small {QUIET}>{escaped(note)}</small></div>" for note in notes)


def growing(comparison: Comparison) -> str:
    """What is under way, as HTML: of each contender the question that was asked last, and the end of its answer."""
    columns = []
    for one in comparison.contenders:
        lanes = comparison.lanes_of(one.label)
        begun = [lane for lane in lanes if lane.tokens or lane.is_over] or lanes[:1]
        text = begun[-1].text or begun[-1].thinking
        cut = f"… {text[-GROWING:]}" if len(text) > GROWING else text
        columns.append(_framed(one.label, [_section(begun[-1], len(lanes), cut)]))
    return f"<div>{_grid(columns)}{_quiet([under_way(comparison)])}</div>"


def _grid(columns: Sequence[str]) -> str:
    return f"<div {TEXT_ALONE} {GRID}>{''.join(columns)}</div>"


def _column(lanes: Sequence[Lane]) -> str:
    sections = []
    for lane in lanes:
        text, note = lane.text, ""
        if len(text) > SHOWN:
            note = f"{SHOWN:,} of {len(text):,} characters are shown; .answer has all."
            text = text[:SHOWN] + "…"
        sections.append(_section(lane, len(lanes), text, _thought(lane), note))
    return _framed(lanes[0].contender, sections)


def _framed(label: str, sections: Sequence[str]) -> str:
    name = escaped(label)
    return f'<div role="group" aria-label="{name}" {COLUMN}><strong>{name}</strong>{"".join(sections)}</div>'


def _section(lane: Lane, runs: int, text: str, thought: str = "", note: str = "") -> str:
    run = f"<div><small {QUIET}>run {lane.repeat + 1}</small></div>" if runs > 1 else ""
    answer = f"<div {TEXT}>{escaped(text)}</div>" if text else ""
    error = f"<div {ERROR}>✕ failed: {'<br>'.join(map(escaped, why(lane)))}</div>" if lane.error else ""
    model = lane.model if lane.model != lane.contender else ""
    facts = " · ".join(fact for fact in (said_of(lane), model) if fact)
    lines = [escaped(line) for line in (one_line(facts, 400), note) if line]
    said = f"<small {QUIET}>{'<br>'.join(lines)}</small>" if lines else ""
    return f'<div style="margin-top:0.4em">{run}{thought}{answer}{error}{said}</div>'


def _thought(lane: Lane) -> str:
    if not (thinking := lane.thinking.strip()):
        return ""
    cut = thinking if len(thinking) <= SHOWN else thinking[:SHOWN] + "…"
    return f"<details><summary>Thought</summary><div {TEXT}>{escaped(cut)}</div></details>"
