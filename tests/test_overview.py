"""What `%llm` and `%llm status` say of who answers is what the servers have just told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from routes import free_port
from servers.paced import ModelServer
from servers.scripted import Gate, ScriptedServer
from servers.scripted_ollama import ScriptedOllama, entry

from llm_jupyter.errors import InvalidInputError, LLMConnectionError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.overview import NOT_ASKED, views, who_answers
from llm_jupyter.selection import SWITCH
from llm_jupyter.settings import load_settings
from llm_jupyter.types import ProviderState


@contextmanager
def factory(home: Path, servers: dict[str, str], **values: Any) -> Iterator[LLMFactory]:
    """The services over servers by name; those named `ollama` are of that kind."""
    kinds = {name: "ollama" if name == "ollama" else "openai-compatible" for name in servers}
    tables = {name: {"kind": kinds[name], "base_url": url} for name, url in servers.items()}
    settings = load_settings({"providers": tables, **values}, {"LLM_JUPYTER_HOME": str(home)})
    with LLMFactory(settings, environment={}) as llm:
        yield llm


def said(llm: LLMFactory) -> str:
    async def lines() -> tuple[str, ...]:
        return (await who_answers(llm, await llm.offers())).lines

    return "\n".join(llm.portal.run(lines()))


def dead() -> str:
    return f"http://127.0.0.1:{free_port()}/v1"


def test_a_model_that_its_server_runs_elsewhere_is_remote_whatever_it_is_called(tmp_path: Path) -> None:
    with ScriptedOllama(entry("mycopy", remote_host="https://ollama.com:443"), entry("own")) as server:
        servers = {"ollama": server.origin, "main": dead()}
        with factory(tmp_path, servers, default_model="ollama/mycopy") as llm:
            assert said(llm).startswith("ollama/mycopy (remote) will answer")
        with factory(tmp_path, servers, default_model="ollama/mycopy", local_only=True) as llm:
            assert said(llm).startswith(
                "Nothing answers now:\nthe model 'ollama/mycopy' is remote, and local_only is set"
            )
        fallback = ["ollama/mycopy", "ollama/own"]
        with factory(tmp_path, servers, default_model="main/m", fallback=fallback) as llm:
            assert said(llm).endswith("Until it does, ollama/own answers.")


def test_whoever_holds_the_same_model_is_named_first_and_whoever_is_down_is_not(tmp_path: Path) -> None:
    with ModelServer(["same"]) as holder, ModelServer(["m"]) as spare:
        servers = {"a": dead(), "down": dead(), "holder": holder.base_url, "spare": spare.base_url}
        fallback = ["down/m", "spare/m", "spare/gone"]
        with factory(tmp_path, servers, default_model="a/same", fallback=fallback) as llm:
            assert said(llm).endswith("Until it does, holder/same or else spare/m answers.")
        with factory(tmp_path, {"a": dead(), "down": dead()}, default_model="a/m", fallback=["down/m"]) as llm:
            assert said(llm).endswith(f"\n{SWITCH}")
            llm.portal.run(llm.providers.disconnect("embedded"))
            assert said(llm).endswith(f"\n%llm connect embedded and then {SWITCH}")
            with pytest.raises(LLMConnectionError, match="%llm connect embedded and then %llm use embedded"):
                llm.chat("hi")


def test_a_remote_provider_that_may_not_be_asked_is_not_said_to_be_asked_once_it_is_named(tmp_path: Path) -> None:
    for local_only, reason in ((False, NOT_ASKED), (True, "remote, and local_only is set")):
        with factory(tmp_path, {"far": "http://192.0.2.1/v1"}, local_only=local_only) as llm:
            found, _ = views(llm, llm.portal.run(llm.offers()))
            assert [view.reason for view in found if view.recipe.name == "far"] == [reason]


def test_one_that_is_disconnected_says_once_what_undoes_that(tmp_path: Path) -> None:
    with factory(tmp_path, {"main": dead()}) as llm:
        llm.portal.run(llm.providers.disconnect("main"))
        found, _ = views(llm, llm.portal.run(llm.offers()))
        reasons = [view.reason for view in found if view.recipe.name == "main"]
        assert reasons == ["disconnected; %llm connect main undoes that"]
        with pytest.raises(InvalidInputError) as caught:
            llm.use("main/m")
        assert caught.value.lines() == [
            "the provider 'main' is switched off: disconnected", "%llm connect main switches it on.",
        ]  # fmt: skip


def test_a_model_that_is_not_there_is_not_said_to_answer(tmp_path: Path) -> None:
    with ModelServer() as server, factory(tmp_path, {"main": server.base_url}, default_model="main/gone") as llm:
        assert said(llm).startswith("main/gone (local) is to answer because it is default_model, and is")
        llm.use("main/m")
        assert said(llm) == "main/m (local) answers because you named it."
        server.models = ("n",)  # it came back with another
        assert said(llm).startswith("main/m (local) is to answer because you named it, and is not there.")


def test_a_server_that_hangs_is_said_to_have_failed_and_why(tmp_path: Path) -> None:
    with ScriptedServer([Gate()]) as server, factory(tmp_path, {"main": server.base_url}) as llm:

        async def look() -> None:
            connection = llm.connections.of(llm.providers.get("main"))
            async with connection.look(0.05):
                await connection.provider.probe()

        with pytest.raises(LLMConnectionError):
            llm.portal.run(look())
        found, _ = views(llm, llm.portal.run(llm.offers()))
        main = next(view for view in found if view.recipe.name == "main")
        assert (main.state, main.reason) == (ProviderState.FAILED, "it did not answer within 0.05 s")
        assert len(server.visits) == 1
