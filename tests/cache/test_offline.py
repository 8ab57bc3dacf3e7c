"""The four modes: who is asked, what is kept, and what stands in for a model that does not answer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cache.offline_asking import Desk, answer_of
from hypothesis import given
from hypothesis import strategies as st
from routes import Faulty
from servers.scripted import End, reply

from llm_jupyter.cache import MODES, Asker, LLMCache, Request, age_in_words
from llm_jupyter.cache.nearly import differences
from llm_jupyter.choice import Choice
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.errors import (
    AuthenticationError,
    CacheError,
    InvalidInputError,
    LLMConnectionError,
    LLMError,
    ModelNotFoundError,
    OfflineMissError,
    ServerError,
    StreamTruncatedError,
)
from llm_jupyter.events import AnswerRecorded, AnswerReplayed, ErrorOccurred, EventBus
from llm_jupyter.settings import ModelSettings
from llm_jupyter.types import Chunk, FinishReason, GenerationOptions, Image, Message, ToolCallDelta, Usage

DOWN = LLMConnectionError("nobody answers there")

# -- the modes


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_can_be_set(tmp_path: Path, mode: str) -> None:
    cache = LLMCache(tmp_path, EventBus(), mode=mode)
    assert cache.mode == mode
    cache.close()


def test_on_is_replay_and_anything_else_an_error_that_names_the_four(tmp_path: Path) -> None:
    cache = LLMCache(tmp_path, EventBus())
    cache.mode = "on"
    assert cache.mode == "replay"
    with pytest.raises(InvalidInputError) as caught:
        cache.mode = "maybe"
    assert all(mode in str(caught.value) for mode in MODES)
    assert cache.mode == "replay"
    cache.close()


async def test_off_asks_each_time_and_keeps_nothing(tmp_path: Path) -> None:
    async with Desk(tmp_path, "one", "two") as desk:
        assert [(await desk.ask()).text for _ in range(2)] == ["one", "two"]
        assert (await desk.cache.stats()).count == 0
        assert not desk.recording.exists()
        assert desk.routes.heard(AnswerRecorded) == []
    assert not (tmp_path / "home").exists()


async def test_record_keeps_each_answer_in_the_recording_and_in_the_cache(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris it is.", mode="record") as desk:
        heard = await desk.ask()
        assert (heard.text, heard.source, heard.by) == ("Paris it is.", "", ("local", "m", True))
        status = await desk.cache.status()
        assert (status.mode, status.recording, status.recorded, status.trouble) == ("record", desk.recording, 1, "")
        assert status.cache.count == 1
        [event] = desk.routes.heard(AnswerRecorded)
        assert len(event.digest) == 64


async def test_auto_keeps_each_answer_in_the_cache_alone(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="auto") as desk:
        await desk.ask()
        assert (await desk.cache.stats()).count == 1
        assert not desk.recording.exists()


@pytest.mark.parametrize("mode", ["auto", "record"])
async def test_while_somebody_answers_nothing_kept_is_given(tmp_path: Path, mode: str) -> None:
    async with Desk(tmp_path, "one", "two", mode=mode) as desk:
        assert [(await desk.ask()).text for _ in range(2)] == ["one", "two"]
        assert desk.routes.heard(AnswerReplayed) == []


@pytest.mark.parametrize("mode", ["auto", "record"])
async def test_the_answer_to_a_private_question_is_kept_nowhere(tmp_path: Path, mode: str) -> None:
    async with Desk(tmp_path, "one", mode=mode) as desk:
        assert (await desk.ask(is_private=True)).text == "one"
        assert (await desk.cache.stats()).count == 0
        assert not desk.recording.exists()


# -- replay


async def test_a_replay_asks_nobody_and_says_whose_answer_it_is(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris it is.", mode="record") as desk:
        recorded = await desk.ask()
        asked, desk.lives = len(desk.provider.asked), 0
        desk.cache.mode = "replay"

        async def choose() -> Choice:
            raise AssertionError("choosing a model asks servers")

        replayed = await desk.ask(choose=choose)
        assert (replayed.said, replayed.source, replayed.by) == (recorded.said, "recording", ("local", "m", True))
        assert (len(desk.provider.asked), desk.lives) == (asked, 0)
        [event] = desk.routes.heard(AnswerReplayed)
        assert (event.source, event.age) == ("recording", None)


async def test_a_replay_comes_at_once_or_paced(tmp_path: Path) -> None:
    async with Desk(tmp_path, "a b c", mode="record") as desk:
        await desk.ask()
        desk.cache.mode = "replay"
        assert [len(batch) for batch in (await desk.ask()).batches] == [4]
        assert desk.routes.clock.slept == []
        desk.cache.pace = 0.5
        assert [len(batch) for batch in (await desk.ask()).batches] == [1, 1, 1, 1]
        assert desk.routes.clock.slept == [0.5, 0.5]


async def test_a_recording_replays_where_there_is_no_cache_and_no_such_provider(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="record") as desk:
        await desk.ask()
        recording = desk.recording.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    async with Desk(tmp_path / "elsewhere", servers={"other": "http://127.0.0.1:9/v1"}, mode="replay") as desk:
        desk.recording.write_bytes(recording)
        assert (await desk.ask()).text == "Paris."
        assert (await desk.ask(model="local/m")).text == "Paris."


async def test_a_kernel_that_knows_no_notebook_replays_every_recording_of_its_folder(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="record") as desk:
        await desk.ask()
        await desk.cache.clear()
        desk.cache.mode = "replay"
        desk.cache.place(None, desk.notebook.parent)
        assert (await desk.ask()).text == "Paris."
        assert (await desk.cache.status()).recording is None


@pytest.mark.parametrize("absolute", [True, False])
async def test_the_recording_that_was_named_is_the_one_that_counts(tmp_path: Path, absolute: bool) -> None:
    path = tmp_path / "notes" / "shared" / "all.jsonl"
    path.parent.mkdir(parents=True)
    named = str(path) if absolute else "shared/all.jsonl"
    async with Desk(tmp_path, "Paris.", mode="record", recording=named) as desk:
        await desk.ask()
        assert (path.exists(), desk.recording.exists()) == (True, False)
        await desk.cache.clear()
        desk.cache.mode = "replay"
        assert (await desk.ask()).source == "recording"


async def test_without_any_place_the_cache_is_recorded_to_and_replayed(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="record") as desk:
        desk.cache.place(None, tmp_path)
        await desk.ask()
        assert list(tmp_path.glob("*.jsonl")) == []
        desk.cache.mode = "replay"
        desk.now += 10
        replayed = await desk.ask()
        assert (replayed.text, replayed.source, replayed.age) == ("Paris.", "cache", 10.0)


async def test_the_model_that_is_named_replays_else_whichever_answered_last(tmp_path: Path) -> None:
    async with Desk(tmp_path, "of m", "of n", mode="record") as desk:
        await desk.ask(model="local/m")
        await desk.ask(model="local/n")
        desk.cache.mode = "replay"
        for model, text in ((None, "of n"), ("local/m", "of m"), ("m", "of m"), ("local/n", "of n"), ("local", "of n")):
            assert (await desk.ask(model=model)).text == text


async def test_each_cell_hears_its_own_answer_however_often_it_runs(tmp_path: Path) -> None:
    async with Desk(tmp_path, "a1", "b1", "a2", mode="record") as desk:
        for cell, execution in (("A", "1"), ("B", "2"), ("A", "3")):
            await desk.ask(asker=Asker(cell, execution))
        desk.cache.mode = "replay"
        heard = [(await desk.ask(asker=Asker(cell, str(n)))).text for n, cell in enumerate("ABABBA")]
        assert heard == ["a2", "b1", "a2", "b1", "b1", "a2"]


async def test_setting_the_mode_begins_the_replay_anew(tmp_path: Path) -> None:
    async with Desk(tmp_path, "a", "b", mode="record") as desk:
        await desk.ask()
        await desk.ask()
        for _ in range(2):
            desk.cache.mode = "replay"
            assert [(await desk.ask()).text for _ in range(3)] == ["a", "b", "b"]


async def test_a_miss_says_what_was_not_recorded_and_what_to_type(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="replay") as desk:
        with pytest.raises(OfflineMissError) as caught:
            await desk.ask("Why is\nthe sky " + "very " * 30 + "blue?", model="local/m")
        assert caught.value.lines() == [
            'offline, and no answer by local/m was recorded for "Why is the sky very very very very very very very very very…"',
            "%llm offline record, and run the cell; or %llm offline off asks the model.",
        ]
        assert desk.lives == 0


async def test_a_miss_says_how_the_same_question_was_asked_where_it_was_recorded(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        await desk.ask("Name a colour.", temperature=0.5, seed=3, max_tokens=9)
        desk.cache.mode = "replay"
        with pytest.raises(OfflineMissError) as caught:
            await desk.ask("Name a colour.", temperature=0.5, max_tokens=8, think=True)
        assert caught.value.lines() == [
            'offline, and no answer was recorded for "Name a colour." as it is asked here: '
            "one was, with --max-tokens 9 and --seed 3 and no --think",
            "%llm offline record, and run the cell; or %llm offline off asks the model.",
        ]
        with pytest.raises(OfflineMissError, match=r'no answer by local/n was recorded for "Name a colour."\n'):
            await desk.ask("Name a colour.", model="local/n")


async def test_where_no_recording_is_known_a_miss_finds_the_same_question_in_the_cache(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        desk.cache.place(None, desk.notebook.parent)
        await desk.ask(seed=3)
        desk.cache.mode = "replay"
        with pytest.raises(OfflineMissError, match="one was, with --seed 3"):
            await desk.ask()


@pytest.mark.parametrize(
    ("recorded", "asked", "told"),
    [
        (["hi"], ["yo", "hey", "hi"], ["no conversation before it"]),
        (["yo", "hey", "hi"], ["hi"], ["another conversation before it"]),
        (["*be brief", "hi"], ["hi"], ["another system prompt"]),
        (["hi"], ["*be brief", "yo", "hey", "hi"], ["no system prompt", "no conversation before it"]),
        (["hi"], ["hi"], []),
    ],
)
def test_what_stood_before_a_question_is_told_in_words(recorded: list[str], asked: list[str], told: list[str]) -> None:
    def request(said: list[str]) -> Request:
        written = [Message.system(text[1:]) if text[0] == "*" else Message.user(text) for text in said]
        return Request.of(written, GenerationOptions())

    assert differences(request(asked), request(recorded)) == told


def test_pictures_and_roles_are_told_too() -> None:
    plain = Request.of([Message.user("hi")], GenerationOptions())
    picture = Request.of([Message.user("hi", [Image(b"x", "image/png")])], GenerationOptions())
    raw = Request.of([Message.user("hi")], GenerationOptions(stop=("x",)), completion=True)
    assert differences(plain, picture) == ["other pictures"]
    assert differences(plain, raw) == ["--completion", "another --stop"]
    assert differences(raw, plain) == ["a chat's roles", "no --stop"]


async def test_a_miss_of_one_model_names_another_one_that_answered(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        await desk.ask(model="local/n")
        desk.cache.mode = "replay"
        with pytest.raises(OfflineMissError, match="local/n answered it: -m local/n"):
            await desk.ask(model="local/m")


async def test_another_option_is_a_miss(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        await desk.ask(temperature=0.5)
        desk.cache.mode = "replay"
        assert (await desk.ask(temperature=0.5, timeout=1.0)).text == "You said: hi"
        with pytest.raises(OfflineMissError):
            await desk.ask(temperature=0.6)


async def test_a_bad_line_in_the_notebooks_own_recording_is_named_where_nothing_else_answers(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        await desk.ask()
        desk.recording.write_text("<<<<<<< HEAD\n" + desk.recording.read_text())
        desk.cache.mode = "replay"
        assert (await desk.ask()).source == "recording"
        with pytest.raises(CacheError, match=r"work\.recording\.jsonl: line 1 "):
            await desk.ask("something else")
        assert (await desk.cache.status()).recorded == 1
        assert "line 1" in (await desk.cache.status()).trouble


async def test_a_bad_line_in_another_recording_is_named_only_where_nothing_else_answers(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="record") as desk:
        await desk.ask()
        desk.recording.with_name("a.recording.jsonl").write_text("<<<<<<< HEAD\n")
        desk.cache.mode = "replay"
        desk.cache.place(None, desk.notebook.parent)
        assert (await desk.ask()).source == "recording"
        with pytest.raises(CacheError, match=r"a\.recording\.jsonl: line 1 "):
            await desk.ask("something else")


async def test_what_was_recorded_can_be_looked_up_without_being_used_up(tmp_path: Path) -> None:
    async with Desk(tmp_path, "a", "b", mode="record") as desk:
        await desk.ask()
        await desk.ask()
        desk.cache.mode = "replay"
        request = answer_of("hi").request
        for _ in range(3):
            kept = await desk.cache.recorded(request, model="local/m")
            assert kept is not None
            assert kept.pieces == ("a",)
        assert (await desk.ask()).text == "a"
        assert await desk.cache.recorded(request, model="other") is None


async def test_tool_calls_thinking_and_the_end_are_replayed(tmp_path: Path) -> None:
    pieces = [
        Chunk(thinking="hm"),
        Chunk("a", "b"),
        Chunk(tool_calls=(ToolCallDelta(0, "call_1", "f", '{"x"'),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments=": 1}"),), finish_reason=FinishReason.TOOL_CALLS),
    ]
    async with Desk(tmp_path, pieces, mode="record") as desk:
        recorded = await desk.ask()
        desk.cache.mode = "replay"
        replayed = await desk.ask()
        assert replayed.said == recorded.said
        end = replayed.chunks[-1]
        assert (end.finish_reason, end.usage) == (FinishReason.TOOL_CALLS, Usage(3, 4))


@pytest.mark.parametrize("recorded_in", ["recording", "cache"])
async def test_a_replay_tells_the_times_that_were_measured_when_it_was_recorded(
    tmp_path: Path, recorded_in: str
) -> None:
    async with Desk(tmp_path, "Paris it is.", mode="record") as desk:
        measured = (await desk.ask()).chunks[-1].timing
        if recorded_in == "cache":
            desk.recording.unlink()
        desk.cache.mode = "replay"
        replayed = await desk.ask()
        told = replayed.chunks[-1].timing
        assert replayed.source == recorded_in
        assert measured is not None
        assert told is not None
        for name in ("first_token", "total", "tokens_per_second"):
            assert getattr(told, name) == round(getattr(measured, name), 3)


# -- auto


async def test_auto_gives_what_was_kept_once_nobody_answers_and_tells_its_age(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="auto") as desk:
        recorded = await desk.ask()
        desk.provider.outage = DOWN
        desk.now += 3 * 86400
        replayed = await desk.ask()
        assert (replayed.said, replayed.source, replayed.age) == (recorded.said, "cache", 3 * 86400)
        assert replayed.by == ("local", "m", True)
        [event] = desk.routes.heard(AnswerReplayed)
        assert (event.source, event.age) == ("cache", 3 * 86400)


async def test_auto_is_the_last_resort_after_every_permitted_candidate(tmp_path: Path) -> None:
    async with (
        Faulty() as first,
        Faulty() as second,
        Desk(tmp_path, servers={"first": first, "second": second}, mode="auto") as desk,
    ):
        assert (await desk.ask()).by == ("first", "m", True)
        first.chat = reply("", 500)
        live = await desk.ask()
        assert (live.source, live.by) == ("", ("second", "m", True))
        second.chat = reply("", 500)
        kept = await desk.ask()
        assert (kept.source, kept.text) == ("cache", "Heard: hi")


async def test_auto_says_the_original_error_where_nothing_is_kept(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="auto") as desk:
        desk.provider.outage = DOWN
        with pytest.raises(LLMConnectionError) as caught:
            await desk.ask()
        assert caught.value is DOWN


async def test_auto_never_gives_another_models_answer(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="auto") as desk:
        await desk.ask(model="local/n")
        desk.provider.outage = DOWN
        with pytest.raises(LLMConnectionError):
            await desk.ask(model="local/m")
        assert (await desk.ask(model="local/n")).source == "cache"


REFUSALS = [AuthenticationError("no"), ModelNotFoundError("no"), InvalidInputError("no")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=[type(error).__name__ for error in REFUSALS])
async def test_auto_hides_no_refusal(tmp_path: Path, refusal: LLMError) -> None:
    async with Desk(tmp_path, mode="auto") as desk:
        await desk.ask()
        desk.provider.outage = refusal
        with pytest.raises(type(refusal)):
            await desk.ask()


async def test_auto_stands_in_where_not_even_a_model_could_be_chosen(tmp_path: Path) -> None:
    async with Desk(tmp_path, mode="auto") as desk:
        await desk.ask(model="local/m")
        desk.provider.outage = DOWN

        async def choose() -> Choice:
            raise ModelNotFoundError("there is no model 'm': no server runs")

        assert (await desk.ask(model="m", choose=choose)).source == "cache"
        assert (await desk.ask(choose=choose)).source == "cache"
        with pytest.raises(ModelNotFoundError):
            await desk.ask(model="n", choose=choose)


async def test_auto_replaces_nothing_once_the_answer_has_begun(tmp_path: Path) -> None:
    async with Desk(tmp_path, "whole", ["half ", StreamTruncatedError("cut")], mode="auto") as desk:
        await desk.ask()
        with pytest.raises(StreamTruncatedError):
            await desk.ask()
        assert desk.routes.heard(AnswerReplayed) == []


async def test_auto_with_a_server_that_is_gone_answers_from_the_cache(tmp_path: Path) -> None:
    async with Faulty() as server, Desk(tmp_path, servers={"local": server.base_url}, mode="auto") as desk:
        assert (await desk.ask()).source == ""
        server.chat = [End.RESET]
        assert (await desk.ask()).source == "cache"
    async with Desk(tmp_path, servers={"local": server.base_url}, mode="auto") as desk:  # a new kernel, and it is down
        assert (await desk.ask()).text == "Heard: hi"


async def test_what_the_settings_say_of_a_model_counts_as_much_as_an_option(tmp_path: Path) -> None:
    def settings(**values: object) -> ModelDefaults:
        return ModelDefaults({"local/m": ModelSettings.model_validate(values)})

    async with Desk(tmp_path, mode="auto", defaults=settings(system="Be brief.", temperature=0.5)) as desk:
        await desk.ask()
    for values, is_there in (
        ({"system": "Be brief.", "temperature": 0.5}, True),
        ({"system": "Be brief.", "temperature": 0.6}, False),
        ({"system": "Be long.", "temperature": 0.5}, False),
        ({}, False),
    ):
        async with Desk(tmp_path, mode="auto", defaults=settings(**values)) as desk:
            desk.provider.outage = DOWN
            if is_there:
                assert (await desk.ask()).source == "cache"
            else:
                with pytest.raises(LLMConnectionError):
                    await desk.ask()


@pytest.mark.parametrize(
    ("then", "now", "is_same"), [("1", "1", True), ("1", "2", False), (None, "1", True), ("1", None, True)]
)
async def test_other_weights_under_the_same_name_are_another_model(
    tmp_path: Path, then: str | None, now: str | None, is_same: bool
) -> None:
    digest = then
    async with Desk(tmp_path, mode="auto", digest_of=lambda choice: digest) as desk:
        await desk.ask()
        digest, desk.provider.outage = now, DOWN
        if is_same:
            assert (await desk.ask()).source == "cache"
        else:
            with pytest.raises(LLMConnectionError):
                await desk.ask()


# -- trouble


async def test_a_recording_that_cannot_be_written_costs_no_answer_and_is_told(tmp_path: Path) -> None:
    async with Desk(tmp_path, "Paris.", mode="record") as desk:
        desk.recording.mkdir()
        assert (await desk.ask()).text == "Paris."
        [event] = desk.routes.heard(ErrorOccurred)
        assert (event.source, event.error) == ("recording", "CacheError")
        assert (await desk.cache.stats()).count == 1


@pytest.mark.parametrize("mode", ["auto", "record"])
async def test_a_cache_that_cannot_be_used_costs_no_answer(tmp_path: Path, mode: str) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    async with Desk(tmp_path, "Paris.", mode=mode) as desk:
        assert (await desk.ask()).text == "Paris."
        assert (await desk.cache.stats()).count == 0
        assert desk.routes.heard(AnswerRecorded) == []


async def test_a_failure_stays_the_failure_that_it_is_where_the_cache_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cache.db").write_bytes(b"no database" * 1000)
    async with Desk(tmp_path, mode="auto") as desk:
        desk.provider.outage = ServerError("down", status=500)
        with pytest.raises(ServerError):
            await desk.ask()


# -- small things


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute old"), (59.9, "less than a minute old"), (60, "1 minute old"), (3599, "59 minutes old"),
        (3600, "1 hour old"), (7200, "2 hours old"), (86400, "1 day old"), (3 * 86400 + 5, "3 days old"),
        (400 * 86400, "400 days old"),
    ],
)  # fmt: skip
def test_an_age_is_said_as_one_says_it(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words


@given(st.floats(0, 1e12))
def test_every_age_can_be_said(seconds: float) -> None:
    assert age_in_words(seconds).endswith(" old")


def test_an_answer_that_no_model_ended_cannot_be_kept() -> None:
    for reason in (FinishReason.INTERRUPTED, FinishReason.OTHER):
        with pytest.raises(ValueError, match="not whole"):
            msgspec.structs.replace(answer_of(), finish_reason=reason)
