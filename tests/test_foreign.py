"""A server of another user is not spoken to unless it is named."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_jupyter.errors import LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.foreign import PROC_NET, is_foreign, listeners, listening
from llm_jupyter.overview import OTHERS as NAMED_OTHERS
from llm_jupyter.overview import views, who_answers
from llm_jupyter.registry import FOUND
from llm_jupyter.settings import LLMSettings, ProviderSettings

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
STRANGER = 61234


def owners(port: int, tables: Path = PROC_NET) -> set[int]:
    """The user ids of whoever listens on a port."""
    return {one.owner for one in listening(tables) if one.port == port}


# Run as the stranger: an Ollama as far as its list of models, that writes down whatever reaches it.
SERVER = """
import encodings.idna, http.server, json, os, socket, sys  # all now: a stranger may not read where they lie
socket.getfqdn("127.0.0.1")
if os.getuid() == 0: os.setuid(int(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)
        about = {"/api/version": {"version": "0.12.6"}, "/v1/models": {"object": "list", "data": []}}
        body = json.dumps(about.get(self.path, {"models": [{"name": "spy:1b", "capabilities": ["completion"]}]})).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def tables(folder: Path, *rows: tuple[str, str, int]) -> Path:
    lines = [
        f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 1 1\n"
        for local, state, uid in rows
    ]
    (folder / "tcp").write_text(HEAD + "".join(lines))
    return folder


@pytest.fixture
def stranger() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server and its port; another user's where this process may become one."""
    command = [sys.executable, "-c", SERVER, str(STRANGER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
        process.kill()


@pytest.mark.parametrize(
    ("rows", "foreign"),
    [
        ([("0100007F:2CAA", "0A", os.getuid() + 1001)], True),
        ([("0100007F:2CAA", "0A", os.getuid())], False),
        ([("0100007F:2CAA", "0A", 0)], False),
        ([("0100007F:2CAA", "0A", 120)], False),
        ([("0100007F:2CAB", "0A", os.getuid() + 1001)], False),
        ([("0100007F:2CAA", "01", os.getuid() + 1001)], False),
        ([("0100007F:2CAA", "0A", os.getuid()), ("00000000:2CAA", "0A", os.getuid() + 1001)], True),
    ],
    ids=["another's", "mine", "root's", "a service's", "another port", "not listening", "mine and another's"],
)
def test_whose_server_it_is_stands_in_the_systems_tables(
    rows: list[tuple[str, str, int]], foreign: bool, tmp_path: Path
) -> None:
    assert is_foreign("http://127.0.0.1:11434", tables(tmp_path, *rows)) is foreign


MINE, OTHERS = os.getuid(), os.getuid() + 1001
HERE4, THERE4, ANY4, ANY6 = "0100007F", "0200007F", "00000000", "0" * 32
HERE6, MAPPED = f"{'0' * 24}01000000", "0000000000000000FFFF00000100007F"


@pytest.mark.skipif(sys.byteorder != "little", reason="the rows are written as such a machine writes them")
@pytest.mark.parametrize(
    ("rows", "host", "foreign"),
    [
        ([(HERE4, MINE), (THERE4, OTHERS)], "127.0.0.1", False),
        ([(HERE4, MINE), (THERE4, OTHERS)], "127.0.0.2", True),
        ([(HERE4, MINE), (THERE4, OTHERS)], "localhost", False),
        ([(HERE4, MINE), (HERE6, OTHERS)], "127.0.0.1", False),
        ([(HERE4, MINE), (HERE6, OTHERS)], "[::1]", True),
        ([(HERE4, MINE), (HERE6, OTHERS)], "localhost", True),
        ([(HERE4, MINE), (HERE6, OTHERS)], "my.localhost", True),
        ([(HERE4, MINE), (ANY4, OTHERS)], "127.0.0.1", True),
        ([(HERE6, MINE), (ANY4, OTHERS)], "[::1]", False),
        ([(ANY6, OTHERS)], "127.0.0.1", True),
        ([(ANY6, OTHERS)], "[::1]", True),
        ([(MAPPED, OTHERS)], "127.0.0.1", True),
        ([(HERE4, OTHERS)], "[::ffff:127.0.0.1]", True),
        ([(HERE4, OTHERS)], "0.0.0.0", True),
    ],
)
def test_a_server_is_another_users_where_one_of_the_addresses_that_a_request_may_reach_is(
    rows: list[tuple[str, int]], host: str, foreign: bool, tmp_path: Path
) -> None:
    lines = [(f"{address}:2CAA", "0A", owner) for address, owner in rows]
    assert is_foreign(f"http://{host}:11434", tables(tmp_path, *lines)) is foreign


def test_tables_that_are_missing_or_strange_tell_nothing(tmp_path: Path) -> None:
    assert owners(11434, tmp_path / "nowhere") == set()
    (tmp_path / "tcp").write_text("one\ntwo three\n")
    assert owners(11434, tmp_path) == set()


def test_a_server_of_ones_own_is_not_foreign() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        assert owners(port) == ({os.getuid()} if sys.platform == "linux" else set())
        assert not is_foreign(f"http://127.0.0.1:{port}")


def test_linux_tells_of_one_port_what_its_tables_tell() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine, socket.create_server(("", 0)) as everywhere:
        ports = {one.getsockname()[1] for one in (mine, everywhere)}
        six = socket.create_server(("::", 0), family=socket.AF_INET6) if socket.has_dualstack_ipv6() else None
        with six or contextlib.nullcontext():
            ports |= {six.getsockname()[1]} if six else set()
            told = listeners(ports)
            assert told == {row for row in listening(PROC_NET) if row.port in ports}
            assert {one.port for one in told} == (ports if sys.platform == "linux" else set())
    assert listeners(ports) == set()


async def test_another_users_server_is_asked_nothing_until_it_is_named(
    stranger: tuple[int, subprocess.Popen[str]], tmp_path: Path
) -> None:
    port, process = stranger
    is_another = os.getuid() == 0 and sys.platform == "linux"  # nobody else can become another user
    assert not is_another or owners(port) == {STRANGER}
    environment = {"OLLAMA_HOST": f"127.0.0.1:{port}"}
    async with LLMFactory(LLMSettings(home=tmp_path), environment=environment) as llm:
        choice = await llm.providers.choose()
        if is_another:
            assert choice.full_name == "embedded/smollm2-135m"
            assert choice.reason == "ollama belongs to another user of this machine"
            for unnamed in ("spy:1b", "ollama/spy:1b", "ollama"):
                with pytest.raises(LLMError):
                    await llm.providers.resolve(unnamed)
        else:
            assert choice.full_name == "ollama/spy:1b"
        assert (await llm.providers.resolve("ollama/spy:1b", named=True)).full_name == "ollama/spy:1b"
    mine = ProviderSettings(kind="ollama", base_url=f"http://127.0.0.1:{port}", priority=FOUND)
    async with LLMFactory(LLMSettings(home=tmp_path, providers={"ollama": mine}), environment={}) as llm:
        # To configure it is to name it, whatever its priority.
        assert (await llm.providers.choose()).full_name == "ollama/spy:1b"
    async with LLMFactory(LLMSettings(home=tmp_path), environment=environment) as llm:
        await llm.providers.connect("ollama")
        found, _ = views(llm, await llm.offers())
        row = next(view for view in found if view.recipe.name == "ollama")
        assert (row.state, row.where, len(row.models or ())) == ("connected", "local", 1)
        assert row.reason == (NAMED_OTHERS if is_another else "")
        await llm.sessions.current.use("ollama/spy:1b")
        (line,) = (await who_answers(llm, await llm.offers())).lines
        whose = ", another user's" if is_another else ""
        assert line == f"ollama/spy:1b (local{whose}) answers because you named it."
    process.kill()
    assert process.stdout is not None
    asked = process.stdout.read().split()
    assert asked, "naming it asks it"
    assert "/api/chat" not in asked
