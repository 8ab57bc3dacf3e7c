"""The commands of `%llm` about models: see, choose, fetch, load, free, delete."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from llm_jupyter.choice import Choice, fits
from llm_jupyter.download import Download
from llm_jupyter.errors import AnswerInterrupted, InvalidInputError, LLMError
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, size, table, window
from llm_jupyter.overview import trouble
from llm_jupyter.selection import FORBIDDEN
from llm_jupyter.types import LLMModelInfo, PullProgress
from llm_jupyter.wording import abilities, answers_now, waited

INTERVAL = 0.25
"""Seconds between two looks at the progress of something long."""


def models(kernel: KernelServices, line: str) -> None:
    """`%llm models [--remote]`."""
    factory = kernel.factory
    if line not in ("", "--remote"):
        raise InvalidInputError(
            f"%llm models takes no {line[:40]!r}", next_step="%llm models --remote asks the remote providers too."
        )
    rows: list[tuple[str, ...]] = []
    down: list[str] = []
    for shelf in factory.portal.run(factory.providers.catalogue(remote=bool(line))):
        if told := trouble(factory, shelf):
            down.append(told)
        rows += [_row(model) for model in shelf.models]
    lines = table(("model", "where", "size", "fits", "loaded", "window", "quant", "can also"), rows, right="size")
    remote = [r.name for r in factory.registry.recipes() if not r.is_local and r.enabled]
    if remote and factory.providers.local_only:
        down.append(f"Not asked, since they are {FORBIDDEN}: {', '.join(remote)}.")
    elif remote and not line:
        down.append(f"Not asked, since remote: {', '.join(remote)}. %llm models --remote asks them.")
    say([*lines, "", *down] if down else lines)


def _row(model: LLMModelInfo) -> tuple[str, ...]:
    if model.is_local:
        here = ("local", size(model.size), _yes(fits(model)), _yes(model.loaded))
    else:
        here = ("remote", "", "", "")
    name = model.full_name.removesuffix(":latest")
    return (
        name,
        *here,
        window(model, short=True),
        model.quantization or "",
        ", ".join(abilities(model)),
    )


def _yes(so: bool | None) -> str:
    return "" if so is None else "yes" if so else "no"


def info(kernel: KernelServices, line: str) -> None:
    """`%llm info [MODEL]`."""
    choice = _named_or_current(kernel, line, "info")
    model = kernel.factory.portal.run(choice.provider.get_model_info(choice.model))
    fit = fits(model) if model.is_local else None
    facts = [
        ("model", model.full_name),
        ("name", model.name),
        ("where", "local: prompts stay on this machine" if model.is_local else "remote: prompts leave this machine"),
        ("parameters", f"{model.parameters / 1e6:,.0f} million" if model.parameters else ""),
        ("window", window(model)),
        ("quantization", model.quantization or ""),
        ("size", size(model.size) + ("" if fit is not False else ", more than the free memory")),
        ("license", model.license or ""),
        ("can", ", ".join(sorted(model.capabilities))),
        ("loaded", "" if model.loaded is None else "yes" if model.loaded else "no"),
    ]
    say([f"{label:<13} {value}" for label, value in facts if value])


def use(kernel: KernelServices, line: str) -> None:
    """`%llm use MODEL [--default]`."""
    name, keep = _with_switch(line, "use", "--default")
    if not name:
        raise InvalidInputError(
            "%llm use: which model?", next_step="%llm models lists them; then %llm use PROVIDER/MODEL."
        )
    factory = kernel.factory
    if factory.cache.is_replaying and not keep:
        kernel.session().wish(name)
        known = factory.portal.run(factory.cache.recorded_by(name))
        say([answers_now(known.full_name, known.is_local) if known else f"No answer by {name} is in a recording here."])
        return
    if keep and factory.settings.is_locked("default_model"):
        raise InvalidInputError(
            f"default_model cannot be changed: {factory.settings.origin('default_model')}",
            next_step=f"%llm use {name} takes it for this session.",
        )
    choice = factory.portal.run(kernel.session().use(name))
    said = [answers_now(choice.full_name, choice.is_local)]
    if keep:
        from llm_jupyter.settings import write_default_model

        write_default_model(factory.settings.file, choice.full_name)
        factory.providers.default_model = choice.full_name
        above = factory.settings.provenance.overruling(("default_model",))
        but = f", but {above.origin(('default_model',))} overrules that after a restart" if above else ""
        said.append(f"It is default_model in {factory.settings.file} too{but}.")
    say(said)


def load(kernel: KernelServices, line: str) -> None:
    """`%llm load MODEL`."""
    choice = _named_or_current(kernel, line, "load")
    work = choice.provider.load_model(choice.model)
    _watched(kernel, work, f"Loading {choice.full_name}", f"{choice.full_name} is loaded")


def unload(kernel: KernelServices, line: str) -> None:
    """`%llm unload [MODEL]`."""
    choice = _named_or_current(kernel, line, "unload")
    kernel.factory.portal.run(choice.provider.unload_model(choice.model))
    say([f"{choice.full_name} is unloaded; its memory is free. The next question loads it again."])


def remove(kernel: KernelServices, line: str) -> None:
    """`%llm rm MODEL [--yes]`."""
    name, sure = _with_switch(line, "rm", "--yes")
    if not name:
        raise InvalidInputError("%llm rm: which model?", next_step="%llm models lists them.")
    factory = kernel.factory
    choice = factory.portal.run(factory.providers.resolve(name, named=True))
    if not sure and not kernel.asks(f"Delete {choice.full_name} from disk? [y/N] "):
        say([f"{choice.full_name} was kept."])
        return
    factory.portal.run(choice.provider.delete_model(choice.model))
    factory.providers.forget(choice)
    say([f"{choice.full_name} is deleted."])


def pull(kernel: KernelServices, line: str) -> None:
    """`%llm pull MODEL`. Raises `AnswerInterrupted` when the person stops it; the next call goes on from there."""
    name = _one_word(line, "pull")
    if not name:
        raise InvalidInputError(
            "%llm pull: which model?",
            next_step="%llm pull smollm2-135m, a name of Ollama's library, or https://HOST/NAME.gguf#sha256=DIGITS.",
        )
    factory = kernel.factory
    provider, model = factory.portal.run(factory.providers.fetcher(name))
    download, show = Download(model), kernel.progress_line()
    try:
        with closing(
            factory.portal.batches(lambda: _Reports(provider.pull_model(model)), interval=INTERVAL)
        ) as batches:
            for batch in batches:
                for progress in batch:
                    download.add(progress)
                show(download.line())
    except KeyboardInterrupt:
        show(download.ending("stopped"))
        raise AnswerInterrupted(f"stopped; %llm pull {name} goes on from here") from None
    except LLMError:
        if download.began:
            show(download.ending("failed"))
        raise
    show(f"{provider.name}/{download.name} is here{download.summary()}.")


def _watched(kernel: KernelServices, work: Coroutine[Any, Any, None], what: str, done: str) -> None:
    """Run something long, saying in one line how long it has taken."""
    started, show = time.monotonic(), kernel.progress_line()
    with closing(kernel.factory.portal.batches(lambda: _Reports(_once(work)), interval=INTERVAL)) as batches:
        for _ in batches:
            show(f"{what}… {time.monotonic() - started:.0f} s")
    show(f"{done}, after {waited(time.monotonic() - started)}.")


async def _once(work: Coroutine[Any, Any, None]) -> AsyncIterator[PullProgress]:
    await work
    yield PullProgress("done")


class _Reports:
    """An async iterator of reports as a batch stream."""

    def __init__(self, reports: AsyncIterator[PullProgress]) -> None:
        self._reports = reports

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._reports, "aclose", None)
        if close is not None:
            await close()

    async def read_batch(self) -> list[PullProgress]:
        async for report in self._reports:
            return [report]
        return []


def _named_or_current(kernel: KernelServices, line: str, command: str) -> Choice:
    factory = kernel.factory
    if name := _one_word(line, command):
        return factory.portal.run(factory.providers.resolve(name, named=True))
    choice, providers = factory.sessions.current.choice, factory.providers
    return factory.portal.run(providers.choose(announce=False) if choice is None else providers.seen(choice))


def _with_switch(line: str, command: str, switch: str) -> tuple[str, bool]:
    """The line without a switch, and whether the switch was there."""
    words = line.split()
    unknown = [word for word in words if word.startswith("-") and word != switch]
    if unknown:
        raise InvalidInputError(f"%llm {command} has no option {unknown[0]}", next_step=f"Did you mean {switch}?")
    return _unquoted(" ".join(word for word in words if word != switch)), switch in words


def _one_word(line: str, command: str) -> str:
    if len(line.split()) > 1 and not _unquoted(line).endswith(".gguf"):
        raise InvalidInputError(f"%llm {command} takes one model, not {line[:60]!r}")
    return _unquoted(line)


def _unquoted(name: str) -> str:
    """A name without the quotes that people put around a path."""
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name
