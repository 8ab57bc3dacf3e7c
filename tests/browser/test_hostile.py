"""Whatever a model or a server says: nothing of it runs, fetches or breaks anything in a real JupyterLab."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator

import pytest
from dashboards import execute, run_cell, write_notebook
from labs import Lab
from pages import HOSTILE, HUGE, IMAGE, TRICKY, html
from pages_of import open_notebook
from playwright.sync_api import Browser, Locator, Page, expect
from servers.paced import ModelServer
from servers.scripted import DONE, Pause, Request, Script, ScriptedServer, delta, event, finish, reply, sse

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(300)]

TEXTS = [*HOSTILE, *TRICKY]
NAMES = [text for text in TEXTS if text.strip() == text and len(text) < 200]
ANSWERED = 2_000
"""Milliseconds in which the page does something else again, and a button is answered."""

ALARM = """
window.ran = [];
for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) window[name] = () => window.ran.push(name);
window.stalled = 0;
let last = performance.now();
setInterval(() => {
  const now = performance.now();
  window.stalled = Math.max(window.stalled, now - last);
  last = now;
}, 50);
"""

FOUND = """
(cell) => {
  const found = [];
  const tags = 'script, iframe, object, embed, style, base, meta, link, template, noscript, video, audio, img, textarea[autofocus],'
    + ' input[autofocus], form:not([class^=llmj]), input[type=image], [srcset], [data-commandlinker-command], [contenteditable=""]';
  const places = cell.closest('.llmj') ? [cell] : cell.querySelectorAll('.llmj, .jp-OutputArea-output');
  for (const place of places) {
    if (place !== cell && place.parentElement.closest('.llmj')) continue;
    found.push(...[...place.querySelectorAll(tags)].map((one) => one.outerHTML.slice(0, 200)));
    for (const one of place.querySelectorAll('*')) {
      // JupyterLab's own, which makes links of whatever looks like an address in plain text; browsers open none of these.
      if (one.matches('.jp-RenderedText pre a:is([href^="data:"], [href^="file:"])') && one.href === one.textContent) continue;
      for (const { name, value } of Reflect.get(Element.prototype, 'attributes', one)) {  // a form may have another
        const isAddress = ['href', 'xlink:href', 'src', 'action', 'formaction', 'data', 'poster'].includes(name);
        if (name.startsWith('on') || (isAddress && !/^(https?:|mailto:|#)/i.test(value)))
          found.push(`${name}=${value.slice(0, 100)} in ${one.outerHTML.slice(0, 200)}`);
      }
      if (one.tagName === 'A' && one.hasAttribute('href') && !['http:', 'https:', 'mailto:'].includes(one.protocol) && !/^https?:/.test(one.getAttribute('href')))
        found.push(one.outerHTML.slice(0, 200));
    }
    for (const link of place.querySelectorAll('a')) {
      link.addEventListener('click', (event) => event.preventDefault(), { once: true });
      link.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
      link.dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }));
    }
  }
  return found;
}
"""


class Parrot(ModelServer):
    """Says what it is asked to: `say 3` is answered with the text of that number, slowly or after having thought it, and a
    model whose name is one of the texts is answered with that text by its own name.
    """

    def _script(self, request: Request) -> Script:
        if request.method == "GET":
            return super()._script(request)
        asked = request.json()
        word, _, which = asked["messages"][-1]["content"].partition(" ")
        text = TEXTS[int(which)] if which.isdecimal() else HUGE.get(which, "")
        match word:
            case "think":
                return sse(delta(reasoning_content=text), delta(text), finish(), DONE)
            case "stream":
                filling = "Some words. " * 400 + "\n\n"
                return sse(
                    delta(reasoning_content=text), delta(filling), Pause(0.4), delta(text), Pause(0.4), finish(), DONE
                )
            case "fail":
                return reply({"error": {"message": text, "type": text}}, 500)
            case "page":
                return reply(text, 500, "text/html")
            case "halves":  # of characters, as only JSON's escapes can write them
                return sse(
                    event(f'{{"choices": [{{"delta": {{"content": "\\ud800{IMAGE}\\udfff"}}}}]}}'), finish(), DONE
                )
            case "name":
                return sse(delta(asked["model"]), finish(), DONE)
        return sse(delta(text), finish(), DONE)


ASKING = """
import json
from IPython import get_ipython
from llm_jupyter import compare

shell = get_ipython()
names = json.load(open("hostile.json"))

def ask(words, options=""):
    try:
        shell.run_cell_magic("chat", options, words)
    except Exception:
        shell.showtraceback()

def each(word, numbers, options=""):
    for number in numbers:
        ask(f"{word} {number}", options)

def lists():
    for line in ("models", "status", "history", "session list", "events", "hosts", "doctor"):
        shell.run_line_magic("llm", line)

def everybody():
    return compare("name", [f"desk/{name}" for name in names])
"""
"""What the cells call."""

STEP = 24
"""Answers below one cell: JupyterLab shows no more than 50 outputs at once."""

ANSWERS = [
    *(f"each('say', range({n}, {min(n + STEP, len(TEXTS))}))" for n in range(0, len(TEXTS), STEP)),
    *(f"each('think', range({n}, {min(n + 2 * STEP, len(TEXTS))}, 2))" for n in range(1, len(TEXTS), 2 * STEP)),
]
STREAMS = "each('stream', (2, 97), '-m desk/<svg/onload=alert(1)>'); ask('halves')"
FAILURES = [f"each('fail', range(0, {len(TEXTS)}, 4))", f"each('page', range(2, {len(TEXTS)}, 4))"]
DASHBOARDS = ("status", "hosts", "models", "sessions", "chat", "events", "compare")

NOISY = f"import sys\nsys.stdout.buffer.write({chr(10).join(TEXTS).encode('utf-8', 'replace')!r})\nsys.stdout.flush()\nsys.exit({IMAGE!r})"

RAW = """
(pages) => {
  document.addEventListener('click', (event) => {
    if (event.target.closest('a')?.protocol !== 'javascript:') event.preventDefault();
  });
  for (const html of pages) {
    const place = document.body.appendChild(document.createElement('div'));
    place.className = 'jp-OutputArea-output';
    place.innerHTML = html;
    for (const old of place.querySelectorAll('script')) {
      const script = document.createElement('script');
      script.text = old.text;
      old.replaceWith(script);
    }
    for (const one of place.querySelectorAll('*'))
      for (const kind of ['click', 'mouseover', 'focus', 'blur']) one.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true }));
  }
}
"""


class Watch:
    """What a page ran, fetched from elsewhere and complained about."""

    def __init__(self, page: Page, home: str) -> None:
        self.page = page
        self.fetched: list[str] = []
        self.errors: list[str] = []
        own = (home, home.replace("http", "ws", 1), "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(own) else self.fetched.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if _is_ours(said.type, said.text) else None)
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda popup: self.errors.append(f"popup: {popup.url}"))

    def is_quiet(self, place: Locator) -> None:
        """Nothing of it has happened, and nothing stands below a cell, or in a part of a dashboard, that could."""
        assert place.evaluate(FOUND) == []
        assert self.page.evaluate("window.ran") == []
        assert (self.fetched, self.errors) == ([], [])
        assert not place.evaluate("place => place.textContent.includes('This could not be drawn')")


def _is_ours(kind: str, text: str) -> bool:
    return kind == "error" and "llm_jupyter" in text


@pytest.fixture(scope="module")
def server() -> Iterator[Parrot]:
    with Parrot(["m", "m", *NAMES]) as server:
        yield server


@pytest.fixture(scope="module")
def broken() -> Iterator[ScriptedServer]:
    """A server that has nothing but errors, each of them another text."""
    texts = itertools.cycle(TEXTS)
    with ScriptedServer(lambda request: reply({"error": {"message": next(texts)}}, 500)) as server:
        yield server


@pytest.fixture(scope="module")
def watch(browser: Browser, lab: Lab, server: Parrot, broken: ScriptedServer) -> Iterator[Watch]:
    """The page of one notebook, in which everything is asked and shown."""
    (lab.root / "noisy.py").write_text(NOISY)
    (lab.root / "hostile.json").write_text(json.dumps(NAMES))
    (lab.root / "asking.py").write_text(ASKING)
    environment = {
        "LLM_JUPYTER_PROVIDERS__DESK__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__DESK__BASE_URL": server.base_url,
        "LLM_JUPYTER_PROVIDERS__BROKEN__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__BROKEN__BASE_URL": broken.base_url,
        "LLM_JUPYTER_HOSTS__NOISY__COMMAND": json.dumps([sys.executable, str(lab.root / "noisy.py")]),
        "LLM_JUPYTER_HOSTS__NOISY__PORT": "9",
        "LLM_JUPYTER_DEFAULT_MODEL": "desk/m",
    }
    setup = f"import os\nos.environ.update({environment!r})\n%load_ext llm_jupyter\nfrom asking import *"
    opening = [f"%llm dash {name}" for name in DASHBOARDS]
    write_notebook(
        lab, "hostile.ipynb", setup, *ANSWERS, STREAMS, *FAILURES, "lists()", "everybody()", *opening, "# free"
    )
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(30_000)
    page.add_init_script(ALARM)
    watch = Watch(page, lab.url)
    open_notebook(page, lab, "hostile.ipynb")
    run_cell(page, "%load_ext")
    yield watch
    page.close()


def run(watch: Watch, source: str) -> Locator:
    """Run a cell; nothing runs in the page because of it."""
    cell = run_cell(watch.page, source)
    watch.is_quiet(cell)
    return cell


def press(frame: Locator, name: str) -> None:
    """Press a button, and wait until the kernel has done what it is for."""
    button = frame.get_by_role("button", name=name).last
    button.click(timeout=ANSWERED)
    expect(frame.locator("[aria-busy=true], button[disabled][title]")).to_have_count(0, timeout=ANSWERED)


def test_the_texts_are_dangerous_as_they_stand(browser: Browser) -> None:
    page = browser.new_page()
    page.route("**/*", lambda route: route.abort())
    page.set_content("<body></body>")
    page.evaluate("window.ran = new Set(); null")
    pages = [html(text).replace("alert(1)", f"window.ran.add({number})") for number, text in enumerate(TEXTS)]
    page.evaluate(RAW, pages)
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran.size") >= 40
    assert len(page.locator("body").evaluate(FOUND)) >= 100
    page.close()


def test_answers_in_cells_do_nothing(watch: Watch) -> None:
    for source in (*ANSWERS, STREAMS):
        run(watch, source)


def test_what_is_kept_does_nothing(watch: Watch) -> None:
    sessions = run(watch, "%llm dash sessions")
    sessions.get_by_label("Search conversations").fill("alert")
    expect(sessions.get_by_role("region", name="Turns that were found")).to_contain_text("alert")
    watch.is_quiet(sessions)
    sessions.get_by_label("Search conversations").fill("")
    sessions.get_by_role("button", name="Rename ").first.click()
    sessions.get_by_label("New name of ").fill(IMAGE)
    sessions.get_by_role("button", name="Save").click()
    expect(sessions.get_by_role("region", name=f"Conversation {IMAGE}")).to_be_visible()
    watch.is_quiet(sessions)
    chat = run(watch, "%llm dash chat")
    while chat.get_by_role("button", name="Show earlier").count():
        place = chat.get_by_text("more before").inner_text()
        chat.get_by_role("button", name="Show earlier").click()
        expect(chat.get_by_text(place, exact=True)).to_have_count(0)
        watch.is_quiet(chat)
    press(chat, "Show latest")


def test_a_huge_answer_breaks_nothing(watch: Watch) -> None:
    page = watch.page
    chat, sessions = page.locator(".llmj-chat"), page.locator(".llmj-sessions")
    press(sessions, "New conversation")
    for name in HUGE:
        page.evaluate("window.stalled = 0")
        watch.is_quiet(execute(page, f"ask('huge {name}')"))
        for turn in (chat.locator(".llmj-turn").last, sessions.locator(".llmj-sessions-turn").last):
            expect(turn).to_contain_text(f"huge {name}")
            expect(turn.locator(".llmj-markdown")).not_to_be_empty()
            watch.is_quiet(turn)
        press(sessions.locator(".llmj-sessions-turn").last, "Show all of the answer")
        watch.is_quiet(sessions.locator(".llmj-sessions-turn").last)
        assert page.evaluate("window.stalled") < ANSWERED, name


def test_errors_and_lists_in_cells_do_nothing(watch: Watch) -> None:
    for source in (*FAILURES, "lists()"):
        run(watch, source)


def test_comparisons_do_nothing(watch: Watch) -> None:
    cell = run(watch, "everybody()")
    expect(cell.locator("mjx-container")).to_have_count(0)
    cell = run(watch, "%llm dash compare")
    expect(cell.get_by_role("article")).to_have_count(len(NAMES))
    cell.get_by_role("button", name="Show differences").click()
    expect(cell.get_by_role("region", name="Differences")).to_be_visible()
    watch.is_quiet(cell)


def test_what_servers_say_of_themselves_does_nothing(watch: Watch) -> None:
    models = run(watch, "%llm dash models")
    press(models, "Ask the local providers again")
    expect(models.locator("tbody tr")).to_have_count(len(NAMES) + 3)
    watch.is_quiet(models)
    status = run(watch, "%llm dash status")
    press(status, "Look again for providers and their models")
    expect(status).to_contain_text("the server failed")
    watch.is_quiet(status)


def test_what_a_process_writes_does_nothing(watch: Watch) -> None:
    hosts = run(watch, "%llm dash hosts")
    hosts.get_by_role("button", name="Start noisy", exact=True).click()
    hosts.get_by_role("button", name="Log of noisy").click()
    expect(hosts.get_by_role("region", name="Log of noisy")).to_contain_text("alert(1)")
    watch.is_quiet(hosts)


def test_what_has_happened_does_nothing(watch: Watch) -> None:
    events = run(watch, "%llm dash events")
    expect(events.locator(".llmj-events-log")).to_contain_text("alert(1)")
    watch.is_quiet(events)
