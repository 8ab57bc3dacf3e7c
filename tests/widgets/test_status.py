"""The dashboard `status` follows real providers: scripted servers, and the embedded model with its process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from live import place
from servers.paced import ModelServer
from servers.scripted import End, Request, Script, reply
from watching import Page, shown

from llm_jupyter.errors import UnreachableError
from llm_jupyter.events import EventBus, HealthChecked
from llm_jupyter.factory import LLMFactory
from llm_jupyter.overview import who_answers
from llm_jupyter.selection import Recipe
from llm_jupyter.settings import load_settings
from llm_jupyter.widgets import StatusDashboard
from llm_jupyter.widgets.status import LATENCIES

HOSTILE = "<img src=x onerror=alert(1)>\u202e"
FAR = {"kind": "openai-compatible", "base_url": "https://far.invalid/v1"}


class MoodyServer(ModelServer):
    """Lists its models, fails, or says nothing."""

    mood = "well"

    def _script(self, request: Request) -> Script:
        if self.mood == "silent":
            return [End.HOLD]
        return super()._script(request) if self.mood == "well" else reply({"error": {"message": HOSTILE}}, 500)


@pytest.fixture
def main() -> Iterator[MoodyServer]:
    with MoodyServer() as server:
        yield server


@pytest.fixture
def spare() -> Iterator[ModelServer]:
    with ModelServer(("s",)) as server:
        yield server


def provider(server: ModelServer) -> dict[str, str]:
    return {"kind": "openai-compatible", "base_url": server.base_url}


@pytest.fixture
def llm(tmp_path: Path, main: MoodyServer, spare: ModelServer) -> Iterator[LLMFactory]:
    values = {
        "default_model": "main/m",
        "providers": {"main": provider(main), "spare": provider(spare), "far": FAR},
        "connection": {"health_interval": 0.2},
    }
    with LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(tmp_path)}), environment={}) as llm:
        yield llm


def row(page: Page, name: str) -> dict[str, Any]:
    """A provider as it is shown; empty where it is not."""
    return page.state.get(f"row {name}", {})


def states(page: Page, name: str) -> list[str]:
    """The states of a provider in the order in which the page was told of them, each once."""
    told = [content["changes"].get(f"row {name}", [None, None])[1] for _, content in page.messages]
    words = [change["state"] for change in told if change]
    return [word for before, word in zip([None, *words], words, strict=False) if word != before]


def mark(page: Page, name: str) -> str:
    """What is said of the chosen model in a provider's row."""
    told = row(page, name).get("answers")
    return told["words"] if told else ""


def said(page: Page, text: str) -> None:
    """Wait until the line at the foot says it."""
    page.until(lambda: text in page.state.get("notice", {}).get("text", ""))


def test_it_tells_of_each_provider_and_of_the_model_that_answers(llm: LLMFactory) -> None:
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: page.state["answers"])
        assert page.state["names"] == ["far", "main", "spare", "embedded"]
        assert page.state["answers"] == ["main/m (local) will answer because it is default_model."]
        assert "ollama" in page.state["absent"]
        assert (row(page, "main")["state"], row(page, "main")["where"]) == ("connected", "local")
        assert (row(page, "main")["models"], row(page, "main")["answers"]) == (2, {"words": "m answers", "now": True})
        assert row(page, "spare")["answers"] is None
        assert (row(page, "embedded")["state"], row(page, "embedded")["loaded"]) == ("disconnected", [])


def test_what_is_remote_is_listed_and_not_asked(llm: LLMFactory) -> None:
    with shown(StatusDashboard(llm)) as page:
        assert (row(page, "far")["state"], row(page, "far")["where"]) == ("disconnected", "remote")
        assert "not asked before" in row(page, "far")["note"]
        page.act("look")
        assert not llm.providers.is_active("far")


def test_looking_at_it_loads_no_model_and_watches_the_local_servers(llm: LLMFactory, main: MoodyServer) -> None:
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: len(page.state.get("latency main", ())) > 1)
        assert {request.method for request in main.requests} == {"GET"}
        assert all(taken > 0 for taken in page.state["latency main"])


def test_a_server_that_fails_shows_why_and_what_to_do_and_that_it_was_so_when_it_is_well_again(
    llm: LLMFactory, main: MoodyServer, spare: ModelServer
) -> None:
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: row(page, "main")["state"] == "connected")
        spare.close()
        page.until(lambda: row(page, "spare")["state"] == "failed")
        page.until(lambda: row(page, "spare")["trouble"]["remedy"])
        assert row(page, "spare")["trouble"]["text"] == "nothing answers: the connection was refused"
        assert row(page, "spare")["latency"] is None
        page.until(lambda: page.state.get("latency spare", [0])[-1] is None)
        main.mood = "ill"
        page.until(lambda: row(page, "main")["state"] == "failed")
        assert not row(page, "main")["trouble"]["past"]
        main.mood = "well"
        page.until(lambda: row(page, "main")["state"] == "connected")
        assert row(page, "main")["trouble"]["past"]
        assert HOSTILE.rstrip("\u202e") in row(page, "main")["trouble"]["text"]
        assert states(page, "main")[-2:] == ["failed", "connected"]


def test_a_server_that_says_nothing_holds_up_neither_the_dashboard_nor_the_others(
    llm: LLMFactory, main: MoodyServer
) -> None:
    main.mood = "silent"
    with shown(StatusDashboard(llm)) as page:
        assert "main" in page.state["names"]
        page.until(lambda: row(page, "main")["state"] == "failed")
        page.until(lambda: len(page.state.get("latency spare", ())) > 0)


def test_a_server_is_disconnected_connected_and_used_from_the_page(llm: LLMFactory, main: MoodyServer) -> None:
    with shown(StatusDashboard(llm)) as page:
        page.act("disconnect", name="main")
        page.until(lambda: row(page, "main")["state"] == "off")
        assert row(page, "main")["can"] == {"connect": True, "disconnect": False, "use": False}
        page.until(lambda: page.state["answers"][0] == "Nothing answers now:")
        assert "the provider 'main' is switched off" in page.state["answers"][1]
        page.act("connect", name="main")
        page.until(lambda: row(page, "main")["state"] == "connected")
        said(page, "main is connected.")
        page.act("use", name="spare")
        said(page, "spare/s (local) answers from now on.")
        page.until(lambda: mark(page, "spare") == "s answers" and not mark(page, "main"))
        assert llm.chat("hi").provider == "spare"


def test_what_cannot_be_done_is_said_with_what_to_type(llm: LLMFactory, spare: ModelServer) -> None:
    spare.close()
    with shown(StatusDashboard(llm)) as page:
        page.act("connect", name="spare")
        said(page, "the connection was refused")
        assert page.state["notice"]["error"]
        assert len(page.state["notice"]["text"].splitlines()) == 2
        page.act("use", name="spare")
        said(page, "the connection was refused")
        page.act("use", name="spore")
        said(page, "there is no model 'spore'")
        page.act("disconnect", name="spore")
        said(page, "Did you mean spare?")


def test_a_model_that_is_chosen_elsewhere_is_marked(llm: LLMFactory) -> None:
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: mark(page, "main") == "m answers")
        llm.use("main/other-model")
        page.until(lambda: mark(page, "main") == "other-model answers")
        assert page.state["answers"] == ["main/other-model (local) answers because you named it."]
        llm.sessions.current.forget_choice()
        llm.sessions.current = llm.sessions.new()
        page.until(lambda: mark(page, "main") == "m answers")


def test_a_chosen_model_of_a_provider_that_is_off_or_down_is_not_said_to_answer(
    llm: LLMFactory, main: MoodyServer, spare: ModelServer
) -> None:
    llm.use("main/m")
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: mark(page, "main") == "m answers")
        llm.portal.run(llm.providers.disconnect("main"))
        page.until(lambda: mark(page, "main") == "m is chosen, but off")
        page.until(lambda: page.state["answers"] == ["main/m (local) is chosen, but off: %llm connect main"])
        assert not row(page, "main")["answers"]["now"]
        assert "m is chosen, but off; " in page.dashboard.picture().text
        llm.portal.run(llm.providers.connect("main"))
        page.until(lambda: mark(page, "main") == "m answers")
        page.until(lambda: page.state["answers"] == ["main/m (local) answers because you named it."])
        main.close()
        page.until(lambda: mark(page, "main") == "m is chosen, but down")
        assert "(local) answers" not in page.state["answers"][0]


def test_that_a_provider_which_was_not_looked_at_has_failed_is_known_without_asking_it(
    llm: LLMFactory, spare: ModelServer
) -> None:
    def looked() -> str:
        return llm.portal.run(who_answers(llm, shelves=())).lines[0]

    llm.use("spare/s")
    assert looked() == "spare/s (local) answers because you named it."
    asked = len(spare.visits)
    llm.providers.get("spare").observed(UnreachableError("the line is cut"))
    assert looked() == "spare/s (local) is to answer because you named it, and does not now: the line is cut."
    assert len(spare.visits) == asked


def test_providers_that_come_and_go_come_and_go_in_it(llm: LLMFactory, spare: ModelServer) -> None:
    recipe = llm.registry.recipe("spare")
    with shown(StatusDashboard(llm)) as page:
        llm.registry.register(Recipe("late", recipe.kind, recipe.build, True))
        page.until(lambda: "late" in page.state["names"])
        llm.registry.unregister("late")
        page.until(lambda: "late" not in page.state["names"])
        assert "row late" not in page.state


def test_the_last_round_trips_are_shown_and_those_from_before_it_was_opened_too(llm: LLMFactory) -> None:
    def looked(events: EventBus, count: int) -> None:
        for number in range(count):
            events.publish(HealthChecked(provider="main", healthy=True, latency=number / 1000))

    looked(llm.events, 3)
    with shown(StatusDashboard(llm)) as page:
        assert page.state["latency main"][:3] == [0.0, 1.0, 2.0]
        looked(llm.events, 2 * LATENCIES)
        page.until(lambda: 2.0 * LATENCIES - 1 in page.state["latency main"])
        assert len(page.state["latency main"]) == LATENCIES


def test_its_picture_for_a_saved_file_says_all_and_is_harmless(llm: LLMFactory, main: MoodyServer) -> None:
    main.mood = "ill"
    with shown(StatusDashboard(llm)) as page:
        page.until(lambda: HOSTILE.rstrip("\u202e") in json.dumps(row(page, "main")))
        picture = page.dashboard.picture()
        assert "&lt;img src=x" in picture.html
        assert "<img" not in picture.html
        assert "\u202e" not in picture.text
        assert "Not running at their usual places: " in picture.text
        line = next(line for line in picture.text.splitlines() if line.startswith("main "))
        assert line.split()[1:3] == ["local", "failed"]
    assert repr(page.dashboard) == "Status (closed)"


@pytest.mark.live
def test_it_follows_the_embedded_models_process_through_its_death(tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    settings = load_settings({}, {"LLM_JUPYTER_HOME": str(tmp_path)})
    with LLMFactory(settings, environment={}) as llm, shown(StatusDashboard(llm)) as page:
        page.act("use", name="embedded")
        assert llm.chat("hi", max_tokens=2).text
        page.until(lambda: row(page, "embedded")["loaded"] == ["smollm2-135m"])
        assert row(page, "embedded")["state"] == "connected"
        (host,) = [host for host in llm.hosts.status() if host.name == "embedded"]
        before = len(page.messages)
        psutil.Process(host.pid).kill()
        page.until(lambda: states(page, "embedded")[-2:] == ["loading", "connected"])
        page.until(lambda: row(page, "embedded")["trouble"])
        assert len(page.messages) > before
        assert "its process died: killed by SIGKILL" in row(page, "embedded")["trouble"]["text"]
        page.until(lambda: row(page, "embedded")["loaded"] == ["smollm2-135m"])
        page.act("disconnect", name="embedded")
        page.until(lambda: row(page, "embedded")["state"] == "off")
        assert row(page, "embedded")["loaded"] == []
