"""`%%compare` and `compare()` in a kernel: columns that grow on the page, one output that stays, and a row for each failure."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from comparison.contests import configured, filled
from kernels import Kernel, is_empty, kinds
from servers.paced import ModelServer, endless, paced
from servers.scripted import DONE, Gate, answer, delta, event, finish, reply, sse

from llm_jupyter.magics.compare import TerminalView

BOTH = "%%compare -m one/m -m two/m\n"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ModelServer, ModelServer]]:
    with ModelServer(["m"]) as one, ModelServer(["m"]) as two:
        yield one, two


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, servers: tuple[ModelServer, ModelServer]) -> Iterator[Kernel]:
    one, two = servers
    with Kernel(tmp_path_factory.mktemp("home"), configured({"one": one, "two": two})) as kernel:
        yield kernel.load()


@pytest.fixture
def one(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[0].forget()
    return servers[0]


@pytest.fixture
def two(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[1].forget()
    return servers[1]


@pytest.fixture
def notebook(kernel: Kernel, one: ModelServer, two: ModelServer) -> Kernel:
    """One kernel for the whole module, whose two servers answer as told."""
    kernel.run("%config LLMMagics.stream = ''")
    return kernel


def test_answers_grow_side_by_side_and_one_output_stays(notebook: Kernel, one: ModelServer, two: ModelServer) -> None:
    gates = Gate(), Gate()
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    one.next(sse(delta("First <b>"), gates[0], delta("here"), finish(), usage, DONE))
    two.next(sse(delta("Second "), gates[1], delta("there"), finish(), DONE))
    ran = notebook.start(BOTH + "hi")
    notebook.until(ran, lambda ran: any("First &lt;b&gt;" in t and "Second " in t for _, t in ran.shown("text/html")))
    gates[1].open()
    notebook.until(ran, lambda ran: any("there" in text for _, text in ran.shown("text/html")))
    gates[0].open()
    notebook.finish(ran)
    (output,) = ran.outputs
    assert ran.updates >= 2
    assert "First &lt;b&gt;here" in output["data"]["text/html"]
    assert "Second there" in output["data"]["text/html"]
    head, first, second = output["data"]["text/plain"].splitlines()
    assert head.split()[:2] == ["contender", "answers"]
    assert (first.split()[0], second.split()[0]) == ("one/m", "two/m")
    assert output["metadata"] == {
        "llm_jupyter": {"models": ["one/m", "two/m"], "finish_reasons": ["stop", "stop"]}
    }  # fmt: skip
    *growing, last = [content["data"] for _, _, content in ran.messages if "text/html" in content.get("data", ())]
    for data in growing:  # one of these is all that stays where the kernel dies
        assert data["text/plain"].endswith("; the comparison was still under way when this was last shown.")
        assert data["text/plain"] in data["text/html"]
    assert not any("under way" in text for text in last.values())


def test_the_page_is_updated_thirteen_times_a_second_and_its_bytes_are_bounded(
    notebook: Kernel, one: ModelServer, two: ModelServer
) -> None:
    for server in (one, two):
        server.next(paced(["a few more words of it " * 20] * 200, 0.005))
    ran = notebook.run(BOTH + "hi")
    assert ran.status == "ok", ran.error
    assert 3 <= ran.updates <= 2 + 13 * ran.idle_after
    growing = [text for _, text in ran.shown("text/html")][:-1]
    assert sum(map(len, growing)) < 48 * 1024 + 16 * 1024 * ran.idle_after + 8000


def test_each_model_may_have_options_of_its_own_and_variables_are_filled_in(notebook: Kernel, one: ModelServer) -> None:
    notebook.run("animal = 'fox'")
    ran = notebook.run(
        '%%compare -m "one/m -t 0 --system \'Be brief.\'" -m "one/m -t 1" --max-tokens 9 --repeat 2 -o kept\n'
        "What says the {animal}?"
    )
    assert ran.status == "ok", ran.error
    asked = [(chat["temperature"], chat["max_tokens"], len(chat["messages"])) for chat in one.chats]
    assert asked == [(0, 9, 2), (1, 9, 1)] * 2
    assert one.last_prompt == "What says the fox?"
    assert "animal" in ran.outputs[0]["data"]["text/plain"].splitlines()[-1]
    assert notebook.value("[(t.contender, t.repeat, t.answer) for t in kept]") == [
        (label, repeat, "Heard: What says the fox?")
        for repeat in (0, 1) for label in ('one/m temperature=0 system="Be brief."', "one/m temperature=1")
    ]  # fmt: skip
    assert notebook.value("get_ipython()._llm_jupyter_magics.kernel.comparison is kept") is True


def test_a_model_that_fails_is_a_column_and_the_cell_fails_only_where_all_do(
    notebook: Kernel, one: ModelServer, two: ModelServer
) -> None:
    refused = reply({"error": {"message": "no such luck"}}, 400)
    one.next(refused)
    ran = notebook.run("%%compare -m one/m -m two/m -m two/none -m nowhere/x\nhi")
    assert (ran.status, kinds(ran.outputs)) == ("ok", ["answer"])
    page = ran.outputs[0]["data"]["text/html"]
    assert all(words in page for words in ("no such luck", "Heard: hi", "no model &#x27;none&#x27;"))
    text = ran.outputs[0]["data"]["text/plain"]
    assert "two/none failed: there is no model 'none'" in text
    assert all("%llm models lists what is there." in shown for shown in (page, text))

    one.next(refused)
    ran = notebook.run("%%compare -m one/m -m nowhere/x\nhi")
    assert (ran.status, kinds(ran.outputs)) == ("error", ["answer", "error"])
    assert "no such luck" in ran.error[0]
    assert len(ran.error) <= 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-m one/m", "at least two models"),
        ("-m one/m -m 'one/m --tempo 3'", "--tempo"),
        ("-m one/m -m 'one/m and more -t 1 x'", "-m cannot be"),
        ("-m one/m two/m", "only options on its first line"),
        ("-m one/m -m two/m --repeat 0", "1 or more"),
        ("-m one/m -m two/m --session x", "no option --session"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_few_lines_and_nobody_is_asked(
    notebook: Kernel, one: ModelServer, line: str, words: str
) -> None:
    ran = notebook.run(f"%%compare {line}\nhi")
    assert ran.status == "error"
    assert ran.error[0].startswith("InvalidInputError: ")
    assert words in ran.error[0]
    assert len(ran.error) <= 2
    assert one.visits == []


def test_an_interrupt_keeps_what_has_arrived(notebook: Kernel, one: ModelServer, two: ModelServer) -> None:
    one.next(endless("tick "))
    two.next(answer("whole"))
    ran = notebook.start("%%compare -o kept -m one/m -m two/m\nhi", "c")
    notebook.until(ran, lambda ran: any("tick tick" in t and "whole" in t for _, t in ran.shown("text/html")))
    notebook.interrupt()
    notebook.finish(ran)
    assert (ran.status, kinds(ran.outputs)) == ("error", ["answer", "error"])
    assert ran.error == ["AnswerInterrupted: stopped; what had arrived is kept"]
    assert "tick tick" in ran.outputs[0]["data"]["text/html"]
    assert ran.outputs[0]["metadata"]["llm_jupyter"]["finish_reasons"] == ["interrupted", "stop"]
    assert notebook.value("[t.finish for t in kept]") == ["interrupted", "stop"]
    assert next(visit for visit in one.visits if visit.request.method == "POST").wait_until_left(2) > 0


def test_final_displays_once_and_quiet_not_at_all(notebook: Kernel, one: ModelServer, two: ModelServer) -> None:
    notebook.run('%config LLMMagics.stream = "final"')
    one.next(paced(["one ", "two "], 0.3))
    ran = notebook.run(BOTH + "hi")
    assert (ran.updates, kinds(ran.outputs)) == (0, ["answer"])
    ran = notebook.run("%%compare -q -o kept -m one/m -m two/m\nhi")
    assert (ran.status, ran.outputs) == ("ok", [])
    assert notebook.value("len(kept)") == 2


def test_compare_as_a_function_asks_with_the_services_of_the_extension_and_says_how_far_it_is(
    notebook: Kernel, one: ModelServer
) -> None:
    gate = Gate()
    one.next(sse(delta("x"), gate, finish(), DONE))
    ran = notebook.start("import llm_jupyter\nllm_jupyter.compare(['p', 'q'], ['one/m', 'two/m'])")
    notebook.until(ran, lambda ran: any(text == "2 of 4 answers" for _, text in ran.shown("text/plain")))
    gate.open()
    notebook.finish(ran)
    line, result = ran.outputs
    assert line["data"]["text/plain"] == "4 of 4 answers"
    assert result["output_type"] == "execute_result"
    assert "Heard: q" in result["data"]["text/html"]
    plotted = notebook.run("_.plot()")
    assert [output["output_type"] for output in plotted.outputs] == ["execute_result"]
    assert "image/png" in plotted.outputs[0]["data"]
    assert not any(is_empty(output) for output in plotted.outputs)


def test_what_compare_refuses_is_no_comparison_of_the_kernel(notebook: Kernel, one: ModelServer) -> None:
    made = "[c.prompts for c in get_ipython()._llm_jupyter_magics.kernel.comparisons]"
    before = notebook.value(made)
    for arguments in ("[1, 2], ['one/m']", "'p', ['one/m'], parallel='2'"):
        ran = notebook.run(f"import llm_jupyter\nllm_jupyter.compare({arguments})")
        assert ran.error[0].startswith("InvalidInputError: ")
        assert len(ran.error) <= 3
    assert notebook.value(made) == before
    assert one.chats == []


def test_an_interrupt_of_compare_says_how_much_came_and_where_it_is(notebook: Kernel, one: ModelServer) -> None:
    one.next(endless("tick "))
    ran = notebook.start("import llm_jupyter\nllm_jupyter.compare(['p', 'q'], ['one/m', 'two/m'])")
    notebook.until(ran, lambda ran: any(text == "2 of 4 answers" for _, text in ran.shown("text/plain")))
    notebook.interrupt()
    notebook.finish(ran)
    assert ran.outputs[0]["data"]["text/plain"] == "2 of 4 answers, 2 stopped"
    assert ran.error[0] == "ComparisonInterrupted: stopped; what had arrived is kept"
    assert ran.error[1:] == ["%llm dash compare shows it; import sys; sys.last_value.comparison has it."]
    ends = "[trial.finish for trial in __import__('sys').last_value.comparison]"
    assert notebook.value(ends) == ["interrupted", "stop", "interrupted", "stop"]


def test_a_terminal_shows_the_answers_and_then_the_table() -> None:
    out = StringIO()
    view = TerminalView(out=out)
    comparison = filled("a", "b", answer=["one\x1b[31m", ""], finish=["stop", "error"], error=["", "it broke off"])
    view.beat(comparison)
    view.finish(comparison, ["a note"])
    lines = out.getvalue().splitlines()
    assert lines[:5] == ["── a", "one␛[31m", "", "── b", "it broke off"]
    assert [line.split()[0] for line in lines[6:9]] == ["contender", "a", "b"]
    assert lines[9:] == ["", "b failed: it broke off", "a note"]


def test_a_recorded_comparison_is_replayed_once_with_no_server_and_no_time_of_its_own(tmp_path: Path) -> None:
    code = "%%compare -m one/m -m two/m --repeat 2\nName a colour."
    recording = {"LLM_JUPYTER_RECORDING": str(tmp_path / "it.recording.jsonl")}
    with ModelServer(["m"]) as one, ModelServer(["m"]) as two:
        environment = {**configured({"one": one, "two": two}), **recording, "LLM_JUPYTER_OFFLINE": "record"}
        with Kernel(tmp_path / "a", environment) as kernel:
            kernel.load()
            for _ in range(2):  # a cell that runs again begins with the answers that it had before
                one.next(answer("Red."), answer("Blue."))
                assert kernel.run(code, "c").status == "ok"
    with Kernel(tmp_path / "b", {**recording, "LLM_JUPYTER_OFFLINE": "replay"}) as kernel:
        kernel.load()
        pages = []
        for _ in range(2):
            ran = kernel.run(code, "c")
            assert (ran.status, ran.updates, kinds(ran.outputs)) == ("ok", 0, ["answer"])
            pages.append(ran.outputs)
        assert pages[0] == pages[1]
        page = pages[0][0]["data"]["text/html"]
        assert page.index("Red.") < page.index("Blue.") < page.index("Heard: Name a colour.")
        assert page.count("recorded earlier") == 4
        assert "queued" not in page
        assert kernel.run("%%compare -m one/m -m two/m\nWhat else?").status == "error"
        value = "import llm_jupyter; [t.answer for t in llm_jupyter.compare('Name a colour.', ['one/m'])]"
        assert "Red." in str(kernel.run(value, "c").outputs)
