"""What `%load_ext`, the first answer and every later answer cost a kernel."""

from __future__ import annotations

import json
import sys

from tests.benchmarks import page, server
from tests.benchmarks.figures import Report, median
from tests.benchmarks.kernel import Kernel, Run
from tests.benchmarks.peers import PeerMissing, python_of, version_of

LOAD = "%load_ext llm_jupyter"
PEER = "jupyter_ai_magics"
QUIET = 2.0
SHORTLY = 0.5
ONE_TOKEN = "%chat line 1 0"
LATER = 9

REMEMBER = "import sys, json; _before = set(sys.modules)"
IMPORTED = "print(json.dumps([name for name in sys.modules if name not in _before]))"
IMPORT = """
import importlib
for _name in {names!r}:
    try:
        importlib.import_module(_name)
    except ImportError:  # made by another module, which made it now too
        pass
"""


def configured(url: str) -> dict[str, str]:
    """The environment of a kernel that asks this server."""
    return {
        "LLM_JUPYTER_PROVIDERS__PACED__KIND": "openai-compatible",
        "LLM_JUPYTER_PROVIDERS__PACED__BASE_URL": url,
        "LLM_JUPYTER_DEFAULT_MODEL": "paced/m",
    }


def run(report: Report, *, kernels: int) -> None:
    """Medians over fresh kernels."""
    report.title(
        f"%load_ext until the kernel was idle for {QUIET:g} s, less an empty cell, medians of {kernels} kernels"
    )
    _extension(report, "llm_jupyter", [_loaded(sys.executable, LOAD) for _ in range(kernels)], (0.1, 15.0, 0))
    try:
        python = python_of(PEER, "ipykernel>=7")
    except PeerMissing as error:
        report.check(False, str(error))
    else:
        report.versions[PEER] = version_of(python, PEER)
        _extension(
            report, f"{PEER} {report.versions[PEER]}", [_loaded(python, f"%load_ext {PEER}") for _ in range(kernels)]
        )
    with server.running() as url:
        _answers(report, url, kernels)


def _extension(report: Report, name: str, loaded: list[Run], limits: tuple[float, float, float] | None = None) -> None:
    cpu, memory, threads = limits or (None, None, None)
    report.add(f"{name}, CPU", median([run.cpu for run in loaded]), "s", cpu)
    report.add(f"{name}, memory", median([run.memory for run in loaded]) / 1e6, "MB", memory)
    report.add(f"{name}, threads", max(run.threads for run in loaded), "", threads)
    for run in loaded:
        report.check(not run.error, f"{name} did not load: {run.error}")


def _loaded(python: str, code: str) -> Run:
    """What loading costs beyond an empty cell in the same kernel."""
    with Kernel(python) as kernel:
        empty = kernel.run("pass", quiet_for=QUIET)
        run = kernel.run(code, quiet_for=QUIET)
    run.cpu -= empty.cpu
    run.memory -= empty.memory
    return run


def _answers(report: Report, url: str, kernels: int) -> None:
    report.title(f"Answers of one token, less an empty cell, medians of {kernels} kernels")
    with Kernel(**configured(url)) as kernel:
        _done(report, kernel.run(LOAD))
        kernel.run(REMEMBER)
        _done(report, kernel.run(ONE_TOKEN))
        names = json.loads(page.prints(page.outputs(kernel.run(IMPORTED).sent))[0])
    imports, first, later = [], [], []
    for _ in range(kernels):
        with Kernel(**configured(url)) as kernel:
            _done(report, kernel.run(LOAD))
            empty = kernel.run("pass", quiet_for=SHORTLY).cpu
            imports.append(_done(report, kernel.run(IMPORT.format(names=names), quiet_for=SHORTLY)).cpu - empty)
            answers = [_done(report, kernel.run(ONE_TOKEN, quiet_for=SHORTLY)).cpu - empty for _ in range(1 + LATER)]
        first.append(answers[0])
        later += answers[1:]
    report.add("what the first answer imports", median(imports), "s", 0.6, note=f"{len(names)} modules")
    report.add("the first answer, with that imported before", median(first), "s", 0.15)
    report.add("a later answer", median(later), "s", 0.02)


def _done(report: Report, run: Run) -> Run:
    report.check(not run.error, run.error)
    return run
