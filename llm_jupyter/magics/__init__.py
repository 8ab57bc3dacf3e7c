"""The magics. `load` and `unload` are what `%load_ext` and `%unload_ext` call.

Loading registers them and nothing else: this module imports only what IPython has imported already, and everything that
costs time is imported by the first magic that runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class, no_var_expand
from traitlets import Enum, Float, Unicode, observe

from llm_jupyter.errors import AnswerInterrupted
from llm_jupyter.magics.args import COMPARED, COMPLETION, MEMORYLESS, OPTIONS, help_lines
from llm_jupyter.magics.completion import complete
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.transform import MAGICS, prompts_are_literal

_ATTRIBUTE = "_llm_jupyter_magics"


@magics_class
class LLMMagics(Magics):
    """`%config LLMMagics` shows and sets these; they go before the environment and the settings file."""

    default_model = Unicode("", help="provider/model that answers when none is named").tag(config=True)
    stream = Enum(("", "live", "final"), "", help="final: display an answer once, when it is whole").tag(config=True)
    footer = Enum(("", "on", "off"), "", help="off: no line below an answer that says who answered").tag(config=True)
    metadata = Enum(("", "stable", "full"), "", help="full: save usage and timing in the notebook too").tag(config=True)
    timeout = Float(0.0, help="seconds to the first token; 0: as the settings say").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.kernel = KernelServices(shell, self._overrides)
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
    @cell_magic
    def compare(self, line: str, cell: str) -> None:
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
        except KeyboardInterrupt:
            # Escaping, it would be shown as a stack trace that takes IPython seconds to draw.
            raise AnswerInterrupted("stopped") from None

    def _overrides(self) -> dict[str, Any]:
        names = ("default_model", "stream", "footer", "metadata", "timeout")
        return {name: value for name in names if (value := getattr(self, name))}

    @observe("default_model")
    def _default_changed(self, _: Any) -> None:
        if hasattr(self, "kernel"):
            self.kernel.default_model_changed(self.default_model)

    @observe("timeout")
    def _timeout_changed(self, _: Any) -> None:
        if hasattr(self, "kernel"):
            self.kernel.timeout_changed()


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
        shell.Completer.custom_matchers.append(complete)
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
    if shell.Completer is not None and complete in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(complete)
    configurables: list[Any] = shell.configurables  # the stubs say that it holds shells
    if magics in configurables:
        configurables.remove(magics)
    delattr(shell, _ATTRIBUTE)
    magics.kernel.close()


def _hooks(magics: LLMMagics) -> tuple[tuple[str, Callable[[Any], None]], ...]:
    """What hears of every cell: the order of a conversation follows from what ran."""
    return ("pre_run_cell", magics.kernel.cell_begins), ("post_run_cell", magics.kernel.cell_ends)
