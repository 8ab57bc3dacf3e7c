"""Which tests may run beside others. A few processes share them, module by module; those marked `alone` measure time or CPU,
start servers that take the whole machine, or drive a browser, and run after the rest: those in JupyterLab one after the
other, and beside them the others one after the other.
"""

from __future__ import annotations

import pytest

PAGES = "tests/browser/"
WITHOUT_LAB = tuple(f"{PAGES}test_{name}" for name in ("dashboards_alone", "much_to_show", "notebook7"))
ALONE = (
    PAGES, "tests/reliability/test_05", "tests/reliability/test_08", "tests/reliability/test_12",
    "tests/reliability/test_13", "tests/reliability/test_15", "tests/reliability/test_19", "tests/magics/test_interrupt",
    "tests/magics/test_loading", "tests/magics/test_model_choice", "tests/magics/test_model_commands",
    "tests/magics/test_ollama_outage", "tests/magics/test_processes",
)  # fmt: skip


def pytest_itemcollected(item: pytest.Item) -> None:  # before xdist reads the groups
    asks_ollama = "ollama" in item.nodeid or "ollama" in getattr(item, "fixturenames", ())
    group = "ollama" if asks_ollama else item.nodeid.partition("::")[0]
    if item.nodeid.startswith(ALONE):
        item.add_marker(pytest.mark.alone)
        group = "pages" if item.nodeid.startswith(PAGES) and not item.nodeid.startswith(WITHOUT_LAB) else "alone"
    item.add_marker(pytest.mark.xdist_group(group))
