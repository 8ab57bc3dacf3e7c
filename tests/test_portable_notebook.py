"""A conversation rebuilt from its notebook: what the cells ask and what their outputs answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.magics.args import OPTIONS, parse
from llm_jupyter.magics.chat import _prompt
from llm_jupyter.magics.render import NotebookView
from llm_jupyter.magics.transform import prompts_are_literal
from llm_jupyter.portable import AGAIN, Rebuilt, RebuiltTurn, conversation_of, digest_of
from llm_jupyter.portable.notebook import Beside
from llm_jupyter.portable.questions import SWITCHES
from llm_jupyter.types import FinishReason, LLMResponse, Timing, Usage

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"


def answer(text: str, turn: str | None = None, **more: Any) -> dict[str, Any]:
    """An output as an answer leaves it in the file."""
    ours = {"model": "m", "provider": "p", "finish_reason": "stop", **({"turn": turn} if turn else {}), **more}
    data = {"text/markdown": ["**shown**"], "text/plain": text.splitlines(keepends=True)}
    return {"output_type": "display_data", "metadata": {"llm_jupyter": ours}, "data": data}


FOOTER = {
    "output_type": "display_data",
    "metadata": {},
    "data": {"text/plain": "p/m · local", "text/html": "<small>p/m"},
}
PRINTED = {"output_type": "stream", "name": "stdout", "text": ["printed\n"]}


def code(source: str, *outputs: dict[str, Any], name: object = None) -> dict[str, Any]:
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": source, "outputs": outputs}
    return cell if name is None else {**cell, "id": name}


def rebuilt(folder: Path, *cells: dict[str, Any]) -> Rebuilt:
    path = folder / "n.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return conversation_of(path)


def said(turn: RebuiltTurn) -> tuple[str, ...]:
    """A turn in short: its prompt and the texts of its answers."""
    return (turn.prompt, *(response.text for response in turn.answers))


def test_the_quickstart_is_a_conversation_of_two_turns() -> None:
    conversation = conversation_of(QUICKSTART)
    assert [turn.cell for turn in conversation.turns] == ["cell-03", "cell-05"]
    first, second = conversation.turns
    assert first.prompt == "In two sentences: what is a Jupyter notebook?"
    assert second.prompt == "And what's a good first thing to try in one?"
    assert [len(turn.answers) for turn in conversation.turns] == [
        1,
        2,
    ]  # `%llm again` in another cell answered the second
    assert second.answers[-1].finish_reason is FinishReason.LENGTH
    assert (first.answers[0].provider, first.answers[0].model) == ("embedded", "smollm2-135m")
    assert conversation.unanswered == conversation.incomplete == ()


def test_everything_that_an_output_says_is_in_the_turn(tmp_path: Path) -> None:
    output = answer(
        "one\ntwo", "t1", session="s1", finish_reason="interrupted", tried=["a/b: refused"], is_local=False, new="field",
        usage={"prompt_tokens": 5}, timing={"total": 1.5},
    )  # fmt: skip
    cell = code('%%chat -m "p/m" --system "Be \\"brief\\"." --think --stop=END\n\n  hello {x}\n', output, name="c1")
    assert rebuilt(tmp_path, cell).turns == (
        RebuiltTurn(
            prompt="\n  hello {x}", system='Be "brief".', cell="c1", id="t1", session="s1",
            answers=(
                LLMResponse(
                    text="one\ntwo", finish_reason=FinishReason.INTERRUPTED, model="m", provider="p", is_local=False,
                    tried=("a/b: refused",), usage=Usage(prompt_tokens=5), timing=Timing(total=1.5),
                ),
            ),
        ),
    )  # fmt: skip


texts = st.text() | st.sampled_from(["(The answer is empty.)x", "a\r\nb\n\n", "<details>\n```", "one\u2028two\x0c\x85"])


@given(texts, st.text(), st.sampled_from(FinishReason), st.booleans())
def test_what_the_notebook_shows_comes_back_to_the_letter(
    tmp_path_factory: pytest.TempPathFactory, text: str, thinking: str, reason: FinishReason, full: bool
) -> None:
    response = LLMResponse(
        text=text, thinking=thinking, finish_reason=reason, model="m", provider="p", tried=("q/m: gone",),
        usage=Usage(prompt_tokens=1), timing=Timing(total=2.0, first_token=0.5),
    )  # fmt: skip
    shown: dict[str, Any] = {}

    def publish(*, data: dict[str, str], metadata: dict[str, Any], transient: dict[str, str], update: bool) -> None:
        shown[transient["display_id"]] = nbformat.v4.new_output("display_data", data, metadata=metadata)

    view = NotebookView(publish, label=lambda: "p/m · local", full_metadata=full)
    view.beat(text, thinking, "busy")
    view.finish(response, {"turn": "t1"}, ["a note"])
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell("%%chat\nhello", outputs=list(shown.values())))
    path = tmp_path_factory.getbasetemp() / "shown.ipynb"
    nbformat.write(notebook, path)
    (turn,) = conversation_of(path).turns
    (found,) = turn.answers
    assert turn.id == "t1"
    assert (found.text, found.finish_reason, found.tried) == (text, reason, response.tried)
    assert (found.usage, found.timing) == ((response.usage, response.timing) if full else (Usage(), Timing()))


def test_what_does_not_belong_to_the_conversation_is_not_in_it(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        {"cell_type": "markdown", "source": "%%chat\nno cell that runs", "metadata": {}},
        code("%%llm\nno memory", answer("1"), FOOTER),
        code("%%chat --no-history\nbeside", answer("2"), FOOTER),
        code("%%chat --private\nnot to be kept", answer("3"), FOOTER),
        code("%%chat --dry-run\nonly looked at", PRINTED),
        code("%%bash\n%chat not ours", answer("4")),
        code("print(1)", PRINTED, answer("5")),
        code("%chat --no-history -q nothing"),
        code("%chat   "),
        code("%%chat\n  \n"),
        code("# %chat a remark\nx = '%chat in a string'"),
    )
    assert conversation == Rebuilt()


def test_questions_without_an_answer_in_the_file_are_told_apart(tmp_path: Path) -> None:
    failed = {"output_type": "error", "ename": "UnreachableError", "evalue": "", "traceback": []}
    broken_off = {**FOOTER, "data": {"text/markdown": "half an answ"}}
    conversation = rebuilt(
        tmp_path,
        code("%%chat\nnever run", name="a"),
        code("%%chat\nfailed", broken_off, failed, name="b"),
        code("%chat one\n%chat two\n%chat three", answer("1"), FOOTER, failed),
        code("%chat -q -o x silent\n%chat loud", answer("2")),
    )
    assert [said(turn) for turn in conversation.turns] == [("one", "1"), ("loud", "2")]
    assert [turn.prompt for turn in conversation.unanswered] == ["never run", "failed", "two", "three", "silent"]
    assert [turn.cell for turn in conversation.unanswered][:2] == ["a", "b"]


def test_one_cell_with_several_answers_keeps_their_order(tmp_path: Path) -> None:
    source = "%chat one\nprint(1)\n%chat --no-history beside\n%llm again -t 1\nif x:\n    %chat two"
    outputs = (
        answer("1", "t1"),
        FOOTER,
        PRINTED,
        answer("-", "t0"),
        answer("1 again", "t1"),
        answer("2", "t2"),
        FOOTER,
    )
    assert [said(turn) for turn in rebuilt(tmp_path, code(source, *outputs)).turns] == [
        ("one", "1", "1 again"),
        ("two", "2"),
    ]


def test_a_loop_asks_as_often_as_it_was_answered(tmp_path: Path) -> None:
    source = "for n in range(2):\n    %chat tell me\n    %chat go on"
    turns = rebuilt(tmp_path, code(source, *(answer(str(n), f"t{n}") for n in range(4)))).turns
    assert [said(turn) for turn in turns] == [("tell me", "0"), ("go on", "1"), ("tell me", "2"), ("go on", "3")]


def test_asking_again_answers_the_turn_that_it_asked_and_none_that_was_replaced(tmp_path: Path) -> None:
    turns = rebuilt(
        tmp_path,
        code("%%chat\none", answer("1", "t1")),
        code("%%chat\ntwo", answer("2", "new")),
        code("%llm again", answer("1 again", "t1"), FOOTER),
        code("%llm again", answer("of a turn that is gone", "old"), FOOTER),
    ).turns
    assert [said(turn) for turn in turns] == [("one", "1", "1 again"), ("two", "2")]


def in_session(session: str | None, question: str, **more: Any) -> dict[str, Any]:
    """A cell whose question was answered in a conversation."""
    return code(f"%%chat\n{question}", answer(question, f"t-{question}", session=session, **more), name=question)


def prompts(conversation: Rebuilt) -> list[str]:
    return [turn.prompt for turn in conversation.turns]


def test_of_several_conversations_the_last_one_is_it_and_the_others_can_be_asked_for(tmp_path: Path) -> None:
    cells = (
        in_session("old", "one"), in_session("old", "two"), code("%llm reset"), in_session("new", "three"),
        code("%chat -s Report four", answer("four", "t4", session="report")), code("%chat -s Report five"),
    )  # fmt: skip
    conversation = rebuilt(tmp_path, *cells)
    assert (conversation.session, prompts(conversation)) == ("new", ["three"])
    assert conversation.beside == (
        Beside(name="old", turns=2, question="one"),
        Beside(name="Report", turns=1, question="four"),
    )
    path = tmp_path / "n.ipynb"
    assert prompts(conversation_of(path, "old")) == ["one", "two"]
    report = conversation_of(path, "Report")
    assert (report.session, prompts(report)) == ("report", ["four"])
    assert [turn.prompt for turn in report.unanswered] == ["five"]
    assert prompts(conversation_of(path, "report")) == ["four"]
    with pytest.raises(InvalidInputError, match=r"n\.ipynb shows no conversation 'neither'"):
        conversation_of(path, "neither")


def test_a_copy_of_a_conversation_goes_on_with_its_turns(tmp_path: Path) -> None:
    copied = {"forked": ["second", "first"]}
    conversation = rebuilt(
        tmp_path, in_session("aside", "zero"), in_session("first", "one"), in_session("copy", "two", **copied),
        in_session("second", "three"),
    )  # fmt: skip
    assert (conversation.session, conversation.forked) == ("copy", ("second", "first"))
    assert prompts(conversation) == ["one", "two", "three"]
    assert [one.name for one in conversation.beside] == ["aside"]
    assert prompts(conversation_of(tmp_path / "n.ipynb", "first")) == ["one"]


def test_a_question_that_failed_and_was_asked_again_has_the_answer_that_stands_elsewhere(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        code("%%chat\none", asked("one", "t1")),
        code("%%chat --system 'Be brief.'\ntwo", FOOTER, name="b"),
        code("%llm again", answer("2", "t2", asked=AGAIN, first=digest_of("two"))),
        code("%llm again", answer("2 again", "t2", asked=AGAIN)),
    )
    assert [(turn.cell, turn.system, *said(turn)) for turn in conversation.turns] == [
        (None, None, "one", "one"),
        ("b", "Be brief.", "two", "2", "2 again"),
    ]
    assert conversation.unanswered == ()


def test_a_copied_cell_has_not_asked_yet(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        code("%%chat\none", answer("1", "t1"), name="a"),
        code("%%chat\none, and more", answer("1", "t1"), name="b"),
    )
    assert [said(turn) for turn in conversation.turns] == [("one", "1")]
    assert [turn.cell for turn in conversation.unanswered] == ["b"]


def asked(question: str, turn: str, **more: Any) -> dict[str, Any]:
    """An output as an answer leaves it that says what it was asked; its text is the question."""
    return answer(question, turn, asked=digest_of(question), **more)


def test_an_answer_never_goes_with_a_question_that_it_does_not_answer(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        code("%%chat\nedited, and not run", asked("as it was", "t0"), name="a"),
        code("%chat uno\n%chat two", asked("one", "t1"), asked("two", "t2")),
        code("%chat --no-history by\n%chat tre", asked("by", "")),
        code("%llm again", answer("one again", "t1", asked=AGAIN)),
        code("%%chat\n\n  three \t", asked("three", "t3"), FOOTER),
        code("%chat no answer\n%chat four", asked("four", "t4")),
        code("ask('five')\n%chat -q quiet", asked("five", "t5")),
        code("ask('six')", asked("six", "t6", prompt="six"), name="f"),
    )
    assert [said(turn)[1:] for turn in conversation.turns] == [("two",), ("three",), ("four",), ("six",)]
    assert [(turn.cell, turn.prompt) for turn in conversation.turns[-1:]] == [("f", "six")]
    assert [turn.prompt for turn in conversation.unanswered] == [
        "edited, and not run",
        "uno",
        "tre",
        "no answer",
        "quiet",
    ]
    assert [source.splitlines()[0] for source in conversation.lost] == ["%%chat", "%chat uno", "ask('five')"]


def test_an_edited_copy_and_what_another_conversation_was_asked_by_code_are_not_missing(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        code("%%chat\none, and more", asked("one", "t1", session="s"), name="copy"),
        code("%%chat\none", asked("one", "t1", session="s"), name="a"),
        code("ask('-s other two')", asked("two", "t2", session="other")),
        code("%llm again", answer("of a turn that is gone", "old", asked=AGAIN, session="s")),
    )
    assert [(turn.cell, *said(turn)) for turn in conversation.turns] == [("a", "one", "one")]
    assert conversation.lost == ()


@pytest.mark.parametrize("above", ["%%time\n", "\n%%timeit -n1 -r1\n", "%%prun -q\n%%time\n"])
def test_below_a_magic_that_runs_its_cell_questions_are_found(tmp_path: Path, above: str) -> None:
    conversation = rebuilt(
        tmp_path,
        code(f"{above}%%chat --system 'Be brief.'\none", asked("one", "t1")),
        code(f"{above}x = 1\n%chat two\n%chat three", asked("two", "t2")),
        code(f"{above}%%chat\nof earlier versions", answer("four", "t4")),
    )
    assert [(turn.prompt, turn.system) for turn in conversation.turns] == [
        ("one", "Be brief."), ("two", None), ("of earlier versions", None)
    ]  # fmt: skip
    assert [turn.prompt for turn in conversation.unanswered] == ["three"]
    assert conversation.lost == ()


def test_where_another_magic_has_run_its_cell_the_answer_is_missing_and_where_it_hid_it_the_question_is(
    tmp_path: Path,
) -> None:
    conversation = rebuilt(
        tmp_path, code("%%memit\n%chat one", asked("one", "t1")), code("%%capture hidden\n%chat two")
    )
    assert conversation.lost == ("%%memit\n%chat one",)
    assert [turn.prompt for turn in conversation.unanswered] == ["two"]


@given(st.text(), st.text())
def test_a_digest_tells_texts_apart_but_not_their_blanks(one: str, other: str) -> None:
    assert (digest_of(one) == digest_of(other)) is (one.split() == other.split())
    assert digest_of(f" {one}\n") == digest_of(one)


def test_a_prompt_whose_values_are_not_saved_says_which_it_lacks(tmp_path: Path) -> None:
    conversation = rebuilt(
        tmp_path,
        code("%%chat\nlook at {df} and {x}", answer("1", filled=["df", "x"])),
        code("%%chat --save-prompt\nlook at {df}", answer("2", filled=["df"], prompt="look at 5")),
        code("%%chat\nlook at {nothing}", answer("3")),
    )
    assert [turn.prompt for turn in conversation.turns] == ["look at {df} and {x}", "look at 5", "look at {nothing}"]
    assert [turn.lacks for turn in conversation.turns] == [("df", "x"), (), ()]
    assert conversation.incomplete == conversation.turns[:1]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": ["one\n", "two"]}, "one\ntwo"),
        ({"text/plain": "(The answer is empty.)"}, ""),
        ({"text/markdown": ["only ", "Markdown"]}, "only Markdown"),
        ({"text/plain": "", "text/markdown": "shown"}, ""),
        ({}, ""),
    ],
)
def test_the_text_of_an_answer_is_the_plain_one_or_the_markdown(
    tmp_path: Path, data: dict[str, Any], text: str
) -> None:
    (turn,) = rebuilt(tmp_path, code("%%chat\nhello", {**answer("", "t"), "data": data})).turns
    assert said(turn) == ("hello", text)


@pytest.mark.parametrize("ours", [{}, None, 5, ["x"], {"finish_reason": 5}, {"finish_reason": "stop", "filled": None}])
def test_an_output_that_does_not_say_what_an_answer_says_is_none(tmp_path: Path, ours: object) -> None:
    output = {**answer("1"), "metadata": {"llm_jupyter": ours}}
    assert [turn.prompt for turn in rebuilt(tmp_path, code("%%chat\nhello", output)).unanswered] == ["hello"]


def test_an_unknown_reason_and_ids_that_are_none_do_no_harm(tmp_path: Path) -> None:
    (turn,) = rebuilt(tmp_path, code("%%chat\nhello", answer("1", finish_reason="bored"), name="vscode#1")).turns
    assert turn.answers[0].finish_reason is FinishReason.OTHER
    assert turn.cell is None
    (turn,) = rebuilt(tmp_path, code("%%chat\nhello", answer("1"), name=7)).turns
    assert turn.cell is None


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"nbformat": 3, "cells": []}', b'{"nbformat": 4, "cells": 5}'])
def test_where_no_notebook_can_be_read_one_line_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "n.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"n\.ipynb") as caught:
        conversation_of(path)
    assert len(caught.value.lines()) == 2


def test_the_switches_are_those_of_the_magics() -> None:
    assert {flag for option in OPTIONS if option.convert is None for flag in option.flags} <= SWITCHES
    assert not {flag for option in OPTIONS if option.convert is not None for flag in option.flags} & SWITCHES


class Asked:
    """Runs a cell as IPython does, up to the magics, and holds what they were asked."""

    def __init__(self, cell: str) -> None:
        self.turns: list[tuple[str, str | None]] = []
        chain = TransformerManager()
        chain.cleanup_transforms.insert(0, prompts_are_literal)
        chain.cleanup_transforms.append(prompts_are_literal)
        exec(compile(chain.transform_cell(cell), "cell", "exec"), {"get_ipython": lambda: self})

    def run_line_magic(self, name: str, line: str) -> None:
        self._take(*_prompt(line, None, OPTIONS, "%chat"))

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        self._take(*_prompt(line, cell, OPTIONS, "%%chat"))

    def _take(self, values: dict[str, Any], prompt: str) -> None:
        self.turns.append((prompt, values.get("system")))


options = st.lists(
    st.sampled_from(
        ["-t 0.5", "-m p/m", '--model="a b"', "--think", "--no-think", "-o name", '--system "be \\"brief\\" \\\\"',
         "--system 'it is'", "--system=short", "--stop END", "--option a=1", "--max-tokens 5", "--seed=7"]
    ),
    max_size=3,
).map(" ".join)  # fmt: skip
words = st.sampled_from(
    ["what is a monad?", "it's", "{x} $y", "--think late", "-- -5 or 5", "a \\", "  b", "'''", "# no"]
)
prompt_lines = st.lists(words, min_size=1, max_size=4).map(" ".join)
statements = st.sampled_from(["x = 1", "", "# %chat no", "print", "if True:\n    pass"])


@given(options, st.lists(prompt_lines | st.just(""), min_size=1, max_size=4), st.sampled_from(["", "\n"]))
@example("", ["a", ""], "\n")
def test_a_cells_prompt_is_what_the_magic_gets(
    tmp_path_factory: pytest.TempPathFactory, given_options: str, lines: list[str], end: str
) -> None:
    source = f"%%chat {given_options}\n" + "\n".join(lines) + end
    try:
        asked = Asked(source).turns
    except InvalidInputError:  # nothing to ask
        return
    found = rebuilt(tmp_path_factory.getbasetemp(), code(source)).unanswered
    assert [(turn.prompt, turn.system) for turn in found] == asked


@given(st.lists(st.tuples(options, prompt_lines, statements), min_size=1, max_size=3))
@example([("", "one \\", "x = 1")])
@example([("", "one \\", ""), ("", "two", "")])
@example([("", "one \\", "")])
@settings(max_examples=300)
def test_a_lines_prompt_is_what_the_magic_gets(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, str, str]]
) -> None:
    source = "\n".join(f"%chat {given_options} {prompt}\n{statement}" for given_options, prompt, statement in pieces)
    try:
        asked = Asked(source).turns
    except (InvalidInputError, SyntaxError):  # refused
        return
    found = rebuilt(tmp_path_factory.getbasetemp(), code(source)).unanswered
    assert [(turn.prompt, turn.system) for turn in found] == asked


@given(st.text("ab -=\"'\\\t\u2028") | st.builds("{} {}".format, options, st.text("ab -=\"'\\")))
def test_a_line_that_the_magic_takes_is_read_as_the_magic_reads_it(
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    found = rebuilt(tmp_path_factory.getbasetemp(), code(f"%chat {line.strip()}"))
    try:
        values, prompt = parse(line.strip(), OPTIONS, "%chat")
    except InvalidInputError:
        return  # what the magic refuses is read as well as it can be
    assert [(turn.prompt, turn.system) for turn in found.unanswered] == (
        [(prompt, values.get("system"))] if prompt else []
    )
