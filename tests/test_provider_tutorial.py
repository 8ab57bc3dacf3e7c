"""What `docs/writing-a-provider.md` says, done as it says: the provider, its tests, its entry point and its settings."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess

DOCUMENT = Path(__file__).parents[1] / "docs" / "writing-a-provider.md"
FILES = dict(re.findall(r"^\*\*`([\w.]+)`\*\*\n\n```\w+\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S))
PROVIDER = "llama_native.py"
LIMIT = 60
"""Lines below which a whole provider stays."""

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(weights: Path) -> AsyncIterator[LlamaProcess]:
    process = await LlamaProcess.start(weights, "m", LaunchPlan(1024, 1, 1))
    yield process
    await process.stop()


@dataclass
class Installed:
    """The document's files in a folder, with the metadata that an installation would write."""

    folder: Path
    server: LlamaProcess

    async def run(self, *command: str) -> tuple[int, str]:
        """Run Python in the folder; its exit code and all that it printed."""
        known = {name: value for name, value in os.environ.items() if not name.startswith("LLM_JUPYTER_")}
        # A pytest of its own temporary folder: in the common one it would take away what other tests let everybody do.
        own = {"PYTEST_DEBUG_TEMPROOT": str(self.folder)}
        place = {"PYTHONPATH": str(self.folder), "LLM_JUPYTER_HOME": str(self.folder / "home"), **own}
        server = {"LLAMA_URL": self.server.url, "LLAMA_KEY": self.server.api_key}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=self.folder, env={**known, **place, **server},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode()

    async def tests(self, *options: str) -> tuple[int, str]:
        return await self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_llama_native.py", *options)

    def change(self, old: str, new: str) -> None:
        """Break the provider at one place."""
        file = self.folder / PROVIDER
        text = file.read_text("utf-8")
        assert text.count(old) == 1
        file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def installed(tmp_path: Path, server: LlamaProcess) -> Installed:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    (metadata := tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info").mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(head)
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{a} = {b}" for a, b in entries.items()) for group, entries in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "home").mkdir()
    settings = FILES["config.toml"].replace("http://127.0.0.1:8080", server.url)
    assert settings != FILES["config.toml"]
    (tmp_path / "home" / "config.toml").write_text(settings)
    return Installed(tmp_path, server)


async def test_the_whole_provider_is_one_file_below_the_promised_length() -> None:
    assert set(FILES) == {PROVIDER, "test_llama_native.py", "pyproject.toml", "config.toml", "registered.py"}
    assert len(FILES[PROVIDER].splitlines()) < LIMIT


async def test_the_provider_passes_the_shipped_contract_on_a_real_server(installed: Installed) -> None:
    code, printed = await installed.tests()
    assert code == 0, printed
    counts = re.search(r"^(\d+) passed in ", printed, re.M)
    assert counts, printed  # and nothing skipped
    assert int(counts[1]) > 20


BROKEN = {
    "the first piece is taken for the whole answer": (
        "return Chunk(piece.content)\n", "return Chunk(piece.content, finish_reason=FinishReason.STOP)\n",
        "test_chat_says_the_same_whole_and_streamed",
    ),
    "only the last message is sent": (
        "in checked_messages(messages)]", "in checked_messages(messages)[-1:]]", "test_every_message_reaches_the_model"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_provider_that_is_broken_fails_the_contract(installed: Installed, fault: str) -> None:
    old, new, case = BROKEN[fault]
    installed.change(old, new)
    code, printed = await installed.tests("-k", case)
    assert code == 1, printed
    assert re.search(rf"^FAILED .*::{case}", printed, re.M), printed


ASK = """
from llm_jupyter import LLMFactory
with LLMFactory() as llm:
    llm.use("native/m")
    answer = llm.chat("Name the capital of France.", temperature=0, max_tokens=12)
    print(answer.provider, answer.model, answer.is_local, answer)
"""


async def test_the_settings_know_the_kind_by_its_entry_point(installed: Installed) -> None:
    code, printed = await installed.run("-c", ASK)
    assert code == 0, printed
    assert printed.startswith("native m True")
    assert "Paris" in printed


async def test_without_its_package_the_kind_is_unknown_and_that_is_said(installed: Installed) -> None:
    (metadata,) = installed.folder.glob("*.dist-info")
    (metadata / "entry_points.txt").unlink()
    code, printed = await installed.run("-c", ASK)
    assert code == 1
    assert "there is no kind of provider 'llama-native'" in printed


async def test_a_program_registers_it_by_itself(installed: Installed) -> None:
    (installed.folder / "home" / "config.toml").unlink()
    code, printed = await installed.run("registered.py")
    assert code == 0, printed
    assert "Paris" in printed
