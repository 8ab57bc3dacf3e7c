"""`jupyter llm`: found by Jupyter, its exit codes, and the settings file that it changes."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from doctoring import ORDINARY_USER, Patient

from llm_jupyter import __version__
from llm_jupyter.doctor.config import set_value, unset
from llm_jupyter.errors import InvalidInputError

FILE = """\
# what I like
default_model = "local/m"   # for now

[providers.local]
kind = "openai-compatible"
base_url = "http://127.0.0.1:8080/v1"  # the big one
"""


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path / "home", settings=FILE)


def settings(patient: Patient) -> dict[str, Any]:
    return tomllib.loads((patient.home / "config.toml").read_text(encoding="utf-8"))


def test_jupyter_finds_the_command_and_hands_its_exit_code_on(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "home", settings="wrong = ")
    ran = patient.run("jupyter", "llm", "doctor", "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["errors"] == 1
    (patient.home / "config.toml").unlink()
    mended = patient.run("jupyter", "llm", "doctor", "--json")
    assert mended.returncode == 0
    assert json.loads(mended.stdout)["errors"] == 0


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["doctor", "--bogus"], ["config"], ["config", "set", "stream"], ["pull"]]
)
def test_a_wrong_call_exits_with_2_and_says_how_it_is_called(patient: Patient, arguments: list[str]) -> None:
    ran = patient.run("jupyter-llm", *arguments)
    assert ran.returncode == 2
    assert ran.stderr.startswith("usage: jupyter llm")
    assert ran.stdout == ""


def test_without_a_command_it_tells_which_there_are(patient: Patient) -> None:
    ran = patient.run("jupyter-llm")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage: jupyter llm")
    assert "doctor" in ran.stdout


def test_it_says_its_version_and_where_the_settings_are(patient: Patient) -> None:
    assert patient.run("jupyter-llm", "--version").stdout == f"jupyter-llm {__version__}\n"
    assert patient.run("jupyter-llm", "config", "path").stdout == f"{patient.home / 'config.toml'}\n"


def test_a_terminal_that_knows_no_symbols_still_gets_the_words(patient: Patient) -> None:
    patient.environment.update(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    ran = patient.run("jupyter-llm", "doctor")
    assert " ok       settings" in ran.stdout
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("local_only", "true", True),
        ("timeout", "12.5", 12.5),
        ("fallback", '["a/b", "c/d"]', ["a/b", "c/d"]),
        ("default_model", "embedded/smollm2-135m", "embedded/smollm2-135m"),
        ("providers.local.api_key_env", "true", "true"),
        ("providers.local.priority", "3", 3),
        ("connection.retries", "1", 1),
        ('models."ollama/qwen2.5:7b".seed', "7", 7),
        ("providers.new.kind", "ollama", "ollama"),
    ],
)
def test_a_setting_is_set_as_what_it_must_be_and_all_else_stays(
    patient: Patient, key: str, text: str, value: object
) -> None:
    ran = patient.run("jupyter-llm", "config", "set", key, text)
    assert (ran.returncode, ran.stderr) == (0, "")
    table: Any = settings(patient)
    (written,) = tomllib.loads(f"x.{key} = 0").values()
    while written:
        ((name, written),) = written.items()
        table = table[name]
    assert table == value
    after = (patient.home / "config.toml").read_text()
    assert all(comment in after for comment in ("# what I like", "# the big one"))


@pytest.mark.parametrize(
    ("key", "text", "what"),
    [
        ("connection.retries", "many", "connection.retries must be a whole number, 0 or more"),
        ("stream", "sometimes", "stream must be one of live, final"),
        ("fallback", "[1]", "fallback[0] must be text"),
        (
            "providers.x.base_url",
            "http://127.0.0.1:9",
            "providers.x.base_url cannot be set yet: providers.x.kind is missing",
        ),
        ("hosts.x.port", "8080", "hosts.x.port cannot be set yet: hosts.x.command is missing"),
        ("strem", "final", "there is no setting 'strem'\nDid you mean stream?"),
        ("home", "/tmp", "home cannot be set in a file"),
    ],
)
def test_a_refusal_says_what_may_be_given_and_what_is_missing(patient: Patient, key: str, text: str, what: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        set_value(patient.home / "config.toml", key, text)
    assert "\n".join(caught.value.lines()).startswith(what)
    assert len(caught.value.lines()) == 2
    assert (patient.home / "config.toml").read_text() == FILE


def test_what_another_place_gives_may_be_missing_in_the_file(patient: Patient) -> None:
    patient.environment["LLM_JUPYTER_PROVIDERS__HUB__KIND"] = "ollama"
    ran = patient.run("jupyter-llm", "config", "set", "providers.hub.base_url", "http://127.0.0.1:9")
    assert (ran.returncode, settings(patient)["providers"]["hub"]) == (0, {"base_url": "http://127.0.0.1:9"})


def test_what_overrules_the_file_is_said_and_what_is_locked_is_refused(patient: Patient, tmp_path: Path) -> None:
    system = tmp_path / "hub" / "llm_jupyter" / "config.toml"
    system.parent.mkdir(parents=True)
    system.write_text("[locked]\nlocal_only = true\n")
    patient.environment.update(JUPYTER_CONFIG_PATH=str(tmp_path / "hub"), LLM_JUPYTER_STREAM="live")
    assert patient.run("jupyter-llm", "config", "set", "stream", "final").stdout == (
        f"stream is set in {patient.home / 'config.toml'}, but LLM_JUPYTER_STREAM overrules it\n"
    )
    assert "but LLM_JUPYTER_STREAM sets it too" in patient.run("jupyter-llm", "config", "unset", "stream").stdout
    refused = patient.run("jupyter-llm", "config", "set", "local_only", "false")
    assert (refused.returncode, f"local_only is locked by {system}" in refused.stderr) == (2, True)
    assert settings(patient) == tomllib.loads(FILE)


def test_what_others_need_is_not_taken_out_and_no_empty_table_is_left(patient: Patient) -> None:
    file = patient.home / "config.toml"
    with pytest.raises(InvalidInputError, match=r"providers\.local\.kind is missing"):
        unset(file, "providers.local.kind")
    assert file.read_text() == FILE
    file.write_text("[connection]\nretries = 1\n\n[providers.x]\nbase_url = 'http://127.0.0.1:9'\n")
    for key in ("providers.x.base_url", "connection.retries"):
        assert unset(file, key).is_heard
    assert file.read_text().strip() == ""


@pytest.mark.parametrize(
    ("key", "text"),
    [("stream", "sometimes"), ("no_such", "1"), ("providers.local.base_url", "ftp://x"), ("a..b", "1"), ("", "1")],
)
def test_what_the_settings_do_not_take_is_refused_and_nothing_changes(patient: Patient, key: str, text: str) -> None:
    ran = patient.run("jupyter-llm", "config", "set", key, text)
    assert ran.returncode == 2
    assert 1 <= len(ran.stderr.splitlines()) <= 3
    assert (patient.home / "config.toml").read_text() == FILE
    assert [file.name for file in patient.home.iterdir()] == ["config.toml"]


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_stays_whose_it_was_and_as_readable(patient: Patient, mode: int) -> None:
    file = patient.home / "config.toml"
    file.chmod(mode)
    if os.getuid() == 0:
        os.chown(file, ORDINARY_USER, ORDINARY_USER)
    before = file.stat()
    assert set_value(file, "stream", "final").is_heard
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    file.unlink()
    set_value(file, "stream", "final")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_setting_with_two_names_is_changed_under_the_one_that_the_file_uses(patient: Patient) -> None:
    file = patient.home / "config.toml"
    file.write_text('[session]\nmodel = "local/m"\n')
    assert set_value(file, "default_model", "local/n").said == f"session.model is set in {file}"
    assert settings(patient) == {"session": {"model": "local/n"}}
    assert unset(file, "default_model").said == f"session.model is taken out of {file}"
    assert settings(patient) == {}


def test_a_reader_that_goes_away_is_no_trouble(patient: Patient) -> None:
    ran = patient.run("bash", "-c", "jupyter-llm doctor --json | head -c 10")
    assert (len(ran.stdout), ran.stderr) == (10, "")


def test_a_setting_is_taken_out_and_taking_it_out_again_is_no_error(patient: Patient) -> None:
    assert "taken out" in patient.run("jupyter-llm", "config", "unset", "default_model").stdout
    assert "default_model" not in settings(patient)
    again = patient.run("jupyter-llm", "config", "unset", "default_model")
    assert (again.returncode, "is not in" in again.stdout) == (0, True)
    assert "# the big one" in (patient.home / "config.toml").read_text()


def test_a_file_that_is_wrong_elsewhere_can_still_be_mended(patient: Patient) -> None:
    file = patient.home / "config.toml"
    file.write_text('stream = "never"\nfooter = "maybe"\n')
    assert patient.run("jupyter-llm", "config", "set", "stream", "final").returncode == 0
    assert settings(patient) == {"stream": "final", "footer": "maybe"}
    file.write_text("stream = ")
    ran = patient.run("jupyter-llm", "config", "set", "stream", "final")
    assert (ran.returncode, file.read_text()) == (2, "stream = ")
    assert "is not valid TOML" in ran.stderr


def test_a_pull_of_what_nobody_has_is_one_to_three_lines_and_exits_with_1(patient: Patient) -> None:
    ran = patient.run("jupyter-llm", "pull", "no-such-model")
    assert ran.returncode == 1
    assert 1 <= len(ran.stderr.splitlines()) <= 3
    assert "no provider that runs here can fetch 'no-such-model'" in ran.stderr


def test_a_pull_of_what_is_here_says_so(tmp_path: Path, weights: Path) -> None:
    from live import place

    place(weights, tmp_path / "home")
    ran = Patient(tmp_path / "home").run("jupyter-llm", "pull", "smollm2-135m")
    assert (ran.returncode, ran.stdout) == (0, "embedded/smollm2-135m is here.\n")
