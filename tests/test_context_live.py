"""Conversations longer than the model's window, on real models: they go on, or are refused, and never silently cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live import place
from servers.real_ollama import Ollama

from llm_jupyter.context import Fitted
from llm_jupyter.errors import ContextExceededError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers._tokens import least_tokens
from llm_jupyter.sessions import Asked, LLMSession
from llm_jupyter.settings import LLMSettings, ProviderSettings
from llm_jupyter.store import TurnState
from llm_jupyter.types import GenerationOptions, Message, Usage

ANSWER = 2
BRIEF = GenerationOptions(temperature=0.0, max_tokens=ANSWER)
SYSTEM = "You are a sailor."

pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Talk:
    """A conversation with a real model; `fits` of its questions fit into the window together, and one more does not."""

    llm: LLMFactory
    window: int
    fits: int

    @property
    def session(self) -> LLMSession:
        return self.llm.sessions.current

    def question(self, number: int) -> str:
        return f"{number}" + " ship" * (self.window // 4 - 6)

    def questions(self) -> list[str]:
        """Those that fit, and one more."""
        return [self.question(number) for number in range(self.fits + 1)]

    def ask(self, prompt: str) -> Usage:
        """What the server tells of the tokens of an answer."""
        return self.llm.portal.run(self.session.chat(prompt, options=BRIEF)).usage

    def refusal(self, prompt: str) -> int:
        """How many tokens the refusal of a question tells; the window stands there too."""
        with pytest.raises(ContextExceededError) as caught:
            self.ask(prompt)
        assert caught.value.context_length == self.window
        assert caught.value.prompt_tokens is not None
        assert 1 <= len(caught.value.lines()) <= 3
        return caught.value.prompt_tokens

    def fitted(self, prompt: str) -> Fitted:
        """What would be sent."""
        return self.llm.portal.run(self.session.preview(Asked(prompt=Message.user(prompt), options=BRIEF)))[1]

    def answered(self) -> list[str]:
        """The questions that were answered."""
        return [turn.prompt.content for turn in self.session.turns if turn.state is TurnState.COMPLETE]

    def has_read(self, usage: Usage, messages: Sequence[Message]) -> bool:
        """Whether the server has read all of these messages, and had room for its answer."""
        assert usage.prompt_tokens is not None
        whole = usage.prompt_tokens + (usage.cached_tokens or 0)  # some count only what they had not read before
        return whole >= least_tokens(messages) and usage.prompt_tokens <= self.window - ANSWER


@pytest.fixture(scope="module")
def embedded(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    home = tmp_path_factory.mktemp("home")
    place(weights, home)
    with talking(home, "embedded", "smollm2-135m", kind="llamacpp", context=512) as llm:
        yield Talk(llm, 512, fits=3)


@pytest.fixture(scope="module")
def on_ollama(ollama: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    home = tmp_path_factory.mktemp("home")
    with talking(home, "ollama", ollama.model, kind="ollama", base_url=ollama.url, context=48) as llm:
        yield Talk(llm, 48, fits=2)


def talking(home: Path, name: str, model: str, **provider: Any) -> LLMFactory:
    """A factory that asks one model."""
    providers = {name: ProviderSettings.model_validate(provider)}
    return LLMFactory(LLMSettings(home=home, providers=providers, default_model=f"{name}/{model}"), environment={})


@pytest.fixture
def talk(request: pytest.FixtureRequest) -> Talk:
    """The beginning of a conversation with a real model whose window is small."""
    talk: Talk = request.getfixturevalue(request.param)
    talk.llm.sessions.reset()
    talk.session.system = SYSTEM
    return talk


@pytest.mark.parametrize("talk", ["embedded", "on_ollama"], indirect=True)
def test_a_conversation_that_outgrows_the_window_goes_on_without_its_oldest_turns(talk: Talk) -> None:
    asked = talk.questions()
    for prompt in asked:
        messages = talk.fitted(prompt).messages
        assert talk.has_read(talk.ask(prompt), messages)
    assert talk.answered() == asked
    last = talk.fitted("And now?")
    system, *said, prompt_now = last.messages
    assert (system, prompt_now) == (Message.system(SYSTEM), Message.user("And now?"))
    assert 1 <= last.turns < len(asked)
    assert last.left_out == len(asked) - last.turns
    assert [message.content for message in said[::2]] == asked[-last.turns :]


@pytest.mark.parametrize("talk", ["embedded"], indirect=True)
def test_strict_refuses_it_with_both_counts_and_loses_nothing(talk: Talk) -> None:
    talk.session.policy = "strict"
    *answered, one_more = talk.questions()
    for prompt in answered:
        talk.ask(prompt)
    assert talk.refusal(one_more) > talk.window - ANSWER
    assert talk.answered() == answered
    talk.session.policy = "window"
    assert talk.has_read(talk.ask("And now?"), [Message.user(answered[-1]), Message.user("And now?")])
    assert talk.answered() == [*answered, "And now?"]


@pytest.mark.parametrize(
    ("talk", "text"), [("embedded", "ship "), ("embedded", "a1b"), ("on_ollama", "a1b")], indirect=["talk"]
)
def test_a_question_of_three_windows_is_refused_with_both_counts_and_the_conversation_goes_on(
    talk: Talk, text: str
) -> None:
    talk.ask("Hello.")
    assert talk.refusal(text * 3 * talk.window) >= talk.window
    talk.ask("And now?")
    assert [message.content for message in talk.fitted("Next?").messages[1::2]] == ["Hello.", "And now?", "Next?"]
