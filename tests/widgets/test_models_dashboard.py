"""The dashboard `models`, on scripted servers, on the embedded provider's own folder, and on its real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from live import place
from providers.gguf_files import STRING, fact, gguf, text
from providers.package_index import PackageIndex
from servers.paced import ModelServer
from servers.scripted_ollama import ScriptedOllama, entry
from watching import Page, shown

from llm_jupyter.events import (
    EventBus,
    ModelLoaded,
    ModelLoading,
    ModelPulled,
    ModelPulling,
    ProviderLost,
    RequestFailed,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.portal import Portal
from llm_jupyter.providers._download import sha256_of
from llm_jupyter.registry import ProviderRegistry
from llm_jupyter.settings import load_settings
from llm_jupyter.types import ProviderState
from llm_jupyter.widgets import ModelsDashboard
from llm_jupyter.widgets.pulls import QUIET, Pulls

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"
FAR = "https://far.invalid/v1"
DETAILS = {"quantization_level": "Q4_K_M", "context_length": 131_072}


def factory(home: Path, environment: dict[str, str] | None = None, **providers: dict[str, str]) -> LLMFactory:
    """Services whose providers are these beside the embedded one."""
    environment = environment or {}
    values = {"providers": providers, "connection": {"retries": 0}}
    return LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(home), **environment}), environment=environment)


def provider(server: ModelServer) -> dict[str, str]:
    return {"kind": "openai-compatible", "base_url": server.base_url}


def row(page: Page, model: str) -> dict[str, Any]:
    """A model as it is shown; empty where it is not."""
    return next((row for row in page.state["models"] if row["key"] == model), {})


def pull(page: Page, number: int = 0) -> dict[str, Any]:
    """A download as it is shown; empty where it is not."""
    return page.state["pulls"][number] if len(page.state["pulls"]) > number else {}


def notice(page: Page) -> tuple[str, bool]:
    """What the line at the foot says, and whether it is an error."""
    said = page.state.get("notice") or {"text": "", "error": False}
    return said["text"], said["error"]


def words(page: Page, verb: str, **values: Any) -> str:
    """Press a button, and wait for what is said of it."""
    before = notice(page)
    page.act(verb, **values)
    page.until(lambda: notice(page) != before)
    return notice(page)[0]


# -- what there is


@pytest.fixture
def many() -> Iterator[ScriptedOllama]:
    models = [
        entry("qwen3:8b", size=5_200_000, details=DETAILS, capabilities=["completion", "tools", "thinking"]),
        entry("nomic:latest", size=274_000_000, details={"quantization_level": "F16"}, capabilities=["embedding"]),
        entry("big:671b", size=404_000_000_000_000, details=DETAILS),
        entry("glm:cloud", size=384, remote_host="https://ollama.com:443"),
        entry(HOSTILE),
    ]
    with ScriptedOllama(*models) as server:
        server.loaded = {"qwen3:8b": {"context_length": 16_384}}
        yield server


def listings(server: ScriptedOllama) -> int:
    """How often the server was asked for its models."""
    return sum(request.path == "/api/tags" for request in server.requests)


def test_every_model_is_told_with_what_one_chooses_by(tmp_path: Path, many: ScriptedOllama) -> None:
    gone = {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
    far = {"kind": "openai-compatible", "base_url": FAR}
    with factory(tmp_path, {"OLLAMA_HOST": many.origin}, gone=gone, far=far) as llm, shown(
        ModelsDashboard(llm)
    ) as page:  # fmt: skip
        facts = (
            "name",
            "provider",
            "local",
            "fits",
            "loaded",
            "window",
            "quantization",
            "abilities",
            "is_managed",
            "chats",
        )
        assert [row(page, "ollama/qwen3:8b")[fact] for fact in facts] == [
            "qwen3:8b", "ollama", True, True, True, "16k of 128k", "Q4_K_M", ["thinking", "tools"], True, True
        ]  # fmt: skip
        nomic = row(page, "ollama/nomic:latest")
        assert (nomic["name"], nomic["size"], nomic["loaded"], nomic["chats"]) == ("nomic", 274_000_000, False, False)
        assert row(page, "ollama/big:671b")["fits"] is False
        cloud = row(page, "ollama/glm:cloud")
        assert [cloud[fact] for fact in ("local", "size", "fits", "loaded")] == [False, None, None, None]
        assert row(page, "ollama/qwen3:8b")["answers"] == "will answer"
        (down,) = page.state["down"]
        assert down["text"].startswith("gone is down: ")
        assert down["step"]
        assert page.state["remote"] == {"names": ["far"], "asked": False}
        page.act("refresh", remote=True)
        page.until(lambda: page.state["remote"]["asked"])
        assert {one["provider"] for one in page.state["down"]} == {"gone", "far"}
        json.dumps(page.state)


def test_its_picture_tells_the_same_and_nothing_in_it_is_live(tmp_path: Path, many: ScriptedOllama) -> None:
    far = {"kind": "openai-compatible", "base_url": FAR}
    with factory(tmp_path, {"OLLAMA_HOST": many.origin}, far=far) as llm, ModelsDashboard(llm) as dashboard:
        bundle, _ = dashboard._repr_mimebundle_()
    plain, html = bundle["text/plain"], bundle["text/html"]
    assert "ollama/qwen3:8b (will answer)" in plain
    assert "16k of 128k" in plain
    assert "Not asked, since remote: far." in plain
    assert "&lt;img src=x" in html
    assert "<img" not in html
    assert not {"\u202e", "\x1b"} & set(plain + html)


def test_a_server_is_asked_once_for_many_changes(tmp_path: Path, many: ScriptedOllama) -> None:
    with factory(tmp_path, {"OLLAMA_HOST": many.origin}) as llm:
        llm.use("ollama/qwen3:8b")
        before = listings(many)
        with shown(ModelsDashboard(llm)) as page:
            assert listings(many) == before + 1
            many.models.append(entry("new:1b"))
            for _ in range(200):
                llm.events.publish(ModelPulled(provider="ollama", model="new:1b"))
            page.until(lambda: row(page, "ollama/new:1b"))
            assert listings(many) <= before + 3


def test_a_server_that_ends_is_said_and_one_that_is_back_shows_its_models(tmp_path: Path) -> None:
    with ModelServer() as server, factory(tmp_path, mine=provider(server)) as llm, shown(ModelsDashboard(llm)) as page:
        assert row(page, "mine/m")
        llm.portal.run(llm.providers.disconnect("mine"))
        page.until(lambda: not row(page, "mine/m"))
        llm.portal.run(llm.providers.connect("mine"))
        page.until(lambda: row(page, "mine/m"))
        server.close()
        page.act("refresh")
        page.until(lambda: page.state["down"])
        assert not row(page, "mine/m")


# -- which one answers


def test_use_lets_a_model_answer_and_what_a_cell_chose_is_shown(tmp_path: Path) -> None:
    with ModelServer() as server, factory(tmp_path, mine=provider(server)) as llm, shown(ModelsDashboard(llm)) as page:
        assert page.state["answering"] == {"name": "mine/m", "local": True, "word": "will answer"}
        assert words(page, "use", model="mine/other-model").startswith("mine/other-model (local) answers from now on")
        page.until(lambda: row(page, "mine/other-model")["answers"] == "answers now")
        assert row(page, "mine/m")["answers"] == ""
        llm.use("mine/m")
        page.until(lambda: row(page, "mine/m")["answers"] == "answers now")
        assert llm.chat("hi").model == "m"
        assert "there is no model" in words(page, "use", model="mine/none")
        assert notice(page)[1]
        assert page.state["answering"]["name"] == "mine/m"


# -- fetching, and the embedded provider's own folder


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[tuple[PackageIndex, str]]:
    """A server with one small model file that it holds back after a part; and how a pull names that."""
    file = tmp_path / "served.gguf"
    file.write_bytes(gguf([fact("general.architecture", STRING, text("toy"))], [], data=3_000_000))
    with PackageIndex({"toy.gguf": file}, hold_at=1 << 21) as server:
        yield server, f"{server.url}/toy.gguf#sha256={sha256_of(file)}"


def test_a_pull_is_cancelled_and_goes_on_where_it_was_and_the_model_can_be_deleted(
    tmp_path: Path, toy: tuple[PackageIndex, str]
) -> None:
    server, name = toy
    with factory(tmp_path / "home") as llm, shown(ModelsDashboard(llm)) as page:
        page.act("pull", model=f"  {name} ")
        page.until(lambda: pull(page).get("completed"))
        assert (pull(page)["state"], pull(page)["total"]) == ("running", server.files["toy.gguf"].stat().st_size)
        assert pull(page)["name"] == f"embedded/{server.url.removeprefix('http://')}/toy.gguf"
        assert "is being fetched already" in words(page, "pull", model=name)

        number = pull(page)["number"]
        page.act("cancel", pull=number)
        page.until(lambda: pull(page)["state"] == "stopped")
        assert not row(page, "embedded/toy")
        server.hold_at = None
        page.act("resume", pull=number)
        page.until(lambda: row(page, "embedded/toy"))
        page.until(lambda: page.state["pulls"] == [])
        assert "toy.gguf is here: 3 MB, after" in notice(page)[0]
        kept = server.downloads[1].start
        assert kept > 0
        assert server.downloads[1].sent == server.files["toy.gguf"].stat().st_size - kept

        assert "it was here already" in words(page, "pull", model=name)
        assert words(page, "delete", model="embedded/toy") == "embedded/toy is deleted."
        page.until(lambda: not row(page, "embedded/toy"))
        assert not list((tmp_path / "home" / "models").glob("toy*"))


def test_several_are_fetched_at_once_and_one_that_fails_stays_until_it_is_dismissed(
    tmp_path: Path, toy: tuple[PackageIndex, str]
) -> None:
    name = toy[1]
    with factory(tmp_path / "home") as llm, shown(ModelsDashboard(llm)) as page:
        page.act("pull", model=name)
        page.act("pull", model="embedded/http://me:secret@127.0.0.1:9/x.gguf?key=secret")
        page.until(lambda: pull(page, 1).get("state") == "failed")
        assert "needs its checksum" in pull(page, 1)["error"]
        assert pull(page, 1)["name"] == "embedded/127.0.0.1:9/x.gguf"
        page.until(lambda: pull(page)["state"] == "running")
        page.act("resume", pull=pull(page, 1)["number"])
        page.until(lambda: pull(page, 1)["state"] == "failed")
        page.act("dismiss", pull=pull(page, 1)["number"])
        page.until(lambda: len(page.state["pulls"]) == 1)
        assert "is not shown any more" in words(page, "resume", pull=99)
        assert "secret" not in json.dumps(page.state)


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "which model"), ("llama3.2", "no provider that runs here can fetch"), ("mine/x", "cannot fetch models")],
)
def test_what_nobody_can_fetch_is_said_at_once(tmp_path: Path, name: str, said: str) -> None:
    with ModelServer() as server, factory(tmp_path, mine=provider(server)) as llm, shown(ModelsDashboard(llm)) as page:
        assert said in words(page, "pull", model=name)
        assert notice(page)[1]
        assert page.state["pulls"] == []


def test_a_download_that_a_cell_began_is_shown_and_is_not_ours_to_cancel(
    tmp_path: Path, toy: tuple[PackageIndex, str]
) -> None:
    server, name = toy
    with factory(tmp_path / "home") as llm, shown(ModelsDashboard(llm)) as page:

        async def cell() -> None:
            async for _ in llm.providers.get("embedded").pull_model(name):
                pass

        job = llm.portal.start(cell())
        page.until(lambda: pull(page).get("completed"))
        assert pull(page)["state"] == "elsewhere"
        page.act("cancel", pull=pull(page)["number"])
        assert not job.done
        server.hold_at = None
        job.cancel()
        llm.portal.start(cell())
        page.until(lambda: row(page, "embedded/toy"))
        page.until(lambda: page.state["pulls"] == [])


def test_closing_stops_what_it_fetches(tmp_path: Path, toy: tuple[PackageIndex, str]) -> None:
    with factory(tmp_path / "home") as llm:
        with shown(ModelsDashboard(llm)) as page:
            page.act("pull", model=toy[1])
            page.until(lambda: pull(page).get("completed"))
        with FileLock(tmp_path / "home" / "models" / ".lock", timeout=10):  # whoever downloads holds it
            assert list((tmp_path / "home" / "models").glob("*.part"))


def test_what_a_closed_dashboard_stopped_is_shown_by_the_next_which_goes_on_with_it(
    tmp_path: Path, toy: tuple[PackageIndex, str]
) -> None:
    server, name = toy
    with factory(tmp_path / "home") as llm:
        with shown(ModelsDashboard(llm)) as page:
            page.act("pull", model=name)
            page.until(lambda: pull(page).get("completed"))
        with shown(ModelsDashboard(llm)) as page:
            page.until(lambda: pull(page).get("state") == "stopped")
            assert pull(page)["completed"] > 0
            server.hold_at = None
            page.act("resume", pull=pull(page)["number"])
            page.until(lambda: row(page, "embedded/toy") and page.state["pulls"] == [])
            assert server.downloads[1].start > 0
        with shown(ModelsDashboard(llm)) as page:
            assert page.state["pulls"] == []


def test_a_download_that_another_dashboard_began_is_shown_and_stopped_as_ones_own(
    tmp_path: Path, toy: tuple[PackageIndex, str]
) -> None:
    with factory(tmp_path / "home") as llm, shown(ModelsDashboard(llm)) as first, shown(ModelsDashboard(llm)) as other:
        first.act("pull", model=toy[1])
        for page in (first, other):
            page.until(lambda page=page: pull(page).get("state") == "running" and pull(page)["completed"])
        assert "is being fetched already" in words(other, "pull", model=toy[1])
        other.act("cancel", pull=pull(other)["number"])
        for page in (first, other):
            page.until(lambda page=page: pull(page)["state"] == "stopped")
        other.act("resume", pull=pull(other)["number"])
        first.dashboard.close()
        other.until(lambda: row(other, "embedded/toy") and other.state["pulls"] == [])
        assert "toy.gguf is here" in notice(other)[0]


def test_a_burst_of_progress_is_few_messages_and_the_last_is_right(tmp_path: Path) -> None:
    with factory(tmp_path) as llm, shown(ModelsDashboard(llm)) as page:
        for done in range(1, 2001):
            llm.events.publish(ModelPulling(provider="ollama", model="m", status="pulling", completed=done, total=2000))
        page.until(lambda: pull(page).get("completed") == 2000)
        assert sum("pulls" in message["changes"] for _, message in page.messages) < 10


def test_a_file_that_is_not_ours_is_not_deleted(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared" / "llm_jupyter" / "models"
    shared.mkdir(parents=True)
    (shared / "theirs.gguf").symlink_to(weights)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "shared"))
    with factory(tmp_path / "home") as llm, shown(ModelsDashboard(llm)) as page:
        assert "was not put there by llm_jupyter" in words(page, "delete", model="embedded/theirs")
        page.until(lambda: row(page, "embedded/theirs")["busy"] == "")
        assert (shared / "theirs.gguf").exists()


# -- in memory


@pytest.mark.live
def test_load_and_unload_are_shown_whoever_asked_for_them(tmp_path: Path, weights: Path) -> None:
    model = "embedded/smollm2-135m"
    place(weights, tmp_path)
    with factory(tmp_path) as llm, shown(ModelsDashboard(llm)) as page:

        def busy() -> list[str]:
            """What was going on with the model, in order."""
            told = [message["changes"]["models"][1] for _, message in page.messages if "models" in message["changes"]]
            seen = [one["busy"] for rows in told for one in rows if one["key"] == model]
            return [what for at, what in enumerate(seen) if at == 0 or seen[at - 1] != what]

        assert row(page, model)["loaded"] is False
        assert "is loaded, after" in words(page, "load", model=model)
        page.until(lambda: row(page, model)["loaded"])
        assert busy()[-2:] == ["loading", ""]
        assert "its memory is free" in words(page, "unload", model=model)
        page.until(lambda: row(page, model)["loaded"] is False)
        assert busy()[-2:] == ["unloading", ""]
        llm.chat("hi", max_tokens=1)
        page.until(lambda: row(page, model)["loaded"] and not row(page, model)["busy"])


def test_a_model_that_something_else_loads_is_shown_until_it_is_ready_or_that_failed(
    tmp_path: Path, many: ScriptedOllama
) -> None:
    ends = [
        ModelLoaded(provider="ollama", model="big:671b", seconds=1.0),
        RequestFailed(request="r", error="ModelLoadError", message="no room"),
        ProviderLost(provider="ollama", old=ProviderState.CONNECTED, new=ProviderState.FAILED),
    ]
    with factory(tmp_path, {"OLLAMA_HOST": many.origin}) as llm, shown(ModelsDashboard(llm)) as page:
        for end in ends:
            began = llm.events.publish(ModelLoading(provider="ollama", model="big:671b", elapsed=60.0))
            page.until(lambda: row(page, "ollama/big:671b")["busy"] == "loading")
            assert row(page, "ollama/big:671b")["since"] == began.timestamp - 60.0
            llm.events.publish(end)
            page.until(lambda: row(page, "ollama/big:671b")["busy"] == "")


def test_a_model_that_cannot_be_loaded_is_said_and_no_longer_loading(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "toy.gguf").write_bytes(gguf([fact("general.architecture", STRING, text("toy"))], [], data=99))
    with factory(tmp_path) as llm, shown(ModelsDashboard(llm)) as page:
        assert notice(page) == ("", False)
        assert words(page, "load", model="embedded/toy")
        assert notice(page)[1]
        page.until(lambda: row(page, "embedded/toy")["busy"] == "")


# -- the downloads themselves


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_download_elsewhere_of_which_nothing_is_heard_counts_as_stopped_until_it_is_heard_of_again() -> None:
    clock, events, portal = Clock(), EventBus(), Portal()
    pulls = Pulls(LLMProviderManager(ProviderRegistry(events), events), portal, lambda: None, print, clock)
    try:

        def state(completed: int | None = None) -> str:
            if completed is not None:
                pulls.hear(
                    ModelPulling(provider="p", model="m", status="", completed=completed, total=9, timestamp=clock.now)
                )
            return str(pulls.rows()[0]["state"])

        assert state(1) == "elsewhere"
        clock.now += QUIET
        assert state() == "elsewhere"
        clock.now += 0.1
        assert state() == "quiet"
        assert state(2) == "elsewhere"
        clock.now += QUIET + 1
        pulls.dismiss(pulls.rows()[0]["number"])
        assert pulls.rows() == []
    finally:
        pulls.close()
        portal.close()
