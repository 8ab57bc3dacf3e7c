"""A process that holds a host as a kernel does: `python holder.py HOME SPEC` with the spec's fields as JSON.

It prints one line of JSON once the host serves (or why it does not), then does what it is told line by line: `close`, or
`events`. Without a word it just goes on holding.
"""

import asyncio
import json
import sys
from pathlib import Path

from llm_jupyter.errors import LLMError
from llm_jupyter.hosts import HostSpec, LLMHostManager


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


async def main() -> None:
    events: list[object] = []
    fields = json.loads(sys.argv[2])
    fields["command"] = tuple(fields["command"])
    hosts = LLMHostManager(Path(sys.argv[1]), events.append)
    try:
        running = await hosts.ensure(HostSpec(**fields))
    except LLMError as error:
        say({"error": str(error)})
        return
    say({"pid": running.pid, "url": running.url})
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "events":
            say([type(event).__name__ for event in events])
        elif line == "close":
            await hosts.aclose()
            say([type(event).__name__ for event in events])
            return


asyncio.run(main())
