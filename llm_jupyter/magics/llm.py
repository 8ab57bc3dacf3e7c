"""`%llm`: one look at what runs, and the commands around it."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from llm_jupyter.choice import Shelf
from llm_jupyter.errors import ForeignServerError, InvalidInputError, SessionError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.magics import dash, doctor, events, history, hosts, models, offline, providers, sessions
from llm_jupyter.magics.args import HELP, OF_COMMANDS, HelpAsked, help_lines, parse
from llm_jupyter.magics.completion import VERBS, verbs
from llm_jupyter.magics.config import config
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, table
from llm_jupyter.overview import OTHERS, not_asked, who_answers
from llm_jupyter.wording import counts, shortened

Command = Callable[[KernelServices, str], None]


def llm(kernel: KernelServices, line: str) -> None:
    """`%llm [COMMAND ...]`. Raises `InvalidInputError` for a word that is no command."""
    line = line.strip()
    if (about := _help_on(line)) is not None:
        _help(kernel, about)
        return
    word, _, rest = line.partition(" ")
    if not word:
        _look(kernel)
        return
    if word not in COMMANDS:
        raise _unknown(word, line)
    try:
        COMMANDS[word][0](kernel, rest.strip())
    except HelpAsked:
        _help(kernel, word)


def _help_on(line: str) -> str | None:
    """The command on which a line asks for help, empty for all of them; `None` where it asks for something else.

    What ends in a question mark may be meant for a model, unless nothing but a command and its verb is before that.
    """
    words = line.removesuffix("?").split()
    command, rest = (words[0], words[1:]) if words else ("", [])
    if words and words[-1] in HELP:
        return "" if len(words) == 1 else command if command in COMMANDS else None
    is_asked = line.endswith("?") and (not words or command in COMMANDS)
    return command if is_asked and (not rest or (len(rest) == 1 and rest[0] in verbs(command))) else None


def help_text() -> str:
    """The commands, one a line."""
    width = max(len(usage) for _, usage, _ in COMMANDS.values())
    rows = [f"  {usage:<{width}}  {text}" for _, usage, text in COMMANDS.values()]
    return "\n".join(["  " + f"{'%llm':<{width}}  what runs, and which model answers now", *rows])


# -- the look


def _look(kernel: KernelServices) -> None:
    factory = kernel.factory
    session = kernel.session()
    shelves = factory.portal.run(factory.providers.catalogue())
    lines = list(factory.portal.run(who_answers(factory, shelves)).lines)
    record = session.store.session(session.id)
    answered = record.turns if record is not None else 0
    lines.append(f"The conversation has {answered} turn{'' if answered == 1 else 's'}.")
    lines.append("")
    rows = [_provider_row(factory, shelf) for shelf in shelves if not shelf.is_absent]
    rows += [
        (r.name, r.kind, "remote", not_asked(factory), r.source) for r in factory.registry.recipes() if not r.is_local
    ]
    lines += table(("provider", "kind", "where", "state", "from"), rows)
    if absent := [shelf.recipe.name for shelf in shelves if shelf.is_absent]:
        lines.append(f"Not running at their usual places: {', '.join(absent)}.")
    lines += ["", "%llm help lists the commands."]
    say(lines)


def _provider_row(factory: LLMFactory, shelf: Shelf) -> tuple[str, ...]:
    recipe = shelf.recipe
    if isinstance(shelf.error, ForeignServerError):
        state = shelf.error.what
    elif shelf.error is not None and factory.serving.starts(recipe.name, recipe.base_url):
        state = "its host starts with the question"
    elif shelf.error is not None:
        state = shortened(f"down: {shelf.error.what}")
    else:
        loaded = [model.id for model in shelf.models if model.loaded]
        state = f"{len(shelf.models)} model{'' if len(shelf.models) == 1 else 's'}" + (
            f", {loaded[0]} loaded" if loaded else ""
        )
        if factory.providers.admission.is_others(recipe.name):
            state = f"{state}; {OTHERS}"
    return recipe.name, recipe.kind, "local", state, recipe.source


# -- commands


def _again(kernel: KernelServices, line: str) -> None:
    from llm_jupyter.magics.chat import READ_INTERVAL, generation_options, resolved_choice, show_answer

    values, rest = parse(line, OF_COMMANDS["again"], "%llm again")
    if rest:
        raise InvalidInputError(
            f"%llm again takes only options, not {rest[:40]!r}", next_step="To ask something new: %chat your question"
        )
    session = kernel.session()
    answering = session.ask_again(
        place=kernel.place(session.id, asks=False),
        choice=resolved_choice(kernel, values),
        wanted=values.get("model"),
        options=generation_options(values),
        read_interval=READ_INTERVAL,
    )
    show_answer(kernel, answering, values)


def _last(kernel: KernelServices, line: str) -> None:
    values, rest = parse(line, OF_COMMANDS["last"], "%llm last")
    if rest:
        raise InvalidInputError(f"%llm last takes only -o NAME, not {rest[:40]!r}")
    response = kernel.last
    if response is None:
        raise SessionError("there is no answer yet", next_step="Ask something first: %chat your question")
    if name := values.get("output"):
        kernel.shell.user_ns[name] = response
        return
    usage, timing = response.usage, response.timing
    then = " when recorded" if response.from_cache else ""
    facts = [
        ("model", f"{response.provider}/{response.model} ({'local' if response.is_local else 'remote'})"),
        ("ended", str(response.finish_reason)),
        ("tokens", counts(usage.prompt_tokens, "prompt", usage.completion_tokens, "answer")),
        ("first token", f"{timing.first_token:.2f} s{then}" if timing.first_token is not None else ""),
        ("total", f"{timing.total:.2f} s{then}" if timing.total is not None else ""),
        ("speed", f"{timing.tokens_per_second:.1f} tokens/s{then}" if timing.tokens_per_second else ""),
    ]
    say([f"{label:<12} {value}" for label, value in facts if value])


def _help(kernel: KernelServices, line: str) -> None:
    if line:
        say(_page(line))
        return
    say([help_text(), "", "%chat and %%chat ask a model; %chat? and %%llm? list their options."])


def _page(command: str) -> list[str]:
    """How one command is used. Raises `InvalidInputError` for a word that is none."""
    if command not in COMMANDS:
        raise _unknown(command, command)
    _, usage, text = COMMANDS[command]
    told = [(f"%llm {command} {verb}", meaning) for verb, meaning in VERBS.get(command, {}).items() if meaning]
    width = max((len(verb) for verb, _ in told), default=0)
    lines = [usage, f"  {text}", *([""] if told else []), *(f"  {v:<{width}}  {m}".rstrip() for v, m in told)]
    options = OF_COMMANDS.get(command)
    return [*lines, "", "Options:", help_lines(options)] if options else lines


COMMANDS: dict[str, tuple[Command, str, str]] = {
    "status": (providers.status, "%llm status", "how every provider is: state, since when, latency, models, reason"),
    "dash": (
        dash.dash,
        "%llm dash [NAME]",
        "a live dashboard: status, hosts, models, sessions, chat, events, compare",
    ),
    "providers": (providers.providers, "%llm providers", "every provider: where it is and where it comes from"),
    "connect": (providers.connect, "%llm connect NAME", "ask a provider now, and watch it from then on"),
    "disconnect": (providers.disconnect, "%llm disconnect NAME", "ask a provider no more, until it is connected again"),
    "models": (models.models, "%llm models [--remote]", "every model that can be asked, and whether it fits"),
    "use": (models.use, "%llm use MODEL [--default]", "answer with it in this session; --default: in new ones too"),
    "info": (models.info, "%llm info [MODEL]", "what is known of a model"),
    "pull": (models.pull, "%llm pull MODEL", "fetch a model; interrupt it, and the next call goes on"),
    "rm": (models.remove, "%llm rm MODEL [--yes]", "delete a model from its server's disk"),
    "load": (models.load, "%llm load MODEL", "read a model into memory before it is asked"),
    "unload": (models.unload, "%llm unload [MODEL]", "free a model's memory"),
    "again": (_again, "%llm again [-m MODEL] [OPTIONS]", "ask the last question again; both answers are kept"),
    "last": (_last, "%llm last [-o NAME]", "figures of the last answer, or the answer as a variable"),
    "session": (
        sessions.session,
        "%llm session [VERB ...]",
        "this conversation; new, list, use, name, fork, delete, export, import, resume",
    ),
    "history": (
        history.history,
        "%llm history [TURN [restore]]",
        "what was said; -n N turns, or --search TEXT in all conversations",
    ),
    "reset": (sessions.reset, "%llm reset", "begin a fresh conversation; the old one is kept"),
    "private": (sessions.private, "%llm private on|off", "store nothing of what is asked"),
    "purge": (sessions.purge, "%llm purge --older 30d [--yes]", "delete old conversations and answers for good"),
    "offline": (
        offline.offline,
        "%llm offline [MODE]",
        "what is kept for offline use; record, replay, auto or off",
    ),
    "cache": (offline.cache, "%llm cache stats|clear", "the answers that are kept for offline use"),
    "hosts": (hosts.hosts, "%llm hosts", "the processes that serve models: whose they are, and what they take"),
    "host": (
        hosts.host,
        "%llm host start|stop|restart|logs NAME",
        "start or stop such a process, or see what it wrote",
    ),
    "doctor": (doctor.doctor, "%llm doctor [--live] [--remote]", "what is wrong here, and what to type about it"),
    "events": (events.events, "%llm events [-n N]", "what happened, the latest last"),
    "config": (config, "%llm config [--all | NAME | set NAME VALUE]", "the settings, and where each came from"),
    "help": (_help, "%llm help", "this list"),
}


def _unknown(word: str, line: str) -> InvalidInputError:
    begun = [command for command in COMMANDS if len(word) > 2 and command.startswith(word)]
    near = begun or difflib.get_close_matches(word, COMMANDS, 1, 0.65)
    if near:
        return InvalidInputError(f"%llm has no command {word[:40]!r}", next_step=f"Did you mean %llm {near[0]}?")
    return InvalidInputError(
        f"{word[:40]!r} is no command of %llm",
        next_step=f"To ask the model: %chat {line[:80]}   Commands: {', '.join(COMMANDS)}.",
    )
