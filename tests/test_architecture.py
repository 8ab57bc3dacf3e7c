"""The house rules that a machine can check: imports look down, files and functions stay small, importing is quiet."""

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llm_jupyter

PACKAGE = Path(llm_jupyter.__file__).parent
NAME = PACKAGE.name
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

FACES = ("magics", "widgets", "server", "cli")
LEVELS: tuple[tuple[str, ...], ...] = (
    ("types",),
    ("errors", "wording"),
    ("_supervisor", "_supervisor.*", "tables"),
    ("ports",),
    (
        "events",
        "events.*",
        "settings",
        "settings.*",
        "portal",
        "recent",
        "foreign",
        "effort",
        "clock",
        "breaker",
        "download",
        "mounts",
        "documents",
        "files",
        "filling",
        "filling.*",
    ),
    ("providers.base", "providers._*"),
    ("providers", "providers.*"),
    ("selection", "_probe"),
    ("places",),
    ("connection", "hosts", "hosts.*", "registry", "discovery"),
    ("choice", "admission"),
    ("defaults", "context"),
    ("question",),
    ("catalogue",),
    ("manager",),
    ("failover",),
    ("cache", "cache.*"),
    ("store", "store.*"),
    ("portable", "portable.*"),
    ("sessions", "sessions.*"),
    ("factory", "here", "testing", "testing.*"),
    ("comparison", "comparison.*"),
    ("doctor", "doctor.*", "overview", "processes"),
    FACES,
)
"""From the ground up. A module may import what stands on a lower level, and its neighbours in the same folder."""

DOORS = {("magics.dash", "widgets")}
"""The one place where a face opens another, and the list of what is behind it."""


def level_of(module: str) -> int | None:
    """The level of a module, named without the package; a folder of a face or of private providers counts whole."""
    for level, patterns in enumerate(LEVELS):
        for pattern in patterns:
            stem = pattern.removesuffix("*")
            if module == pattern or (pattern.endswith("*") and module.startswith(stem)):
                return level
            if pattern in FACES and module.startswith(f"{pattern}."):
                return level
    return None


def modules(package: Path) -> dict[str, Path]:
    """Every module under its name without the package; the package's own `__init__` is `""`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """All nodes that stand under `if TYPE_CHECKING:`."""
    return {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in test.body
        for node in ast.walk(statement)
    }


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Which modules of the package a module imports, wherever in its text, with the name that was taken from each."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = type_checking_only(tree)
    here = [NAME, *module.split(".")] if module else [NAME]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == NAME:
                    yield alias.name.partition(".")[2], ""
        elif isinstance(node, ast.ImportFrom):
            folder = here if path.name == "__init__.py" else here[:-1]
            above = folder[: len(folder) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] != NAME:
                continue
            inner = source.partition(".")[2]
            for alias in node.names:
                below = f"{inner}.{alias.name}" if inner else alias.name
                yield (below, "") if below in known else (inner, alias.name)


def upward_imports(package: Path) -> list[str]:
    """What is wrong with the imports of a package, one sentence each."""
    known = modules(package)
    wrong = []
    for module, path in known.items():
        if not module:
            continue  # the list of names, and the hooks that Jupyter calls; both reach up when they are used
        level = level_of(module)
        if level is None:
            wrong.append(f"{module} has no level: give it one in LEVELS")
            continue
        for target, name in imports(module, path, known):
            if (target, name) == ("", "__version__"):
                continue
            below = level_of(target) if target else None
            neighbours = module.split(".")[0] == target.split(".")[0] and below == level
            is_allowed = neighbours or (module, target) in DOORS
            if below is None or (below >= level and not is_allowed):
                wrong.append(f"{module} imports {target or NAME} {name}".rstrip())
    return wrong


def import_cycle(package: Path) -> list[str]:
    """One cycle of imports, or nothing."""
    known = modules(package)
    graph = {
        module: {target for target, _ in imports(module, path, known) if target not in ("", module)}
        for module, path in known.items()
        if module
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def oversized(package: Path) -> list[str]:
    """Files and functions that are too long, one phrase each."""
    found = []
    for module, path in modules(package).items():
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            found.append(f"{module}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES:
                    found.append(f"{module}.{node.name}: {lines} lines")
    return found


def test_imports_only_look_down() -> None:
    assert len(modules(PACKAGE)) > 10
    assert upward_imports(PACKAGE) == []


def test_no_imports_run_in_a_circle() -> None:
    assert import_cycle(PACKAGE) == []


def test_files_and_functions_stay_small() -> None:
    assert oversized(PACKAGE) == []


@pytest.fixture
def bad_example(tmp_path: Path) -> Path:
    """A package that breaks each rule once, and keeps it once next to it."""
    package = tmp_path / NAME
    texts = {
        "__init__.py": "def hook():\n    from llm_jupyter.magics import load\n",
        "types.py": """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from llm_jupyter.factory import allowed_for_types
            def lazily():
                from llm_jupyter.errors import LLMError
        """,
        "errors.py": "import llm_jupyter.types\nfrom . import sessions\n",
        "events.py": "from llm_jupyter import LLMFactory, __version__\n",
        "portal.py": "from llm_jupyter import events\n",
        "sessions.py": "from .types import Message\n",
        "factory.py": "from llm_jupyter.sessions import LLMSession\n",
        "oddment.py": "",
        "providers/__init__.py": "",
        "providers/base.py": "from llm_jupyter.providers._wire import decode\n",
        "providers/_wire.py": "from .base import LLMProvider\n",
        "providers/one.py": "from ..errors import LLMError\nfrom .base import LLMProvider\nfrom ..factory import X\n",
        "magics/__init__.py": "from llm_jupyter.magics.chat import chat\n",
        "magics/chat.py": "from llm_jupyter.widgets.panel import Panel\nfrom llm_jupyter.factory import LLMFactory\n",
        "magics/dash.py": "from llm_jupyter import widgets\nfrom llm_jupyter.widgets.panel import Panel\n",
        "widgets/__init__.py": "",
        "widgets/panel.py": "import json, llm_jupyter.server\n",
        "server/__init__.py": "from llm_jupyter import __version__\n",
    }
    for name, text in texts.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return package


def test_the_import_check_finds_every_fault_of_a_bad_example(bad_example: Path) -> None:
    assert sorted(upward_imports(bad_example)) == [
        "errors imports sessions",
        "events imports llm_jupyter LLMFactory",
        "magics.chat imports widgets.panel Panel",
        "magics.dash imports widgets.panel Panel",
        "oddment has no level: give it one in LEVELS",
        "portal imports events",
        "providers.one imports factory X",
        "types imports errors LLMError",
        "widgets.panel imports server",
    ]


def test_the_circle_check_finds_the_circle_of_a_bad_example(bad_example: Path) -> None:
    (bad_example / "types.py").write_text("")
    assert set(import_cycle(bad_example)) == {"providers.base", "providers._wire"}


def test_the_size_check_finds_the_long_file_and_the_long_functions_of_a_bad_example(tmp_path: Path) -> None:
    def function(kind: str, lines: int) -> str:
        return f"{kind} f{lines}():\n" + "    x = 1\n" * (lines - 1)

    longest, longer = function("def", MAX_FUNCTION_LINES), function("async def", MAX_FUNCTION_LINES + 1)
    (tmp_path / "functions.py").write_text(longest + longer)
    (tmp_path / "full.py").write_text("x = 1\n" * MAX_FILE_LINES)
    (tmp_path / "overfull.py").write_text("x = 1\n" * (MAX_FILE_LINES + 1))
    assert oversized(tmp_path) == ["functions.f51: 51 lines", "overfull: 401 lines"]


PROBE = """
import json, socket, sys

calls = []
sys.addaudithook(lambda event, _: event in ("socket.connect", "socket.getaddrinfo") and calls.append(event))
with socket.create_server(("127.0.0.1", 0)) as listener:
    socket.create_connection(listener.getsockname()).close()
proof = calls.copy()
calls.clear()
exec(sys.argv[1])
print(json.dumps({"proof": proof, "network": calls, "modules": sorted(sys.modules)}))
"""
HEAVY = {"IPython", "ipywidgets", "jupyter_server", "aiohttp", "pydantic"}


def after(statement: str) -> dict[str, list[str]]:
    """What a fresh interpreter has loaded and asked of the network after a statement."""
    run = subprocess.run([sys.executable, "-c", PROBE, statement], capture_output=True, text=True, check=True)
    seen: dict[str, list[str]] = json.loads(run.stdout)
    assert seen["proof"] == ["socket.getaddrinfo", "socket.connect"], "the hook must catch a real connection"
    return seen


def test_importing_the_package_brings_in_nothing_heavy_and_asks_no_network() -> None:
    seen = after("import llm_jupyter; dir(llm_jupyter)")
    assert "llm_jupyter" in seen["modules"]
    assert HEAVY.intersection(seen["modules"]) == set()
    assert seen["network"] == []


def test_the_import_probe_sees_what_is_heavy_and_what_connects() -> None:
    seen = after("import llm_jupyter.settings; socket.getaddrinfo('127.0.0.1', 80)")
    assert "pydantic" in seen["modules"]
    assert seen["network"] == ["socket.getaddrinfo"]
