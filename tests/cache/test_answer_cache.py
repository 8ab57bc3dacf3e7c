"""The cache on disk: what it keeps, for how long, and that no trouble with it costs an answer or runs foreign code."""

from __future__ import annotations

import asyncio
import logging
import os
import pickletools
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cache.offline_asking import answer_of, request_of

from llm_jupyter.cache import AnswerCache, Kept, Who
from llm_jupyter.cache.disk import MODELS, REST
from llm_jupyter.errors import CacheError

TESTS = str(Path(__file__).parents[1])
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")


class Now:
    """Seconds that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


@pytest.fixture
async def cache(folder: Path) -> AsyncIterator[AnswerCache]:
    cache = AnswerCache(folder, clock=Now(), monotonic=Now())
    yield cache
    cache.close()


async def newest(cache: AnswerCache, prompt: str = "hi") -> Kept | None:
    return await cache.newest(request_of(prompt).digest)


# -- what it keeps


async def test_it_tells_whether_anything_is_older_than_a_time_in_whatever_order_it_came(cache: AnswerCache) -> None:
    assert not await cache.holds_older(10)
    for prompt, model, created in (("a", "m", 995.0), ("b", "m", 900.0), ("b", "n", 999.0)):
        await cache.put(answer_of(prompt, model=model, created=created))
    assert await cache.holds_older(50)
    assert not await cache.holds_older(200)


async def test_an_answer_outlives_the_process_that_kept_it(folder: Path, cache: AnswerCache) -> None:
    kept = answer_of("hi", "a", "\u2028\x00", created=5.0)
    assert await cache.put(kept)
    cache.close()
    other = AnswerCache(folder)
    assert await other.get(request_of("hi"), Who("scripted", "m")) == kept
    assert await other.get(request_of("ho"), Who("scripted", "m")) is None
    assert await other.get(request_of("hi"), Who("scripted", "n")) is None
    other.close()


async def test_of_each_model_the_latest_answer_is_kept(cache: AnswerCache) -> None:
    for kept in (answer_of("hi", "1"), answer_of("hi", "2", model="n"), answer_of("hi", "3")):
        await cache.put(kept)
    assert await newest(cache) == answer_of("hi", "3")
    assert await cache.newest(request_of("hi").digest, lambda kept: kept.is_of("n")) == answer_of("hi", "2", model="n")
    for number in range(MODELS):
        await cache.put(answer_of("hi", model=f"other {number}"))
    assert await cache.newest(request_of("hi").digest, lambda kept: kept.is_of("n")) is None


async def test_what_was_used_longest_ago_goes_when_there_is_no_room(folder: Path) -> None:
    cache = AnswerCache(folder, size_limit=600_000)
    for number in range(20):
        await cache.put(answer_of(f"{number}", "x" * 20_000))
    for number in range(20, 60):
        assert await newest(cache, "0") is not None  # it is in use
        await cache.put(answer_of(f"{number}", "x" * 20_000))
    assert await newest(cache, "0") is not None
    assert await newest(cache, "1") is None
    assert await newest(cache, "59") is not None
    assert (await cache.stats()).size < 700_000
    cache.close()


async def test_it_tells_how_much_it_holds_and_since_when(folder: Path, cache: AnswerCache) -> None:
    empty = await cache.stats()
    assert (empty.count, empty.size, empty.folder, empty.oldest, empty.trouble) == (0, 0, folder, None, "")
    assert not folder.exists()  # asking makes nothing
    for prompt, created in (("a", 5.0), ("b", 6.0), ("a", 7.0)):
        await cache.put(answer_of(prompt, created=created))
    stats = await cache.stats()
    assert (stats.count, stats.oldest) == (2, 6.0)
    assert stats.size > 0


async def test_all_is_forgotten_or_what_is_old(folder: Path, cache: AnswerCache) -> None:
    for prompt, model, created in (("a", "m", 100.0), ("b", "m", 100.0), ("b", "n", 900.0), ("c", "m", 900.0)):
        await cache.put(answer_of(prompt, f"secret {prompt} {model}", model=model, created=created))
    assert await cache.clear(older=500.0) == 1
    assert await newest(cache, "a") is None
    assert await cache.newest(request_of("b").digest, lambda kept: kept.is_of("m")) is None
    assert await newest(cache, "b") is not None
    assert await cache.clear() == 2
    assert (await cache.stats()).count == 0
    cache.close()
    assert not any(b"secret" in file.read_bytes() for file in folder.iterdir())


@posix
async def test_nobody_else_can_look_in(folder: Path, cache: AnswerCache) -> None:
    folder.mkdir(parents=True, mode=0o755)
    await cache.put(answer_of())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_eight_tasks_and_two_kernels_share_it(folder: Path) -> None:
    caches = [AnswerCache(folder), AnswerCache(folder)]
    results = await asyncio.gather(
        *(caches[number % 2].put(answer_of(f"{number}", created=1.0)) for number in range(80))
    )
    assert all(results)
    assert [(await cache.stats()).count for cache in caches] == [80, 80]
    for cache in caches:
        cache.close()
        cache.close()


async def test_a_cache_that_was_closed_keeps_nothing_and_loses_nothing(folder: Path, cache: AnswerCache) -> None:
    await cache.put(answer_of())
    cache.close()
    assert not await cache.put(answer_of("ho"))
    with pytest.raises(CacheError):
        await cache.clear(older=5.0)
    other = AnswerCache(folder)
    assert await newest(other) == answer_of()
    other.close()


# -- no pickle


async def test_nothing_in_the_files_is_a_pickle(folder: Path, cache: AnswerCache) -> None:
    for prompt in ("short", "long"):
        await cache.put(answer_of(prompt, "x" * (10 if prompt == "short" else 200_000)))
    cache.close()
    assert [file.name for file in folder.iterdir()] == ["cache.db"]
    with sqlite3.connect(folder / "cache.db") as database:
        rows = database.execute("SELECT key, value, filename FROM Cache").fetchall()
    database.close()
    assert len(rows) == 2
    for key, value, filename in rows:
        assert (type(key), filename) == (str, None)
        assert isinstance(msgspec.json.decode(value), list)
        assert not is_pickle(value)


def is_pickle(data: bytes) -> bool:
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except ValueError:
        return False


class Planted:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


async def test_a_planted_pickle_is_never_executed(folder: Path, cache: AnswerCache, tmp_path: Path) -> None:
    import pickle

    await cache.put(answer_of())
    cache.close()
    trace = tmp_path / "executed"
    planted = pickle.dumps(Planted(trace))
    assert is_pickle(planted)
    (folder / "planted.val").write_bytes(planted)
    for key, raw, mode, filename, value in (
        (request_of("hi").digest, 1, 4, None, planted),
        (request_of("hi").digest, 1, 4, "planted.val", None),
        (planted, 0, 1, None, b"[]"),
    ):
        with sqlite3.connect(folder / "cache.db") as database:
            database.execute("DELETE FROM Cache")
            database.execute(
                "INSERT INTO Cache (key, raw, mode, filename, value, size, access_time, store_time) VALUES (?, ?, ?, ?, ?, 0, 0, 0)",
                (key, raw, mode, filename, value),
            )
        database.close()
        other = AnswerCache(folder, size_limit=1)
        assert await newest(other) is None
        await other.stats()
        await other.put(answer_of("ho"))  # which throws others out
        await other.clear(older=0.0)
        await other.clear()
        other.close()
        assert not trace.exists()
    pickle.loads(planted)
    assert trace.exists(), "it must do something where it is unpickled"


# -- trouble


DAMAGES = {
    "no database": b"this is no database, whatever its name says" * 100,
    "empty": b"",
    "zeros": b"\x00" * 8192,
    "cut short": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_database_costs_nothing_and_can_be_cleared(folder: Path, damage: str) -> None:
    first = AnswerCache(folder)
    for number in range(50):
        await first.put(answer_of(f"{number}", "x" * 5000))
    first.close()
    whole = (folder / "cache.db").read_bytes()
    content = DAMAGES[damage]
    (folder / "cache.db").write_bytes(whole[: len(whole) // 2] if content is None else content)
    cache = AnswerCache(folder)
    for number in range(50):
        await newest(cache, str(number))
        await cache.put(answer_of(f"{number}"))
    await cache.stats()
    await cache.clear()
    assert await cache.put(answer_of())
    assert await newest(cache) == answer_of()
    cache.close()


async def test_a_damaged_answer_is_none(folder: Path, cache: AnswerCache) -> None:
    await cache.put(answer_of())
    cache.close()
    for value in (b"", b"{", b"[5]", b"\xff", b"[" * 100_000):
        with sqlite3.connect(folder / "cache.db") as database:
            database.execute("UPDATE Cache SET value = ?", (value,))
        database.close()
        other = AnswerCache(folder)
        assert await newest(other) is None
        assert await other.put(answer_of())
        assert await newest(other) == answer_of()
        other.close()


async def test_a_locked_database_is_waited_for_a_little_and_then_left_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(folder)
    now = Now()
    cache = AnswerCache(folder, monotonic=now)
    holder = sqlite3.connect(folder / "cache.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING):
        assert not await cache.put(answer_of("ho"))
        for _ in range(20):
            assert not await cache.put(answer_of("ho"))
    assert [record.getMessage() for record in caplog.records] == [
        f"answers are not cached for now: it was busy for more than 2 s [{folder}]"
    ]
    assert (await cache.stats()).trouble == "it was busy for more than 2 s"
    with pytest.raises(CacheError, match="busy"):
        await cache.clear()
    holder.close()
    assert not await cache.put(answer_of("ho"))  # it rests
    now.now += REST + 1
    assert await cache.put(answer_of("ho"))
    assert (await cache.stats()).trouble == ""
    cache.close()


async def test_a_cache_that_was_open_before_another_process_locks_it_is_waited_for_a_little(folder: Path) -> None:
    cache = AnswerCache(folder)
    assert await cache.put(answer_of())
    holder = sqlite3.connect(folder / "cache.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert not await cache.put(answer_of("ho"))
    assert cache.trouble
    holder.close()
    cache.close()


ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
folder = Path(sys.argv[1])
from cache.offline_asking import answer_of, request_of
from llm_jupyter.cache import AnswerCache
if hasattr(os, "geteuid") and os.geteuid() == 0:
    import encodings.idna  # what is needed later must be there before
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    (folder / "probe").touch()
    sys.exit("the folder can be written to: this proves nothing")
except PermissionError:
    pass
async def main():
    cache = AnswerCache(folder / "cache")
    print(await cache.put(answer_of()), await cache.newest(request_of("hi").digest), bool(cache.trouble))
    cache.close()
asyncio.run(main())
"""


@posix
def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        run = subprocess.run([sys.executable, "-c", ORDINARY_USER, str(folder), TESTS], capture_output=True, text=True)
        assert (run.stdout, run.returncode) == ("False None True\n", 0), run.stderr


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cache.offline_asking import answer_of, request_of
from llm_jupyter.cache import AnswerCache, Recording
from llm_jupyter.errors import CacheError
async def main():
    cache = AnswerCache(Path(sys.argv[1]) / "cache")
    assert await cache.put(answer_of())
    run = Recording(Path(sys.argv[1]) / "x.recording.jsonl", Path(sys.argv[1]) / "locks")
    run.add(answer_of())
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    print(await cache.put(answer_of("ho", "x" * 10_000_000)), bool(cache.trouble))
    try:
        run.add(answer_of("ho", "x" * 10_000_000))
    except CacheError as error:
        print(len(error.lines()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    cache.close()
    cache = AnswerCache(Path(sys.argv[1]) / "cache")
    print(await cache.newest(request_of("hi").digest) == answer_of(), run.count(), await cache.put(answer_of("ho")))
    cache.close()
asyncio.run(main())
"""


@posix
def test_a_full_disk_costs_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path), TESTS], capture_output=True, text=True)
    assert run.stdout == "False True\n1\nTrue 1 True\n", run.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "locks", "x.recording.jsonl"]


# -- network file systems


NETWORK = """
import asyncio, os, stat, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cache.offline_asking import answer_of, request_of
from llm_jupyter.cache import AnswerCache
folder = Path(sys.argv[1]) / "cache"
async def main():
    for _ in range(2):
        cache = AnswerCache(folder, is_remote=lambda path: path == folder)
        print(await cache.newest(request_of().digest) == answer_of(), await cache.put(answer_of()))
        cache.close()
    own = cache.folder.parent.stat()
    print(oct(stat.S_IMODE(own.st_mode)), own.st_uid == os.getuid(), cache.folder.parents[1], folder.exists())
asyncio.run(main())
"""


@posix
def test_on_a_network_file_system_it_is_in_a_temporary_folder_of_this_user_alone(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    assert with_temporary_folder(NETWORK, temporary) == f"False True\nTrue True\n0o700 True {temporary} False\n"


STRANGE_FOLDER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cache.offline_asking import answer_of
from llm_jupyter.cache import AnswerCache
cache = AnswerCache(Path(sys.argv[1]) / "cache", is_remote=lambda path: True)
own = cache.folder.parent
for make in (lambda: own.symlink_to(sys.argv[1]), lambda: own.mkdir(mode=0o777), lambda: own.touch()):
    make()
    if own.is_dir() and not own.is_symlink():
        own.chmod(0o777)
    cache = AnswerCache(Path(sys.argv[1]) / "cache", is_remote=lambda path: True)
    print(asyncio.run(cache.put(answer_of())), bool(cache.trouble))
    cache.close()
    own.rmdir() if own.is_dir() and not own.is_symlink() else own.unlink()
"""


@posix
def test_a_temporary_folder_that_others_prepared_is_not_used(tmp_path: Path) -> None:
    assert with_temporary_folder(STRANGE_FOLDER, tmp_path / "tmp") == "False True\n" * 3
    assert not (tmp_path / "cache").exists()


def with_temporary_folder(program: str, temporary: Path) -> str:
    """What a program prints that has a temporary folder of its own, inside of what it works in."""
    temporary.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", program, str(temporary.parent), TESTS],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


async def fill(folder: Path) -> None:
    cache = AnswerCache(folder)
    assert await cache.put(answer_of())
    cache.close()


def test_diskcache_is_loaded_when_a_cache_is_used_and_not_before(folder: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom llm_jupyter.cache import AnswerCache\n"
        "cache = AnswerCache(Path(sys.argv[1]))\nasyncio.run(cache.newest('x'))\ncache.close()\n"
        "assert 'diskcache' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
