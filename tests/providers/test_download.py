"""Downloads: models by URL with their checksum, full disks, and folders that may not be written."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from gguf_files import ARRAY, STRING, array, fact, gguf, text
from package_index import PackageIndex

from llm_jupyter.errors import DiskFullError, InvalidInputError
from llm_jupyter.providers._download import download, sha256_of
from llm_jupyter.providers._weights import MODEL_ID, WeightsFolder
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.types import PullProgress

SMALL = gguf([fact("general.architecture", STRING, text("toy")), fact("w", ARRAY, array(STRING, []))], [], data=99)


@pytest.fixture
def folder(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "home")


async def all_of(progress: AsyncIterator[PullProgress]) -> list[PullProgress]:
    return [step async for step in progress]


@contextlib.contextmanager
def serving(tmp_path: Path, name: str = "toy.gguf") -> Iterator[tuple[PackageIndex, str, str]]:
    """A server with one small GGUF file; its URL and its checksum."""
    file = tmp_path / "served.gguf"
    file.write_bytes(SMALL)
    with PackageIndex({name: file}) as server:
        yield server, f"{server.url}/models/{name}?v=1", sha256_of(file)


async def test_a_gguf_file_by_url_with_its_checksum_becomes_a_model(folder: WeightsFolder, tmp_path: Path) -> None:
    provider = LlamaCppProvider(home=folder.home)
    with serving(tmp_path) as (server, url, checksum):
        steps = await all_of(provider.pull_model(f"{url}#sha256={checksum.upper()}"))
        assert steps[-1].completed == len(SMALL)
        await all_of(provider.pull_model(f"{url}#sha256={checksum}"))
        assert len(server.downloads) == 1
    assert (folder.path / "toy.gguf").read_bytes() == SMALL
    assert [model.id for model in await provider.get_available_models()] == [MODEL_ID, "toy"]
    await provider.delete_model("toy")
    assert not (folder.path / "toy.gguf").exists()


async def test_a_wrong_checksum_throws_the_file_away(folder: WeightsFolder, tmp_path: Path) -> None:
    with serving(tmp_path) as (_, url, checksum):
        with pytest.raises(InvalidInputError, match="SHA-256 is not the one given"):
            await all_of(folder.fetch_from(f"{url}#sha256={'0' * 64}"))
        assert [file.name for file in folder.path.iterdir()] == [".lock"]
        await all_of(folder.fetch_from(f"{url}#sha256={checksum}"))
        with pytest.raises(InvalidInputError, match=r"another toy\.gguf"):
            await all_of(folder.fetch_from(f"{url}#sha256={'0' * 64}"))
    assert (folder.path / "toy.gguf").read_bytes() == SMALL


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/toy.gguf", "http://127.0.0.1/toy.gguf#sha256=12", "http://127.0.0.1/toy.gguf#md5=" + "0" * 64]
    + [f"{start}#sha256={'0' * 64}" for start in ("ftp://h/a.gguf", "http://h/a.bin", "http://[::1/a.gguf")]
    + [f"{start}#sha256={'0' * 64}" for start in ("http://h:99999/a.gguf", "http:///a.gguf", "http://h/a%00.gguf")],
)
async def test_a_url_without_checksum_or_sense_is_refused_before_anything_is_sent(
    folder: WeightsFolder, url: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await all_of(folder.fetch_from(url))
    assert 1 <= len(caught.value.lines()) <= 3
    assert not folder.home.exists()


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("kept", [0, 30, len(SMALL)])
async def test_what_an_earlier_try_left_is_used_only_if_the_server_goes_on_there(
    tmp_path: Path, kept: int, has_ranges: bool
) -> None:
    target = tmp_path / "target"
    (tmp_path / "target.part").write_bytes(SMALL[:kept])
    with serving(tmp_path) as (server, url, _):
        server.has_ranges = has_ranges
        steps = await all_of(download(url, target))
    assert target.read_bytes() == SMALL
    assert all(step.total == len(SMALL) for step in steps)
    assert [visit.sent for visit in server.downloads] == [len(SMALL) - kept if has_ranges else len(SMALL)]


IN_A_SMALL_DISK = """
mount -t tmpfs -o size=2m none "$1" && shift && exec "$@"
"""

FULL = """
import asyncio, sys
from pathlib import Path
from llm_jupyter.errors import DiskFullError
from llm_jupyter.providers._download import download
folder = Path(sys.argv[1])
try:
    (folder / "probe").write_bytes(bytes(4 << 20))
except OSError as error:
    print("fault", error.errno)
(folder / "probe").unlink()
async def main():
    for _ in range(2):
        try:
            async for _ in download(sys.argv[2], folder / "file"):
                pass
        except DiskFullError as error:
            print(len(error.lines()), (folder / "file.part").stat().st_size, (folder / "file").exists())
asyncio.run(main())
"""


def test_a_disk_that_fills_up_is_said_and_keeps_what_came(tmp_path: Path) -> None:
    disk, large = tmp_path / "disk", tmp_path / "large"
    disk.mkdir()
    large.write_bytes(bytes(5 << 20))
    with PackageIndex({"large": large}, chunked=True) as server:  # no length, so that no room is asked for beforehand
        command = [sys.executable, "-c", FULL, str(disk), f"{server.url}/large"]
        unshared = ["unshare", "--map-root-user", "--mount", "sh", "-c", IN_A_SMALL_DISK, "sh", str(disk), *command]
        done = subprocess.run(unshared, capture_output=True, text=True, timeout=60)
    fault, *said = done.stdout.splitlines()
    assert fault == "fault 28", done.stderr
    assert said == [f"2 {2 << 20} False"] * 2
    assert [download.start for download in server.downloads] == [0, 2 << 20]


async def test_a_download_larger_than_the_disk_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 42)
    with PackageIndex({"huge": huge}, hold_at=0) as server, pytest.raises(DiskFullError, match="MiB are needed"):
        await all_of(download(f"{server.url}/huge", tmp_path / "target"))
    assert not (tmp_path / "target.part").exists()


AS_AN_ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
import jupyter_core.paths
from llm_jupyter.errors import ResourceError
from llm_jupyter.providers._weights import WeightsFolder
home = Path(sys.argv[1])
if os.getuid() == 0:  # after the imports: root's Python may lie where others cannot read it
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    (home / "probe").write_text("x")
except PermissionError:
    print("fault")
async def main():
    for source in ("", "http://127.0.0.1:9/a.gguf#sha256=" + "0" * 64):
        folder = WeightsFolder(home)
        try:
            async for _ in folder.fetch_from(source) if source else folder.fetch():
                pass
        except ResourceError as error:
            print(len(error.lines()), "LLM_JUPYTER_HOME" in str(error))
asyncio.run(main())
"""


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_home_that_may_not_be_written_is_said(tmp_path: Path, has_folder: bool) -> None:
    home = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # others may reach it, unlike tmp_path
    try:
        if has_folder:
            (home / "models").mkdir(mode=0o555)
        home.chmod(0o555)
        command = [sys.executable, "-c", AS_AN_ORDINARY_USER, str(home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    finally:
        home.chmod(0o755)
        shutil.rmtree(home)
    assert done.stdout.splitlines() == ["fault", "2 True", "2 True"], done.stderr
