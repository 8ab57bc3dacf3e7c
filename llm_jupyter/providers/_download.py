"""Large files from elsewhere: resumable, checked, and complete or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
from filelock import FileLock, Timeout

from llm_jupyter.errors import DiskFullError, LLMConnectionError, LLMError, ResourceError
from llm_jupyter.providers._http import RETRY, is_loopback, without_secrets
from llm_jupyter.types import PullProgress

T = TypeVar("T")

BLOCK = 1 << 20
LOCK_POLL = 0.2
"""Seconds between looks at whether another process has finished its download."""

REPORT_EVERY = 0.1
"""Seconds between two reports of progress."""

IDLE_TIMEOUT = 60.0
"""Seconds without a byte after which a download counts as stuck."""


@contextlib.asynccontextmanager
async def exclusive(file: Path) -> AsyncIterator[None]:
    """Hold a lock file, waiting for whoever has it; the system frees it if the holder dies."""
    lock = FileLock(file)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            await asyncio.sleep(LOCK_POLL)
        except OSError as error:
            raise disk_error(error, file.parent) from None
    try:
        yield
    finally:
        lock.release()


async def uninterrupted(work: Callable[..., T], *arguments: object) -> T:
    """Work in a thread that is over when this returns, even if this is cancelled: a lock held meanwhile stays true."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def download(url: str, target: Path, *, ca_file: str | None = None) -> AsyncGenerator[PullProgress, None]:
    """Fetch `url` into `target`, going on where an earlier call was stopped.

    What has arrived stands in `target` with `.part` at its end. Raises `LLMConnectionError`, or `DiskFullError` before
    a byte is fetched where the size is known.
    """
    parts = urlsplit(url)
    part = target.with_name(target.name + ".part")
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if parts.scheme == "file":
        with disk_errors(target.parent):
            await asyncio.to_thread(shutil.copyfile, unquote(parts.path), part)
    else:
        async with contextlib.aclosing(_fetch(url, part, ca_file)) as arriving:
            async for progress in arriving:
                yield progress
    with disk_errors(target.parent):
        part.replace(target)


async def _fetch(url: str, part: Path, ca_file: str | None) -> AsyncGenerator[PullProgress, None]:
    where = without_secrets(url)
    context: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=IDLE_TIMEOUT)
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        async with (
            aiohttp.ClientSession(trust_env=not is_loopback(url), timeout=timeout, auto_decompress=False) as session,
            session.get(url, headers=headers, ssl=context) as response,
        ):
            if response.status == 416:  # all of it was there already
                return
            if response.status not in (200, 206):
                raise LLMConnectionError(f"the download was refused (HTTP {response.status})", where=where)
            if response.status == 200:
                done = 0
            total = done + response.content_length if response.content_length is not None else None
            require_room(part.parent, (total or 0) - done)
            reported = 0.0
            with disk_errors(part.parent), part.open("ab" if done else "wb") as file:
                async for block in response.content.iter_chunked(BLOCK):
                    file.write(block)
                    done += len(block)
                    if time.monotonic() - reported >= REPORT_EVERY or done == total:
                        reported = time.monotonic()
                        yield PullProgress("downloading", done, total)
            if total is not None and done < total:
                raise LLMConnectionError(
                    f"the download broke off at {done:,} of {total:,} bytes", where=where, next_step=RETRY
                )
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LLMConnectionError(
            f"the download failed: {str(error)[:160] or type(error).__name__}", where=where,
            next_step="Run the cell again: it goes on where it stopped.",
        ) from None  # fmt: skip


def require_room(folder: Path, size: int) -> None:
    """Raise `DiskFullError` where fewer than `size` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFullError(
            f"{folder} has {free / 2**20:,.0f} MiB free, {size / 2**20:,.0f} MiB are needed",
            next_step="Make room, or set LLM_JUPYTER_HOME to a folder on another disk.",
        )


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def disk_error(error: OSError, folder: Path) -> LLMError:
    """A system error about a folder, as ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"the disk of {folder} is full",
            next_step="Make room, then run the cell again: it goes on where it stopped.",
        )
    return ResourceError(
        f"{folder} cannot be used: {error.strerror or error}",
        next_step="Set LLM_JUPYTER_HOME to a folder that you may write to.",
    )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the system says about a folder, raised as ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError):
        raise  # some of them are OSErrors too, and the network's
    except OSError as error:
        raise disk_error(error, folder) from None


def remove(file: Path) -> None:
    """Delete a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file)
