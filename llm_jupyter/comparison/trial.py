"""One answer of a comparison."""

from __future__ import annotations

import msgspec

INTERRUPTED, FAILED = "interrupted", "error"
"""How an answer ends that no model ended, beside the reasons that models give."""


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one contender answered to one prompt, in one of the repeated runs.

    Times are in seconds. `first_token` and `total` count from the moment at which the request left, `queued` is how long it
    had waited for its turn here before, which is in neither of them; `started` is when that turn came, from the beginning
    of the comparison. `was_loaded` says that the model was read into memory for it, as far as that is known: its first token
    comes later than that of a warm one. An answer that was kept (`from_cache`) has the times that were measured when it was
    recorded. What is not known is `None`. `tokens` are the server's count, which comes at the end of an answer, if at all;
    `pieces` is how many pieces of it came, with most servers one for each token. `model` is who was asked, `answered_by` who answered where that is another; `error`
    is one line.
    """

    prompt: str
    prompt_index: int
    contender: str
    model: str
    answered_by: str = ""
    repeat: int = 0
    answer: str = ""
    thinking: str = ""
    first_token: float | None = None
    queued: float | None = None
    total: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    pieces: int = 0
    finish: str = ""
    error: str = ""
    from_cache: bool = False
    was_loaded: bool = False
    started: float = 0.0
    vote: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether a model ended the answer itself."""
        return self.finish not in (INTERRUPTED, FAILED)

    @property
    def pieces_per_second(self) -> float | None:
        """How fast the pieces came after the first."""
        return pace(self.pieces, self.first_token, self.total)


def pace(pieces: int, first: float | None, until: float | None) -> float | None:
    """Pieces a second after the first one, which came after `first` seconds; `None` where there is nothing to measure."""
    if first is None or until is None or until <= first or pieces < 2:
        return None
    return (pieces - 1) / (until - first)
