"""An output that replaces itself, whenever the person interrupts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from llm_jupyter.magics.output import ReplacedOutput, interrupts_later


class Page:
    """What was published: a first time or again. The person interrupts just after the message of that number."""

    def __init__(self, interrupted_after: int | None = None) -> None:
        self.published: list[tuple[str, bool]] = []
        self._interrupted_after = interrupted_after

    def publish(self, *, data: dict[str, str], update: bool, **_: Any) -> None:
        self.published.append((data["text/plain"], update))
        if len(self.published) - 1 == self._interrupted_after:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a kernel: whoever runs the tests in the background has interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", [0, 1])
def test_an_interrupt_just_as_it_was_sent_leaves_one_output(moment: int) -> None:
    page = Page(interrupted_after=moment)
    output = ReplacedOutput(page.publish)
    with pytest.raises(KeyboardInterrupt):
        [output.show({"text/plain": text}) for text in ("first", "second")]
    output.show({"text/plain": "last"})
    assert [update for _, update in page.published] == [False] + [True] * (moment + 1)
    assert page.published[-1] == ("last", True)


def test_the_same_again_sends_nothing() -> None:
    page = Page()
    output = ReplacedOutput(page.publish)
    shown = [output.show({"text/plain": "a"}, marks) for marks in (None, {}, {"x": 1})]
    assert (shown, len(page.published), output.is_shown) == ([True, False, True], 2, True)


def test_afterwards_interrupts_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="of the block"), interrupts_later():
        raise ValueError("of the block")
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_shows_without_touching_the_signals() -> None:
    page = Page()
    thread = threading.Thread(target=ReplacedOutput(page.publish).show, args=({"text/plain": "a"},))
    thread.start()
    thread.join()
    assert page.published == [("a", False)]
