"""Who listens on this machine, as far as the system tells."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from llm_jupyter.ports import listening

USUAL = {
    "ollama": (11434,),
    "lmstudio": (1234,),
    "openai-compatible": (8080, 8000, 30000, 5001, 4891, 1337),
}
"""Where servers listen when nobody tells them otherwise; the last: llama.cpp, vLLM, SGLang, KoboldCpp, GPT4All, Jan."""

PROGRAMS = {
    "ollama": re.compile(r"ollama", re.IGNORECASE),
    "lmstudio": re.compile(r"lm[-_ ]?studio|llmster", re.IGNORECASE),
    "openai-compatible": re.compile(
        r"llama[-_.]?(server|cpp)|llamafile|vllm|sglang|koboldcpp|mlx_lm|localai|gpt4all", re.IGNORECASE
    ),
}
"""What stands in the command line of a server of each kind."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens on a TCP port, as far as the system tells; `program` is the beginning of its command line."""

    port: int
    pid: int | None = None
    name: str = ""
    user: str = ""
    program: str = ""

    def __str__(self) -> str:
        whose = f" of {self.user}" if self.user else ""
        return f"{self.name or 'a process'}{whose}{f' (pid {self.pid})' if self.pid else ''}"


def listeners() -> dict[int, Listener]:
    """Every port on which somebody listens. Empty where the system tells nothing (macOS, without being root)."""
    found: dict[int, Listener] = {}
    for port, pid in listening():
        if port not in found or found[port].pid is None:
            found[port] = _listener(port, pid)
    return found


def _listener(port: int, pid: int | None) -> Listener:
    if pid is None:
        return Listener(port)
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name, command, user = process.name(), process.cmdline(), process.username()
    except (psutil.Error, OSError):
        return Listener(port, pid)
    return Listener(port, pid, name, user, " ".join([name, *(Path(word).name for word in command[:3])]))


def free_port() -> int:
    """A port of the loopback interface on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
