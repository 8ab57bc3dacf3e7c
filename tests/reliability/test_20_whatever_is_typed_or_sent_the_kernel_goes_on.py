"""Whatever a person types or a server sends: the kernel lives, nothing is lost, and one to three lines say what to do.

Model output never executes in a page: the texts are shown to a real browser.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
from counts import times
from hypothesis import given
from hypothesis import strategies as st
from kernels import Kernel, Ran, kinds
from pages import HOSTILE, TRICKY, html, live, rendered
from playwright.sync_api import Page
from servers.paced import ModelServer
from servers.scripted import DONE, End, Pause, Script, delta, event, finish, head, reply, sse
from servers.spoken import OLLAMA, OPENAI, Spoken, both, hearing

from llm_jupyter.errors import LLMError
from llm_jupyter.magics.llm import COMMANDS
from llm_jupyter.magics.markdown import harmless

TYPED, SENT = times(1000), times(3000)
CELLS_WITH_SENT = times(400)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, server: ModelServer) -> Iterator[Kernel]:
    environment = {
        "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
    }
    with Kernel(tmp_path_factory.mktemp("home"), environment) as kernel:
        kernel.load()
        kernel.run("kept = 4711")
        yield kernel


@pytest.fixture
def notebook(kernel: Kernel, server: ModelServer) -> Kernel:
    """A conversation of one turn."""
    assert kernel.run("%llm use local/m").status == "ok"
    assert kernel.run("%llm reset").status == "ok"
    server.forget()
    assert kernel.run("%chat the first question").texts == ["Heard: the first question"]
    return kernel


def few_lines(ran: Ran, code: str) -> bool:
    """Whether a cell ended well, or in one of our errors, in one to three lines that hold nothing odd."""
    if ran.status == "ok":
        return True
    lines = ran.error
    assert 1 <= len(lines) <= 3, (code, lines)
    assert all(line.strip() and "\x1b" not in line and "Traceback" not in line for line in lines), (code, lines)
    assert lines[0].split(":")[0].endswith(("Error", "Interrupted")), (code, lines)
    return False


def goes_on(notebook: Kernel, server: ModelServer) -> None:
    """The kernel is the same, and it still knows what was said."""
    assert notebook.value("kept") == 4711
    server.forget()
    ran = notebook.run("%chat -m local/m and then?")
    assert ran.status == "ok", ran.error
    said = server.chats[-1]["messages"]
    contents = [message["content"] for message in said if message["role"] != "system"]  # a cell may have set --system
    assert contents[:2] == ["the first question", "Heard: the first question"]
    assert contents[-1] == "and then?"


# -- what a person types

WORDS = [
    "", " ", "-", "--", "---", "-m", "-m local/m", "-m nobody/x", "--model", "--model=", "-t", "-t hot", "-t 1e999", "-t nan",
    "--max-tokens 0", "--max-tokens -1", "--max-tokens 9999999999999999999999", "--seed", "--stop", "--option", "--option x",
    "--option =1", "--system", "--system '", '--system "a', "--timeout 0", "--timeout -1", "-o", "-o 1x", "-o class", "-q",
    "--no-history", "--think", "--nonsense", "-x", "'", '"', "\\", "\\n", "$HOME", "{kept}", "{", "}", "%", "%%", "?", "??", "!",
    "!ls", ";", "#", "\t", "é🙂", "\u2028", "\u0085", "\ufeff", "\u202e", "\x00", "\x1b[31m", "\ud7ff", "x" * 5000, "(" * 300,
    "local/", "/", "//", "local/m/", "../../etc/passwd", "http://[", "http://127.0.0.1:9/v1", "~", "*", "0", "-1", "None", "[]",
]  # fmt: skip
HARMLESS_COMMANDS = [command for command in COMMANDS if command not in ("pull", "delete", "host", "doctor")]
"""Those left out fetch, remove, start and probe: that is what they are for."""


def typed(dice: random.Random) -> str:
    magic = dice.choice(["%chat", "%%chat", "%llm", "%%llm", *(f"%llm {command}" for command in HARMLESS_COMMANDS)])
    line = " ".join([magic, *dice.choices(WORDS, k=dice.randrange(5))])
    body = "\n".join(dice.choices(WORDS, k=dice.randrange(1, 4)))
    return f"{line}\n{body}" if magic.startswith("%%") else line


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_nothing_that_is_typed_harms_the_kernel_or_the_conversation(
    notebook: Kernel, server: ModelServer, report: Callable[[str], None]
) -> None:
    dice, refused = random.Random(20), 0
    notebook.run("from llm_jupyter.magics import LLMMagics")
    for number in range(TYPED):
        code = typed(dice)
        if "reset" in code or "load" in code:
            continue  # what they are told to do is to forget
        refused += not few_lines(notebook.run(code), code)
        if number % 50 == 0:
            goes_on(notebook, server)
    goes_on(notebook, server)
    report(f"{TYPED} odd cells typed: the kernel lives; {refused} were refused, in one to three lines each")
    assert TYPED / 5 < refused < TYPED


# -- what a server sends

FAULTS: dict[str, tuple[Script, str, str]] = {
    "too long": (
        reply({"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 1231, "n_ctx": 512,
                         "message": "request (1231 tokens) exceeds the available context size (512 tokens)"}}, 400),
        "ContextExceededError", "1231 tokens do not fit into its window of 512",
    ),
    "bad key": (reply({"error": {"message": "Invalid API Key"}}, 401), "AuthenticationError", "api_key_env"),
    "truncated": (sse(delta("half"), End.CLOSE)[:-1], "StreamTruncatedError", "broke off"),
    "no JSON": (sse(b"data: {nope\n\n"), "MalformedResponseError", "nope"),
    "a page": (reply("<html>proxy</html>", content_type="text/html"), "MalformedResponseError", "proxy"),
    "hung up": ([End.RESET], "HungUpError", "127.0.0.1"),
    "slow": ([Pause(20)], "FirstTokenTimeoutError", "--timeout"),
    "failed": (reply("worker \x1b[31mdied\n" * 50, 500), "ServerError", "HTTP 500"),
    "too many": (reply({"error": {"message": "slow down"}}, 429, headers=[("Retry-After", "60")]), "RateLimitedError", "60 s"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_to_three_lines_and_status_error(notebook: Kernel, server: ModelServer, fault: str) -> None:
    script, kind, said = FAULTS[fault]
    server.next(*[script] * 4)
    ran = notebook.run("%chat --timeout 0.5 hi" if fault == "slow" else "%chat hi")
    assert ran.status == "error"
    assert not few_lines(ran, fault)
    assert ran.error[0].startswith(f"{kind}: "), ran.error
    assert said in "\n".join(ran.error)
    assert kinds(ran.outputs)[-1] == "error"
    goes_on(notebook, server)


def test_what_had_arrived_of_an_answer_that_broke_off_stays_on_the_page(notebook: Kernel, server: ModelServer) -> None:
    server.next(sse(delta("half "), delta("an answer"), End.CLOSE)[:-1])
    ran = notebook.run("%chat hi")
    assert ran.status == "error"
    assert ran.outputs[0]["data"]["text/plain"] == "half an answer"
    assert not few_lines(ran, "cut")
    goes_on(notebook, server)


async def said_well(attempt: Awaitable[object]) -> bool:
    """Whether an attempt ends in one of our errors, and then in few printable lines; any other exception is a failure."""
    error = None
    try:
        assert await attempt is not None
    except LLMError as caught:
        error = caught
    if error is not None:
        assert 1 <= len(error.lines()) <= 3
        assert all(line and line.isprintable() for line in error.lines())
    return error is not None


def garbled(dice: random.Random, spoken: Spoken) -> Script:
    """A good answer with some of its bytes changed, lost, doubled or cut off, in pieces of any size."""
    body = bytearray(spoken.answer("Hel", "lo né🙂", "!"))
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(body))
        match dice.randrange(5):
            case 0:
                body[at] = dice.randrange(256)
            case 1:
                del body[at : at + dice.randrange(40)]
            case 2:
                body[at:at] = body[at : at + dice.randrange(40)]
            case 3:
                body[at:at] = dice.choice(
                    [b"\r", b"\n", b"\x00", b"\xff", b'"', b"}", b"data: ", b"null", b"[", b"1e999", b"\\ud800"]
                )
            case _:
                del body[max(1, at) :]
    size = dice.choice([1, 7, 4096])
    kind = dice.choice([spoken.content_type] * 6 + ["text/html", "application/json", None])
    pieces = [bytes(body[i : i + size]) for i in range(0, len(body), size)]
    return spoken.script(*pieces, content_type=kind, is_chunked=dice.random() < 0.5)


@pytest.mark.stress
@pytest.mark.timeout(900)
@both
async def test_whatever_a_server_sends_is_an_answer_or_one_of_our_errors(
    spoken: Spoken, report: Callable[[str], None]
) -> None:
    dice, failed = random.Random(21), 0
    scripts = [garbled(dice, spoken) for _ in range(SENT // 2)]
    async with hearing(spoken, *scripts, first_token=5, idle=5) as (provider, _):
        for _ in scripts:
            failed += await said_well(provider.generate_chat_completion("hi", model="m"))
            assert provider.in_flight == 0
    report(f"{len(scripts)} garbled {spoken.content_type} replies: {failed} typed errors, the others whole answers")
    assert len(scripts) / 4 < failed < len(scripts)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_whatever_a_server_sends_the_kernel_goes_on(
    notebook: Kernel, server: ModelServer, report: Callable[[str], None]
) -> None:
    dice, failed = random.Random(22), 0
    for _ in range(CELLS_WITH_SENT):
        server.next(garbled(dice, OPENAI))
        failed += not few_lines(notebook.run("%chat --no-history hi"), "%chat hi")
        server.forget()
    goes_on(notebook, server)
    report(f"{CELLS_WITH_SENT} garbled replies in cells: {failed} errors of one to three lines, the kernel lives")
    assert failed > CELLS_WITH_SENT / 4


HEADS: dict[str, bytes] = {
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "a negative length": head(200, OPENAI.content_type, headers=[("Content-Length", "-5")]),
    "two lengths": head(200, OPENAI.content_type, headers=[("Content-Length", "5"), ("Content-Length", "7")]),
    "a header without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "a header with a line end in it": head(200, "text/event-stream\rX: y"),
    "an early hint and no more": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "another version": b"HTTP/9.9 200 OK\r\n\r\n",
    "binary": bytes(range(256)) * 4,
}


@both
@pytest.mark.parametrize("odd", HEADS)
async def test_an_odd_beginning_of_a_reply_is_one_of_our_errors(spoken: Spoken, odd: str) -> None:
    async with hearing(spoken, [HEADS[odd], End.CLOSE], first_token=5) as (provider, _):
        with pytest.raises(LLMError) as caught:
            await provider.generate_chat_completion("hi", model="m")
    assert 1 <= len(caught.value.lines()) <= 3


LISTS: dict[str, object] = {
    "null": None, "a number": 7, "a text": "models", "an empty object": {}, "lists of nothing": {"data": [None], "models": [None]},
    "names that are none": {"data": [{"id": None}], "models": [{"name": 7}]},
    "names that would steer a terminal": {"data": [{"id": "\x1b[31m\u202e<script>\n"}], "models": [{"name": "\x1b[31m<b>\n"}]},
    "sizes beyond all measure": {"data": [{"id": "m", "created": 1e308, "meta": {"size": -(2**70), "n_params": 10**400}}],
                                "models": [{"name": "m", "size": 10**400}]},
}  # fmt: skip


@both
@pytest.mark.parametrize("odd", LISTS)
async def test_an_odd_list_of_models_is_a_list_or_one_of_our_errors(spoken: Spoken, odd: str) -> None:
    odd_spoken = Spoken(
        spoken.kind, spoken.path, spoken.content_type, spoken.message, spoken.piece, spoken.end,
        {**spoken.asides, "/v1/models": LISTS[odd], "/api/tags": LISTS[odd]},
    )  # fmt: skip
    base = OPENAI if spoken is OPENAI else OLLAMA
    async with hearing(odd_spoken, base.script(base.answer("x"))) as (provider, _):
        await said_well(provider.get_available_models())


@given(st.text(), st.text(), st.text(max_size=400))
def test_an_error_of_any_words_is_one_to_three_printable_lines(what: str, where: str, next_step: str) -> None:
    error = LLMError(what * 50, where=where, next_step=next_step)
    for lines in (error.lines(), error._render_traceback_()):
        assert 1 <= len(lines) <= 3
        assert all(line.strip() and line.isprintable() and len(line) <= 320 for line in lines)


# -- what a model says, in a page


@pytest.mark.parametrize("text", [*HOSTILE, *TRICKY])
def test_nothing_in_a_models_text_is_live_in_a_page(text: str) -> None:
    assert live(rendered(harmless(text))) == []


def test_the_list_of_hostile_texts_would_be_live_as_it_stands() -> None:
    dangerous = [text for text in HOSTILE if live(rendered(text))]
    assert len(dangerous) >= 30


pieces = st.sampled_from(
    ["<img src=x onerror=alert(1)>", "<script>", "</script>", "```", "~~~", "````", "\n", "\n\n", " ", "    ", "> ", "- ",
     "1. ", "`", "``", "x", "|", "---", "\t", "![a](//b)", "<", ">", "!", "[", "](", "\\", "$$", "$", "<!--", "-->", "\r", '"', "'", "]:", "https://x", "(", ")", "\\begin{a}", "\\end{a}", "<b"]
)  # fmt: skip


@given(st.lists(pieces, max_size=15).map("".join))
def test_no_arrangement_of_blocks_makes_a_tag_live(text: str) -> None:
    assert live(rendered(harmless(text))) == []


ALARM = """
window.ran = [];
for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) window[name] = () => window.ran.push(name);
null;
"""


def shown(page: Page, *texts: str) -> tuple[list[str], list[str], list[str]]:
    """Texts in a real page, opened and clicked on: what ran, what was fetched, and which links would run something."""
    fetched: list[str] = []
    page.unroute_all()
    page.route("**/*", lambda route: (fetched.append(route.request.url), route.abort()))
    page.goto("about:blank")
    page.evaluate(ALARM)
    place = "pages => { for (const html of pages) document.body.appendChild(document.createElement('div')).innerHTML = html }"
    page.evaluate(place, [html(text) for text in texts])
    page.evaluate("""() => {
      for (const old of document.querySelectorAll('script')) {  // the way in which JupyterLab and nbviewer would not, but a page does
        const script = document.createElement('script');
        script.text = old.text;
        old.replaceWith(script);
      }
      for (const one of document.querySelectorAll('details, input, svg')) one.dispatchEvent(new MouseEvent('click'));
    }""")
    page.wait_for_timeout(30)  # an image that fails says so a moment later
    links = page.eval_on_selector_all("a", "all => all.map(one => one.protocol).filter(p => p === 'javascript:')")
    return page.evaluate("window.ran"), fetched, links


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_nothing_that_a_model_says_runs_or_fetches_in_a_real_page(page: Page) -> None:
    assert shown(page, *map(harmless, HOSTILE)) == ([], [], [])
    dangerous = [text for text in HOSTILE[::4] if shown(page, text) != ([], [], [])]
    assert len(dangerous) >= 7  # as they stand, most of them do something


@pytest.mark.browser
def test_what_a_cell_shows_of_a_hostile_answer_is_dead_in_a_real_page(
    page: Page, kernel: Kernel, server: ModelServer
) -> None:
    hostile = (
        "<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) ![y](http://x.invalid/y.png)"
    )
    server.next(sse(delta(hostile[:30]), Pause(0.1), delta(hostile[30:]), finish(), DONE))
    ran = kernel.run("%chat -m local/m hi")
    assert ran.texts == [hostile]
    texts = [text for _, text in ran.shown()]
    assert texts
    for text in texts:
        assert shown(page, text) == ([], [], [])
    assert shown(page, hostile) != ([], [], [])


def test_an_error_that_quotes_markup_is_text(notebook: Kernel, server: ModelServer) -> None:
    server.next(sse(event("<img src=x onerror=alert(1)>")))
    ran = notebook.run("%chat hi")
    assert ran.status == "error"
    assert kinds(ran.outputs)[-1] == "error"
    assert not any("<img" in str(output.get("data", {}).get("text/html", "")) for output in ran.outputs)
    assert not any("<img" in str(output.get("data", {}).get("text/markdown", "")) for output in ran.outputs)
