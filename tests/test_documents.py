"""Reading saved notebooks: whatever stands in the file, and whatever happens to it meanwhile."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import nbformat
import pytest
from counts import times
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter import documents
from llm_jupyter.documents import Document, DocumentReader, is_cell_id, notebook_path, read_document

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def oddly(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, each of which may be missing or anything at all."""
    return st.fixed_dictionaries({}, optional={name: known | json_values for name, known in fields.items()})


notebook_like = oddly(
    nbformat=st.just(4),
    cells=st.lists(
        oddly(
            id=st.sampled_from(["a", "b", "c"]),
            cell_type=st.sampled_from(["code", "markdown"]),
            outputs=st.lists(oddly(metadata=oddly(llm_jupyter=oddly(session=st.sampled_from(["s", "t"]))))),
        )
    ),
)


def saved(path: Path, *cells: dict[str, Any], **fields: Any) -> Path:
    """A file with a notebook of these cells, as bare as they are."""
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **fields}))
    return path


def code(name: object, *sessions: object) -> dict[str, Any]:
    """A code cell with an answer in each of these sessions."""
    outputs = [
        {"output_type": "display_data", "metadata": {"llm_jupyter": {"session": s}}, "data": {}} for s in sessions
    ]
    return {"cell_type": "code", "id": name, "source": "", "metadata": {}, "outputs": outputs}


def read(path: Path) -> Document:
    document = read_document(path)
    assert document is not None
    return document


def test_the_quickstart_lists_its_cells_in_order() -> None:
    document = read(QUICKSTART)
    notebook = nbformat.read(QUICKSTART, as_version=4)
    assert document.cells == tuple(cell.id for cell in notebook.cells if cell.cell_type == "code")
    assert document.others == {cell.id for cell in notebook.cells if cell.cell_type != "code"}
    assert document.repeated == frozenset()


def test_only_ids_of_the_notebook_format_count(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "n.ipynb", code("good-id_1"), code("vscode-notebook-cell:/n.ipynb#W0sZmlsZQ%3D%3D"), code(5), code(None),
        {"cell_type": "code", "source": "old"}, code("x" * 64), code("x" * 65), code("line\n"), {"cell_type": "raw", "id": "?"},
    )  # fmt: skip
    document = read(path)
    assert document.cells == ("good-id_1", "", "", "", "", "x" * 64, "", "")
    assert document.others == document.repeated == frozenset()
    assert [name for name in ("a", "", "é", "a b", 7, None) if is_cell_id(name)] == ["a"]


def test_an_id_that_stands_twice_is_told_whatever_its_cells_are(tmp_path: Path) -> None:
    markdown = {"cell_type": "markdown", "id": "both", "source": ""}
    document = read(saved(tmp_path / "n.ipynb", code("twice"), code("once"), code("both"), markdown, code("twice")))
    assert document.cells == ("twice", "once", "both", "twice")
    assert document.repeated == {"twice", "both"}
    assert document.others == {"both"}


def test_sessions_come_by_the_number_of_their_answers_and_then_the_latest_first(tmp_path: Path) -> None:
    cells = (code("a", "rare"), code("b", "often", "often"), code("c", "late"), code("d", None, 5, "", ["x"]))
    assert read(saved(tmp_path / "n.ipynb", *cells)).sessions == ("often", "late", "rare")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[1]", b"\xff\xfe\x00", b"{}", b'{"nbformat": 4}', b'{"nbformat": 4, "cells": 5}',
        b'{"nbformat": 3, "worksheets": [], "cells": []}', b'{"nbformat": 5, "cells": []}', b'{"nbformat": 4, "cells": [7]}',
        b'{"nbformat": 4, "cells": [], "more": ' + b"[" * 100_000, b'{"nbformat": 4, "cells": [], "more": ' + b"9" * 5000 + b"NaN}",
    ],
    ids=lambda content: content[:24].decode("latin-1"),
)  # fmt: skip
def test_what_is_no_notebook_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.ipynb"
    path.write_bytes(content)
    assert read_document(path) is None


def test_what_is_no_file_is_none_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "circle.ipynb").symlink_to("circle.ipynb")
    names = ("gone.ipynb", "pipe.ipynb", "circle.ipynb", ".", "zero\0byte.ipynb", "x" * 5000)
    assert [read_document(tmp_path / name) for name in names] == [None] * len(names)


def test_a_file_beyond_every_sane_size_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.ipynb", code("a"))
    os.truncate(path, documents.MAX_SIZE + 1)  # a hole, that takes no room on the disk
    assert read_document(path) is None


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", r'"\ud83d"', '"\\u0000"', "1e999"])
def test_what_only_some_programs_write_is_read_all_the_same(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(f'{{"nbformat": 4, "cells": [{{"cell_type": "code", "id": "a", "source": {odd}}}]}}')
    assert read(path).cells == ("a",)


@given(st.one_of(json_values, notebook_like))
def test_no_json_in_the_world_raises(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ipynb"
    path.write_text(json.dumps(value))
    document = read_document(path)
    if document is not None:
        assert document.path == path
        assert len(document.cells) <= len(value["cells"])
        assert set(document.sessions) <= {"s", "t"}


@given(st.binary())
def test_no_bytes_in_the_world_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.ipynb"
    path.write_bytes(content)
    assert read_document(path) is None


def test_a_notebook_cut_off_anywhere_is_none_and_never_half_a_notebook(tmp_path: Path) -> None:
    content = QUICKSTART.read_bytes().rstrip()
    path = tmp_path / "n.ipynb"
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        assert read_document(path) is None


def test_a_notebook_full_of_pictures_takes_no_more_memory_than_its_bytes(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    for number in range(5):
        cell = nbformat.v4.new_code_cell("plot()", id=f"cell-{number}")
        cell.outputs.append(nbformat.v4.new_output("display_data", {"image/png": "iVBOR" * 200_000}))
        notebook.cells.append(cell)
    path = tmp_path / "large.ipynb"
    nbformat.write(notebook, path)
    size = path.stat().st_size
    assert size > 5_000_000
    tracemalloc.start()
    try:
        document = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert document.cells == tuple(f"cell-{number}" for number in range(5))
    assert peak < size * 1.1


def test_the_stamp_changes_with_each_save(tmp_path: Path) -> None:
    path, stamps = tmp_path / "n.ipynb", set()
    for number in range(times(1000)):
        saved(tmp_path / "new", code(f"c{number % 10}")).replace(path)  # as Jupyter saves: another file takes the place
        stamps.add(read(path).stamp)
    assert len(stamps) == times(1000)


def test_a_notebook_is_read_again_only_when_it_was_saved(tmp_path: Path) -> None:
    path, reader = saved(tmp_path / "n.ipynb", code("a")), DocumentReader()
    first = reader.get(path)
    assert first is not None
    assert reader.get(path) is first
    saved(path, code("a"), code("b"))
    second = reader.get(path)
    assert second is not None
    assert second.cells == ("a", "b")
    assert reader.get(path) is second


@pytest.mark.parametrize("damage", [b"", b'{"nbformat": 4, "cel', b"[]", None])
def test_the_last_good_notebook_stands_while_the_file_is_torn_or_gone(tmp_path: Path, damage: bytes | None) -> None:
    path, reader = saved(tmp_path / "n.ipynb", code("a")), DocumentReader()
    good = reader.get(path)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert good is not None
    assert reader.get(path) is good
    assert reader.get(path) is good
    saved(path, code("b"))
    mended = reader.get(path)
    assert mended is not None
    assert mended.cells == ("b",)


def test_another_notebook_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    reader = DocumentReader()
    assert reader.get(saved(tmp_path / "one.ipynb", code("a"))) is not None
    assert reader.get(tmp_path / "gone.ipynb") is None
    assert reader.get(tmp_path / "zero\0byte.ipynb") is None


def test_a_reader_beside_a_writer_never_sees_half_a_notebook(tmp_path: Path) -> None:
    """The worst way to save: the file is emptied and written anew, in small pieces."""
    path = saved(tmp_path / "n.ipynb", code("c0"))
    reader, seen = DocumentReader(), []

    def save() -> None:
        for number in range(times(500)):
            content = json.dumps({"nbformat": 4, "cells": [code(f"c{n}") for n in range(number % 30 + 1)]})
            with open(path, "w", encoding="utf-8", buffering=1) as file:
                for start in range(0, len(content), 50):
                    file.write(content[start : start + 50])
                    file.flush()

    writer = threading.Thread(target=save)
    writer.start()
    while writer.is_alive():
        seen.append(reader.get(path))
    writer.join()
    seen.append(reader.get(path))
    whole = {tuple(f"c{n}" for n in range(count + 1)) for count in range(30)}
    known = [document for document in seen if document is not None]
    assert {document.cells for document in known} <= whole
    assert known[-1].cells == read(path).cells
    assert None not in seen[seen.index(known[0]) :]


def test_the_path_of_the_notebook_is_what_names_a_notebook_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "my notes").mkdir()
    here = saved(tmp_path / "my notes" / "n.ipynb")
    other = saved(tmp_path / "other.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "link.ipynb").symlink_to(here)
    (tmp_path / "script.py").write_text("")

    def told(jupyter: str | None, variable: object = None) -> Path | None:
        environment = {} if jupyter is None else {"JPY_SESSION_NAME": jupyter}
        return notebook_path(environment, {"__vsc_ipynb_file__": variable})

    assert told(str(here)) == here.resolve()
    assert told(str(here), str(other)) == here.resolve()
    assert told(None, str(other)) == told(str(tmp_path / "gone.ipynb"), str(other)) == other.resolve()
    assert told(str(tmp_path / "my notes" / ".." / "link.ipynb")) == here.resolve()
    nowhere = (
        "4d1f0a52-7b0e-4f39-9d7e-0b9c3f6e2a11",
        "",
        "zero\0byte.ipynb",
        "x" * 5000 + ".ipynb",
        "folder.ipynb",
        "script.py",
    )
    for name in nowhere:
        assert told(str(tmp_path / name) if name.endswith(("b", "y")) else name) is None
        assert told(None, name) is None
    assert told(None, 5) is None
    assert notebook_path({}, {}) is None
