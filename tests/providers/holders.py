"""Processes that hold an embedded model in the ways that a kernel does, for tests that end them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

HOLDER = """
import asyncio, sys
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import GenerationOptions

provider = LlamaCppProvider(context=2048, threads=1)
endless = GenerationOptions(max_tokens=1800, extra={"ignore_eos": True})

async def main():
    stream = provider.stream_completion("Once upon a time", model="smollm2-135m", options=endless)
    async for chunk in stream:
        print(provider.process_id, flush=True)
        break
    END

asyncio.run(main())
"""

ENDINGS = {
    "generating on": "async for chunk in stream: pass",
    "returning": "pass",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise RuntimeError('on purpose')",
}
"""What a holder does after its first token. None of them closes anything."""

INTERRUPTED = """
import signal, sys
from llm_jupyter.portal import Portal
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import GenerationOptions

portal = Portal()
provider = LlamaCppProvider(context=2048, threads=1)
endless = GenerationOptions(max_tokens=1800, extra={"ignore_eos": True})
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    for batch in portal.batches(
        lambda: provider.stream_completion("Once", model="smollm2-135m", options=endless), interval=0.05
    ):
        if batch:
            print(provider.process_id, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
response = portal.run(
    provider.generate_completion("Once", model="smollm2-135m", options=GenerationOptions(max_tokens=4))
)
print("answered", provider.process_id, len(response.text) > 0, flush=True)
portal.run(provider.disconnect())
"""


class Holder:
    """A running holder in a process group of its own, as a kernel is."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, code: str, home: Path) -> Holder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            env={**os.environ, "LLM_JUPYTER_HOME": str(home)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process)

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    async def model_process(self) -> psutil.Process:
        """Its llama.cpp process, once that has made its first token."""
        child = psutil.Process(int(await self.line()))
        assert child.ppid() == self.process.pid
        return child

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def interrupt_group(self) -> None:
        """What jupyter_client does to a kernel: SIGINT to its whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)


def is_dead(process: psutil.Process) -> bool:
    """Whether a process is gone, or a zombie that nobody has collected yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def no_new_child(before: set[psutil.Process]) -> bool:
    """Whether this process has no child that it did not have before."""
    return set(psutil.Process().children()) <= before
