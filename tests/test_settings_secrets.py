"""Keys are got from where the settings say, and shown nowhere."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import LLMSettings, ProviderSettings, entries, explanation, load_settings
from llm_jupyter.settings.secrets import MASK, names_a_secret

SECRET = "sk-never-to-be-seen"
HOLDS = """
def get_password(service, user):
    return {("llm_jupyter", "cloud"): "default-service", ("mine", "cloud"): "own-service"}.get((service, user))
"""
NO_BACKEND = "def get_password(service, user):\n    raise RuntimeError('No recommended backend was available.')"
BROKEN = "raise ImportError('no such backend')"


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that `import keyring` finds; what is written into it is the package that is installed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = sys.modules.pop("keyring", None)
    yield folder / "keyring.py"
    sys.modules.pop("keyring", None)
    if before is not None:
        sys.modules["keyring"] = before


def provider(folder: Path, text: str) -> ProviderSettings:
    (folder / "config.toml").write_text(f'[providers.cloud]\nkind = "x"\n{text}')
    return load_settings(environment={"LLM_JUPYTER_HOME": str(folder)}, system=[]).providers["cloud"]


@pytest.mark.parametrize(
    ("text", "key"), [("true", "default-service"), ('"mine"', "own-service"), ('"llm_jupyter"', "default-service")]
)
def test_a_key_is_taken_from_the_systems_keyring_under_the_providers_name(
    tmp_path: Path, keyring: Path, text: str, key: str
) -> None:
    keyring.write_text(HOLDS)
    cloud = provider(tmp_path, f"api_key_keyring = {text}")
    assert cloud.secret({}) == key
    assert cloud.secret_problem({}) == ""
    made = LLMSettings(providers={"cloud": ProviderSettings(kind="x", api_key_keyring=text.strip('"'))})
    assert made.providers["cloud"].secret({}) == key


def test_the_keyring_is_not_asked_where_the_settings_do_not_name_it(tmp_path: Path, keyring: Path) -> None:
    keyring.write_text("raise SystemExit('asked')")
    for text in ("", "api_key_keyring = false", 'api_key = "x"\napi_key_keyring = true'):
        assert provider(tmp_path, text).secret({}) in (None, "x")
    assert "keyring" not in sys.modules


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        (NO_BACKEND, "cannot be used here (RuntimeError)"),
        (BROKEN, "cannot be used here (ImportError)"),
        (HOLDS.replace("cloud", "other"), "keyring set mine cloud"),
    ],
)
def test_a_keyring_that_gives_no_key_is_no_error_and_can_be_explained(
    tmp_path: Path, keyring: Path, package: str, problem: str
) -> None:
    keyring.write_text(package)
    cloud = provider(tmp_path, 'api_key_keyring = "mine"')
    assert cloud.secret({}) is None
    assert problem in cloud.secret_problem({})


def test_a_missing_keyring_package_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)  # what the import system itself calls "not there"
    cloud = provider(tmp_path, "api_key_keyring = true")
    assert cloud.secret({}) is None
    assert "%pip install keyring" in cloud.secret_problem({})


def test_a_variable_that_is_not_set_is_the_problem_that_is_told(tmp_path: Path) -> None:
    cloud = provider(tmp_path, 'api_key_env = "CLOUD_KEY"')
    assert cloud.secret_problem({}) == "the variable CLOUD_KEY is not set"
    assert cloud.secret_problem({"CLOUD_KEY": "x"}) == ""
    assert provider(tmp_path, "").secret_problem({}) == ""


EVERYWHERE = f"""
[session]
system = "use token={SECRET}"
[providers.cloud]
kind = "x"
api_key = "{SECRET}"
base_url = "https://me:{SECRET}@example.org/v1?key={SECRET}"
headers = {{ Authorization = "Bearer {SECRET}", X-Api-Key = "{SECRET}", team = "blue" }}
accessToken = "{SECRET}"
[hosts.mine]
command = ["srv", "--api-key", "{SECRET}", "--token={SECRET}", "-v"]
environment = {{ HF_TOKEN = "{SECRET}", OLLAMA_DEBUG = "1" }}
"""


def test_no_secret_is_in_a_repr_or_in_what_is_listed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(EVERYWHERE)
    loaded = load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path)}, system=[])
    sections = [loaded.providers["cloud"], loaded.hosts["mine"], loaded.session]
    for shown in (loaded, *sections):
        assert SECRET not in repr(shown)
        assert SECRET not in str(shown)
    listed = {entry.name: entry.value for entry in entries(loaded, everything=True)}
    assert SECRET not in str(listed)
    assert listed["providers.cloud.api_key"] == MASK
    assert listed["providers.cloud.headers"] == f"Authorization={MASK}, X-Api-Key={MASK}, team=blue"
    assert listed["providers.cloud.base_url"] == f"https://{MASK}@example.org/v1?key={MASK}"
    assert listed["hosts.mine.command"] == f"srv, --api-key, {MASK}, --token={MASK}, -v"
    assert listed["hosts.mine.environment"] == f"HF_TOKEN={MASK}, OLLAMA_DEBUG=1"
    assert SECRET not in str([explanation(loaded, loaded.key(name)) for name in listed])
    assert loaded.providers["cloud"].secret({}) == SECRET
    assert loaded.hosts["mine"].environment["HF_TOKEN"] == SECRET


@pytest.mark.parametrize(
    "fault",
    [
        "timeout = -1",
        "conection = 1",
        "[hosts.mine]\nport = 'x'",
        "[providers.other]\nkind = 1",
        "= broken",
        "[locked]",
    ],
)
def test_no_secret_is_in_an_error_about_the_file_that_holds_it(tmp_path: Path, fault: str) -> None:
    text = EVERYWHERE.replace("[hosts.mine]\n", "[hosts.yours]\n")
    (tmp_path / "config.toml").write_text(text + fault if fault.startswith("[") else fault + text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path)}, system=[])
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in f"{chain} {chain!r}"
        chain = chain.__context__


@pytest.mark.parametrize("variable", ["PROVIDERS", "PROVIDERS__CLOUD", "PROVIDERS__CLOUD__PRIORITY", "MODELS"])
def test_no_secret_is_in_an_error_about_a_variable(tmp_path: Path, variable: str) -> None:
    for text in (SECRET, f'{{"api_key": "{SECRET}"', f'{{"x": "{SECRET}"}}'):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(environment={"LLM_JUPYTER_HOME": str(tmp_path), f"LLM_JUPYTER_{variable}": text}, system=[])
        assert SECRET not in str(caught.value)


def test_names_of_secrets_are_told_from_names_of_other_things() -> None:
    for name in ("api_key", "HF_TOKEN", "X-Api-Key", "--api-key", "Authorization", "accessToken", "password"):
        assert names_a_secret(name), name
    for name in ("max_tokens", "first_token_timeout", "keep_alive", "api_key_env", "api_key_keyring", "monkey", ""):
        assert not names_a_secret(name), name
