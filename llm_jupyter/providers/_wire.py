r"""Bytes to messages: the two streaming formats that model servers speak.

Both decoders take blocks of any slicing and give back every message that is complete: the same messages whatever the
slicing. A line ends at `\n` or `\r\n` bytes and nowhere else (`str.splitlines` would also break at U+2028 or U+0085,
which models do write). Blocks are split at once, not line by line: that is where the speed is.
"""

from __future__ import annotations

from llm_jupyter.errors import ResponseLimitError

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes in one line (a whole event) beyond which no sane answer goes."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineDecoder:
    """Complete lines out of blocks; what follows the last line end waits for the next block."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._open: list[bytes] = []
        self._open_size = 0
        self._at_start = True

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that this block completes, without their ends. Raises `ResponseLimitError`."""
        lines = block.split(b"\n")
        last = lines.pop()
        if self._open and lines:
            lines[0] = b"".join((*self._open, lines[0]))
            self._open.clear()
            self._open_size = 0
        if last:
            self._open.append(last)
            self._open_size += len(last)
        if self._open_size > self._limit or (lines and len(lines[0]) > self._limit):
            raise ResponseLimitError(f"the server sent a line of more than {self._limit // 2**20} MiB")
        if b"\r" in block or (lines and lines[0].endswith(b"\r")):
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if the stream ended without a line end."""
        if not self._open:
            return []
        return self.feed(b"\n")


class SSEDecoder:
    """The `data` of server-sent events (WHATWG HTML, 9.2.6), as each event's bytes.

    Comments, ids, retry times, event names and events with empty data are passed over: no provider here needs them.
    Several `data` lines of one event are joined with a line feed. At the end of the stream an event without its blank
    line counts as complete, since servers leave it out; one that was cut is recognized by the reader of the stream.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._lines = LineDecoder(limit)
        self._limit = limit
        self._data: list[bytes] = []
        self._data_size = 0

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that this block completes."""
        return self._events(self._lines.feed(block))

    def finish(self) -> list[bytes]:
        """The data of an event that the end of the stream completes."""
        return self._events([*self._lines.finish(), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        data = self._data
        for line in lines:
            if line:
                if line.startswith(b"data:"):
                    data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                    self._data_size += len(line)
                    if self._data_size > self._limit:
                        raise ResponseLimitError(f"the server sent an event of more than {self._limit // 2**20} MiB")
                elif line == b"data":
                    data.append(b"")
            elif data:
                event = data[0] if len(data) == 1 else b"\n".join(data)
                if event:
                    events.append(event)
                data.clear()
                self._data_size = 0
        return events


class NDJSONDecoder:
    """One JSON text on each line; empty lines are passed over."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._lines = LineDecoder(limit)

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that this block completes."""
        return [line for line in self._lines.feed(block) if line]

    def finish(self) -> list[bytes]:
        """The last line, if the stream ended without a line end."""
        return [line for line in self._lines.finish() if line]
