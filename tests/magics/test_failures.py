"""Each fault in one to three lines, with reply status `error`; and which model answers, and which never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import Kernel
from live import place
from servers.paced import ModelServer
from servers.scripted import DONE, End, Pause, ScriptedServer, delta, finish, sse

KIND = "LLM_JUPYTER_PROVIDERS__{}__KIND"
URL = "LLM_JUPYTER_PROVIDERS__{}__BASE_URL"


def configured(**servers: ScriptedServer | str) -> dict[str, str]:
    """The environment that names servers as providers."""
    values = {}
    for name, server in servers.items():
        values[KIND.format(name.upper())] = "openai-compatible"
        values[URL.format(name.upper())] = server if isinstance(server, str) else server.base_url
    return values


def test_a_server_that_is_gone_fails_in_few_lines_and_nobody_else_answers(tmp_path: Path) -> None:
    with ModelServer(["n"]) as other, Kernel(tmp_path) as kernel:
        with ModelServer() as server:
            kernel.run(f"import os; os.environ.update({configured(local=server, other=other)!r})")
            kernel.load()
            assert kernel.run("%llm use local/m").status == "ok"
            assert kernel.run("%chat hi").status == "ok"
        other.forget()
        ran = kernel.run("%chat hi")
        assert ran.status == "error"
        (line,) = ran.error
        assert line.startswith("UnreachableError: ")
        assert server.base_url in line
        assert "%llm use embedded" in line
        assert other.chats == []
        look = kernel.run("%llm")
        assert look.status == "ok", look.error
        assert "down" in look.printed


# -- which model answers


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_the_default_model_of_the_settings_answers(home: Path) -> None:
    with ModelServer() as first, ModelServer() as second:
        (home / "config.toml").write_text(
            f'default_model = "second/other-model"\n[providers.second]\nkind = "openai-compatible"\n'
            f'base_url = "{second.base_url}"\n'
        )
        with Kernel(home, configured(first=first)) as kernel:
            kernel.load()
            ran = kernel.run("%chat hi")
            assert ran.status == "ok", ran.error
            again = kernel.run("%chat hi")
            look = kernel.run("%llm").printed
    assert (ran.answers[0]["metadata"]["llm_jupyter"]["provider"], second.chats[0]["model"]) == (
        "second",
        "other-model",
    )
    assert "default_model" in ran.footers[0]
    assert "default_model" not in again.footers[0]
    assert look.startswith("second/other-model (local) answers ")
    assert first.chats == []


def test_a_default_model_that_is_gone_is_an_error_and_nothing_else_answers(home: Path, weights: Path) -> None:
    place(weights, home)
    with ModelServer() as server:
        environment = {**configured(local=server), "LLM_JUPYTER_DEFAULT_MODEL": "local/gone"}
        with Kernel(home, environment) as kernel:
            kernel.load()
            for code in ("%chat hi", "%chat hi again", "%%llm\nhi"):
                ran = kernel.run(code)
                assert ran.status == "error"
                assert ran.error[0].startswith("ModelNotFoundError: there is no model 'gone'")
                assert len(ran.error) <= 3
    assert server.chats == []


def test_of_local_servers_the_one_of_the_highest_priority_that_answers_is_asked(home: Path) -> None:
    with ModelServer() as low, ModelServer(["high-model"]) as high:
        environment = configured(low=low, high=high, dead="http://127.0.0.1:9/v1")
        environment |= {
            "LLM_JUPYTER_PROVIDERS__HIGH__PRIORITY": "10",
            "LLM_JUPYTER_PROVIDERS__LOW__PRIORITY": "1",
            "LLM_JUPYTER_PROVIDERS__DEAD__PRIORITY": "20",
        }
        with Kernel(home, environment) as kernel:
            kernel.load()
            ran = kernel.run("%chat hi")
            assert ran.status == "ok", ran.error
    assert (low.chats, [chat["model"] for chat in high.chats]) == ([], ["high-model"])
    assert "high is a local server that answers" in ran.footers[0]


@pytest.mark.live
def test_the_embedded_model_answers_where_no_server_does(home: Path, weights: Path) -> None:
    place(weights, home)
    with Kernel(home, configured(dead="http://127.0.0.1:9/v1")) as kernel:
        kernel.load()
        ran = kernel.run("%chat -t 0 --max-tokens 3 hi")
    assert ran.status == "ok", ran.error
    assert ran.answers[0]["metadata"]["llm_jupyter"]["model"] == "smollm2-135m"
    assert ran.footers[0].startswith("embedded/smollm2-135m · local")
    assert "did not answer" in ran.footers[0]


def test_the_choice_is_said_once_and_holds(home: Path) -> None:
    with ModelServer() as local, Kernel(home, configured(local=local)) as kernel:
        kernel.load()
        will = kernel.run("%llm").printed
        first, second = kernel.run("%chat a"), kernel.run("%chat b")
        local.models = ("quite-another", "m")
        third = kernel.run("%chat c")
        does = kernel.run("%llm").printed
    assert will.startswith("local/m (local) will answer ")
    assert does.startswith("local/m (local) answers ")
    assert "local is a local server" in first.footers[0]
    assert second.footers == third.footers == ["local/m · local"]
    assert [chat["model"] for chat in local.chats] == ["m", "m", "m"]


def test_a_model_for_one_question_does_not_become_the_sessions(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat -m local/other-model a")
    notebook.run("%chat b")
    assert [chat["model"] for chat in server.chats] == ["other-model", "m"]


def test_a_default_model_set_in_mid_session_is_asked_next(notebook: Kernel, server: ModelServer) -> None:
    notebook.run('%config LLMMagics.default_model = "local/other-model"')
    assert notebook.run("%chat b").status == "ok"
    notebook.run('%config LLMMagics.default_model = "local/m"')
    notebook.run("%chat c")
    assert [chat["model"] for chat in server.chats] == ["other-model", "m"]


def test_a_timeout_set_in_mid_session_holds_from_the_next_question_on(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%config LLMMagics.timeout = 0.2")
    server.next(*[sse(End.HOLD)] * 3)
    for question in ("%chat a", "%%llm\na"):
        ran = notebook.run(question)
        assert ran.error[0].startswith("FirstTokenTimeoutError: ")
        assert "0.2 s" in ran.error[0]
        server.forget()
        server.next(*[sse(End.HOLD)] * 3)
    server.forget()
    notebook.run("%config LLMMagics.timeout = 0")
    server.next(sse(Pause(0.3), delta("late"), finish(), DONE))
    assert notebook.run("%chat b").texts == ["late"]
