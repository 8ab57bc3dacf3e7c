"""The file beside a notebook: what it says, what it survives, and whose answer comes when."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from cache.offline_asking import answer_of, request_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from llm_jupyter.cache import Asker, Kept, Piece, Recording, Who
from llm_jupyter.cache.answers import Recorder
from llm_jupyter.errors import CacheError
from llm_jupyter.types import Chunk, FinishReason, Timing, ToolCallDelta, Usage

NOBODY = Asker()
anything = st.text(max_size=20)
deltas = st.builds(ToolCallDelta, st.integers(0, 3), anything, anything, anything)
pieces = anything.filter(bool) | st.builds(Piece, anything, anything, st.lists(deltas, max_size=2).map(tuple))
answers = st.builds(
    Kept,
    request=anything.map(request_of),
    who=st.builds(Who, kind=st.just("scripted"), model=st.sampled_from(["m", "n:latest", "a/b"])),
    provider=st.just("local"),
    is_local=st.booleans(),
    pieces=st.lists(pieces, max_size=4).map(tuple),
    finish_reason=st.sampled_from(
        [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]
    ),
    usage=st.builds(Usage, st.none() | st.integers(0, 99), st.none() | st.integers(0, 99)),
    timing=st.builds(Timing, st.none() | st.floats(0, 99)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.recording.jsonl"


def recording(path: Path) -> Recording:
    """A new run of the notebook."""
    return Recording(path, path.parent / "locks")


def written(path: Path, *kept: Kept) -> Path:
    """A file that one run has recorded."""
    run = recording(path)
    for answer in kept:
        run.add(answer)
    return path


def heard(run: Recording, prompt: str, times: int, *, wanted: str | None = None, asker: Asker = NOBODY) -> list[str]:
    """The texts of the answers when a question is asked so many times."""
    found = [run.find(request_of(prompt).digest, wanted, asker) for _ in range(times)]
    return ["".join(piece for piece in kept.pieces if isinstance(piece, str)) if kept else "" for kept in found]


def without_halves(value: object) -> str:
    """As text, with halves of surrogate pairs replaced."""
    text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# -- the file


@given(kept=answers)
def test_whatever_an_answer_says_it_is_one_line_and_comes_back(
    kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("notes") / "work.recording.jsonl", kept)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1  # splitlines knows all that could end a line
    found = recording(path).find(kept.request.digest)
    assert without_halves(found) == without_halves(kept)


@pytest.mark.parametrize(
    "odd", ["\u2028", "\u2029", "\x85", "\x00", "\x1b[2J", "\x1c", "\u202e", "\ufeff", "\r\n", "\U000e0001"]
)
def test_what_does_not_show_is_escaped_and_all_else_is_readable(path: Path, odd: str) -> None:
    written(path, answer_of(f"ä{odd}", f"語{odd}😀"))
    text = path.read_text(encoding="utf-8")
    assert text.removesuffix("\n").isprintable()
    assert all(c in text for c in "ä語😀")
    assert heard(recording(path), f"ä{odd}", 1) == [f"語{odd}😀"]


def test_a_line_is_readable_and_the_question_stands_first(path: Path) -> None:
    written(path, answer_of("hi", "Hel", "lo", Piece(thinking="hm")))
    assert path.read_text() == (
        '{"request": {"messages": [{"role": "user", "content": "hi"}]}, "who": {"kind": "scripted", "model": "m"}, '
        '"provider": "local", "pieces": ["Hel", "lo", {"thinking": "hm"}], "finish_reason": "stop", '
        '"usage": {"prompt_tokens": 3, "completion_tokens": 1, "cached_tokens": null, "thinking_tokens": null}}\n'
    )


def test_what_changes_from_run_to_run_or_belongs_to_one_machine_is_not_in_it(path: Path) -> None:
    kept = Kept(
        request=request_of("hi"), who=Who("llamacpp", "/home/anna/secret project/tiny.gguf", settings="abc"),
        provider="embedded", pieces=("x",), finish_reason=FinishReason.STOP, usage=Usage(3, 1, cached_tokens=2),
        reported="/home/anna/secret project/tiny.gguf", created=1234567.0,
    )  # fmt: skip
    text = written(path, kept).read_text()
    assert not any(word in text for word in ("anna", "1234567", "abc", "created", "reported"))
    again = recording(path).find(request_of("hi").digest, "/home/berta/tiny.gguf")
    assert again is not None
    assert again.full_name == "embedded/tiny.gguf"


def test_recording_the_same_answers_again_leaves_the_file_as_it_is(path: Path) -> None:
    asked = [answer_of("one"), answer_of("two", "a"), answer_of("three"), answer_of("two", "b")]
    before = written(path, *asked).read_bytes()
    assert written(path, *asked).read_bytes() == before


def test_the_times_are_of_the_first_recording_until_the_answer_is_another(path: Path) -> None:
    def took(seconds: float, text: str = "x") -> Kept:
        return msgspec.structs.replace(answer_of("hi", text), timing=Timing(total=seconds))

    def measured() -> float | None:
        kept = recording(path).find(request_of("hi").digest)
        return kept.timing.total if kept is not None else None

    before = written(path, took(1.0)).read_bytes()
    assert written(path, took(2.0)).read_bytes() == before
    assert measured() == 1.0
    written(path, took(3.0, "y"))
    assert measured() == 3.0


def test_each_of_several_answers_to_one_question_keeps_its_own_times(path: Path) -> None:
    def run(*texts: str, took: float) -> bytes:
        answers = [
            msgspec.structs.replace(answer_of("hi", text), timing=Timing(total=took + number))
            for number, text in enumerate(texts)
        ]
        return written(path, *answers).read_bytes()

    before = run("red", "blue", "red", took=1.0)
    assert run("red", "blue", "red", took=10.0) == before
    lines = run("red", "green", "red", took=20.0).splitlines()
    assert [lines[0], lines[2]] == [before.splitlines()[0], before.splitlines()[2]]
    assert json.loads(lines[1])["timing"]["total"] == 21.0


def test_a_recording_from_before_there_were_times_is_read_and_stays_as_it_is(path: Path) -> None:
    before = written(path, answer_of("hi", "x")).read_bytes()
    assert b"timing" not in before
    assert written(path, msgspec.structs.replace(answer_of("hi", "x"), timing=Timing(total=1.0))).read_bytes() == before


@given(st.builds(Timing, *[st.none() | st.floats()] * 5))
def test_whatever_was_measured_is_kept_to_a_thousandth_and_json_can_carry_it(timing: Timing) -> None:
    recorder = Recorder()
    recorder.feed([Chunk("x", finish_reason=FinishReason.STOP, timing=timing)])
    kept = recorder.kept(request_of("hi"), Who("scripted", "m"), provider="local", is_local=True, created=0.0)
    assert kept is not None
    told = kept.timing
    assert msgspec.json.decode(msgspec.json.encode(told), type=Timing) == told
    assert (told.prompt, told.generation) == (None, None)
    for before, after in zip(
        (timing.first_token, timing.total, timing.tokens_per_second),
        (told.first_token, told.total, told.tokens_per_second),
        strict=True,
    ):
        assert (after is None) == (before is None or not math.isfinite(before))
        assert after is None or after == round(before, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_the_file_can_be_read_by_everybody_and_nothing_else_lies_beside_it(path: Path) -> None:
    before = os.umask(0o077)
    try:
        written(path, answer_of())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["locks", "work.recording.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "shared.recording.jsonl"
    target.parent.mkdir()
    target.touch()
    path.symlink_to(target)
    written(path, answer_of())
    assert path.is_symlink()
    assert recording(target).count() == 1


# -- several answers to one question


def test_several_answers_to_one_question_come_in_order_and_the_last_one_stays(path: Path) -> None:
    written(path, answer_of("hi", "a"), answer_of("ho", "x"), answer_of("hi", "b"))
    run = recording(path)
    assert heard(run, "hi", 4) == ["a", "b", "b", "b"]
    assert heard(run, "ho", 2) == ["x", "x"]
    assert heard(recording(path), "hi", 1) == ["a"]


def test_the_first_answer_of_a_run_replaces_those_of_earlier_runs_in_its_place(path: Path) -> None:
    written(path, answer_of("hi", "a"), answer_of("ho", "x"), answer_of("hi", "b"))
    run = recording(path)
    run.add(answer_of("hi", "c"))
    assert said(path) == ["c", "x"]
    run.add(answer_of("hi", "d"))
    assert said(path) == ["c", "d", "x"]


def test_a_cell_that_runs_again_replaces_its_own_answer_alone(path: Path) -> None:
    run = recording(path)
    for cell, execution, text in [("A", "1", "a1"), ("B", "2", "b1"), ("A", "3", "a2"), ("A", "4", "a3")]:
        run.add(answer_of("hi", text), Asker(cell, execution))
    assert said(path) == ["a3", "b1"]
    replay = recording(path)
    assert heard(replay, "hi", 1, asker=Asker("A", "1")) == ["a3"]
    assert heard(replay, "hi", 1, asker=Asker("B", "2")) == ["b1"]
    assert heard(replay, "hi", 1, asker=Asker("A", "3")) == ["a3"]  # Run All in the living kernel


def test_a_cell_that_asks_twice_in_one_run_hears_two_answers_each_time(path: Path) -> None:
    run = recording(path)
    for execution in ("1", "2"):
        for text in ("first", "second"):
            run.add(answer_of("hi", f"{text} {execution}"), Asker("A", execution))
    assert said(path) == ["first 2", "second 2"]
    replay = recording(path)
    assert heard(replay, "hi", 3, asker=Asker("A", "1")) == ["first 2", "second 2", "second 2"]
    assert heard(replay, "hi", 2, asker=Asker("A", "2")) == ["first 2", "second 2"]


class Runs(RuleBasedStateMachine):
    """A run that records, next to the plainest account of it: who asked what in which run of which cell, and the answer."""

    folder = ""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.slots: dict[str, list[tuple[str | None, str]]] = {}
        self.run = Recording(Path(self.folder) / "work.recording.jsonl", Path(self.folder) / "locks")
        self.run.path.unlink(missing_ok=True)

    @rule(prompt=st.sampled_from("xy"), cell=st.sampled_from([None, "A", "B"]), times=st.integers(1, 3))
    def record(self, prompt: str, cell: str | None, times: int) -> None:
        self.now += 1
        slots = self.slots.setdefault(prompt, [])
        mine = [place for place, (owner, _) in enumerate(slots) if owner is not None and owner == cell]
        for count in range(times):
            text = f"{self.now}.{count}"
            self.run.add(answer_of(prompt, text), Asker(cell, str(self.now)))
            if count < len(mine):
                slots[mine[count]] = (cell, text)
            else:
                slots.append((cell, text))

    @invariant()
    def each_question_has_its_answers_in_order(self) -> None:
        for prompt, slots in self.slots.items():
            replay = recording(self.run.path)
            assert heard(replay, prompt, len(slots)) == [text for _, text in slots]


def test_any_mix_of_cells_run_again_is_recorded_as_it_stands(tmp_path: Path) -> None:
    Runs.folder = str(tmp_path)
    run_state_machine_as_test(Runs, settings=settings(max_examples=30, stateful_step_count=8, deadline=None))


def test_the_model_that_is_wanted_answers_else_the_one_that_stands_last(path: Path) -> None:
    written(
        path,
        answer_of("hi", "m1"),
        answer_of("hi", "n1", model="n"),
        answer_of("hi", "m2"),
        answer_of("hi", "n2", model="n"),
    )
    run = recording(path)
    assert heard(run, "hi", 3, wanted="local/m") == ["m1", "m2", "m2"]
    assert heard(run, "hi", 1, wanted="n") == ["n1"]
    assert heard(run, "hi", 1) == ["n2"]
    assert heard(run, "hi", 1, wanted="other/m") == [""]


def test_an_answer_that_could_not_be_written_does_not_count_as_one_of_this_run(path: Path) -> None:
    written(path, answer_of("hi", "old"), answer_of("hi", "older"))
    run = recording(path)
    aside = path.rename(path.with_name("aside"))
    path.mkdir()
    with pytest.raises(CacheError):
        run.add(answer_of("hi", "lost"))
    path.rmdir()
    aside.rename(path)
    run.add(answer_of("hi", "new"))
    assert said(path) == ["new"]


def test_threads_that_record_and_replay_at_once_lose_nothing(path: Path) -> None:
    run = recording(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: run.add(answer_of("hi", str(number))), range(40)))
        replayed = list(pool.map(lambda _: heard(run, "hi", 1)[0], range(40)))
    assert sorted(said(path)) == sorted(map(str, range(40)))
    assert sorted(replayed) == sorted(said(path))


# -- two kernels, and what others did to the file


def test_two_kernels_that_record_to_one_file_lose_nothing(path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path\n"
        "from cache.offline_asking import answer_of\n"
        "from llm_jupyter.cache import Recording\n"
        "run = Recording(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "for number in range(40):\n"
        "    run.add(answer_of(f'{sys.argv[3]} {number}'))\n"
    )
    kernels = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(path.parent / "locks"), name, str(Path(__file__).parents[1])]
        )
        for name in ("one", "two")
    ]
    assert [kernel.wait(60) for kernel in kernels] == [0, 0]
    assert recording(path).count() == 80


def test_a_change_by_somebody_else_is_seen_at_the_next_question(path: Path) -> None:
    run = recording(path)
    assert heard(run, "hi", 1) == [""]
    written(path, answer_of("hi", "a"))
    assert heard(run, "hi", 1) == ["a"]
    path.unlink()
    assert heard(run, "hi", 1) == [""]


def test_a_question_that_was_edited_by_hand_is_answered_as_it_stands_now(path: Path) -> None:
    written(path, answer_of("helo", "x"))
    path.write_text(path.read_text().replace("helo", "hello"))
    assert heard(recording(path), "hello", 1) == ["x"]


def test_line_ends_of_windows_blank_lines_and_a_byte_order_mark_do_no_harm(path: Path) -> None:
    written(path, answer_of("hi", "a"), answer_of("ho", "b"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert heard(recording(path), "ho", 1) == ["b"]
    recording(path).add(answer_of("hi", "c"))
    assert said(path) == ["c", "b"]


GOOD = json.dumps(msgspec.to_builtins(answer_of()))
HOSTILE = {
    "cut short": GOOD[: len(GOOD) // 2].encode(),
    "no JSON": b"<<<<<<< HEAD",
    "no object": b"[1, 2]",
    "null": b"null",
    "no UTF-8": GOOD.encode("utf-16"),
    "zero bytes": b"\x00" * 100,
    "pieces of a wrong type": GOOD.replace('["m on hi"]', '[["m on hi"]]').encode(),
    "messages of a wrong type": GOOD.replace('"user", "content": "hi"}]', '"user", "content": "hi"}, 5]').encode(),
    "no question": GOOD.replace('"request"', '"demand"').encode(),
    "an end that is none": GOOD.replace('"stop"', '"interrupted"').encode(),
    "deeper than any": b'{"request": {"messages": [{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}}",
    "half a character": GOOD.replace("m on hi", "\\ud800").encode(),
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_beside_a_line_that_is_no_answer_the_others_answer_and_it_is_named_once(
    path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, answer_of("one"), answer_of("two"))
    path.write_bytes(path.read_bytes() + line.replace(b"\n", b" ") + b"\n" + GOOD.encode())
    run = recording(path)
    assert [heard(run, prompt, 1) for prompt in ("one", "two", "hi")] == [["m on one"], ["m on two"], ["m on hi"]]
    run.add(answer_of("one", "more"))
    assert heard(run, "one", 1) == ["more"]
    assert caplog.messages == [f"{path}: line 3 is no recorded answer; the others answer"]
    trouble = run.trouble()
    assert trouble is not None
    assert trouble.what == f"{path}: line 3 is no recorded answer"
    assert len(trouble.lines()) == 2


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_recording_goes_on_beside_a_line_that_nobody_can_read_which_stays_and_is_named(
    path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    line = line.replace(b"\n", b" ")
    path.write_bytes(line + b"\n")
    written(path, answer_of("one"), answer_of("two"))
    assert path.read_bytes().split(b"\n")[0] == line
    assert path.read_bytes().count(b"\n") == 3
    assert caplog.messages == [f"{path}: line 1 is no recorded answer; the others answer"]


@given(lines=st.lists(st.binary(max_size=40) | st.just(GOOD.encode()), max_size=4))
def test_whatever_a_file_holds_its_whole_lines_are_read_and_the_others_told_in_one_or_two_lines(
    lines: Sequence[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("notes") / "work.recording.jsonl"
    path.write_bytes(b"\n".join(lines))
    is_good = all(line == GOOD.encode() for part in lines for line in part.split(b"\n") if line.strip())
    run = recording(path)
    assert run.count() == sum(GOOD.encode() == line for line in lines)
    trouble = run.trouble()
    assert (trouble is None) == is_good
    assert trouble is None or 1 <= len(trouble.lines()) <= 2


def test_a_huge_file_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)
    for act in (lambda: recording(path).find("x"), lambda: recording(path).add(answer_of())):
        with pytest.raises(CacheError, match="too large for a recording"):
            act()
    assert path.stat().st_size == 2**40


def test_a_long_answer_comes_back_whole(path: Path) -> None:
    text = "x" * 5_000_000
    assert heard(recording(written(path, answer_of("hi", text))), "hi", 1) == [text]


def test_a_folder_in_the_files_place_is_an_error_that_names_it(path: Path) -> None:
    path.mkdir()
    for act in (lambda: recording(path).find("x"), lambda: recording(path).add(answer_of())):
        with pytest.raises(CacheError, match=r"work\.recording\.jsonl cannot be"):
            act()


@pytest.mark.parametrize("name", ["zero\0byte.jsonl", "x" * 5000, "loop.jsonl"])
def test_a_path_that_the_system_refuses_is_an_error_of_one_or_two_lines(tmp_path: Path, name: str) -> None:
    if name == "loop.jsonl" and sys.platform != "win32":
        (tmp_path / name).symlink_to(tmp_path / name)
    run = Recording(tmp_path / name, tmp_path / "locks")
    with pytest.raises(CacheError) as caught:
        run.add(answer_of())
    assert 1 <= len(caught.value.lines()) <= 2


def said(path: Path) -> list[str]:
    """The texts of all lines, in the order of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return ["".join(json.loads(line)["pieces"]) for line in lines]
