"""Variables in a prompt, through a real kernel to the request that the server receives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import local_provider
from kernels import Kernel
from servers.paced import ModelServer
from servers.scripted import answer, reply

from llm_jupyter.portable import conversation_of
from notebooks import Notebook

VARIABLES = """
import pandas as pd
x, name, n, rows = "VALUE", "Ada", 3, [{"k": [1, 2]}]
table = pd.DataFrame({"city": ["Oslo", "Bern"], "people": [7, 8]})
long = "word " * 5000
try:
    table.nothing
except AttributeError as error:
    failure = error
import matplotlib
matplotlib.use("agg")
from matplotlib.figure import Figure
figure = Figure(figsize=(2, 1))
class Place:
    city = "Paris"
    @property
    def broken(self):
        raise OSError("gone")
place = Place()
6 * 7
"""

BRACES = {
    "JSON": 'Is {"a": 1, "b": {"c": [1, {"d": null}]}, "x": "{}"} valid?',
    "nested dictionaries": "d = {1: {2: {3: {}}}, 'x': {'name': {'n'}}, **{}}",
    "f-string code": 'print(f"{x!r} {n + 1} {f(x)} {x=} { x } {x if n else 0}")',
    "code in a fence": 'Explain:\n```python\nprint(f"{x} {name}")\n```',
    "format specifications": "{x:>10} {n:,.2f} {x!s:^5} {n:{x}} {} {0}",
    "LaTeX": r"Solve $x_{n} = \frac{n}{x}$ and \begin{align} \sum_{i}^{m} {x} \end{align}, \frac{1}{2}",
    "unmatched": "{ } {x {n x} {name] {{x {{ x}{ n} {[x} {d['k'] }} } {{",
    "CSS": "a:hover{color:red} @media (x>1){p{margin:0}}",
    "Go and Jinja templates": "{{.Name}} {{ x }} {% if x %}{{x|safe}}{% end %} <%= x %>",
    "regex quantifiers": r"^\d{3}-[a-z]{2,}\w{,4}$ a{2}",
    "sets and blocks": "{1, 2} {x, n} {x; n} {\nx\n} {'x'} {*x}",
    "template literals and TeX macros": r"`${x}` ${user.name} \newcommand{\R}{\mathbb{R}} \textbf{bold}",
}


@pytest.fixture(scope="module")
def asking(module_notebook: Kernel) -> Kernel:
    """The kernel of this module, with variables of every kind."""
    assert module_notebook.run(VARIABLES).status == "ok"
    return module_notebook


@pytest.fixture(autouse=True)
def fresh(asking: Kernel, notebook: Kernel) -> None:
    """A fresh conversation for each test."""


@pytest.mark.parametrize("kind", BRACES)
def test_braces_of_other_kinds_arrive_to_the_letter(asking: Kernel, server: ModelServer, kind: str) -> None:
    ran = asking.run(f"%%chat\n{BRACES[kind]}")
    assert ran.status == "ok", ran.error
    assert server.last_prompt == BRACES[kind]
    assert "Filled in: " not in "".join(ran.footers)


@pytest.mark.parametrize(
    ("prompt", "sent", "line"),
    [
        ("Dear {name}, {n} times {x}", "Dear Ada, 3 times VALUE",
         "{name} (3 characters), {n} (1 character), {x} (5 characters)."),
        ("In {place.city}: {rows[0][k]} {rows[0]['k'][-1]}", "In Paris: [1, 2] 2",
         "{place.city} (5 characters), {rows[0][k]} (6 characters), {rows[0]['k'][-1]} (1 character)."),
        ("{{name}} is {name}", "{name} is Ada", "{name} (3 characters)."),
        ("About {table}", "About \n2 rows x 2 columns:\n| city | people |\n|---|---|\n| Oslo | 7 |\n| Bern | 8 |",
         "{table} (table 2 x 2)."),
        ("{table.shape}", "[2, 2]", "{table.shape} (6 characters)."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["%chat {}", "%%chat\n{}", "%%llm\n{}"])
def test_names_that_exist_are_filled_in_and_told_with_their_size(
    asking: Kernel, server: ModelServer, prompt: str, sent: str, line: str, form: str
) -> None:
    ran = asking.run(form.replace("{}", prompt))
    assert ran.status == "ok", ran.error
    assert server.last_prompt == sent
    assert f"Filled in: {line}" in ran.footers[-1]


def test_an_output_is_filled_in_by_its_number(asking: Kernel, server: ModelServer) -> None:
    number = asking.value("max(Out)")
    asking.run(f"%chat Why {{Out[{number}]}}?")
    assert server.last_prompt == "Why 42?"


def test_an_exception_is_told_in_short(asking: Kernel, server: ModelServer) -> None:
    asking.run("%chat Explain {failure}")
    lines = server.last_prompt.splitlines()
    assert lines[1].startswith("a cell:")
    assert lines[-1] == "AttributeError: 'DataFrame' object has no attribute 'nothing'"
    assert len(lines) <= 8


def test_a_long_value_is_cut_with_a_note(asking: Kernel, server: ModelServer) -> None:
    ran = asking.run("%chat Sum up {long}")
    assert "characters left out …]" in server.last_prompt
    assert len(server.last_prompt) < 6100
    assert "{long} (25,000 characters, cut to " in ran.footers[-1]


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("Dear {nmae}", "{nmae} stays as it is: there is no variable nmae. Did you mean {name}?"),
        ("See {tabel.shape}", "{tabel.shape} stays as it is: there is no variable tabel. Did you mean {table.shape}?"),
        ("It is {place.broken}", "{place.broken} stays as it is: reading it raised OSError."),
        ("It is {place.size}", "{place.size} stays as it is: reading it raised AttributeError."),
        ("It is {rows[9]}", "{rows[9]} stays as it is: reading it raised IndexError."),
    ],
)
def test_what_looks_meant_but_is_not_there_stays_with_a_hint(
    asking: Kernel, server: ModelServer, prompt: str, hint: str
) -> None:
    ran = asking.run(f"%chat {prompt}")
    assert server.last_prompt == prompt
    assert hint in ran.footers[-1]


@pytest.mark.parametrize("name", ["exit", "quit", "open", "get_ipython", "_", "_i", "_ih", "unheard_of"])
def test_names_that_the_person_did_not_make_stay_as_they_are(asking: Kernel, server: ModelServer, name: str) -> None:
    ran = asking.run(f"%chat {{{name}}}")
    assert server.last_prompt == f"{{{name}}}"
    assert "{" not in "".join(ran.footers)


def test_a_name_of_ipython_that_the_person_took_is_filled_in(asking: Kernel, server: ModelServer) -> None:
    asking.run("open = 'from nine to five'")
    asking.run("%chat {open}")
    assert server.last_prompt == "from nine to five"


@pytest.mark.parametrize(
    "call",
    [
        "get_ipython().run_cell_magic('chat', '', '{x} and {inner}')",
        "get_ipython().run_line_magic('chat', '{x} and {inner}')",
        "%chat {x} and {inner}",
        "%time get_ipython().run_cell_magic('chat', '', '{x} and {inner}')",
    ],
)
def test_a_function_that_asks_means_its_own_variables_first(asking: Kernel, server: ModelServer, call: str) -> None:
    asking.run(f"def ask(x, inner):\n    {call}\nask('LOCAL', 'inside')\n")
    assert server.last_prompt == "LOCAL and inside"
    asking.run(f"inner = 'outside'\n{call}")
    assert server.last_prompt == "VALUE and outside"
    asking.run("del inner")


def test_a_loop_in_one_expression_asks_with_its_own_variable(asking: Kernel, server: ModelServer) -> None:
    asking.run("[get_ipython().run_cell_magic('chat', '-q', '{word}') for word in ('cat', 'dog')]")
    assert [chat["messages"][-1]["content"] for chat in server.chats] == ["cat", "dog"]


def test_what_stands_in_backticks_is_sent_as_it_is_and_that_is_said(asking: Kernel, server: ModelServer) -> None:
    ran = asking.run("%chat Explain `{name}`")
    assert server.last_prompt == "Explain `{name}`"
    assert "{name} stays as it is: between backticks it is code." in ran.footers[-1]


def test_raw_fills_in_nothing(asking: Kernel, server: ModelServer) -> None:
    ran = asking.run("%chat --raw {name} {{name}} {nmae}")
    assert server.last_prompt == "{name} {{name}} {nmae}"
    assert "{" not in "".join(ran.footers)


def test_a_figure_is_sent_as_a_picture(asking: Kernel, server: ModelServer) -> None:
    ran = asking.run("%chat What is in {figure}?")
    text, picture = server.chats[-1]["messages"][-1]["content"]
    assert text == {"type": "text", "text": "What is in [image 1]?"}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert "Filled in: {figure} (image 200 x 100)." in ran.footers[-1]


def test_a_server_that_sees_no_pictures_says_so_and_the_conversation_goes_on(
    asking: Kernel, server: ModelServer
) -> None:
    asking.run("%chat one")
    server.next(reply({"error": {"code": 500, "message": "image input is not supported", "type": "server_error"}}, 500))
    ran = asking.run("%chat What is in {figure}?")
    assert ran.status == "error"
    assert "image input is not supported" in ran.error[0]
    assert len(ran.error) <= 3
    asking.run("%chat two")
    assert server.contents() == ["one", "Heard: one", "two"]


# -- what the notebook's file holds


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, module_server: ModelServer) -> Iterator[tuple[Notebook, Kernel]]:
    folder = tmp_path_factory.mktemp("saved")
    talk = Notebook(folder / "talk.ipynb")
    talk.add("%load_ext llm_jupyter\nsecret = 'zyzz' + 'yva'")
    with Kernel(folder / "home", local_provider(module_server), notebook=talk.path) as kernel:
        talk.run_all(kernel)
        yield talk, kernel


@pytest.mark.parametrize(("option", "is_saved"), [("", False), (" --save-prompt", True)])
def test_values_are_saved_in_the_notebook_only_when_that_is_wanted(
    saved: tuple[Notebook, Kernel], server: ModelServer, option: str, is_saved: bool
) -> None:
    talk, kernel = saved
    server.next(answer("Indeed."))
    cell = talk.add(f"%%chat{option}\nWhat is {{secret}}?")
    ran = talk.run(kernel, cell)
    assert ran.status == "ok", ran.error
    assert server.last_prompt == "What is zyzzyva?"
    talk.save()
    ours = ran.answers[0]["metadata"]["llm_jupyter"]
    assert ours["filled"] == ["secret"]
    assert ours.get("prompt") == ("What is zyzzyva?" if is_saved else None)
    assert ("zyzzyva" in json.dumps(cell.outputs)) is is_saved
    (turn,) = conversation_of(talk.path).turns
    assert (turn.prompt, turn.lacks) == (("What is zyzzyva?", ()) if is_saved else ("What is {secret}?", ("secret",)))
    talk.cells.remove(cell)


def test_a_notebook_alone_says_which_values_it_lacks(
    saved: tuple[Notebook, Kernel], server: ModelServer, tmp_path: Path
) -> None:
    talk, kernel = saved
    cell = talk.add("%%chat\nWhat is {secret}?")
    talk.run(kernel, cell)
    talk.save()
    with Kernel(tmp_path, local_provider(server)) as other:
        other.load()
        printed = other.run(f"%llm session resume {talk.path}").printed
    assert "the values that were filled in (secret): the file has only the names." in printed
