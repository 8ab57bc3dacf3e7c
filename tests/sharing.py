"""Which tests may run beside others. A few processes share them, module by module; those marked `alone` measure time or CPU,
start servers that take the whole machine, or drive a browser, and run after the rest: three groups beside each other, each
one test after the other, and only one of them with claims about how soon a page shows something.
"""

from __future__ import annotations

import pytest

ALONE = {
    "pages": ("tests/browser/test_dashboards", "tests/browser/test_hostile", "tests/browser/test_much_to_show"),
    "notebooks": (
        "tests/browser/", "tests/magics/test_loading", "tests/magics/test_model_choice",
        "tests/magics/test_model_commands", "tests/magics/test_processes",
    ),
    "servers": (
        "tests/reliability/test_05", "tests/reliability/test_08", "tests/reliability/test_12",
        "tests/reliability/test_13", "tests/reliability/test_15", "tests/reliability/test_19",
        "tests/magics/test_interrupt", "tests/magics/test_ollama_outage",
    ),
}  # fmt: skip
"""Groups of tests by the beginnings of their names; a test belongs to the first that fits."""


def pytest_itemcollected(item: pytest.Item) -> None:  # before xdist reads the groups
    asks_ollama = "ollama" in item.nodeid or "ollama" in getattr(item, "fixturenames", ())
    group = "ollama" if asks_ollama else item.nodeid.partition("::")[0]
    for name, beginnings in ALONE.items():
        if item.nodeid.startswith(beginnings):
            item.add_marker(pytest.mark.alone)
            group = name
            break
    item.add_marker(pytest.mark.xdist_group(group))
