"""What an answer that grows in a cell costs the kernel and the wire, and whether everything arrives as it was sent."""

from __future__ import annotations

from tests.benchmarks import page, server
from tests.benchmarks.figures import Report
from tests.benchmarks.kernel import Kernel
from tests.benchmarks.loading import LOAD, ONE_TOKEN, configured
from tests.benchmarks.texts import TEXTS, tokens, whole
from tests.kernels import is_empty

RATE = 1000
FULL = 20_000
"""The length that the targets speak of."""

BESIDE_PRINTS = 2000
IN_A_LOOP = 1200
"""Tokens of the answers that are not measured but compared; all are longer than 4 KB."""

CHATTY = """
import contextvars, threading
print("before")
_over = threading.Event()
def _talk():
    n = 0
    while not _over.wait(0.2):
        print("during", n)
        n += 1
_thread = threading.Thread(target=contextvars.copy_context().run, args=(_talk,))
_thread.start()
get_ipython().run_cell_magic("chat", "", {request!r})
_over.set()
_thread.join()
print("after")
"""

LOOP = """
for _request in {requests!r}:
    print("asking", _request)
    get_ipython().run_line_magic("chat", _request)  # what `%chat` in a loop becomes
"""


def run(report: Report, *, lengths: tuple[int, ...]) -> None:
    """Each text at each length in a kernel of its own, then the prints and the loop."""
    with server.running() as url:
        for length in lengths:
            report.title(f"%%chat, {length:,} tokens at {RATE:,} tokens/s")
            for name in TEXTS:
                _grow(report, url, name, length)
            _grow(report, url, "prose", length, LLM_JUPYTER_FOOTER="off")
        report.title("Everything that a cell shows")
        with Kernel(**configured(url)) as kernel:
            _warm(kernel)
            _prints(report, kernel)
            _loop(report, kernel)


def _grow(report: Report, url: str, name: str, length: int, **environment: str) -> None:
    with Kernel(**configured(url), **environment) as kernel:
        _warm(kernel)
        run = kernel.run(f"%%chat\n{name} {length} {RATE}", quiet_for=0.5)
    told = server.sent(url)
    what = f"{name}, {length:,} tokens" + (", no footer" if environment else "")
    shown = page.outputs(run.sent)
    report.check(not run.error, f"{what}: {run.error}")
    report.check(page.answers(shown) == [whole(name, length)], f"{what}: not exactly one answer with exactly the text")
    report.check(not any(map(is_empty, shown)), f"{what}: an empty output is left")
    report.check(
        told["seconds"] < length / RATE * 1.1 + 0.1, f"{what}: the server lost its pace: {told['seconds']:.1f} s"
    )
    limit = 1.2 if length == FULL else None
    report.add(f"{what}: iopub", run.size / 1e6, "MB", limit, note=f"{len(run.sent)} messages")
    report.add(f"{what}: kernel CPU", run.cpu, "s", limit)
    report.add(f"{what}: most updates in a second", page.busiest_second(run.sent), "", 15)
    first = page.first_showing(run.sent, tokens(name, length)[0].strip()) - told["first_token"]
    report.add(f"{what}: first token to first text", first, "s", 0.2)


def _warm(kernel: Kernel) -> None:
    """The first answer imports things, and is measured elsewhere."""
    for code in (LOAD, ONE_TOKEN):
        run = kernel.run(code)
        assert not run.error, run.error


def _prints(report: Report, kernel: Kernel) -> None:
    shown = page.outputs(kernel.run(CHATTY.format(request=f"prose {BESIDE_PRINTS} {RATE}")).sent)
    lines = page.prints(shown)
    during = [f"during {n}" for n in range(len(lines) - 2)]
    report.check(len(during) >= 5, f"only {len(during)} prints came while the answer did")
    report.check(lines == ["before", *during, "after"], f"prints were lost or moved: {lines}")
    report.check(
        page.answers(shown) == [whole("prose", BESIDE_PRINTS)], "beside prints the answer is not what was sent"
    )
    report.check(shown[0].get("text", "").startswith("before\n"), "what was printed first does not stand first")
    report.check(shown[-1].get("text", "").endswith("after\n"), "what was printed last does not stand last")
    report.add("lines printed before, during and after an answer", len(lines), "")


def _loop(report: Report, kernel: Kernel) -> None:
    names = ("prose", "fence", "table")
    requests = [f"{name} {IN_A_LOOP} {RATE}" for name in names]
    shown = page.outputs(kernel.run(LOOP.format(requests=requests)).sent)
    texts = [whole(name, IN_A_LOOP) for name in names]
    order = [
        output["text"].strip() if "text" in output else output["data"]["text/plain"] for output in shown
        if "text" in output or "text/markdown" in output["data"]
    ]  # fmt: skip
    expected = [part for request, text in zip(requests, texts, strict=True) for part in (f"asking {request}", text)]
    report.check(order == expected, "prints and answers of a loop are not what was sent, or not in order")
    report.add("answers in a loop", len(page.answers(shown)), "")
