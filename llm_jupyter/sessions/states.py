"""What a conversation is doing."""

from __future__ import annotations

from enum import StrEnum


class SessionState(StrEnum):
    """`waiting` is before the first token, `streaming` after it; the others say how the last question ended."""

    IDLE = "idle"
    WAITING = "waiting"
    STREAMING = "streaming"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
