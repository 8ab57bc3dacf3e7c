"""The magics. `load` and `unload` are what `%load_ext` and `%unload_ext` call.

Loading registers them and nothing else: this module imports only what IPython has imported already, and everything that
costs time is imported by the first magic that runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Any as AnyTrait
from traitlets import TraitError
from traitlets.config.loader import Config, LazyConfigValue

from llm_jupyter.errors import AnswerInterrupted, ConfigurationError
from llm_jupyter.magics.args import COMPARED, COMPLETION, MEMORYLESS, OPTIONS, HelpAsked, help_lines
from llm_jupyter.magics.completion import matcher
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.transform import MAGICS, prompts_are_literal

_ATTRIBUTE = "_llm_jupyter_magics"


class Setting(AnyTrait):
    """A setting that `%config` can give; `None` leaves it to the environment and the files.

    The settings judge its value, and what stands follows at every statement: a command may have changed it in between.
    """

    def __init__(self, meaning: str) -> None:
        super().__init__(None, help=meaning)
        self.tag(config=True)

    def validate(self, magics: Any, value: Any) -> Any:
        """The value as it is kept. Raises `TraitError` where the settings do not take it."""
        if isinstance(value, Mapping):
            value = {name: inner for name, inner in value.items() if inner is not None}
        if value in ("", {}) or (self.name == "timeout" and value == 0):
            value = None
        magics.check(str(self.name), value)
        return value

    def set(self, magics: Any, value: Any) -> None:
        super().set(magics, value)
        magics.changed(str(self.name))


@magics_class
class LLMMagics(Magics):
    """`%config LLMMagics` shows and sets these; they go before the environment and the settings file."""

    default_model = Setting("provider/model that answers when none is named")
    fallback = Setting("models that may answer, in this order, while another cannot")
    local_only = Setting("True: refuse every provider and model that is not local")
    stream = Setting("final: display an answer once, when it is whole; or live")
    footer = Setting("off: no line below an answer that says who answered; or on")
    metadata = Setting("full: save usage and timing in the notebook too; or stable")
    timeout = Setting("seconds to the first token")
    event_log = Setting("True, or a path: write events as JSON lines")
    offline = Setting("record, replay, auto or off")
    recording = Setting("the file to record to and replay from")
    replay_pace = Setting("seconds between two pieces of a replayed answer")
    session = Setting("how conversations are held: session.private = True (or private = True), session.system = ...")
    connection = Setting("how long servers are waited for, as in connection.retries = 0; before the first question")
    limits = Setting("what may be used, as in limits.max_tokens = 500; before the first question")
    models = Setting("how models are asked, by provider/model: a dictionary; before the first question")
    providers = Setting("servers by name: a dictionary; before the first question")
    hosts = Setting("model servers to start, by name: a dictionary; before the first question")

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.kernel = KernelServices(shell, self._overrides)
        self.matcher = matcher(self._known)
        self.replaced: list[tuple[str, str, Callable[..., Any]]] = []

    @no_var_expand
    @line_cell_magic
    def chat(self, line: str, cell: str | None = None) -> None:
        from llm_jupyter.magics.chat import chat

        self._run(chat, line, cell)

    @no_var_expand
    @line_cell_magic
    def llm(self, line: str, cell: str | None = None) -> None:
        if cell is None:
            from llm_jupyter.magics.llm import llm

            self._run(llm, line)
        else:
            from llm_jupyter.magics.chat import llm_cell

            self._run(llm_cell, line, cell)

    @no_var_expand
    @line_cell_magic
    def compare(self, line: str, cell: str | None = None) -> None:
        from llm_jupyter.magics.compare import compare

        self._run(compare, line, cell)

    chat.__doc__ = f"""Ask a language model; the conversation goes on from cell to cell.

    %chat [OPTIONS] your question
    %%chat [OPTIONS]
    the prompt, of any length

Everything after the leading options is the prompt, to the letter. A cell that runs again replaces its
turn. Interrupt the kernel to stop an answer: what has arrived is kept.

Options:
{help_lines(OPTIONS)}
"""
    llm.__doc__ = f"""%llm shows what runs and which model answers; %%llm asks one question with no memory.

    %llm [COMMAND ...]        %llm help lists the commands
    %%llm [OPTIONS]
    the prompt, of any length

Options of %%llm:
{help_lines((*MEMORYLESS, COMPLETION))}
"""

    compare.__doc__ = f"""Ask several models the same, and watch their answers side by side.

    %%compare -m MODEL -m MODEL [OPTIONS]
    the prompt, of any length

A model may have options of its own, in quotes: -m "embedded -t 0" -m "embedded -t 1". Models of one local server answer
in turn; what they wait for each other is not counted. A model that fails is a column with its error.

Options:
{help_lines(COMPARED)}
"""

    def _run(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(self.kernel, *arguments)
        except HelpAsked as asked:
            from llm_jupyter.magics.text import say

            say([inspect.cleandoc(getattr(self, asked.magic.strip("%").split()[0]).__doc__)])
        except KeyboardInterrupt:
            # Escaping, it would be shown as a stack trace that takes IPython seconds to draw.
            raise AnswerInterrupted("stopped") from None

    def _known(self, kind: str) -> list[str]:
        from llm_jupyter.magics.known import known

        return known(self.kernel, kind)

    # -- %config

    @property
    def private(self) -> Any:
        """The same as `session.private`."""
        return (self.session or {}).get("private")

    def check(self, name: str, value: Any) -> None:
        """Raise `TraitError` where a setting cannot have that value now."""
        if hasattr(self, "kernel"):  # else IPython's configuration gives it before we stand: the first question tells
            try:
                self.kernel.check_overrides(_given({**self._overrides(), name: value}))
            except ConfigurationError as error:
                raise TraitError("\n".join(error.lines())) from None

    def changed(self, name: str) -> None:
        """A setting was given by `%config`."""
        if hasattr(self, "kernel"):
            self.kernel.overridden(name)

    def _overrides(self) -> dict[str, Any]:
        return _given({name: getattr(self, name) for name in self.trait_names(config=True)})

    def update_config(self, config: Config) -> None:
        """A line of `%config`, and nothing else: traitlets would say again all that was said before, in an order of its own."""
        self._load_config(config)

    def _find_my_config(self, config: Config) -> Config:
        """What traitlets finds for us in a line of `%config` or a file of IPython's.

        It would pass over two things in silence, or nearly: a name that is none, and one in a table. Raises `TraitError`.
        """
        mine: Config = super()._find_my_config(config)
        for name, value in list(mine.items()):
            if isinstance(value, LazyConfigValue):
                fields = {field: inner for field, inner in vars(value).items() if not field.startswith("_")}
                mine[name] = {**(getattr(self, name, None) or {}), **fields}
            if name not in ("private", *self.trait_names(config=True)) and not name[:1].isupper():
                raise TraitError(_unknown(name))
        if "private" in mine:
            mine["session"] = {**mine.get("session", self.session or {}), "private": mine.pop("private")}
        return mine


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _unknown(name: str) -> str:
    if name == "home":
        return "home cannot be set here\nThe variable LLM_JUPYTER_HOME moves it."
    from llm_jupyter.settings import LLMSettings
    from llm_jupyter.settings.schema import Schema

    return "\n".join(Schema(LLMSettings).unknown((name,)).lines())


def load(shell: InteractiveShell) -> None:
    """Register the magics. A magic of that name from elsewhere is put aside with a word, and comes back at `unload`."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    magics = LLMMagics(shell)
    registered = shell.magics_manager.magics
    for kind, names in MAGICS.items():
        for name in names:
            if (other := registered[kind].get(name)) is not None:
                magics.replaced.append((kind, name, other))
                sign = "%" if kind == "line" else "%%"
                owner = getattr(getattr(other, "__self__", other), "__module__", "elsewhere")
                sys.stdout.write(
                    f"{sign}{name} of {owner} gives way to llm_jupyter's; %unload_ext llm_jupyter brings it back.\n"
                )
    shell.register_magics(magics)
    for event, hook in _hooks(magics):
        shell.events.register(event, hook)
    shell.input_transformers_cleanup.insert(0, prompts_are_literal)
    shell.input_transformers_cleanup.append(prompts_are_literal)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(magics.matcher)
    setattr(shell, _ATTRIBUTE, magics)
    magics.kernel.loaded()


def unload(shell: InteractiveShell) -> None:
    """Take the magics away again, bring back what they replaced, and stop what was started."""
    magics: LLMMagics | None = getattr(shell, _ATTRIBUTE, None)
    if magics is None:
        return
    registered = shell.magics_manager.magics
    for kind, names in MAGICS.items():
        for name in names:
            owner: Any = getattr(registered[kind].get(name), "__self__", None)
            if owner is magics:  # and not one who came after us
                del registered[kind][name]
    for kind, name, other in magics.replaced:
        registered[kind].setdefault(name, other)
    for event, hook in _hooks(magics):
        shell.events.unregister(event, hook)
    while prompts_are_literal in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(prompts_are_literal)
    if shell.Completer is not None and magics.matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(magics.matcher)
    configurables: list[Any] = shell.configurables  # the stubs say that it holds shells
    if magics in configurables:
        configurables.remove(magics)
    delattr(shell, _ATTRIBUTE)
    magics.kernel.close()


def _hooks(magics: LLMMagics) -> tuple[tuple[str, Callable[[Any], None]], ...]:
    """What hears of every cell: the order of a conversation follows from what ran."""
    return ("pre_run_cell", magics.kernel.cell_begins), ("post_run_cell", magics.kernel.cell_ends)
