"""One question of a comparison, from its turn to what is kept of it: its text, its figures, or why there are none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llm_jupyter.cache.request import whole
from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.comparison.trial import FAILED, INTERRUPTED, Trial
from llm_jupyter.errors import LLMError
from llm_jupyter.events import AnswerReplayed, ModelLoaded, RequestFirstToken
from llm_jupyter.sessions import Answering
from llm_jupyter.types import LLMResponse, Timing

if TYPE_CHECKING:
    from llm_jupyter.comparison.comparison import Comparison


class Attempt:
    """Begins when the turn of a question has come; `began` is when the comparison did, in monotonic seconds."""

    def __init__(self, comparison: Comparison, lane: Lane, began: float) -> None:
        self._lane = lane
        self._prompt = comparison.prompts[lane.prompt]
        self._queued = lane.ask()
        self._left = time.monotonic()  # until the first token tells when the request did leave
        self._started = self._left - began
        self._loaded: set[tuple[str, str]] = set()

    def hear(self, events: Iterable[ModelLoaded | RequestFirstToken | AnswerReplayed], request: str) -> None:
        """What was said up to the first token of that request, and of other requests too."""
        for event in events:
            if isinstance(event, ModelLoaded):
                self._loaded.add((event.provider, event.model))
            elif event.request != request:
                continue
            elif isinstance(event, AnswerReplayed):
                self._lane.is_replayed = True
            elif not self._lane.is_replayed:  # what comes out of a file is no measure of a model
                self._lane.first_token = event.seconds
                self._left = time.monotonic() - event.seconds

    def end(self, answering: Answering | None) -> None:
        """The answer is over, by itself or because somebody stopped it, or it was never asked for."""
        response = answering.response if answering is not None else None
        finish = str(response.finish_reason) if response is not None else INTERRUPTED
        told: dict[str, Any] = {"finish": finish}
        if answering is not None and answering.answered_by is not None:
            who = answering.answered_by.full_name
            told["was_loaded"] = answering.answered_by[:2] in self._loaded and not self._lane.is_replayed
            if answering.choice is None or _is_same(who, self._lane.model):
                self._lane.model = who
            else:
                told["answered_by"] = who
        if response is not None:
            told |= self._figures(response)
        self._lane.end(self._trial(**told), LaneState.STOPPED if finish == INTERRUPTED else LaneState.DONE)

    def fail(self, error: LLMError) -> None:
        """The question ended in an error, perhaps before its turn; what had come of the answer stays."""
        self._lane.failure = error
        trial = self._trial(
            finish=FAILED, error=error.lines()[0], answer=whole(str(self._lane.text_pieces)),
            thinking=whole(str(self._lane.thinking_pieces)), first_token=self._lane.first_token,
            total=None if self._queued is None else time.monotonic() - self._left,
        )  # fmt: skip
        self._lane.end(trial, LaneState.FAILED)

    def _figures(self, response: LLMResponse) -> dict[str, Any]:
        """The answer and what was measured: now, or when it was recorded."""
        measured = Timing(
            first_token=self._lane.first_token, total=time.monotonic() - self._left,
            tokens_per_second=response.timing.tokens_per_second,
        )  # fmt: skip
        timing = response.timing if response.from_cache else measured
        return {
            "answer": whole(response.text), "thinking": whole(response.thinking), "first_token": timing.first_token,
            "total": timing.total, "tokens_per_second": timing.tokens_per_second,
            "prompt_tokens": response.usage.prompt_tokens, "tokens": response.usage.completion_tokens,
            "from_cache": response.from_cache, "queued": None if response.from_cache else self._queued,
        }  # fmt: skip

    def _trial(self, **told: Any) -> Trial:
        pieces = 0 if self._lane.is_replayed else self._lane.tokens  # what comes out of a file comes in other pieces
        known = {"queued": self._queued, "pieces": pieces, **told}
        return Trial(
            prompt=self._prompt, prompt_index=self._lane.prompt, contender=self._lane.contender, model=self._lane.model,
            repeat=self._lane.repeat, started=self._started, **known,
        )  # fmt: skip


def _is_same(who: str, asked: str) -> bool:
    """Whether that is who was asked, by the full name or as the best of a provider."""
    return who.removesuffix(":latest") == asked.removesuffix(":latest") or who.partition("/")[0] == asked
