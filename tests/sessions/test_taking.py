"""A conversation that is taken to another notebook: what its cells ask there, and in the notebook that it came from."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers.paced import ModelServer

from llm_jupyter.cache import LLMCache
from llm_jupyter.events import EventBus
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.portable import conversation_of, export, from_json
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import ProviderRegistry, Recipe
from llm_jupyter.sessions import CellPlace, LLMSession, LLMSessionManager, Services, Whereabouts
from llm_jupyter.store import Store

RUNS = itertools.count()


@dataclass
class Notebook:
    """A saved notebook, and a kernel of it while it is open. The cells of all of them are called c1, c2 and so on."""

    path: Path
    server: ModelServer
    services: Services
    words: list[str]
    outputs: dict[str, list[object]] = field(default_factory=dict)

    def open(self, store: Store) -> LLMSessionManager:
        """Save it, and begin a kernel."""
        self.save()
        self.sessions = LLMSessionManager(self.services, store)
        self.sessions.arrive(Whereabouts(None, self.path))
        return self.sessions

    def close(self) -> None:
        self.sessions.store.release(self.sessions.current.id, self.sessions.current.record.holder or "")

    def save(self) -> None:
        cells: list[dict[str, object]] = [
            {"id": f"c{n}", "cell_type": "code", "source": f"%%chat\n{word}", "metadata": {}, "execution_count": None,
             "outputs": self.outputs.get(f"c{n}", [])}
            for n, word in enumerate(self.words, 1)
        ]  # fmt: skip
        self.path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))

    async def run_all(self, session: LLMSession | None = None) -> list[str]:
        """Ask what the cells ask; the questions in each request, one after the other."""
        self.save()
        session = session or self.sessions.current
        for number, word in enumerate(self.words, 1):
            place = CellPlace(f"c{number}", f"run {next(RUNS)}", "lab")
            async with session.ask(word, place=place) as answering:
                async for _ in answering:
                    pass
            assert answering.turn is not None
            marks = {"session": session.id, "turn": answering.turn.id, "finish_reason": "stop"}
            self.outputs[f"c{number}"] = [
                {"output_type": "display_data", "data": {"text/plain": f"Heard: {word}"}, "metadata": {"llm_jupyter": marks}}
            ]  # fmt: skip
        self.save()
        asked = ["|".join(self.server.contents(n)[::2]) for n in range(len(self.server.chats))]
        self.server.forget()
        return asked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "sessions.db")
    yield store
    store.close()


@pytest.fixture
async def first(tmp_path: Path, store: Store) -> AsyncIterator[Notebook]:
    """A notebook that has asked two things in a conversation called alpha, and is closed."""
    async with ModelServer() as server:
        registry = ProviderRegistry(events := EventBus())
        registry.register(
            Recipe("local", "openai-compatible", lambda: OpenAICompatibleProvider("local", server.base_url), True)
        )
        services = Services(LLMProviderManager(registry, events), events, LLMCache(Path(os.devnull), events))
        notebook = Notebook(tmp_path / "first.ipynb", server, services, ["one", "two"])
        sessions = notebook.open(store)
        assert await notebook.run_all() == ["one", "one|two"]
        sessions.rename("alpha")
        notebook.close()
        yield notebook
        await services.providers.aclose()


def other(first: Notebook, name: str = "other.ipynb") -> Notebook:
    return Notebook(first.path.with_name(name), first.server, first.services, ["B1", "B2"])


THERE = ["one|two|B1", "one|two|B1|B2"]


async def test_used_in_another_notebook_it_goes_on_there_and_is_still_that_of_the_first(
    first: Notebook, store: Store
) -> None:
    second = other(first)
    second.open(store).use("alpha")
    assert await second.run_all() == THERE
    assert await second.run_all() == THERE
    second.close()

    sessions = first.open(store)
    assert sessions.notices == ["Resumed 4 turns of alpha (it is this notebook's too); %llm reset starts over."]
    assert await first.run_all() == ["one", "one|two"], "its cells take the place of what they asked"
    first.words.append("three")
    assert (await first.run_all())[-1] == "one|two|B1|B2|three"
    first.close()

    assert "(it is this notebook's too)" in second.open(store).notices[0]
    assert await second.run_all() == THERE


async def test_let_go_in_another_notebook_it_is_that_of_the_first_again(first: Notebook, store: Store) -> None:
    second = other(first)
    second.open(store).use("alpha")
    await second.run_all()
    second.sessions.reset()
    sessions = first.open(store)
    assert sessions.current.name == "alpha"
    assert "(it is this notebook's)" in sessions.notices[0]


async def test_asked_beside_from_two_notebooks_it_has_the_turns_of_both(first: Notebook, store: Store) -> None:
    second = other(first)
    second.open(store)
    for _ in range(2):
        assert await second.run_all(second.sessions.named("alpha")) == THERE
    store.release(second.sessions.named("alpha").id, second.sessions.named("alpha").record.holder or "")
    first.open(store)
    assert await first.run_all(first.sessions.named("alpha")) == ["one", "one|two"]


async def test_imported_it_has_its_turns_where_it_goes_on_and_where_it_comes_from(
    first: Notebook, store: Store, tmp_path: Path
) -> None:
    record = store.named("alpha")
    assert record is not None
    export(record, store.all_turns(record.id), file := tmp_path / "alpha.json", lambda: True)
    assert "first.ipynb" not in file.read_text(), "where it was asked is nobody's business"
    second = other(first)
    second.open(store).take_in(*from_json(file.read_bytes()))
    assert await second.run_all() == THERE
    assert await second.run_all() == THERE

    first.open(store).take_in(*from_json(file.read_bytes()))
    assert await first.run_all() == ["one", "one|two"]


@pytest.mark.parametrize("goes_on_in", ["other.ipynb", "first.ipynb"])
async def test_rebuilt_from_the_notebooks_file_too(first: Notebook, store: Store, goes_on_in: str) -> None:
    store.delete(store.sessions()[0].id)
    notebook = first if goes_on_in == "first.ipynb" else other(first)
    notebook.open(store).rebuild(conversation_of(first.path), first.path)
    expected = ["one", "one|two"] if notebook is first else THERE
    assert await notebook.run_all() == expected
    assert await notebook.run_all() == expected


async def test_what_was_asked_before_the_notebook_was_renamed_or_copied_is_its_own(
    first: Notebook, store: Store
) -> None:
    copy = Notebook(first.path.with_name("copy.ipynb"), first.server, first.services, [*first.words], {**first.outputs})
    assert "copy of first.ipynb" in copy.open(store).notices[0]
    assert await copy.run_all() == ["one", "one|two"]
    copy.close()

    second = other(first)
    second.open(store).use("alpha")
    assert await second.run_all() == THERE
    second.close()
    first.path = first.path.rename(first.path.with_name("final.ipynb"))
    sessions = first.open(store)
    assert sessions.notices == ["Resumed 4 turns of alpha (this notebook was first.ipynb); %llm reset starts over."]
    first.words = ["two", "one"]
    assert await first.run_all() == ["two", "two|one"]
