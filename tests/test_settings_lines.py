"""A wrong setting is named with its line, and with what it may be."""

import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings import load_settings, memory_size, written_size
from llm_jupyter.settings.keys import Key, read, written
from llm_jupyter.settings.lines import line_of, lines_of


def refusal(folder: Path, text: str) -> ConfigurationError:
    (folder / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment={"LLM_JUPYTER_HOME": str(folder)}, system=[])
    assert 1 <= len(caught.value.lines()) <= 3
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("stream = 'often'", 1, "stream must be one of live, final"),
        ("# first\n\nconnection.retries = -1", 3, "connection.retries must be a whole number, 0 or more"),
        (
            "[connection]\n# why\nidle_timeout = 0",
            3,
            "connection.idle_timeout must be a number of seconds, more than 0",
        ),
        ("[connection]\nidle_timeout = true", 2, "connection.idle_timeout must be a number of seconds"),
        ("connection = {\tretries = 'x' }", 1, "connection.retries must be a whole number"),
        ("fallback = [\n  'a/b', # one\n  3,\n]", 3, "fallback[1] must be text"),
        ("[session]\ncontext = 'all'", 2, "session.context must be one of window, strict"),
        ("[limits]\nhost_memory = '4,5 GB'", 2, 'limits.host_memory must be bytes, or a size such as "4 GiB"'),
        ("[hosts.a]\nport = 0\n", 2, "hosts.a.port must be a port from 1 to 65535"),
        ("[hosts.a]\non_memory = 'die'", 2, "hosts.a.on_memory must be one of warn, restart, stop"),
        ("[hosts.a]\nready = 'health'", 2, "hosts.a.ready must be a path that starts with /"),
        ("[hosts.a.environment]\nA = 1\nB = [1]", 3, "hosts.a.environment.B must be text"),
        ("[models.'a/b']\n\ntop_p = 2", 3, 'models."a/b".top_p must be a number from 0 to 1'),
        ("[models.'a/b']\nkeep_alive = 'soon'", 2, 'models."a/b".keep_alive must be seconds'),
        ("local_only = 'maybe'", 1, "local_only must be true or false"),
        ("event_log = 3", 1, "event_log must be true, false or the path of a file"),
        ("[models.qwen2.5]\nseed = 1", 1, 'models.qwen2 must be named "provider/model", in quotes'),
        ("a = '''\n[x]\n'''\n", 1, "there is no setting 'a'"),
        ("[providers.a]\nbase_url = 'http://x'", 1, "providers.a.kind is missing"),
        ("footer = 'on'\n[hosts.a]\nport = 1\n", 2, "hosts.a.command is missing"),
        ("[hosts.a]\nport = 1\ncommand = []\n", 3, "hosts.a.command is missing"),
        ("[hosts.embedded]\nidle_unload = 9\nport = 1\n", 3, "hosts.embedded.port must not be given"),
        ("limits = 3", 1, "limits must be a table"),
        ("\r\n\r\nhosts = 3\r\n", 3, "hosts must be tables"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_what_it_may_be(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    tomllib.loads(text)
    error = refusal(tmp_path, text)
    assert error.what.startswith(what)
    assert error.where == f"{tmp_path / 'config.toml'}, line {line}"
    assert error.next_step


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[conection]\nretries = 1", "connection"),
        ("[connection]\nretrys = 1", "connection.retries"),
        ("retries = 1", "connection.retries"),
        ("[connection]\nfallback = []", "fallback"),
        ("[hosts.a]\ncomand = []", "hosts.a.command"),
        ("[models.'a/b']\ntemprature = 1", 'models."a/b".temperature'),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_known_one(tmp_path: Path, text: str, hint: str) -> None:
    error = refusal(tmp_path, text)
    assert error.what.startswith("there is no setting")
    assert error.next_step == f"Did you mean {hint}?"


def test_an_unknown_setting_that_is_near_to_none_is_answered_with_all_there_are(tmp_path: Path) -> None:
    assert "discovery_timeout, first_token_timeout" in refusal(tmp_path, "[connection]\nxyz = 1").next_step


# -- the lines of a text

names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=4) | st.sampled_from(
    ["ollama/qwen2.5:7b", "a b", 'quo"te', "#", "[x]", "a=b", "ü", "\\", "", "'", "]"]
)
texts = st.text(st.sampled_from("ab#[]{}=,.'\"\\\n ü"), max_size=12)
trees = st.recursive(
    texts | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def marked(tree: Any, marks: dict[Key, str], key: Key = ()) -> Any:
    """The same tree with a mark of its own in the place of every text."""
    if isinstance(tree, dict):
        return {name: marked(inner, marks, (*key, name)) for name, inner in tree.items()}
    if isinstance(tree, list):
        return [marked(inner, marks, (*key, number)) for number, inner in enumerate(tree)]
    if isinstance(tree, str):
        marks[key] = f"mark-{len(marks)}-"
        return marks[key] + tree
    return tree


@given(st.dictionaries(names, trees, max_size=5))
def test_every_text_is_found_on_the_line_on_which_it_stands(tree: dict[str, Any]) -> None:
    marks: dict[Key, str] = {}
    text = tomlkit.dumps(marked(tree, marks))
    tomllib.loads(text)
    found, lines = lines_of(text), text.replace("\r\n", "\n").split("\n")
    for key, mark in marks.items():
        assert mark in lines[found[key] - 1]


HAND = """\
# a comment with = and [brackets]
top.inner."quoted.key" = 'one' # and another

[table] # header
multi = \"\"\"
not = "a key"
[nor.a.table]
\\\"\"\" still inside \"\"\"\"
after = '''
"' '''
list = [ # begins
  { a = 1, b = { c = 2 } },
  [ "x",
    "y" ],
]
[[tables]]
n = 1
[tables.sub]
m = 1
[[tables]]
n = 2
[ spaced . 'name' ]
when = 1979-05-27T07:32:00Z
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top", "inner", "quoted.key"), 2),
        (("table",), 4),
        (("table", "multi"), 5),
        (("table", "after"), 9),
        (("table", "list", 0, "b", "c"), 12),
        (("table", "list", 1), 13),
        (("table", "list", 1, 1), 14),
        (("tables",), 16),
        (("tables", 0, "n"), 17),
        (("tables", 0, "sub", "m"), 19),
        (("tables", 1), 20),
        (("tables", 1, "n"), 21),
        (("spaced", "name", "when"), 23),
        (("table", "missing"), 4),
        (("nor",), None),
    ],
)
def test_every_form_of_toml_is_found_on_its_line(key: Key, line: int | None) -> None:
    tomllib.loads(HAND)
    assert line_of(HAND, key) == line


@given(st.text(st.sampled_from("ab=[]{},.'\"\\\n #1"), max_size=30))
def test_a_text_that_is_no_toml_is_read_to_some_end(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


# -- names


@given(st.lists(names, min_size=1, max_size=4).map(tuple))
def test_a_written_name_is_read_as_the_same_key(key: Key) -> None:
    assert read(written(key), {}) == key


def test_the_quotes_around_a_known_name_can_be_left_out() -> None:
    known = {"models": ["ollama/qwen2.5:7b", "ollama/qwen2"]}
    assert read("models.ollama/qwen2.5:7b.seed", known) == ("models", "ollama/qwen2.5:7b", "seed")
    assert read("models.ollama/qwen2.5:7b", known) == ("models", "ollama/qwen2.5:7b")
    assert read("models.'ollama/qwen2.5:7b'.seed", known) == ("models", "ollama/qwen2.5:7b", "seed")
    assert read("models.ollama/qwen2.seed", known) == ("models", "ollama/qwen2", "seed")


# -- sizes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4 GiB", 4 * 2**30),
        ("512MB", 512_000_000),
        ("1.5 gib", 3 * 2**29),
        ("2k", 2000),
        (".5 KiB", 512),
        (1024, 1024),
        ("1024", 1024),
        (" 7 bytes".replace("bytes", "b"), 7),
        (4e9, 4_000_000_000),
    ],
)
def test_a_size_is_read_with_its_unit(text: Any, count: int) -> None:
    assert memory_size(text) == count


@pytest.mark.parametrize("text", ["", "4,5 GB", "4 GiB of it", "-1", "GiB", "1i", "4 XB", True, None, [], "1e9", "٤"])
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="no size"):
        memory_size(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_written_size_is_read_as_the_same_number(count: int) -> None:
    assert memory_size(written_size(count).replace("bytes", "")) == count
