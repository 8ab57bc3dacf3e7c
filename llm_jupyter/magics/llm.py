"""`%llm`: one look at what runs, and the commands around it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence

from llm_jupyter.errors import InvalidInputError, SessionError
from llm_jupyter.magics.args import OPTIONS, Option, parse
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.manager import Choice, Shelf
from llm_jupyter.types import LLMModelInfo

Command = Callable[[KernelServices, str], None]


def llm(kernel: KernelServices, line: str) -> None:
    """`%llm [COMMAND ...]`. Raises `InvalidInputError` for a word that is no command."""
    word, _, rest = line.strip().partition(" ")
    if not word:
        _look(kernel)
        return
    if word not in COMMANDS:
        raise _unknown(word, line.strip())
    COMMANDS[word][0](kernel, rest.strip())


def help_text() -> str:
    """The commands, one a line."""
    width = max(len(usage) for _, usage, _ in COMMANDS.values())
    rows = [f"  {usage:<{width}}  {text}" for _, usage, text in COMMANDS.values()]
    return "\n".join(["  " + f"{'%llm':<{width}}  what runs, and which model answers now", *rows])


# -- the look


def _look(kernel: KernelServices) -> None:
    factory = kernel.factory
    session = factory.sessions.current
    chosen = session.choice
    choice: Choice = chosen or factory.portal.run(factory.providers.choose(announce=False))
    where = "local" if choice.provider.is_local else "remote"
    verb = "answers" if chosen else "will answer"
    lines = [f"{choice.full_name} ({where}) {verb} because {choice.reason}."]
    answered = sum(1 for turn in session.turns if turn.answers)
    lines.append(f"The conversation has {answered} turn{'' if answered == 1 else 's'}.")
    lines.append("")
    rows = [_provider_row(shelf) for shelf in factory.portal.run(factory.providers.catalogue())]
    rows += [
        (r.name, r.kind, "remote", "not asked before %llm use or -m", r.source)
        for r in factory.registry.recipes()
        if not r.is_local
    ]
    lines += _table(("provider", "kind", "where", "state", "from"), rows)
    lines += ["", "%llm help lists the commands."]
    _say(lines)


def _provider_row(shelf: Shelf) -> tuple[str, ...]:
    recipe = shelf.recipe
    if shelf.error is not None:
        state = f"down: {shelf.error.what}"
    else:
        loaded = [model.id for model in shelf.models if model.loaded]
        state = f"{len(shelf.models)} model{'' if len(shelf.models) == 1 else 's'}" + (
            f", {loaded[0]} loaded" if loaded else ""
        )
    return recipe.name, recipe.kind, "local", state, recipe.source


# -- commands


def _models(kernel: KernelServices, line: str) -> None:
    factory = kernel.factory
    if line not in ("", "--remote"):
        raise InvalidInputError(
            f"%llm models takes no {line[:40]!r}", next_step="%llm models --remote asks the remote providers too."
        )
    rows: list[tuple[str, ...]] = []
    for shelf in factory.portal.run(factory.providers.catalogue(remote=bool(line))):
        if shelf.error is not None:
            rows.append((f"{shelf.recipe.name}/", "", "", "", "", f"down: {shelf.error.what}"))
        rows += [_model_row(model) for model in shelf.models]
    _say(_table(("model", "where", "size", "window", "quantization", "state"), rows))
    silent = [r.name for r in factory.registry.recipes() if not r.is_local and r.enabled]
    if silent and not line:
        _say(["", f"Not asked, since remote: {', '.join(silent)}. %llm models --remote asks them."])


def _model_row(model: LLMModelInfo) -> tuple[str, ...]:
    state = "" if model.loaded is None else "loaded" if model.loaded else "not loaded"
    return (
        model.full_name,
        "local" if model.is_local else "remote",
        _bytes(model.size),
        _window(model),
        model.quantization or "",
        state,
    )


def _info(kernel: KernelServices, line: str) -> None:
    factory = kernel.factory
    name = _one_word(line, "info")
    choice = factory.portal.run(factory.providers.resolve(name) if name else factory.providers.choose(announce=False))
    if not name and factory.sessions.current.choice is not None:
        choice = factory.sessions.current.choice
    info = factory.portal.run(choice.provider.get_model_info(choice.model))
    facts = [
        ("model", info.full_name),
        ("name", info.name),
        ("where", "local: prompts stay on this machine" if info.is_local else "remote: prompts leave this machine"),
        ("parameters", f"{info.parameters / 1e6:,.0f} million" if info.parameters else ""),
        ("window", _window(info)),
        ("quantization", info.quantization or ""),
        ("size", _bytes(info.size)),
        ("license", info.license or ""),
        ("can", ", ".join(sorted(info.capabilities))),
        ("loaded", "" if info.loaded is None else "yes" if info.loaded else "no"),
    ]
    _say([f"{label:<13} {value}" for label, value in facts if value])


def _use(kernel: KernelServices, line: str) -> None:
    words = line.split()
    keep = "--default" in words
    unknown = [word for word in words if word.startswith("-") and word != "--default"]
    if unknown:
        raise InvalidInputError(f"%llm use has no option {unknown[0]}", next_step="Did you mean --default?")
    name = " ".join(word for word in words if word != "--default")
    if not name:
        raise InvalidInputError(
            "%llm use: which model?", next_step="%llm models lists them; then %llm use PROVIDER/MODEL."
        )
    factory = kernel.factory
    choice = factory.portal.run(factory.sessions.current.use(name))
    where = "local" if choice.provider.is_local else "remote: prompts leave this machine"
    said = [f"{choice.full_name} ({where}) answers from now on, in this session."]
    if keep:
        from llm_jupyter.settings import write_default_model

        write_default_model(factory.settings.file, choice.full_name)
        said.append(f"It is default_model in {factory.settings.file} too.")
    _say(said)


def _pull(kernel: KernelServices, line: str) -> None:
    from llm_jupyter.magics.pull import pull

    name = _one_word(line, "pull")
    if not name:
        raise InvalidInputError(
            "%llm pull: which model?",
            next_step="%llm pull smollm2-135m, or %llm pull https://HOST/NAME.gguf#sha256=DIGITS.",
        )
    pull(kernel, name)


def _again(kernel: KernelServices, line: str) -> None:
    from llm_jupyter.magics.chat import READ_INTERVAL, generation_options, resolved_choice, show_answer

    options: Sequence[Option] = [option for option in OPTIONS if option.name not in ("system", "no_history")]
    values, rest = parse(line, options, "%llm again")
    if rest:
        raise InvalidInputError(
            f"%llm again takes only options, not {rest[:40]!r}", next_step="To ask something new: %chat your question"
        )
    session = kernel.factory.sessions.current
    answering = session.ask_again(
        choice=resolved_choice(kernel, values), options=generation_options(values), read_interval=READ_INTERVAL
    )
    show_answer(kernel, answering, values)


def _last(kernel: KernelServices, line: str) -> None:
    values, rest = parse(line, [option for option in OPTIONS if option.name == "output"], "%llm last")
    if rest:
        raise InvalidInputError(f"%llm last takes only -o NAME, not {rest[:40]!r}")
    response = kernel.factory.sessions.current.last
    if response is None:
        raise SessionError("there is no answer yet", next_step="Ask something first: %chat your question")
    if name := values.get("output"):
        kernel.shell.user_ns[name] = response
        return
    usage, timing = response.usage, response.timing
    facts = [
        ("model", f"{response.provider}/{response.model} ({'local' if response.is_local else 'remote'})"),
        ("ended", str(response.finish_reason)),
        ("tokens", _pair_of(usage.prompt_tokens, "prompt", usage.completion_tokens, "answer")),
        ("first token", f"{timing.first_token:.2f} s" if timing.first_token is not None else ""),
        ("total", f"{timing.total:.2f} s" if timing.total is not None else ""),
        ("speed", f"{timing.tokens_per_second:.1f} tokens/s" if timing.tokens_per_second else ""),
    ]
    _say([f"{label:<12} {value}" for label, value in facts if value])


def _config(kernel: KernelServices, line: str) -> None:
    if line:
        raise InvalidInputError(
            "%llm config takes nothing", next_step="Change the file that it names, or %config LLMMagics.NAME = VALUE."
        )
    settings = kernel.factory.settings
    there = "" if settings.file.exists() else " (not there yet)"
    lines = [f"settings file  {settings.file}{there}"]
    lines += [f"{name:<14} {getattr(settings, name)}" for name in ("home", "default_model", "local_only", "timeout")]
    lines += [f"{name:<14} {kernel.display_setting(name)}" for name in ("stream", "footer", "metadata")]
    lines += [f"{'provider':<14} {name}: {p.kind} {p.base_url or ''}" for name, p in settings.providers.items()]
    lines += [
        "",
        "A local server, in that file:",
        "",
        "[providers.local]",
        'kind = "openai-compatible"',
        'base_url = "http://127.0.0.1:8080/v1"',
    ]
    _say(lines)


def _reset(kernel: KernelServices, line: str) -> None:
    if line:
        raise InvalidInputError("%llm reset takes nothing")
    kernel.factory.sessions.reset()
    _say(["A fresh conversation. The model stays the same."])


def _help(kernel: KernelServices, line: str) -> None:
    _say([help_text(), "", "%chat and %%chat ask a model; %chat? and %%llm? list their options."])


COMMANDS: dict[str, tuple[Command, str, str]] = {
    "models": (_models, "%llm models [--remote]", "every model that can be asked"),
    "use": (_use, "%llm use MODEL [--default]", "answer with it in this session; --default: in new ones too"),
    "info": (_info, "%llm info [MODEL]", "what is known of a model"),
    "pull": (_pull, "%llm pull MODEL", "fetch a model; interrupt it, and the next call goes on"),
    "again": (_again, "%llm again [-m MODEL] [OPTIONS]", "ask the last question again; both answers are kept"),
    "last": (_last, "%llm last [-o NAME]", "figures of the last answer, or the answer as a variable"),
    "reset": (_reset, "%llm reset", "begin a fresh conversation"),
    "config": (_config, "%llm config", "the settings, and the file they stand in"),
    "help": (_help, "%llm help", "this list"),
}


def _unknown(word: str, line: str) -> InvalidInputError:
    near = difflib.get_close_matches(word, COMMANDS, 1, 0.7)
    if near:
        return InvalidInputError(f"%llm has no command {word[:40]!r}", next_step=f"Did you mean %llm {near[0]}?")
    return InvalidInputError(
        f"{word[:40]!r} is no command of %llm",
        next_step=f"To ask the model: %chat {line[:80]}   Commands: {', '.join(COMMANDS)}.",
    )


# -- how it looks


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their longest entry; columns in which nothing stands are left out."""
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    widths = {n: max(len(row[n]) for row in [head, *rows]) for n in kept}
    return ["  ".join(f"{row[n]:<{widths[n]}}" for n in kept).rstrip() for row in [head, *rows]]


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _window(model: LLMModelInfo) -> str:
    declared, effective = model.context_length, model.effective_context
    if effective and declared and effective != declared:
        return f"{effective:,} of {declared:,}"
    return f"{declared or effective:,}" if declared or effective else ""


def _pair_of(first: int | None, first_name: str, second: int | None, second_name: str) -> str:
    return ", ".join(f"{n:,} {name}" for n, name in ((first, first_name), (second, second_name)) if n is not None)


def _one_word(line: str, command: str) -> str:
    if len(line.split()) > 1 and not line.rstrip().endswith(".gguf"):
        raise InvalidInputError(f"%llm {command} takes one model, not {line[:60]!r}")
    return line.strip()
