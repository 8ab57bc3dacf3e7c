"""`%config LLMMagics.NAME = VALUE`: every setting, from the next question on, and never in silence for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import by_default
from IPython.core.interactiveshell import InteractiveShell
from kernels import Kernel
from servers.paced import ModelServer
from traitlets.config import Config

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.magics import LLMMagics
from llm_jupyter.magics.live import check, follow
from llm_jupyter.settings import LLMSettings, load_settings

FAR = {
    "LLM_JUPYTER_PROVIDERS__FAR__KIND": "openai-compatible",
    "LLM_JUPYTER_PROVIDERS__FAR__BASE_URL": "http://192.0.2.1:9/v1",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, module_server: ModelServer) -> Iterator[Kernel]:
    with Kernel(tmp_path_factory.mktemp("home"), by_default(module_server) | FAR) as kernel:
        kernel.load()
        yield kernel


def config(kernel: Kernel, statement: str) -> str:
    """What `%config` has to say to it."""
    ran = kernel.run(f"%config LLMMagics.{statement}")
    assert ran.status == "ok"
    return "".join(output["text"] for output in ran.outputs)


def origin(kernel: Kernel, name: str) -> list[str]:
    """Value and origin, as `%llm config NAME` has them."""
    return [line.split(maxsplit=1)[1] for line in kernel.run(f"%llm config {name}").printed.splitlines()[:2]]


def test_config_takes_every_setting_there_is() -> None:
    assert set(LLMMagics.class_own_traits(config=True)) == LLMSettings.model_fields.keys() - {"home"}


def test_ipythons_own_configuration_may_call_a_setting_by_either_name() -> None:
    said = Config()
    said.LLMMagics.private = True
    said.LLMMagics.session.system = "Be brief."
    shell = InteractiveShell(config=said)
    try:
        assert LLMMagics(shell).session == {"private": True, "system": "Be brief."}
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize("wanted", [{"connection": {"retries": 1}}, {"limits": {"max_tokens": 9}}])
def test_what_the_services_are_made_by_is_taken_before_they_stand_and_refused_after(
    tmp_path: Path, wanted: dict[str, dict[str, int]]
) -> None:
    check(None, {}, wanted)
    with LLMFactory(load_settings({}, {"LLM_JUPYTER_HOME": str(tmp_path)})) as llm:
        with pytest.raises(ConfigurationError, match="cannot be changed while the kernel runs"):
            check(llm, {}, wanted)
        check(llm, {}, {"connection": {"first_token_timeout": 3}})


def test_with_local_only_no_remote_provider_is_asked_from_then_on(kernel: Kernel, server: ModelServer) -> None:
    assert kernel.run("%chat hello").status == "ok"
    assert config(kernel, "local_only = True") == ""
    assert "local_only is set" in kernel.run("%chat -m far/m secret").error[0]
    assert origin(kernel, "local_only") == ["true", "%config"]
    config(kernel, "local_only = None")
    assert origin(kernel, "local_only") == ["false", "default"]


@pytest.mark.parametrize("name", ["private", "session.private"])
def test_private_keeps_what_is_asked_in_memory_however_it_is_called(
    kernel: Kernel, server: ModelServer, name: str
) -> None:
    word = f"zyzzyva-{name}"
    for statement in (f"%config LLMMagics.{name} = True", "%llm private off", f"%config LLMMagics.{name} = True"):
        kernel.run(statement)
    assert origin(kernel, "session.private") == ["true", "%config"]
    assert kernel.run(f"%chat {word}").status == "ok"
    kernel.run("%config LLMMagics.session.system = 'Be brief.'")
    assert "It is private" in kernel.run("%llm session").printed
    kernel.run(f"%config LLMMagics.{name} = False")
    assert "It is private" not in kernel.run("%llm session").printed
    assert not [file for file in kernel.home.glob("sessions.db*") if word.encode() in file.read_bytes()]
    kernel.run("%llm private on")
    assert origin(kernel, "session.private") == ["true", "%llm private, in this kernel"]
    config(kernel, "session.context = 'strict'")
    assert origin(kernel, "session.private")[0] == "true", "only what was set is set"
    kernel.run("%llm private off")


def test_the_last_word_counts_whatever_else_is_set_after_it(kernel: Kernel) -> None:
    for statement in ("private = False", "session.private = True", "footer = 'off'", "footer = None"):
        config(kernel, statement)
    assert origin(kernel, "session.private") == ["true", "%config"]
    config(kernel, "session = None")
    assert origin(kernel, "session.private") == ["false", "default"]


def test_an_event_log_begins_and_ends_when_it_is_set(kernel: Kernel, server: ModelServer) -> None:
    log = kernel.home / "told" / "events.jsonl"
    config(kernel, f"event_log = {str(log)!r}")
    kernel.run("%chat one")
    config(kernel, "event_log = False")
    size = log.stat().st_size
    assert b"RequestFinished" in log.read_bytes()
    kernel.run("%chat two")
    config(kernel, "event_log = True")  # what it writes to has closed the other
    assert log.stat().st_size == size
    config(kernel, "event_log = None")


def test_each_setting_says_that_it_comes_from_config(kernel: Kernel) -> None:
    for name, value, shown in (
        ("fallback", "['local/other-model']", "local/other-model"), ("timeout", "7", "7"), ("offline", "'auto'", "auto"),
        ("replay_pace", "0.5", "0.5"), ("recording", "'talk.jsonl'", "talk.jsonl"), ("footer", "'off'", "off"),
    ):  # fmt: skip
        assert config(kernel, f"{name} = {value}") == ""
        assert origin(kernel, name) == [shown, "%config"]
        config(kernel, f"{name} = None")
        assert origin(kernel, name)[1] == "default"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("timeout = -3", "timeout must be a number of seconds, more than 0"),
        ("local_onyl = True", "Did you mean local_only?"),
        ("session.privat = True", "Did you mean session.private?"),
        ("home = '/tmp'", "LLM_JUPYTER_HOME moves it"),
        ("connection.retries = 0", "[connection] cannot be changed while the kernel runs"),
    ],
)
def test_what_cannot_be_set_is_said_each_time_and_changes_nothing(kernel: Kernel, statement: str, said: str) -> None:
    before = kernel.run("%llm config --all").printed
    for _ in range(2):
        assert said in config(kernel, statement)
    assert kernel.run("%llm config --all").printed == before


def test_a_lock_goes_over_what_config_says_of_a_kernel_that_runs(tmp_path: Path) -> None:
    system = tmp_path / "system.toml"
    system.write_text("[locked]\nlocal_only = true\n[locked.session]\nprivate = true\n")
    settings = load_settings({}, {"LLM_JUPYTER_HOME": str(tmp_path / "home")}, system=[system])
    said = {"local_only": False, "session": {"private": False}}
    with LLMFactory(settings) as llm:
        for name in said:
            follow(llm, said, name)
        assert (llm.providers.local_only, llm.sessions.is_private) == (True, True)
        assert llm.settings.origin("local_only") == f"locked by {system}"


def test_a_relative_event_log_stays_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with LLMFactory(load_settings({"event_log": "log.jsonl"}, {"LLM_JUPYTER_HOME": str(tmp_path / "home")})):
        monkeypatch.chdir(tmp_path / "two")
    assert [file.parent.name for file in tmp_path.rglob("log.jsonl")] == ["one"]
