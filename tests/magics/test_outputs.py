"""What stays in the cell, and what is on the page while an answer comes."""

from __future__ import annotations

import pytest
from kernels import Kernel, is_empty, kinds
from servers.paced import ModelServer, endless, paced
from servers.scripted import DONE, End, Gate, answer, delta, event, finish, reply, sse

from llm_jupyter.magics.markdown import ZERO_WIDTH

STABLE = {"model", "provider", "finish_reason", "asked", "session", "turn"}


def test_an_answer_is_one_output_with_its_metadata_under_one_key_and_one_footer(
    notebook: Kernel, server: ModelServer
) -> None:
    server.next(answer("# Hel", "lo\n\n", "**you**"))
    ran = notebook.run("%chat hi")
    text, footer = ran.outputs
    assert text["data"] == {"text/markdown": "# Hello\n\n**you**", "text/plain": "# Hello\n\n**you**"}
    assert set(text["metadata"]) == {"llm_jupyter"}
    assert set(text["metadata"]["llm_jupyter"]) == STABLE
    assert text["metadata"]["llm_jupyter"]["finish_reason"] == "stop"
    assert footer["data"]["text/plain"] == "local/m · local"
    assert set(footer["data"]) == {"text/html", "text/plain"}
    assert footer["metadata"] == {}


def test_without_a_footer_there_is_one_output(notebook: Kernel, server: ModelServer) -> None:
    notebook.run('%config LLMMagics.footer = "off"')
    server.next(paced(["word " * 400] * 6, 0.1))
    ran = notebook.run("%chat hi")
    assert kinds(ran.outputs) == ["answer"]
    assert ran.texts == ["word " * 2400]


def test_full_metadata_adds_usage_and_timing(notebook: Kernel, server: ModelServer) -> None:
    notebook.run('%config LLMMagics.metadata = "full"')
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})
    server.next(sse(delta("Hi"), finish(), usage, DONE))
    (output,) = notebook.run("%chat hi").answers
    metadata = output["metadata"]["llm_jupyter"]
    assert set(metadata) == {*STABLE, "usage", "timing"}
    assert metadata["usage"] == {"prompt_tokens": 5, "completion_tokens": 1}
    assert 0 < metadata["timing"]["first_token"] <= metadata["timing"]["total"]


def test_final_displays_once_and_never_updates(notebook: Kernel, server: ModelServer) -> None:
    notebook.run('%config LLMMagics.stream = "final"')
    server.next(paced(["one ", "two ", "three"], 0.3))
    ran = notebook.run("%chat hi")
    assert ran.updates == 0
    assert kinds(ran.outputs) == ["answer", "footer"]
    assert ran.texts == ["one two three"]
    server.next(paced(["one "], 0.3)[:-3])
    ran = notebook.run("%chat hi")
    assert (ran.status, ran.updates) == ("error", 0)
    assert "one" in str(ran.outputs[0]["data"])


def test_the_text_grows_on_the_page_and_the_first_is_shown_at_once(notebook: Kernel, server: ModelServer) -> None:
    gate = Gate()
    server.next(sse(delta("First "), gate, delta("second"), finish(), DONE))
    ran = notebook.start("%chat hi")
    notebook.until(ran, lambda ran: any("First" in text for _, text in ran.shown()), timeout=2)
    assert gate.reached.wait(5)
    gate.open()
    notebook.finish(ran)
    assert ran.texts == ["First second"]
    texts = [text for _, text in ran.shown() if "First" in text]
    assert texts[0] == "First "


def test_the_page_is_updated_at_most_fifteen_times_a_second(notebook: Kernel, server: ModelServer) -> None:
    server.next(paced(["word "] * 400, 0.002))
    ran = notebook.run("%chat hi")
    assert ran.texts == ["word " * 400]
    grown = {text: at for at, text in reversed(ran.shown()) if text.startswith("word")}
    assert 4 <= len(grown) <= 2 + 15 * ran.idle_after


def test_what_else_the_cell_shows_stays_where_it_is(notebook: Kernel, server: ModelServer) -> None:
    server.next(paced([f"part {n} " + "word " * 100 for n in range(12)], 0.05), answer("short"))
    code = """
import contextvars, threading
from IPython.display import Markdown, display, update_display
print("before")
handle = display(Markdown("a picture"), display_id="mine")
def work(stop):
    while not stop.wait(0.05):
        print("during", flush=True)
stop = threading.Event()
thread = threading.Thread(target=contextvars.copy_context().run, args=(work, stop))
thread.start()
%chat hi?
stop.set(); thread.join()
print("after")
handle.update(Markdown("another picture"))
%chat again?
print("end")
"""
    ran = notebook.run(code)
    assert ran.status == "ok", ran.error
    assert ran.texts == ["".join(f"part {n} " + "word " * 100 for n in range(12)), "short"]
    lines = ran.printed.splitlines()
    assert lines[0] == "before"
    assert lines[-2:] == ["after", "end"]
    assert set(lines[1:-2]) == {"during"}
    assert lines.count("during") >= 5
    assert ran.outputs[1]["data"]["text/markdown"] == "another picture"
    shape = [word for word in kinds(ran.outputs) if word != "stdout"]
    assert shape == ["display", "answer", "footer", "answer", "footer"]
    assert kinds(ran.outputs)[0] == kinds(ran.outputs)[-1] == "stdout"
    assert not any(is_empty(output) for output in ran.outputs)


def test_a_silent_server_is_waited_for_in_sight(notebook: Kernel, server: ModelServer) -> None:
    gate = Gate()
    server.next([gate, *answer("at last")])
    ran = notebook.start("%chat hi")
    notebook.until(ran, lambda ran: ran.shown(), timeout=3)
    at, notice = ran.shown()[0]
    assert at < 0.5
    assert "Waiting for local/m" in notice
    gate.open()
    notebook.finish(ran)
    assert kinds(ran.outputs) == ["answer", "footer"]
    assert ran.texts == ["at last"]


def test_thinking_is_shown_and_then_folded(notebook: Kernel, server: ModelServer) -> None:
    gate = Gate()
    server.next(sse(delta(reasoning_content="Let me <b>see</b>."), gate, delta("Yes."), finish(), DONE))
    ran = notebook.start("%chat hi")
    notebook.until(ran, lambda ran: any("Let me" in text for _, text in ran.shown()), timeout=3)
    assert ran.shown()[0][0] < 0.6
    assert any("Thinking" in text for _, text in ran.shown())
    gate.open()
    (output,) = notebook.finish(ran).answers
    folded, _, rest = output["data"]["text/markdown"].partition("</details>")
    assert folded.startswith("<details><summary>Thought")
    assert "see" in folded
    assert f"<{ZERO_WIDTH}b>" in folded
    assert rest.strip() == "Yes."
    assert output["data"]["text/plain"] == "Yes."


def test_thinking_in_tags_is_folded_too(notebook: Kernel, server: ModelServer) -> None:
    server.next(answer("<thi", "nk>hm", "m</think>", "Yes."))
    (output,) = notebook.run("%chat hi").answers
    assert output["data"]["text/plain"] == "Yes."
    assert "hmm" in output["data"]["text/markdown"].partition("</details>")[0]


def test_a_stop_for_length_is_said_at_the_answer(notebook: Kernel, server: ModelServer) -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    server.next(sse(delta("one two"), finish("length"), usage, DONE))
    ran = notebook.run("%chat --max-tokens 2 hi")
    assert ran.answers[0]["metadata"]["llm_jupyter"]["finish_reason"] == "length"
    assert "limit of 2 tokens" in ran.footers[0]
    assert "--max-tokens" in ran.footers[0]


def test_an_empty_answer_says_so(notebook: Kernel, server: ModelServer) -> None:
    server.next(sse(delta(""), finish(), DONE))
    ran = notebook.run("%chat hi")
    assert ran.status == "ok"
    assert not any(is_empty(output) for output in ran.outputs)
    assert "empty" in ran.outputs[0]["data"]["text/plain"]


def test_markup_of_the_model_is_defused_and_its_plain_text_exact(notebook: Kernel, server: ModelServer) -> None:
    hostile = "<script>alert(1)</script> ![x](http://x.invalid/y.png)"
    server.next(answer(hostile[:10], hostile[10:]))
    ran = notebook.run("%chat hi")
    assert ran.texts == [hostile]
    for _, text in ran.shown():
        assert "<s" not in text
        assert "![" not in text


@pytest.mark.parametrize("delay", ["at once", "after waiting"])
def test_a_failure_before_the_first_token_leaves_no_empty_output(
    notebook: Kernel, server: ModelServer, delay: str
) -> None:
    gate = Gate()
    refusal = reply({"error": {"message": "no", "type": "server_error"}}, 500)
    server.next(refusal if delay == "at once" else [gate, *refusal])
    ran = notebook.start("%chat hi")
    if delay != "at once":
        notebook.until(ran, lambda ran: ran.shown())
        gate.open()
    notebook.finish(ran)
    assert ran.status == "error"
    assert kinds(ran.outputs) == (["error"] if delay == "at once" else ["footer", "error"])
    assert not any(is_empty(output) for output in ran.outputs)


@pytest.mark.parametrize("end", [[], [End.RESET]])
@pytest.mark.parametrize("quiet", ["", "-q "])
def test_a_truncated_stream_keeps_its_text_and_is_an_error(
    notebook: Kernel, server: ModelServer, end: list[End], quiet: str
) -> None:
    server.next([*sse(delta("half "), delta("an answer"), End.CLOSE)[:-1], *end])
    ran = notebook.run(f"%chat {quiet}hi")
    assert ran.status == "error"
    assert ran.error[0].startswith(("StreamTruncatedError", "LLMConnectionError"))
    assert len(ran.error) <= 3
    assert not any(is_empty(output) for output in ran.outputs)
    if quiet:
        assert kinds(ran.outputs) == ["error"]
    elif not end:
        assert ran.outputs[0]["data"]["text/plain"] == "half an answer"
        assert "broke off" in ran.footers[0]


def test_a_long_answer_costs_bytes_in_proportion(notebook: Kernel, server: ModelServer) -> None:
    text = ["one more sentence of the answer. " * 4] * 500
    server.next(paced(text, 0.002))
    ran = notebook.run("%chat hi")
    assert ran.texts == ["".join(text)]
    sent = sum(len(str(content)) for _, _, content in ran.messages)
    assert sent < 8 * len("".join(text)) + 100_000
    assert kinds(ran.outputs) == ["answer", "footer"]


def test_an_endless_answer_that_is_left_is_left_at_the_server_too(notebook: Kernel, server: ModelServer) -> None:
    server.next(endless("word "))
    ran = notebook.start("%chat --stop x hi")
    notebook.until(ran, lambda ran: ran.shown())
    notebook.interrupt()
    notebook.finish(ran)
    visit = next(visit for visit in server.visits if visit.request.method == "POST")
    assert visit.wait_until_left(2) > 0
