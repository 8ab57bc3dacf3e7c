"""No model process outlives its kernel, however the kernel ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from counts import times
from kernels import Kernel
from live import eventually, place

KILLS = times(100)

LONG = "%chat -t 0 --max-tokens 4000 Tell a very long story about the sea."

pytestmark = pytest.mark.live


def descendants(kernel: Kernel) -> list[psutil.Process]:
    """Every process that the running kernel has started, found from outside."""
    provisioner = kernel.manager.provisioner
    assert provisioner is not None
    return psutil.Process(provisioner.pid).children(recursive=True)  # type: ignore[attr-defined]


def models(kernel: Kernel) -> list[psutil.Process]:
    """Those among them that have a model; the others supervise."""
    found = []
    for process in descendants(kernel):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "_llama_child.py" in " ".join(process.cmdline()):
                found.append(process)
    return found


def leases(home: Path) -> list[Path]:
    """What says on disk that a process needs a model."""
    return list(home.glob("hosts/*/*/leases/*"))


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie is dead."""
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    return alive


def generating(kernel: Kernel) -> list[psutil.Process]:
    """Load, ask for a long answer and return the model's processes once text comes."""
    ran = kernel.load().start(LONG)
    kernel.until(ran, lambda ran: any(len(text) > 40 and not text.startswith("*") for _, text in ran.shown()))
    children = descendants(kernel)
    assert living(models(kernel))
    return children


@pytest.mark.stress
@pytest.mark.timeout(1200)
async def test_a_kernel_that_is_killed_while_a_model_answers_leaves_no_process(
    tmp_path: Path, weights: Path, report: Callable[[str], None]
) -> None:
    place(weights, tmp_path)
    took = []
    for _ in range(KILLS):
        with Kernel(tmp_path) as kernel:
            children = generating(kernel)
            kernel.kill()
            took.append(await eventually(lambda children=children: not living(children), within=2))
            assert leases(tmp_path) == []
    report(
        f"{len(took)} kernels killed while a model answered, 0 processes and 0 leases left, "
        f"the slowest gone after {max(took):.3f} s"
    )
    assert len(took) == KILLS


async def test_a_kernel_that_is_shut_down_leaves_no_process(tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        kernel.load()
        assert kernel.run("%chat -t 0 --max-tokens 3 hi").status == "ok"
        children = descendants(kernel)
        assert living(children)
        kernel.shut_down()
        await eventually(lambda: not living(children), within=2)
        assert leases(tmp_path) == []


async def test_a_kernel_that_restarts_while_a_model_answers_starts_afresh(tmp_path: Path, weights: Path) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        children = generating(kernel)
        kernel.restart()
        await eventually(lambda: not living(children), within=2)
        kernel.load()
        ran = kernel.run("%chat -t 0 --max-tokens 3 hi")
        assert ran.status == "ok", ran.error
        (fresh,) = living(models(kernel))
        assert fresh.pid not in [child.pid for child in children]


def test_a_model_process_that_dies_is_an_error_once_and_started_again_for_the_next_cell(
    tmp_path: Path, weights: Path
) -> None:
    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        ran = kernel.load().start(LONG)
        kernel.until(ran, lambda ran: any(len(text) > 40 and not text.startswith("*") for _, text in ran.shown()))
        for model in models(kernel):
            model.kill()
        kernel.finish(ran)
        assert ran.status == "error"
        assert 1 <= len(ran.error) <= 3
        assert "broke off" in ran.footers[0]
        again = kernel.run("%chat -t 0 --max-tokens 3 hi")
        assert again.status == "ok", again.error
