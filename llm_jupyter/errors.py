"""Every error that llm_jupyter raises.

    LLMError
    ├── InvalidInputError (ValueError)            what was typed cannot be meant
    │   └── ConfigurationError                    the settings file, the environment or %config
    ├── ProviderError
    │   ├── ProviderNotFoundError (LookupError)
    │   ├── UnsupportedOperationError (NotImplementedError)
    │   ├── ForeignServerError (PermissionError)  another user's, and nobody named it
    │   └── AuthenticationError (PermissionError)
    ├── LLMConnectionError (ConnectionError)      nobody answers there
    │   ├── UnreachableError                      no connection could be made
    │   ├── HungUpError                           the connection broke before the answer began
    │   └── FirstTokenTimeoutError (TimeoutError)
    ├── ModelError
    │   ├── ModelNotFoundError (LookupError)
    │   ├── ModelLoadingError                     not ready yet, may become so
    │   └── ModelLoadError                        cannot be loaded
    ├── RequestError                              the server refused the request
    │   ├── ContextExceededError (ValueError)
    │   ├── RateLimitedError
    │   └── ServerError                           the server failed (5xx)
    ├── ResponseError                             the answer cannot be used
    │   ├── StreamTruncatedError
    │   ├── StreamStalledError (TimeoutError)
    │   ├── MalformedResponseError (ValueError)
    │   └── ResponseLimitError                    larger than a sane answer
    ├── ResourceError
    │   ├── InsufficientMemoryError (MemoryError)
    │   └── DiskFullError (OSError)
    ├── HostError                                 a model-server process
    ├── SessionError
    ├── StoreError                                what is kept on disk cannot be kept there
    ├── CacheError
    │   └── OfflineMissError (LookupError)        nothing was recorded for this question, and nobody is asked
    └── AnswerInterrupted                         the person stopped the answer

Each says what failed, where, and what to type next; in a notebook it shows as one to three lines.
"""

from __future__ import annotations

from collections.abc import Sequence


class LLMError(Exception):
    """The root of the tree.

    `what` is one sentence, `where` the provider with its URL (never a secret), `next_step` what to do or type.
    `partial_text` is what had arrived of an answer that broke off.
    """

    partial_text: str = ""
    in_one_line: bool = False
    """Whether the next step is short enough to stand behind what failed."""
    is_explained: bool = False
    """Whether the next step is about the very cause, so that nothing general is to stand in its place."""

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The message as one to three lines, each kept to 300 characters, without control characters."""
        first = f"{self.what} [{self.where}]" if self.where else self.what
        if self.in_one_line and self.next_step:
            step = " ".join(_written_lines(self.next_step))[:150]
            return [f"{_cut(' '.join(_written_lines(first)), 298 - len(step))}. {step}"]
        lines = [*_written_lines(first)[:2], *_written_lines(self.next_step)[:1]] or [type(self).__name__]
        return [_cut(line, 300) for line in lines]

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: what a cell shows in place of a stack trace."""
        first, *rest = self.lines()
        return [f"{type(self).__name__}: {first}", *rest]


class InvalidInputError(LLMError, ValueError):
    """What was typed cannot be meant as it stands."""


class ConfigurationError(InvalidInputError):
    """A setting is wrong; the message names the file or variable it came from."""


class ProviderError(LLMError):
    """A provider cannot do what was asked."""


class ProviderNotFoundError(ProviderError, LookupError):
    """No provider has that name."""


class UnsupportedOperationError(ProviderError, NotImplementedError):
    """This kind of server has no such operation; nothing was sent."""


class ForeignServerError(ProviderError, PermissionError):
    """A server of another user of this machine, which is asked only when it is named."""


class AuthenticationError(ProviderError, PermissionError):
    """The server refused the key (HTTP 401 or 403)."""


class LLMConnectionError(LLMError, ConnectionError):
    """The server cannot be reached, or hung up before it answered."""


class UnreachableError(LLMConnectionError):
    """No connection could be made: refused, no route, no such host, no answer to the first packet."""


class HungUpError(LLMConnectionError):
    """The server took the connection and closed it before it answered."""


class FirstTokenTimeoutError(LLMConnectionError, TimeoutError):
    """The server took the request and sent nothing within the limit."""


class ModelError(LLMError):
    """Something about one model."""


class ModelNotFoundError(ModelError, LookupError):
    """The server does not have that model; `nearest` are its closest names."""

    def __init__(self, what: str, *, where: str = "", next_step: str = "", nearest: Sequence[str] = ()) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.nearest = tuple(nearest)


class ModelLoadingError(ModelError):
    """The server is still loading the model; ask again in a moment."""


class ModelLoadError(ModelError):
    """The model cannot be loaded."""


class RequestError(LLMError):
    """The server refused the request; `status` is the HTTP status where there was one."""

    def __init__(self, what: str, *, where: str = "", next_step: str = "", status: int | None = None) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.status = status


class ContextExceededError(RequestError, ValueError):
    """The prompt does not fit; both counts are in tokens, `None` where the server does not tell."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        next_step: str = "",
        status: int | None = None,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
    ) -> None:
        super().__init__(what, where=where, next_step=next_step, status=status)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class RateLimitedError(RequestError):
    """Too many requests (HTTP 429); `retry_after` is in seconds where the server told."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        next_step: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, next_step=next_step, status=status)
        self.retry_after = retry_after


class ServerError(RequestError):
    """The server failed (HTTP 5xx, or an error object in mid-stream)."""


class ResponseError(LLMError):
    """The answer cannot be used."""


class StreamTruncatedError(ResponseError):
    """The stream ended without saying that the answer was complete."""


class StreamStalledError(ResponseError, TimeoutError):
    """Nothing arrived for longer than the idle limit."""


class MalformedResponseError(ResponseError, ValueError):
    """What arrived is not what the protocol says; the first 200 characters are in the message."""


class ResponseLimitError(ResponseError):
    """A line or a body beyond every sane size."""


class ResourceError(LLMError):
    """The machine lacks something."""


class InsufficientMemoryError(ResourceError, MemoryError):
    """The model does not fit; both figures are in bytes."""

    def __init__(self, what: str, *, needed: int, free: int, where: str = "", next_step: str = "") -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.needed = needed
        self.free = free


class DiskFullError(ResourceError, OSError):
    """There is no room for a download."""


class HostError(LLMError):
    """A model-server process failed to start or died; `log_tail` holds its last lines."""

    def __init__(self, what: str, *, where: str = "", next_step: str = "", log_tail: Sequence[str] = ()) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.log_tail = tuple(log_tail)


class SessionError(LLMError):
    """A conversation cannot do what was asked."""


class StoreError(LLMError):
    """The store of conversations cannot be read or written."""


class CacheError(LLMError):
    """The cache of answers, or a recording, cannot do what was asked."""


class OfflineMissError(CacheError, LookupError):
    """Offline, and nothing was recorded for this question; nobody was asked."""


class AnswerInterrupted(LLMError):
    """The person stopped the answer; what had arrived is kept and marked."""


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _written_lines(text: str) -> list[str]:
    """The lines that have something on them. Servers' own words end up here, so nothing may steer a terminal."""
    lines = ("".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines())
    return [line for line in lines if line]
