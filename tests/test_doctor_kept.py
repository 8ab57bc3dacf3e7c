"""What the doctor says of conversations, of cached answers and of recordings; what it says to type mends what it names."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from doctoring import ORDINARY_USER, Patient
from kernels import Kernel
from store.processes import let_everybody_in
from store.samples import converse, storing

from llm_jupyter.cache import AnswerCache, Kept, Recording, Request, Who
from llm_jupyter.cache.recording import written
from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.kept import look_at_store
from llm_jupyter.settings import LLMSettings
from llm_jupyter.store.schema import VERSION
from llm_jupyter.types import FinishReason, GenerationOptions, Message


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a conversation of two turns, one of one turn, and a cached answer."""
    home = tmp_path / "the home"
    home.mkdir()
    with storing(home / "sessions.db") as (store, _):
        converse(store, "a", "b")
        converse(store, "c", name="other")
    return home


def kept(prompt: str, text: str = "An answer.") -> Kept:
    request = Request.of([Message.user(prompt)], GenerationOptions())
    return Kept(
        request=request, who=Who("ollama", "m"), provider="ollama", pieces=(text,), finish_reason=FinishReason.STOP
    )


def cached(home: Path, count: int = 1, text: str = "An answer.") -> Path:
    """A cache with so many answers; its file."""

    async def fill() -> None:
        cache = AnswerCache(home / "cache")
        for number in range(count):
            assert await cache.put(kept(f"question {number}", text))
        cache.close()

    asyncio.run(fill())
    return home / "cache" / "cache.db"


def spoil(file: Path, begin: int) -> None:
    """Write junk over a file from there on."""
    content = file.read_bytes()
    file.write_bytes(content[:begin] + bytes([0xA5]) * (len(content) - begin))


def type_all(patient: Patient, commands: list[str]) -> None:
    assert commands
    for command in commands:
        patient.type(command)


@contextmanager
def locking(file: Path) -> Iterator[int]:
    """A process that never lets go of a database's lock; its id."""
    code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None); d.execute('BEGIN IMMEDIATE'); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


# -- all is well


def test_where_conversations_and_answers_are_and_how_many_is_told_and_nothing_is_changed(home: Path) -> None:
    patient = Patient(home)
    cached(home, count=3)
    before = (home / "sessions.db").read_bytes()
    found = patient.doctor()
    what = found.one("store")["what"]
    assert what.startswith(f"{home / 'sessions.db'}: 2 conversations, 3 turns, 0.1 MB; write-ahead log")
    assert f"{home / 'cache'}: 3 questions with answers" in found.one("cache")["what"]
    assert (home / "sessions.db").read_bytes() == before
    assert found.codes == []
    shutil.rmtree(home)
    home.mkdir()
    found = patient.doctor()
    assert found.one("store")["what"] == f"{home / 'sessions.db'}: no conversation yet"
    assert found.one("cache")["what"] == f"{home / 'cache'}: no answers are kept"
    assert found.codes == []
    assert not list(home.glob("sessions*")), "nothing is made by looking"


def test_a_store_on_a_network_file_system_is_said_to_be_there_with_its_journal(tmp_path: Path) -> None:
    case = Case(LLMSettings(home=tmp_path), {})
    with storing(tmp_path / "sessions.db", is_remote=lambda _: True) as (store, _):
        converse(store, "a")
        (found,) = look_at_store(case, store, is_remote=lambda _: True)
    assert (found.code, found.what.partition("; ")[2]) == ("store", "rollback journal on a network file system")


# -- the store


@pytest.mark.parametrize("how", ["junk", "half"])
def test_a_damaged_store_is_put_away_and_what_can_be_read_of_it_is_saved(home: Path, how: str) -> None:
    with storing(home / "sessions.db") as (store, _):
        converse(store, *(f"{number}" for number in range(300)), name="long")
    spoil(home / "sessions.db", begin=20 if how == "junk" else (home / "sessions.db").stat().st_size // 2)
    patient = Patient(home)
    before = patient.doctor()
    found = before.one("store-damaged")
    assert "the file is damaged" in found["what"]
    assert "conversations are not kept" in found["what"]
    assert before.exit_code == 0, "questions are answered all the same"
    away, save = found["commands"]
    assert save == f"jupyter llm rescue '{home / 'sessions.db.aside'}'"
    patient.type(away)
    assert (home / "sessions.db.aside").exists()
    if how == "half":
        patient.type(save)
    else:
        ran = patient.run("bash", "-c", save)
        assert (ran.returncode, "no conversation can be read" in ran.stderr) == (1, True)
    after = patient.doctor()
    assert after.codes == []
    assert "put away earlier" in after.one("store-aside")["what"]
    if how == "half":
        assert "2 conversations" in after.one("store")["what"] or "3 conversations" in after.one("store")["what"]
        with storing(home / "sessions.db") as (store, _):
            assert [turn.prompt.content for turn in store.all_turns("talk")] == ["ask a", "ask b"]
    type_all(patient, after.one("store-aside")["commands"])
    assert not list(home.glob("*.aside*"))


def test_a_store_of_a_later_version_is_put_away_with_all_that_stands_beside_it(home: Path) -> None:
    with closing(sqlite3.connect(home / "sessions.db")) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    (home / "sessions.db-journal").write_bytes(b"")
    patient = Patient(home)
    found = patient.doctor().one("store-newer")
    assert "a later version of llm_jupyter wrote it" in found["what"]
    assert "Update jupyter-llm" in found["remedy"]
    type_all(patient, found["commands"])
    assert {path.name for path in home.glob("sessions*")} == {"sessions.db.aside", "sessions.db.aside-journal"}
    assert patient.doctor().codes == []


def test_a_store_that_cannot_be_written_is_made_writable(home: Path) -> None:
    let_everybody_in(home)
    if os.getuid() == 0:
        for path in (home, home / "sessions.db"):
            os.chown(path, ORDINARY_USER, ORDINARY_USER)
    (home / "sessions.db").chmod(0o444)
    patient = Patient(home, {"HOME": str(home)}, ordinary=True)
    assert patient.run("bash", "-c", "echo >> sessions.db").returncode != 0, "an ordinary user must be refused here"
    found = patient.doctor().one("store-read-only")
    assert "cannot be written" in found["what"]
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.codes, "2 conversations" in after.one("store")["what"]) == ([], True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_keeps_in_a_folder_of_theirs_stays_there(home: Path) -> None:
    let_everybody_in(home)
    (home / "config.toml").write_text('default_model = "theirs/m"')
    for path in (home, *home.iterdir()):
        os.chown(path, 2001, 2001)
    home.chmod(0o777)
    (home / "sessions.db").chmod(0o644)
    patient = Patient(home, {"HOME": "/nobody/has/this"}, ordinary=True)
    before = patient.doctor()
    assert "belongs to another user (uid 2001)" in before.one("settings-wrong")["what"]
    (one,) = before.one("folder-strangers")["commands"]
    (other,) = before.one("store-read-only")["commands"]
    assert all(command.startswith("mkdir -m 700 ") for command in (one, other))
    patient.type(one)
    chosen = Path(patient.environment["LLM_JUPYTER_HOME"])
    try:
        assert (chosen.stat().st_uid, chosen.stat().st_mode & 0o777) == (ORDINARY_USER, 0o700)
        assert (patient.doctor().codes, (home / "sessions.db").exists()) == ([], True)
        assert patient.run("bash", "-c", one).returncode != 0, "a folder that is there already is not taken"
    finally:
        shutil.rmtree(chosen)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_process_that_holds_the_lock_for_too_long_is_named_and_ended(home: Path, journal: str) -> None:
    with closing(sqlite3.connect(home / "sessions.db")) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
    patient = Patient(home)
    with locking(home / "sessions.db") as pid:
        found = patient.doctor().one("store-locked")
        assert f"process {pid} (python" in found["what"]
        assert found["commands"] == [f"kill {pid}"]
        type_all(patient, found["commands"])
    assert patient.doctor().codes == []


def test_what_a_store_left_behind_that_is_gone_is_removed(home: Path) -> None:
    (home / "sessions.db").rename(home / "sessions.db-wal")
    patient = Patient(home)
    found = patient.doctor()
    assert (found.codes, found.one("store-leftover")["mark"]) == ([], "note")
    type_all(patient, found.one("store-leftover")["commands"])
    assert not list(home.glob("sessions*"))


# -- the cache


@pytest.mark.parametrize("begin", [0, 12288])
def test_a_damaged_cache_is_emptied_and_answers_are_kept_again(home: Path, begin: int) -> None:
    file = cached(home, count=30, text="word " * 400)
    spoil(file, begin)
    patient = Patient(home)
    found = patient.doctor().one("cache-damaged")
    assert f"{file} is damaged" in found["what"]
    assert found["commands"] == ["jupyter llm cache clear"]
    type_all(patient, found["commands"])
    assert patient.doctor().codes == []
    cached(home)
    assert "1 question with answers" in patient.doctor().one("cache")["what"]


def test_who_locks_the_cache_is_named_and_ended(home: Path) -> None:
    file = cached(home)
    patient = Patient(home)
    with locking(file) as pid:
        found = patient.doctor().one("cache-locked")
        assert found["commands"] == [f"kill {pid}"]
        type_all(patient, found["commands"])
    assert "1 question with answers" in patient.doctor().one("cache")["what"]


# -- recordings


def recording(home: Path, *lines: bytes) -> Path:
    """A recording in the folder where the doctor is called, of two answers and these lines between them."""
    file = home / "my talk.recording.jsonl"
    file.write_bytes(b"\n".join([written(kept("one")), *lines, written(kept("two")), b""]))
    return file


def test_bad_lines_of_a_recording_are_named_and_taken_out_and_the_answers_stay(home: Path) -> None:
    file = recording(home, b"<<<<<<< HEAD", b"=======", b">>>>>>> theirs")
    patient = Patient(home)
    found = patient.doctor().one("recording-unreadable")
    assert found["what"] == f"{file}: lines 2, 3 and 4 are no recorded answers"
    type_all(patient, found["commands"])
    after = patient.doctor()
    assert (after.codes, after.one("recording")["what"]) == ([], f"{file.name} in {home}: can be replayed")
    assert Recording(file, home / "locks").count() == 2


def test_a_file_that_is_no_recording_at_all_is_put_away_and_a_half_written_one_removed(home: Path) -> None:
    file = recording(home, *[b"?"] * 50)
    with subprocess.Popen(["true"]) as gone:
        pass
    left = home / f".{file.name}.{gone.pid}.new"
    left.write_bytes(b"half")
    (home / f".{file.name}.{os.getpid()}.new").write_bytes(b"of a process that lives")
    patient = Patient(home)
    found = patient.doctor()
    assert "50 lines are no recorded answers" in found.one("recording-unreadable")["what"]
    type_all(patient, found.one("recording-unreadable")["commands"])
    type_all(patient, found.one("recording-leftover")["commands"])
    assert not file.exists()
    assert not left.exists()
    after = patient.doctor("--json")
    assert after.codes == []
    assert "recording-leftover" not in after.text


# -- in a kernel


def test_in_a_cell_the_kernel_says_what_it_lost_and_looks_beside_its_notebook(home: Path, tmp_path: Path) -> None:
    spoil(home / "sessions.db", begin=20)
    spoil(cached(home), begin=0)
    notebook = tmp_path / "work" / "talk.ipynb"
    notebook.parent.mkdir()
    notebook.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
    (notebook.parent / "talk.recording.jsonl").write_text("no answer\n")
    with Kernel(home, notebook=notebook, folder=tmp_path) as kernel:
        kernel.load()
        assert kernel.run("%llm session list").status == "ok"
        said = " ".join(kernel.run("%llm doctor").printed.split())
        assert "this kernel keeps its conversations in memory only: the file is damaged" in said
        assert "in a terminal, and restart the kernel afterwards" in said
        assert f"{notebook.parent / 'talk.recording.jsonl'}: line 1 is no recorded answer" in said
        assert "→ %llm cache clear" in said
        assert kernel.run("%llm cache clear").status == "ok"
        assert "cache-damaged" not in kernel.run("%llm doctor --json").printed
        (away, *_) = [line for line in said.split("→ ") if line.startswith("mv ")]
        Patient(home).type(away.strip())
        kernel.restart()
        kernel.load()
        assert kernel.run("%llm session list").status == "ok"
        assert "in memory only" not in kernel.run("%llm doctor").printed
