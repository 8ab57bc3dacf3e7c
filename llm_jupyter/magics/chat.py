"""`%chat`, `%%chat` and `%%llm`: ask a model, watch the answer come."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from llm_jupyter.cache import WHOLE
from llm_jupyter.choice import Choice
from llm_jupyter.errors import AnswerInterrupted, InvalidInputError, LLMError, SessionError
from llm_jupyter.magics.args import COMPLETION, OF_A_CONVERSATION, OPTIONS, late_option, options_alone, parse
from llm_jupyter.magics.dry_run import has_asked, preview
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.prompting import Prompted, prompted
from llm_jupyter.magics.render import UPDATE_INTERVAL, AnswerView
from llm_jupyter.magics.text import say
from llm_jupyter.portable import AGAIN, digest_of
from llm_jupyter.sessions import Answering, LLMSession
from llm_jupyter.sessions.answering import TOO_EARLY
from llm_jupyter.sessions.history import forked_from
from llm_jupyter.sessions.progress import Progress
from llm_jupyter.types import FinishReason, GenerationOptions, LLMResponse

READ_INTERVAL = 0.06
"""Seconds that the socket is left unread at a time once the answer comes: as often as a page is updated."""

KEPT = "stopped; what had arrived is kept"

ONCE = "once"
"""What stands for a conversation where the cell of a question without memory is asked for: what a conversation is told
once is not told to it.
"""

MEANT_ONCE = ("system", "no_history")
"""Options of a conversation that `%%llm` understands, or that say what it is anyway."""


def chat(kernel: KernelServices, line: str, cell: str | None) -> None:
    """`%chat` with its prompt in the line, `%%chat` with its prompt in the cell."""
    magic = "%chat" if cell is None else "%%chat"
    values, text = _prompt(line, cell, OPTIONS, magic)
    values |= {"typed": text, "late": late_option(text) if cell is None else None}
    session = _session(kernel, values)
    answering = _asked(kernel, session, values, prompted(kernel, text, values))
    if values.get("dry_run"):
        say(kernel.factory.portal.run(preview(answering)))
        return
    show_answer(kernel, answering, values)


def _session(kernel: KernelServices, values: Mapping[str, Any]) -> LLMSession:
    """The conversation to ask in. One of a new name begins with the first question that is kept of it."""
    name, current = values.get("session"), kernel.session()
    sessions = kernel.factory.sessions
    if name is None or name in (current.name, current.id):
        return current
    if sessions.is_private:
        raise SessionError(
            "a conversation with a name is stored, and nothing is to be stored now",
            next_step="%llm private off stores again; without -s it is asked privately.",
        )
    if sessions.store.named(name) is None and sessions.store.session(name) is None:
        if values.get("dry_run") or values.get("private"):
            return sessions.new(private=True)
        named = sessions.named(name)
        sessions.notices.append(f"This began the conversation {name}; %llm session list shows all.")
        return named
    return kernel.session(name)


def _asked(kernel: KernelServices, session: LLMSession, values: Mapping[str, Any], prompt: Prompted) -> Answering:
    choice, options, system = resolved_choice(kernel, values), generation_options(values), values.get("system")
    if values.get("no_history"):
        answering = session.ask_once(
            prompt.message, place=kernel.place(ONCE, asks=False), choice=choice, wanted=values.get("model"),
            options=options, system=system, read_interval=READ_INTERVAL,
        )  # fmt: skip
    else:
        is_dry, is_private = values.get("dry_run", False), values.get("private", False)
        place = kernel.place(session.id, asks=not (is_dry or is_private))
        if is_dry and has_asked(session, place.cell_id, values["typed"]):
            kernel.runs.looks()
        answering = session.ask(
            prompt.message, place=place, choice=choice,
            wanted=values.get("model"), options=options, system=system, append=values.get("append", False), private=is_private, filled=prompt.filled,
            template=prompt.template, read_interval=READ_INTERVAL,
        )  # fmt: skip
    answering.notes += prompt.notes
    return answering


def llm_cell(kernel: KernelServices, line: str, cell: str) -> None:
    """`%%llm`: one question with no memory."""
    values, text = _prompt(line, cell, (*OPTIONS, COMPLETION), "%%llm")
    if given := next((name for name in values if name in OF_A_CONVERSATION and name not in MEANT_ONCE), None):
        raise InvalidInputError(
            f"%%llm has no memory, so --{given.replace('_', '-')} means nothing to it", next_step="Use %%chat."
        )
    values["typed"] = text
    completion = values.get("completion", False)
    if completion and values.get("system"):
        raise InvalidInputError("%%llm: --completion continues raw text, and knows no --system")
    prompt = prompted(kernel, text, {"raw": True, **values} if completion else values)
    answering = kernel.session().ask_once(
        prompt.message, place=kernel.place(ONCE, asks=False), choice=resolved_choice(kernel, values),
        wanted=values.get("model"), options=generation_options(values), system=values.get("system"),
        read_interval=READ_INTERVAL, completion=completion,
    )  # fmt: skip
    answering.notes += prompt.notes
    show_answer(kernel, answering, values)


def generation_options(values: Mapping[str, Any]) -> GenerationOptions:
    """The options of a magic as those of a request."""
    names = ("temperature", "max_tokens", "top_p", "seed", "think", "timeout")
    return GenerationOptions(
        **{name: values[name] for name in names if name in values},
        stop=tuple(values.get("stop", ())),
        extra=dict(values.get("option", ())),
    )


def show_answer(kernel: KernelServices, answering: Answering, values: Mapping[str, Any]) -> None:
    """Show an answer as it comes. Raises `AnswerInterrupted` when the person stops it, by the kernel's interrupt or by
    `Answering.stop`, and every error of the request.
    """
    progress = Progress(answering)
    view = kernel.view(progress.label, quiet=values.get("quiet", False))
    with kernel.factory.events.listen() as feed:
        try:
            with closing(kernel.factory.portal.batches(lambda: answering, interval=UPDATE_INTERVAL)) as batches:
                for batch in batches:
                    progress.hear(feed.take())
                    progress.take(batch)
                    view.beat(progress.text, progress.thinking, progress.status())
            if answering.response is not None and answering.response.finish_reason is FinishReason.INTERRUPTED:
                raise AnswerInterrupted("stopped from elsewhere")
        except (KeyboardInterrupt, AnswerInterrupted):
            progress.hear(feed.take())
            raise AnswerInterrupted(_keep_interrupted(kernel, answering, view, progress, values)) from None
        except LLMError:
            view.fail(progress.text, progress.thinking, "the answer broke off" if progress.text else "no answer")
            raise
        progress.hear(feed.take())
    assert answering.response is not None
    _finish(kernel, answering.response, answering, view, progress, values)


def _keep_interrupted(
    kernel: KernelServices, answering: Answering, view: AnswerView, progress: Progress, values: Mapping[str, Any]
) -> str:
    """Show what had arrived of an answer that was stopped, if anything had; what is to be said of it."""
    response, asked = answering.response, answering.asked
    if response is not None and (response.text or response.thinking):
        _finish(kernel, response, answering, view, progress, values)
        return KEPT
    view.fail("", "", TOO_EARLY)
    return f"{TOO_EARLY}; the question does not count" if asked.joins and asked.again is None else TOO_EARLY


def _finish(
    kernel: KernelServices,
    response: LLMResponse,
    answering: Answering,
    view: AnswerView,
    progress: Progress,
    values: Mapping[str, Any],
) -> None:
    notes, marks = _notes(kernel, response, answering, progress), _marks(kernel, answering, values)
    if late := values.get("late"):
        notes.append(f"{late} came after the prompt's first word and was sent as part of it; options go first.")
    if kernel.factory.cache.is_recording and response.finish_reason not in WHOLE and "private" not in marks:
        after = " and what is asked after it" if answering.asked.joins else ""
        notes.append(
            f"Only whole answers are recorded: a replay misses this one{after}. Run its cell again before going on."
        )
    kernel.last = response
    view.finish(response, marks, notes)
    if name := values.get("output"):
        kernel.shell.user_ns[name] = response


def _marks(kernel: KernelServices, answering: Answering, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the notebook's file is to say of a turn beside its answer: enough to rebuild the conversation from it."""
    turn = answering.turn
    if values.get("private") or answering.session.is_private:
        return {"private": True}  # so that nobody takes it up from the file either
    marks: dict[str, Any] = {"asked": AGAIN if answering.asked.again is not None else digest_of(values["typed"])}
    if turn is None or not answering.session.is_kept:
        return marks
    marks |= {"session": turn.session, "turn": turn.id}
    if forked := forked_from(answering.session.store, answering.session.record):
        marks["forked"] = list(forked)
    if (again := answering.asked.again) is not None and not again.answers:
        marks["first"] = digest_of(turn.template or turn.prompt.content)  # its own cell shows no answer
    if turn.filled:
        marks["filled"] = [value.name for value in turn.filled]
    is_to_be_saved = values.get("save_prompt") or kernel.factory.settings.session.save_prompt
    if is_to_be_saved or (turn.template is not None and not turn.filled):
        marks["prompt"] = turn.prompt.content
    return marks


def _notes(kernel: KernelServices, response: LLMResponse, answering: Answering, progress: Progress) -> list[str]:
    """What is to be said below an answer."""
    notes = [progress.replayed] if progress.replayed else []
    if response.finish_reason is FinishReason.INTERRUPTED:
        notes.append("interrupted")
    if response.finish_reason is FinishReason.LENGTH:
        limit = response.usage.completion_tokens
        notes.append(
            f"The answer stopped at its limit of {limit} tokens; --max-tokens N allows more."
            if limit
            else "The answer stopped at its limit; --max-tokens N allows more."
        )
    if response.finish_reason is FinishReason.CONTENT_FILTER:
        notes.append("The server's content filter ended the answer.")
    if response.tool_calls:
        notes.append(
            "The model asks for: " + ", ".join(f"{call.name}({call.arguments})" for call in response.tool_calls)[:300]
        )
    if response.tried:
        who = answering.answered_by
        instead = f" So {who.full_name} answered." if who is not None and not response.from_cache else ""
        notes.append(f"{'; '.join(response.tried)}.{instead}")
    notes += answering.notes
    notes += kernel.factory.sessions.notices
    kernel.factory.sessions.notices.clear()
    once = []
    if trouble := kernel.factory.store.trouble:
        once.append(f"This conversation is kept in memory only: {trouble}. %llm doctor tells more.")
    if not kernel.factory.cache.is_recording:  # what is recorded here has to look the same elsewhere
        once += _about_the_model(response, answering, progress)
    for line in once:
        if line not in kernel.said:
            kernel.said.add(line)
            notes.append(line)
    return notes


def _about_the_model(response: LLMResponse, answering: Answering, progress: Progress) -> list[str]:
    """Where it was fetched to, why it answers here, and what is better."""
    lines = [progress.fetched] if progress.fetched else []
    if progress.reason and not response.tried:
        lines.append(f"It answers because {progress.reason}; %llm use MODEL changes that.")
    if answering.choice is not None and (advice := answering.choice.provider.advice(answering.choice.model)):
        lines.append(advice)
    return lines


def resolved_choice(kernel: KernelServices, values: Mapping[str, Any]) -> Choice | None:
    """The model of `-m`, found before anything is asked."""
    if "model" not in values or kernel.factory.cache.is_replaying:  # where nobody is asked anything
        return None
    return kernel.factory.portal.run(kernel.factory.providers.resolve(values["model"], named=True))


def _prompt(line: str, cell: str | None, options: Any, magic: str) -> tuple[dict[str, Any], str]:
    if cell is None:
        values, rest = parse(line, options, magic)
        if not rest.strip():
            raise InvalidInputError(
                f"{magic}: there is nothing to ask", next_step=f"Write {magic} your question, or {magic}? for help."
            )
        return values, rest
    values = options_alone(line, options, magic, _instead)
    prompt = cell.removesuffix("\n")
    if not prompt.strip():
        raise InvalidInputError(f"{magic}: there is nothing to ask", next_step="Write the prompt on the lines below.")
    return values, prompt


def _instead(surplus: str) -> str:
    below = "The prompt goes on the lines below."
    return below if " " in surplus else f"Did you mean -m {surplus}? {below}"
