"""What the settings say about single models and about limits, as it reaches the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from servers.paced import ModelServer
from servers.scripted import Gate, answer

from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings


def factory(home: Path, server: ModelServer, **values: Any) -> LLMFactory:
    local = {"kind": "openai-compatible", "base_url": server.base_url}
    own = {"providers": {"local": local}, "default_model": "local/m", **values}
    return LLMFactory(load_settings(own, {"LLM_JUPYTER_HOME": str(home)}), environment={})


def test_a_model_is_asked_as_its_table_says_unless_the_question_says_otherwise(tmp_path: Path) -> None:
    table = {"temperature": 0.25, "seed": 7, "max_tokens": 11}
    with ModelServer() as server, factory(tmp_path, server, models={"local/m": table}) as llm:
        llm.chat("hi")
        assert {name: server.chats[0][name] for name in ("temperature", "seed", "max_tokens")} == table
        llm.chat("hi", temperature=0.5)
        assert server.chats[1]["temperature"] == 0.5
        assert server.chats[1]["seed"] == 7
        llm.use("local/other-model")
        llm.chat("hi")
        assert "temperature" not in server.chats[2]


@pytest.mark.parametrize(
    ("asked", "sent"), [(None, 100), (40, 40), (5000, 100)], ids=["nothing asked", "less asked", "more asked"]
)
def test_no_answer_may_be_longer_than_the_limit(tmp_path: Path, asked: int | None, sent: int) -> None:
    with ModelServer() as server, factory(tmp_path, server, limits={"max_tokens": 100}) as llm:
        llm.chat("hi", **({} if asked is None else {"max_tokens": asked}))
        assert server.chats[0]["max_tokens"] == sent


@pytest.mark.parametrize(("asked", "sent"), [(40, 40), (5000, 100), (-1, 100), ("5000", 100), (None, 100)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "num_predict", "n_predict"])
def test_no_field_of_a_servers_own_goes_over_the_limit(tmp_path: Path, name: str, asked: Any, sent: int) -> None:
    with ModelServer() as server, factory(tmp_path, server, limits={"max_tokens": 100}) as llm:
        llm.chat("hi", extra={name: asked, "min_p": 0.1})
        assert (server.chats[0][name], server.chats[0]["min_p"]) == (sent, 0.1)


def test_a_field_that_only_ollama_knows_reaches_no_other_server(tmp_path: Path) -> None:
    table = {"num_ctx": 2048, "keep_alive": "5m"}
    with ModelServer() as server, factory(tmp_path, server, models={"local/m": table}) as llm:
        llm.chat("hi")
        assert not {"num_ctx", "keep_alive"} & set(server.chats[0])


def test_instructions_come_from_the_question_else_the_model_else_the_session(tmp_path: Path) -> None:
    values = {"session": {"system": "of the session"}, "models": {"local/m": {"system": "of the model"}}}
    with ModelServer() as server, factory(tmp_path, server, **values) as llm:
        llm.chat("one")
        assert server.contents() == ["of the model", "one"]
        llm.use("local/other-model")
        llm.sessions.reset()
        llm.chat("two")
        assert server.contents() == ["of the session", "two"]
        llm.use("local/m")
        llm.chat("three", system="of the question")
        assert server.contents()[0] == "of the question"
        assert server.contents().count("of the model") == 0


async def test_no_more_questions_run_at_once_than_allowed(tmp_path: Path) -> None:
    gate = Gate()
    with ModelServer() as server:
        server.next([gate, *answer("first")])
        async with factory(tmp_path, server, limits={"parallel_requests": 1}) as llm:
            first, second = (asyncio.create_task(llm.sessions.new().chat(text)) for text in ("one", "two"))
            await asyncio.to_thread(gate.reached.wait, 5)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(server.chats) == 1
            gate.open()
            answers = {answer.text for answer in await asyncio.gather(first, second)}
            assert "first" in answers
            assert answers & {"Heard: one", "Heard: two"}
            assert len(server.chats) == 2
