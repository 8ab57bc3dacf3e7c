"""`jupyter llm ...`: what is to be typed in a terminal. (`jupyter` finds the program `jupyter-llm` beside itself.)

Exit codes: 0 all is well, 1 something is wrong, 2 it was called wrongly, 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_jupyter import __version__
from llm_jupyter.errors import InvalidInputError, LLMError

FAILED, WRONGLY_CALLED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no arrows still gets the words
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except LLMError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return WRONGLY_CALLED if isinstance(error, InvalidInputError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read has heard enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's last flush says so once more
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter llm", description="Language models in Jupyter: what is wrong, and how it is set."
    )
    parser.add_argument("--version", action="version", version=f"jupyter-llm {__version__}")
    parser.set_defaults(run=lambda options: print(parser.format_help(), end=""))
    commands = parser.add_subparsers(metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="find what is wrong, and what to type; exits 1 if there is an error")
    doctor.add_argument("--json", action="store_true", help="one JSON document instead of text")
    doctor.add_argument("--live", action="store_true", help="ask for one token, too: that may load a model")
    doctor.add_argument("--remote", action="store_true", help="ask remote providers, too")
    doctor.set_defaults(run=_doctor)
    pull = commands.add_parser("pull", help="fetch a model; interrupted, the next call goes on")
    pull.add_argument("model", help="smollm2-135m, a name of Ollama's library, or https://HOST/NAME.gguf#sha256=DIGITS")
    pull.set_defaults(run=_pull)
    rescue = commands.add_parser("rescue", help="save the conversations that can be read of a store that was put away")
    rescue.add_argument("file", type=Path)
    rescue.set_defaults(run=_rescue)
    cache = commands.add_parser("cache", help="the answers that are kept").add_subparsers(metavar="ACT", required=True)
    cache.add_parser("clear", help="forget them all; recordings stay").set_defaults(run=_clear)
    config = commands.add_parser("config", help="change the settings file").add_subparsers(metavar="ACT", required=True)
    setting = config.add_parser("set", help="set one setting: config set providers.local.base_url http://...")
    setting.add_argument("key")
    setting.add_argument("value")
    setting.set_defaults(run=_set)
    unset = config.add_parser("unset", help="take one setting out")
    unset.add_argument("key")
    unset.set_defaults(run=_unset)
    config.add_parser("path", help="where the settings file is").set_defaults(run=_path)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from llm_jupyter.doctor import report

    found = asyncio.run(report(live=options.live, remote=options.remote))
    print(found.json() if options.json else "\n".join(found.lines()))
    return found.exit_code


def _pull(options: argparse.Namespace) -> int:
    asyncio.run(_fetch(options.model))
    return 0


async def _fetch(name: str) -> None:
    from llm_jupyter.factory import LLMFactory

    async with LLMFactory() as llm:
        provider, model = await llm.providers.fetcher(name)
        said = ""
        async with contextlib.aclosing(provider.pull_model(model)) as arriving:  # type: ignore[type-var]
            async for progress in arriving:
                share = f" {progress.completed / progress.total:4.0%}" if progress.total and progress.completed else ""
                if sys.stderr.isatty():
                    print(f"\r\x1b[K{progress.status}{share}", end="", file=sys.stderr, flush=True)
                elif progress.status != said:
                    said = progress.status
                    print(said, file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{provider.name}/{model.rpartition('://')[2].partition('#')[0]} is here.")


def _rescue(options: argparse.Namespace) -> int:
    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.store.rescue import rescue

    with LLMFactory() as llm:
        saved = rescue(options.file, llm.store)
        print(f"{saved.sessions} conversations with {saved.turns} turns are saved in {llm.store.path}.")
    if saved.known:
        print(f"{saved.known} were there already, and stayed as they are.")
    return 0


def _clear(options: argparse.Namespace) -> int:
    from llm_jupyter.factory import LLMFactory

    with LLMFactory() as llm:
        count = llm.portal.run(llm.cache.clear())
    print(f"{count} kept answers were deleted. Recordings beside notebooks stay.")
    return 0


def _set(options: argparse.Namespace) -> int:
    from llm_jupyter.doctor.config import set_value

    print(set_value(_file(), options.key, options.value).said)
    return 0


def _unset(options: argparse.Namespace) -> int:
    from llm_jupyter.doctor.config import unset

    print(unset(_file(), options.key).said)
    return 0


def _path(options: argparse.Namespace) -> int:
    print(_file())
    return 0


def _file() -> Path:
    from llm_jupyter.settings import FILE_NAME, home_folder

    return home_folder() / FILE_NAME


if __name__ == "__main__":
    sys.exit(main())
