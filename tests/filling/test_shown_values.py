"""What a value becomes in a prompt, with the real libraries."""

from __future__ import annotations

import array
import collections
import enum
import fractions
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from llm_jupyter.filling import FilledPrompt, FilledValue, fill
from llm_jupyter.types import LLMResponse


class Color(str, enum.Enum):  # noqa: UP042 as people write it
    RED = "red"


class Plain:
    def __repr__(self) -> str:
        return "Plain()"


Point = collections.namedtuple("Point", "x y")


def filled(value: Any) -> FilledPrompt:
    return fill("{value}", {"value": value})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is: {x}\n", "as it is: {x}\n"),
        (Color.RED, "red"),
        (3, "3"),
        (2.5, "2.5"),
        (fractions.Fraction(1, 3), "1/3"),
        (True, "True"),
        (None, "None"),
        (np.float64(1.5), "1.5"),
        ([1, "é", None], '[1, "é", null]'),
        ({"a": {"b": [True]}}, '{"a": {"b": [true]}}'),
        ((1, 2), "[1, 2]"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        ({"only"}, "{'only'}"),
        ([{"only"}], "[{'only'}]"),
        ({10, 9, 1.5, "b", "a", None}, "{1.5, 9, 10, None, 'a', 'b'}"),
        ((frozenset({"b", "a"}), set()), "(frozenset({'a', 'b'}), set())"),
        ({"k": {frozenset("ab"), frozenset("c")}}, "{'k': {frozenset({'a', 'b'}), frozenset({'c'})}}"),
        (Point(1, 2), "Point(x=1, y=2)"),
        ([Point(1, {2})], "[Point(x=1, y={2})]"),
        (collections.OrderedDict(a=1), '{"a": 1}'),
        (b"12345", "[5 bytes]"),
        (bytearray(1), "[1 byte]"),
        (memoryview(array.array("i", [1, 2])), "[8 bytes]"),
        (LLMResponse(text="An answer."), "An answer."),
        (Plain(), "Plain()"),
        (Path("data") / "a.csv", str(Path("data") / "a.csv")),
        ("half \udce9 a character", "half ? a character"),
        (np.arange(4).reshape(2, 2), "array 2 x 2 of int64:\narray([[0, 1],\n       [2, 3]])"),
        (np.array(1.5), "array scalar of float64:\narray(1.5)"),
    ],
)
def test_plain_values(value: Any, text: str) -> None:
    assert filled(value).text == text
    assert filled(value).hints == ()


def test_a_list_that_is_too_long_for_one_line_is_indented_json() -> None:
    value = [{"name": f"person {number}"} for number in range(20)]
    text = filled(value).text
    assert json.loads(text) == value
    assert text.startswith('[\n {\n  "name": "person 0"\n },\n')


@pytest.mark.parametrize(
    ("value", "end"),
    [
        (list(range(1_000_000)), ' 9999,\n "[… 990,000 of 1,000,000 items left out …]"\n]'),
        (dict.fromkeys(range(1_000_000)), ' "9999": null,\n "…": "[… 990,000 of 1,000,000 items left out …]"\n}'),
        (set(range(1_000_000)), "9999, '[… 990,000 of 1,000,000 items left out …]'}"),
    ],
)
def test_of_a_million_items_only_the_first_are_written(value: Any, end: str) -> None:
    assert fill("{value}", {"value": value}, budget=1_000_000).text.endswith(end)
    assert filled(value).filled[0].size.startswith("1,000,000 items, in part, cut to ")
    assert filled(value).filled[0].was_cut


def test_what_is_large_only_within_is_not_written_out_either() -> None:
    rows: list[Any] = [[[0] * 1000] * 1000] * 1000  # of a thousand millions, so it would take minutes
    text = fill("{rows} {column}", {"rows": rows, "column": {"a": range(3), "b": [rows]}}, budget=1_000_000).text
    assert len(text) < 200_000
    assert '"[… 990 of 1,000 items left out …]"' in text
    assert '"[… 999 of 1,000 items left out …]"' in text
    assert "'a': range(0, 3)" in text


def test_long_texts_among_the_items_are_cut() -> None:
    text = fill("{texts}", {"texts": ["x" * 50_000, b"x" * 50_000, *["y" * 9000] * 1000]}, budget=10_000_000).text
    assert len(text) < 1_100_000
    assert "of 50,000 characters left out …]" in text
    assert "[50,000 bytes]" in text
    assert "of 1,002 items left out …]" in text


def test_what_is_nested_for_ever_ends() -> None:
    value: Any = [1]
    for _ in range(100_000):
        value = [value, 2]
    assert "[...]" in filled(value).text
    assert filled(value).hints == ()


def test_a_list_in_itself_is_shown_as_python_shows_it() -> None:
    value: list[Any] = [1]
    value.append(value)
    assert filled(value).text == "[1, [...]]"


def made_by_another_process(seed: str, padding: int) -> str:
    """What values become there that Python would describe differently in each process."""
    code = f"""if True:
    import collections, functools, threading, pandas as pd, numpy as np, PIL.Image
    from llm_jupyter.filling import fill
    kept = [object() for _ in range({padding})]
    class Plain: pass
    def function(): pass
    plain, words = Plain(), {{"apple", "pear", "plum", "fig", "kiwi", "lime"}}
    frame = pd.DataFrame({{"a": [1, 1], "b": [plain, words]}})
    image = PIL.Image.new("L", (1, 1))
    names = dict(
        words=words, nested={{"a": [words, {{1: frozenset(words)}}]}}, plain=plain, function=function, method=plain.__str__,
        lam=lambda: 0, generator=(n for n in [1]), groups=frame.groupby("a"), images=[image], frame=frame, lock=threading.Lock(),
        array=np.array([plain, words]), partial=functools.partial(function), raised=ValueError(f"not {{plain}}"),
        code=function.__code__, keys={{function: {{plain}}}}, deque=collections.deque([plain]),
    )
    for name in names:
        result = fill("{{" + name + "}}", names)
        print(name, result.text, result.hints)
    """
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_every_process_makes_the_same_of_a_value() -> None:
    one, other = made_by_another_process("1", 0), made_by_another_process("2", 100_000)
    assert one == other
    assert "0x" not in one
    assert "words {'apple', 'fig', 'kiwi', 'lime', 'pear', 'plum'} ()" in one
    assert "plain <__main__.Plain object> ()" in one
    assert "| {'apple', 'fig', 'kiwi', 'lime', 'pear', 'plum'} |" in one


def test_a_text_that_speaks_of_addresses_stays_as_it_is() -> None:
    text = "What is <A object at 0x7f12>?"
    assert filled(text).text == text
    assert filled(LLMResponse(text=text)).text == text
    assert filled([text]).text == f'["{text}"]'
    assert filled({1: {text}}).text == f"{{1: {{'{text}'}}}}"


@pytest.mark.parametrize("unit", ["x", "1,", "/", "ipykernel_", "ipykernel_1/", " at 0x", " object at 0", "<a at 0x1"])
def test_a_million_characters_of_any_kind_are_described_in_one_pass(unit: str) -> None:
    # A reader that begins anew at each character needs an hour for them.
    text = unit * (1_000_000 // len(unit))
    value = type("Long", (), {"__repr__": lambda _: text})()
    for shown in (filled(value), filled(ValueError(text)), filled([value]), filled(pd.DataFrame({"a": [value]}))):
        assert unit in shown.text
        assert len(shown.text) < 20_000


def test_wherever_a_text_names_the_file_of_a_cell_no_process_is_told() -> None:
    for before, after in (("", ""), ("'", "'"), ("<code at ", ", line 1>"), ("a=", ":7")):
        one, other = (filled(ValueError(f"{before}/tmp/ipykernel_{pid}/12.py{after}")).text for pid in (17, 18))
        assert one == other
        assert "a cell" in one


def test_half_a_character_is_a_question_mark_among_other_values_too() -> None:
    half = "a\udcff.txt"
    assert filled([half, "ok.txt"]).text == '["a?.txt", "ok.txt"]'
    long = filled([half * 10_000, Plain()])
    assert (long.hints, long.text[:10]) == ((), "['a?.txta?")
    assert long.filled[0].was_cut


def test_a_large_array_is_shortened() -> None:
    shown = filled(np.zeros((1000, 1000)))
    assert shown.text.startswith("array 1,000 x 1,000 of float64:\narray([[0., 0., 0., ..., 0., 0., 0.],")
    assert shown.filled == (FilledValue("value", "array 1,000 x 1,000"),)


def test_a_small_table_is_whole_and_has_its_own_lines() -> None:
    frame = pd.DataFrame({"city": ["Paris", "Rome"], "height": [0.1 + 0.2, 1234567.89], "seen": [True, None]})
    assert fill("Read {frame} well", {"frame": frame}).text == (
        "Read \n"
        "2 rows x 3 columns:\n"
        "| city | height | seen |\n"
        "|---|---|---|\n"
        "| Paris | 0.3 | True |\n"
        "| Rome | 1234567.89 | None |\n"
        " well"
    )


def test_a_table_beside_line_breaks_gets_no_empty_lines() -> None:
    text = fill("Read\n{frame}\nwell", {"frame": pd.DataFrame({"a": [1]})}).text
    assert text == "Read\n1 row x 1 column:\n| a |\n|---|\n| 1 |\nwell"


def test_of_a_long_and_wide_table_the_beginning_is_shown() -> None:
    tall = filled(pd.DataFrame(np.zeros((1000, 12))))
    assert tall.text.startswith("1,000 rows x 12 columns; the first 10 rows:\n| 0 | 1 |")
    assert len(tall.text.splitlines()) == 13
    assert tall.filled == (FilledValue("value", "table 1,000 x 12, first 10 rows", True),)
    wide = filled(pd.DataFrame(np.zeros((2, 500))))
    assert wide.text.startswith("2 rows x 500 columns; the first 20 columns:\n")
    assert wide.text.splitlines()[1].endswith("| 19 |")
    both = filled(pl.DataFrame(np.zeros((21, 21))))
    assert both.text.startswith("21 rows x 21 columns; the first 10 rows and 20 columns:\n")
    assert both.filled == (FilledValue("value", "table 21 x 21, first 10 rows and 20 columns", True),)


def test_an_index_that_means_something_is_a_column() -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="key"))
    assert filled(frame).text.splitlines()[1:] == ["| key | n |", "|---|---|", "| a | 1 |", "| b | 2 |"]
    grouped = frame.assign(year=2024).set_index("year", append=True)
    assert filled(grouped).text.splitlines()[1:] == ["| key / year | n |", "|---|---|", "| ('a', 2024) | 1 |", "| ('b', 2024) | 2 |"]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (slice(-2, None), ["98", "99"]),
        (slice(10, 12), ["10", "11"]),
        (slice(2, None, -1), ["2", "1", "0"]),
        (slice(0, 6, 3), ["0", "3"]),
        (slice(0, 2), None),
        (slice(0, 0), None),
        (slice(50, 50), None),
    ],
)
def test_rows_keep_the_labels_that_they_had_in_the_whole_table(rows: slice, labels: list[str] | None) -> None:
    head, _, *body = filled(pd.DataFrame({"n": range(100)})[rows]).text.splitlines()[1:]
    assert head == ("| n |" if labels is None else "|  | n |")
    if labels is not None:
        assert [line.split(" | ")[0].removeprefix("| ") for line in body] == labels


def test_columns_of_the_same_name_keep_their_values() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert filled(frame).text.splitlines()[1:] == ["| a | a |", "|---|---|", "| 1 | 2 |"]


@pytest.mark.parametrize("library", [pd, pl])
def test_a_cell_breaks_no_table(library: Any) -> None:
    frame = library.DataFrame({"a|b": ["x|y\nz\r", "long " * 100]})
    lines = filled(frame).text.splitlines()
    assert lines[:3] == ["2 rows x 1 column:", "| a\\|b |", "|---|"]
    assert lines[3] == "| x\\|y\\nz\\r |"
    assert lines[4] == f"| {('long ' * 100)[:59]}… |"
    assert len(lines) == 5


def test_series_are_tables_of_one_column() -> None:
    assert filled(pd.Series([1, 2], name="n")).text == "2 rows x 1 column:\n| n |\n|---|\n| 1 |\n| 2 |"
    assert filled(pl.Series("n", [1, None])).text == "2 rows x 1 column:\n| n |\n|---|\n| 1 |\n| None |"


def test_an_empty_table_says_so() -> None:
    assert filled(pd.DataFrame()).text == "0 rows x 0 columns:"
    assert filled(pd.DataFrame({"a": []})).text == "0 rows x 1 column:\n| a |\n|---|"
    assert filled(pl.DataFrame({"a": []})).text == "0 rows x 1 column:\n| a |\n|---|"


def raised(code: str, filename: str = "/home/someone/work/analysis.py") -> BaseException:
    try:
        exec(compile(code, filename, "exec"), {"json": json})
    except BaseException as error:
        return error
    raise AssertionError


def test_an_exception_is_a_short_traceback_of_the_persons_own_code() -> None:
    error = raised("def load(text):\n    return json.loads(text)\n\nload('{')")
    lines = fill("Why {error}?", {"error": error}).text.splitlines()
    assert lines[0] == "Why "
    assert lines[1].startswith("test_shown_values.py:")
    assert lines[1].endswith(", in raised")
    assert lines[2].startswith("    exec(compile(")
    assert lines[3] == "analysis.py:4"
    assert lines[4] == "analysis.py:2, in load"
    assert lines[5].startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert lines[6:] == ["?"]


def test_only_the_last_calls_are_told() -> None:
    error = raised("def f(n):\n    return f(n - 1) if n else 1 / n\nf(10)")
    assert filled(error).text == "\n".join(["analysis.py:2, in f"] * 3 + ["ZeroDivisionError: division by zero"])


def test_the_name_that_a_kernel_gave_to_a_cell_is_not_told() -> None:
    one, other = (raised("1 / 0", f"/tmp/ipykernel_{pid}/12345.py") for pid in (17, 18))
    assert filled(one).text == filled(other).text
    assert "\na cell:1\n" in filled(one).text


def test_a_syntax_error_shows_its_line() -> None:
    text = filled(raised("x = = 1")).text
    assert text.endswith("analysis.py:1\n    x = = 1\nSyntaxError: invalid syntax")


def test_an_exception_that_was_never_raised_is_its_name_and_message() -> None:
    assert filled(KeyError("k")).text == "KeyError: 'k'"
    assert filled(KeyboardInterrupt()).text == "KeyboardInterrupt"


def test_filling_imports_none_of_the_libraries() -> None:
    code = "import sys; from llm_jupyter.filling import fill; fill('{x} {y}', {'x': 1, 'y': [2]}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"pandas", "polars", "numpy", "matplotlib", "PIL", "IPython"}.isdisjoint(loaded)
