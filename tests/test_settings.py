"""The settings: where they come from, which wins, and what is said when one is wrong."""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import (
    LLMSettings,
    all_faults,
    home_folder,
    load_settings,
    with_overrides,
    write_default_model,
)
from llm_jupyter.settings.writing import expect_own

SECRET = "sk-never-to-be-seen"
LOCAL = f"""
default_model = "local/from-file"
stream = "final"
timeout = 20

[providers.local]
kind = "openai-compatible"
base_url = "http://127.0.0.1:8080/v1/"
api_key = "{SECRET}"
priority = 10
context = 4096
headers = {{ team = "blue" }}
"""


class Home:
    """A home folder with a settings file, read with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config.toml"

    def load(
        self, text: str | None = None, overrides: Mapping[str, Any] | None = None, **variables: str
    ) -> LLMSettings:
        if text is not None:
            self.file.write_text(text, encoding="utf-8")
        environment = {"LLM_JUPYTER_HOME": str(self.folder)}
        environment |= {f"LLM_JUPYTER_{name}": value for name, value in variables.items()}
        return load_settings(overrides, environment)

    def refusal(self, text: str | None = None, **variables: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, **variables)
        return str(caught.value)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_with_nothing_said_the_defaults_hold(home: Home) -> None:
    loaded = home.load()
    assert loaded == LLMSettings(home=home.folder)
    assert loaded.default_model is None
    assert loaded.providers == {}
    assert loaded.file == home.file


def test_overrides_win_over_the_environment_and_the_environment_over_the_file(home: Home) -> None:
    loaded = home.load(
        LOCAL,
        overrides={"timeout": 40, "providers": {"local": {"priority": 40}}},
        TIMEOUT="30",
        STREAM="live",
        PROVIDERS__LOCAL__PRIORITY="30",
        PROVIDERS__LOCAL__ENABLED="false",
    )
    local = loaded.providers["local"]
    assert (loaded.default_model, loaded.stream, loaded.timeout) == ("local/from-file", "live", 40)
    assert (local.kind, local.enabled, local.priority) == ("openai-compatible", False, 40)


def test_a_nested_variable_changes_one_field_of_a_table(home: Home) -> None:
    local = home.load(LOCAL, PROVIDERS__LOCAL__BASE_URL="https://example.org/v1").providers["local"]
    assert local.base_url == "https://example.org/v1"
    assert local.priority == 10


def test_a_provider_can_be_made_of_variables_alone(home: Home) -> None:
    near = home.load(PROVIDERS__NEAR__KIND="llamacpp", PROVIDERS__NEAR__THREADS="2").providers["near"]
    assert near.kind == "llamacpp"
    assert near.options == {"threads": "2"}


def test_the_environment_of_the_process_is_read_when_none_is_given(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_JUPYTER_HOME", str(home.folder))
    monkeypatch.setenv("LLM_JUPYTER_DEFAULT_MODEL", "local/from-process")
    assert load_settings().default_model == "local/from-process"
    assert load_settings().home == home.folder


def test_unknown_variables_are_left_alone(home: Home) -> None:
    assert home.load(NO_SUCH_THING="1", NO_SUCH__TABLE="1", OFFLINE_TOO__DEEP__DOWN="1") == home.load()


def test_fields_that_only_a_provider_knows_reach_its_options(home: Home) -> None:
    assert home.load(LOCAL).providers["local"].options == {"context": 4096, "headers": {"team": "blue"}}


def test_the_final_slash_of_a_base_url_is_dropped(home: Home) -> None:
    assert home.load(LOCAL).providers["local"].base_url == "http://127.0.0.1:8080/v1"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("127.1:80", "127.0.0.1:80"), ("me:pw@127.1", "me:pw@127.0.0.1"), ("127.0.0.300", "127.0.0.300"), ("a.1", "a.1")],
)
def test_an_address_with_parts_left_out_means_what_the_system_makes_of_it(home: Home, written: str, meant: str) -> None:
    table = f'[providers.local]\nkind = "x"\nbase_url = "http://{written}/v1"'
    assert home.load(table).providers["local"].base_url == f"http://{meant}/v1"


@pytest.mark.parametrize(("word", "footer"), [("true", "on"), ("false", "off"), ('"0"', "off"), ('"on"', "on")])
def test_the_footer_is_turned_on_and_off_by_any_usual_word(home: Home, word: str, footer: str) -> None:
    assert home.load(f"footer = {word}").footer == footer


def test_settings_cannot_be_changed_in_place(home: Home) -> None:
    loaded = home.load(LOCAL)
    with pytest.raises(ValueError, match="frozen"):
        loaded.timeout = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        loaded.providers["local"].kind = "other"  # type: ignore[misc]


def test_a_file_that_is_no_toml_is_named_with_the_line(home: Home) -> None:
    said = home.refusal('default_model = "a/b"\nstream = live\n')
    assert str(home.file) in said
    assert "line 2" in said


def test_a_file_that_is_no_text_or_cannot_be_read_is_named(home: Home) -> None:
    home.file.write_bytes(b'default_model = "\xff\xfe"')
    assert f"{home.file} is not valid TOML" in home.refusal()
    home.file.unlink()
    home.file.mkdir()
    assert f"{home.file} cannot be read" in home.refusal()


def test_a_mark_at_the_beginning_of_the_file_is_none_of_its_words(home: Home) -> None:
    home.file.write_bytes(b"\xef\xbb\xbf" + b"timeout = 7\nstream = 'never'")
    assert "line 2" in home.refusal()
    home.file.write_bytes(b"\xef\xbb\xbf" + b"timeout = 7\n")
    assert home.load().timeout == 7
    write_default_model(home.file, "local/new")
    assert home.load().default_model == "local/new"


def test_the_line_that_is_not_utf_8_is_named(home: Home) -> None:
    home.file.write_bytes("timeout = 7\n# für alle\n".encode("latin-1"))
    for act in (home.refusal, lambda: _said(lambda: write_default_model(home.file, "local/new"))):
        assert act() == f"{home.file} is not valid TOML: line 2 is not UTF-8\nSave it as UTF-8."


def _said(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        act()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOCAL_ONYL", "LOCAL_ONLY"),
        ("SESION__PRIVATE", "SESSION__PRIVATE"),
        ("SESSION_PRIVATE", "SESSION__PRIVATE"),
        ("STREAMS", "STREAM"),
    ],
)
def test_a_slip_in_a_variables_name_is_not_taken_for_nothing_said(home: Home, name: str, meant: str) -> None:
    assert home.refusal(**{name: "1"}).splitlines() == [
        f"the variable LLM_JUPYTER_{name} names no setting",
        f"Did you mean LLM_JUPYTER_{meant}?",
    ]
    home.load(HOST="the one that runs this kernel")


def test_all_faults_are_told_of_and_the_first_is_raised(home: Home) -> None:
    first = home.refusal('stream = "never"\nfooter = "maybe"\n[connection]\nretrys = 1\n')
    faults = all_faults(environment={"LLM_JUPYTER_HOME": str(home.folder)})
    assert [fault.what for fault in faults] == [
        "stream must be one of live, final",
        "footer must be one of on, off",
        "there is no setting 'connection.retrys'",
    ]
    assert first == str(faults[0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_the_settings_of_another_ordinary_user_are_not_gone_by(home: Home) -> None:
    home.file.write_text("timeout = 7")
    yours, theirs = os.stat(home.file), 2001
    expect_own(home.file, yours)
    os.chown(home.file, theirs, theirs)
    strangers = os.stat(home.file)
    assert home.load().timeout == 7  # root may go by what it likes
    os.seteuid(65534)
    try:
        expect_own(home.file, yours)
        assert f"belongs to another user (uid {theirs})" in _said(lambda: expect_own(home.file, strangers))
    finally:
        os.seteuid(0)


def test_what_config_says_later_is_put_over_what_was_read_and_no_file_is_read_again(home: Home) -> None:
    read = home.load('stream = "final"\nlocal_only = false', {"footer": "off"}, TIMEOUT="9")
    home.file.write_text("no longer TOML")
    now = with_overrides(read, {"local_only": True, "timeout": 3})
    assert (now.stream, now.footer, now.local_only, now.timeout) == ("final", "on", True, 3)
    assert [now.origin(name) for name in ("local_only", "timeout", "footer")] == ["%config", "%config", "default"]
    assert with_overrides(now, {"footer": "off"}) == read


def test_an_unknown_setting_is_named_with_its_file_and_the_ones_there_are(home: Home) -> None:
    said = home.refusal('defualt_model = "a/b"')
    assert "'defualt_model'" in said
    assert str(home.file) in said
    assert "default_model" in said.replace("defualt_model", "")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://host/v1", "", "http://", "http://:80/v1", "http://host:99999", "http://[::1/v1"]
)
def test_a_base_url_that_is_none_is_named_with_its_file_and_its_variable(home: Home, url: str) -> None:
    said = home.refusal(f'[providers.local]\nkind = "x"\nbase_url = "{url}"')
    assert "providers.local.base_url" in said
    assert str(home.file) in said
    assert "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL" in said
    in_variable = home.refusal('[providers.local]\nkind = "x"', PROVIDERS__LOCAL__BASE_URL=url)
    assert in_variable.split(" [")[0] == said.split(" [")[0]
    assert "[LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL]" in in_variable


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("timeout = 0", "TIMEOUT"),
        ('timeout = "soon"', "TIMEOUT"),
        ('stream = "sometimes"', "STREAM"),
        ('footer = ["on"]', "FOOTER"),
        ("[providers.local]", "PROVIDERS__LOCAL__KIND"),
        ("providers = 3", "PROVIDERS"),
        ('[providers]\nlocal = "x"', "PROVIDERS__LOCAL"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_its_variable(home: Home, text: str, place: str) -> None:
    said = home.refusal(text)
    assert str(home.file) in said
    assert f"LLM_JUPYTER_{place}." in said


def test_variables_that_contradict_each_other_are_named(home: Home) -> None:
    said = home.refusal(PROVIDERS__LOCAL__KIND="x", PROVIDERS__LOCAL="x")
    assert "LLM_JUPYTER_PROVIDERS__LOCAL__KIND" in said


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
setting_names = st.sampled_from(sorted(LLMSettings.model_fields)) | st.text(max_size=4)


@given(st.dictionaries(setting_names, json_values, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_set_is_either_settings_or_a_typed_error(tmp_path: Path, overrides: dict[str, Any]) -> None:
    with suppress(ConfigurationError):
        loaded = load_settings(overrides, {"LLM_JUPYTER_HOME": str(tmp_path)})
        assert isinstance(loaded, LLMSettings)
        assert set(overrides) <= set(LLMSettings.model_fields)


# -- secrets


def test_a_key_shows_nowhere_but_where_it_is_asked_for(home: Home) -> None:
    loaded = home.load(LOCAL)
    local = loaded.providers["local"]
    for shown in (loaded, local):
        assert SECRET not in repr(shown)
        assert SECRET not in str(shown)
        assert SECRET not in shown.model_dump_json()
        assert SECRET not in str(shown.model_dump())
    assert local.secret({}) == SECRET


def test_an_error_about_a_table_does_not_quote_its_key(home: Home) -> None:
    with pytest.raises(ConfigurationError) as caught:
        home.load(f'[providers.local]\napi_key = "{SECRET}"')  # its kind is missing
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in str(chain)
        assert SECRET not in repr(chain)
        chain = chain.__context__


def test_a_password_in_a_url_that_is_none_is_not_quoted(home: Home) -> None:
    assert SECRET not in home.refusal(f'[providers.local]\nkind = "x"\nbase_url = "http://me:{SECRET}/x@host"')


def test_a_key_is_taken_from_the_variable_that_the_settings_name(home: Home) -> None:
    local = home.load(LOCAL + 'api_key_env = "LOCAL_KEY"').providers["local"]
    assert local.secret({"LOCAL_KEY": "from-environment"}) == "from-environment"
    assert local.secret({}) is None
    assert home.load('[providers.local]\nkind = "x"').providers["local"].secret({}) is None


def test_the_home_is_the_platforms_folder_unless_the_variable_says_otherwise(tmp_path: Path) -> None:
    default = platformdirs.user_data_path("llm_jupyter")
    assert home_folder({}) == home_folder({"LLM_JUPYTER_HOME": ""}) == default
    assert home_folder({"LLM_JUPYTER_HOME": str(tmp_path / "here")}) == tmp_path / "here"
    assert home_folder({"LLM_JUPYTER_HOME": "~/there"}) == Path.home() / "there"
    assert home_folder({"LLM_JUPYTER_HOME": "relative"}) == Path.cwd() / "relative"


def test_the_default_model_is_written_and_all_else_stays_as_it_was(home: Home) -> None:
    before = (
        "# my settings\n"
        'default_model = "local/old"  # the one I like\n'
        "\n"
        "[providers.local]  # at home\n"
        'kind = "openai-compatible"\n'
        "priority =   10\n"
    )
    home.file.write_text(before, encoding="utf-8")
    write_default_model(home.file, "local/new")
    assert home.file.read_text(encoding="utf-8") == before.replace("local/old", "local/new")


def test_a_default_model_is_added_before_the_tables(home: Home) -> None:
    home.file.write_text(LOCAL.replace('default_model = "local/from-file"', "# none yet"), encoding="utf-8")
    write_default_model(home.file, 'local/a"b')
    loaded = home.load()
    assert loaded.default_model == 'local/a"b'
    assert loaded.providers == home.load(LOCAL).providers


def test_the_file_and_its_folder_are_made_where_they_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "new" / "home" / "config.toml"
    write_default_model(file, "local/new")
    assert tomlkit.parse(file.read_text()) == {"default_model": "local/new"}
    assert os.listdir(file.parent) == ["config.toml"]


def test_a_file_that_may_hold_keys_is_for_its_owner_alone(home: Home) -> None:
    home.file.write_text(LOCAL)
    home.file.chmod(0o600)
    write_default_model(home.file, "local/new")
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o600


def test_a_linked_file_stays_linked(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles.toml"
    elsewhere.write_text("")
    home.file.symlink_to(elsewhere)
    write_default_model(home.file, "local/new")
    assert home.file.is_symlink()
    assert home.load().default_model == "local/new"


def test_a_file_that_is_no_toml_is_not_written_over(home: Home) -> None:
    home.file.write_text("stream = live")
    with pytest.raises(ConfigurationError, match=r"config\.toml is not valid TOML"):
        write_default_model(home.file, "local/new")
    assert home.file.read_text() == "stream = live"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"config\.toml cannot be written"):
        write_default_model(tmp_path / "file" / "config.toml", "local/new")
