"""What a cell printed and showed, or how it failed, as IPython keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class CellResults:
    """The outputs of cells by their numbers.

    IPython books what a cell runs inside of itself under the number of the cell that comes next, even where that was to be
    hidden, as `%%capture` does. So whatever stands under a cell's number when the cell begins is none of its own.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._earlier: dict[int, int] = {}

    def begin(self, number: int) -> None:
        """A cell with a number of its own begins."""
        self._earlier[number] = sum(1 for _ in self._booked(number))

    def text(self, number: int) -> str:
        """What a person saw of it as text; what was written to stderr is mostly noise."""
        own = list(self._booked(number))[self._earlier.get(number, 0) :]
        shown = ["".join(piece for _, piece in group) for _, group in groupby(own, lambda booked: booked[0])]
        if not any(shown) and number in (results := self._shell.user_ns.get("Out", {})):
            shown = [_repr(results[number])]  # IPython 8 keeps nothing else
        if (error := getattr(self._shell.history_manager, "exceptions", {}).get(number)) is not None:
            shown.append(f"It raised {error.get('ename')}: {error.get('evalue')}")
        return "\n".join(text.strip("\r\n") for text in shown if text.strip())

    def _booked(self, number: int) -> Iterator[tuple[int, str]]:
        """Pieces, with which output each belongs to. New ones only ever come at the end."""
        outputs: Sequence[Any] = getattr(self._shell.history_manager, "outputs", {}).get(number, ())
        for index, output in enumerate(outputs):
            if output.output_type == "out_stream":
                yield from ((index, piece) for piece in output.bundle.get("stream", ()))
            elif output.output_type != "err_stream":
                yield index, str(output.bundle.get("text/plain", ""))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # whatever the value's own code raises
        return f"(its repr raised {type(error).__name__})"
