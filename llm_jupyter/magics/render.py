"""An answer in a cell, as it grows and when it is done.

In a notebook an answer has two outputs. The first is the answer; the second is its open end while it is long, and the
footer in the end. The answer is sent again only when it has grown by a fifth, the open end as often as a budget of bytes
allows: what goes to the page stays proportional to text and time, and nothing of the cell ever has to be cleared, so that
whatever else the cell shows stays as it is and where it is. (Chunks that are merged at the end would need
`clear_output` and a replay of everything else the cell had shown; output hooks live in one thread each, so the prints of
other threads would be lost.)

In a terminal the text is written as it comes.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

from llm_jupyter.magics.markdown import MOST, Parts, harmless, laid_out
from llm_jupyter.magics.output import ReplacedOutput
from llm_jupyter.types import LLMResponse
from llm_jupyter.wording import visible

UPDATE_INTERVAL = 1 / 13
"""Seconds for each message while an answer grows: with the two that end it, no second has more than fifteen."""

FIRST_NOTICE = 0.3
"""Seconds of silence after which a cell says what it is waiting for."""

MESSAGE_OVERHEAD = 640
"""Bytes of a message beside its text, measured."""

BUDGET_BURST = 48 * 1024
BUDGET_RATE = 16 * 1024
"""Bytes at once, and bytes a second, for showing the open end of an answer."""


class AnswerView(Protocol):
    """Where an answer is shown. The caller reports in regular beats."""

    def beat(self, text: str, thinking: str, status: str) -> None:
        """The answer so far; `status` says what is going on, or how fast it comes."""

    def finish(self, response: LLMResponse, marks: Mapping[str, Any], notes: Sequence[str]) -> None:
        """The answer as it stays; `marks` go into the notebook's file beside it."""

    def fail(self, text: str, thinking: str, reason: str) -> None:
        """The answer broke off; what had come stays."""


class Budget:
    """A bucket of bytes that fills with time. It may be overdrawn once, and then must fill up again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._level = float(BUDGET_BURST)
        self._filled = clock()

    def allows(self) -> bool:
        """Whether anything may be sent now."""
        now = self._clock()
        self._level = min(BUDGET_BURST, self._level + (now - self._filled) * BUDGET_RATE)
        self._filled = now
        return self._level > 0

    def spend(self, size: int) -> None:
        """Take what was sent."""
        self._level -= size + MESSAGE_OVERHEAD


class NotebookView:
    """An answer in a notebook cell.

    `publish` is IPython's `display_pub.publish`. With `live` false everything is displayed once, at the end.
    """

    def __init__(
        self, publish: Callable[..., None], *, label: Callable[[], str], live: bool = True, footer: bool = True,
        full_metadata: bool = False, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._outputs = ReplacedOutput(publish), ReplacedOutput(publish)
        self._label = label
        self._live = live
        self._footer = footer
        self._full_metadata = full_metadata
        self._clock = clock
        self._parts = Parts()
        self._budget = Budget(clock)
        self._began = self._next = clock()
        self._growing = False
        self._last_status = 0.0
        self._thought_for: float | None = None
        self._thinking = ("", "")

    def beat(self, text: str, thinking: str, status: str) -> None:
        now = self._clock()
        if not self._live:
            return
        if not text:
            self._wait(thinking, status, now)
            return
        if self._thought_for is None and thinking:
            self._thought_for = now - self._began
        first, self._growing = not self._growing, True
        if not first and (now < self._next - UPDATE_INTERVAL * 0.1 or not self._budget.allows()):
            return
        self._grow(text, self._folded(thinking), status, now)

    def finish(self, response: LLMResponse, marks: Mapping[str, Any], notes: Sequence[str]) -> None:
        if self._thought_for is None and response.thinking:
            self._thought_for = self._clock() - self._began
        self._close(response.text, response.thinking, self._metadata(response, marks), notes)

    def fail(self, text: str, thinking: str, reason: str) -> None:
        if text or thinking:
            self._close(text, thinking, {}, [reason])
        elif self._outputs[0].is_shown:
            self._show(0, _small([f"{self._label()} · {reason}"]))

    def _wait(self, thinking: str, status: str, now: float) -> None:
        """Say what is going on, at most twice a second."""
        if now - self._began < FIRST_NOTICE or now - self._last_status < 0.5:
            return
        self._last_status = now
        if thinking:
            tail = harmless(" ".join(thinking[-200:].split()))
            self._show(0, {"text/markdown": f"*Thinking… {now - self._began:.0f} s*\n\n> {tail}"})
        else:
            self._show(0, {"text/markdown": f"*{harmless(status)}*"})

    def _grow(self, text: str, folded: str, status: str, now: float) -> None:
        parts, place = self._parts, len(folded)
        whole = (" " * (place - 1) + "\n" if folded else "") + text  # what is folded takes its bytes, and is no text
        moved = parts.settle(whole) if self._footer else False
        border = max(parts.settled, place)
        if moved or not parts.settled:
            shown = whole[place:border] + parts.closing if parts.settled else text
            self._show(0, {"text/markdown": folded + laid_out(shown)})
            if not parts.settled:
                self._budget.spend(place + len(shown))
        if not self._footer:
            return
        if parts.settled:
            tail = laid_out(parts.opening + whole[border:])
            content = f"{tail}\n\n*{harmless(f'{self._label()} · {status}')}*"
            self._show(1, {"text/markdown": content})
            self._budget.spend(len(content))
        elif now - self._last_status >= 1:
            self._last_status = now
            self._show(1, _small([f"{self._label()} · {status}"]))

    def _close(self, text: str, thinking: str, metadata: dict[str, Any], notes: Sequence[str]) -> None:
        shown = self._folded(thinking) + (laid_out(text) or "*The answer is empty.*")
        self._show(0, {"text/markdown": shown, "text/plain": text or "(The answer is empty.)"}, metadata)
        lines = [*([self._label()] if self._footer else []), *notes]
        if self._footer and notes and len(notes[0]) < 40:
            lines = [f"{self._label()} · {notes[0]}", *notes[1:]]
        if len(text) > MOST:
            lines.append(
                f"{len(text) - MOST:,} more characters are not shown here; the answer in a variable (-o NAME) has all."
            )
        if lines:
            self._show(1, _small(lines))

    def _folded(self, thinking: str) -> str:
        if not thinking.strip():
            return ""
        if thinking != self._thinking[0]:
            self._thinking = (thinking, laid_out(thinking.strip()))
        seconds = "" if self._thought_for is None or not self._live else f" for {self._thought_for:.0f} s"
        return f"<details><summary>Thought{seconds}</summary>\n\n{self._thinking[1]}\n\n</details>\n\n"

    def _metadata(self, response: LLMResponse, marks: Mapping[str, Any]) -> dict[str, Any]:
        stable: dict[str, Any] = {
            "model": response.model, "provider": response.provider,
            "finish_reason": str(response.finish_reason), **marks,
        }  # fmt: skip
        if not response.is_local:
            stable["is_local"] = False
        if response.tried:
            stable["tried"] = list(response.tried)
        if self._full_metadata:
            for name, value in (("usage", response.usage), ("timing", response.timing)):
                stable[name] = {f: v for f in value.__struct_fields__ if (v := getattr(value, f)) is not None}
        return {"llm_jupyter": stable}

    def _show(self, which: int, data: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
        if self._outputs[which].show(data, metadata):
            self._next = max(self._next, self._clock()) + UPDATE_INTERVAL


def _small(lines: Sequence[str]) -> dict[str, str]:
    """A footer: quiet in a page, plain text elsewhere."""
    plain = [visible(line) for line in lines]
    marked = "<br>".join(html.escape(line) for line in plain)
    return {"text/html": f'<small style="color: gray">{marked}</small>', "text/plain": "\n".join(plain)}


class ReplacedLine:
    """One line in a notebook that is shown in place of the one before."""

    def __init__(self, publish: Callable[..., None]) -> None:
        self._output = ReplacedOutput(publish)

    def show(self, line: str) -> None:
        """Show a line, if it is another than the one that stands."""
        self._output.show({"text/plain": line})


class OverwrittenLine:
    """One line in a terminal that is written over the one before."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._width = 0

    def show(self, line: str) -> None:
        """Show a line."""
        self._out.write(f"\r{line:<{self._width}}")
        self._out.flush()
        self._width = len(line)


class TerminalView:
    """An answer in a terminal: its text as it comes, then one line about it."""

    def __init__(
        self, *, label: Callable[[], str], live: bool = True, footer: bool = True, out: IO[str] | None = None
    ) -> None:
        self._label = label
        self._live = live
        self._footer = footer
        self._out = out or sys.stdout
        self._written = 0
        self._status = ""

    def beat(self, text: str, thinking: str, status: str) -> None:
        if not self._live:
            return
        if len(text) > self._written:
            self._clear_status()
            self._out.write(printable(text[self._written :]))
            self._written = len(text)
        elif not text and self._out.isatty():
            self._clear_status()
            self._status = visible(("Thinking… " if thinking else "") + status)
            self._out.write(self._status)
        self._out.flush()

    def finish(self, response: LLMResponse, marks: Mapping[str, Any], notes: Sequence[str]) -> None:
        self.beat_rest(response.text)
        for line in [*([self._label()] if self._footer else []), *notes]:
            self._out.write(f"[{visible(line)}]\n")
        self._out.flush()

    def fail(self, text: str, thinking: str, reason: str) -> None:
        if text:
            self.beat_rest(text)
        self._clear_status()
        self._out.flush()

    def beat_rest(self, text: str) -> None:
        """Write what has not been written yet, and end the line."""
        self._clear_status()
        self._out.write(printable(text[self._written :]) + "\n")
        self._written = len(text)

    def _clear_status(self) -> None:
        if self._status:
            self._out.write("\r" + " " * len(self._status) + "\r")
            self._status = ""


class SilentView:
    """An answer that is only kept, not shown."""

    def beat(self, text: str, thinking: str, status: str) -> None:
        pass

    def finish(self, response: LLMResponse, marks: Mapping[str, Any], notes: Sequence[str]) -> None:
        pass

    def fail(self, text: str, thinking: str, reason: str) -> None:
        pass


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters other than tab and line feed are left out."""
    return "".join(c for c in text if (c >= " " and c != "\x7f" and not "\x80" <= c < "\xa0") or c in "\n\t")
