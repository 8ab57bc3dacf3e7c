"""The servers that nobody configured: where they are looked for, and what counts as finding one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.real_ollama import Ollama
from servers.scripted import TICK, End, Gate, Pause, Request, Script, ScriptedServer, head, reply

from llm_jupyter.discovery import DISCOVERY_TIMEOUT, Finding, Found, NotFound, probe_all
from llm_jupyter.factory import LLMFactory
from llm_jupyter.foreign import foreign_among, is_foreign
from llm_jupyter.places import Place, found_servers, lmstudio_port, ollama_url, place_of, places
from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess
from llm_jupyter.registry import EMBEDDED_PRIORITY, FOUND
from llm_jupyter.settings import LLMSettings, ProviderSettings
from llm_jupyter.types import ProviderState

USUAL = "http://127.0.0.1:11434"
BUSY = 0.25
"""Seconds more than promised that a machine with other work may take; what the servers do here takes far longer."""

# -- where they are looked for

AS_OLLAMA_READS_IT = {
    "": USUAL,
    "1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:1234": "http://1.2.3.4:1234",
    "example.com": "http://example.com:11434",
    "example.com:1234": "http://example.com:1234",
    "[::1]": "http://[::1]:11434",
    "::1": "http://[::1]:11434",
    "[::1]:1337": "http://[::1]:1337",
    " 1.2.3.4 ": "http://1.2.3.4:11434",
    '"1.2.3.4"': "http://1.2.3.4:11434",
    ' " 1.2.3.4 " ': "http://1.2.3.4:11434",
    "'1.2.3.4'": "http://1.2.3.4:11434",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "http://1.2.3.4:4321": "http://1.2.3.4:4321",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:4321": "https://1.2.3.4:4321",
    "https://example.com/ollama": "https://example.com:443/ollama",
    "http://example.com:99999": "http://example.com:80",
    "ollama.com": "https://ollama.com:443",
}
"""The cases that Ollama itself is tested with, where what it reads can also be connected to."""

LISTENS_EVERYWHERE = {
    ":1234": "http://127.0.0.1:1234",
    ":66000": USUAL,
    ":-1": USUAL,
    ":0": USUAL,
    "0.0.0.0": USUAL,
    "0.0.0.0:1234": "http://127.0.0.1:1234",
    "http://0.0.0.0:1234/": "http://127.0.0.1:1234",
    "[::]": USUAL,
    "[::]:1234": "http://127.0.0.1:1234",
    "::": USUAL,
}

NONSENSE = {
    "no host at all": USUAL,
    "http://": "http://127.0.0.1:80",
    "://": USUAL,
    "/": USUAL,
    "a b:1234": "http://127.0.0.1:1234",
    "name:password@example.com": "http://name:11434",
    "gopher://1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:١٢": "http://1.2.3.4:11434",
    "1.2.3.4:" + "1" * 5000: "http://1.2.3.4:11434",
    '"': USUAL,
}


@pytest.mark.parametrize(("host", "url"), [*AS_OLLAMA_READS_IT.items(), *LISTENS_EVERYWHERE.items(), *NONSENSE.items()])
def test_the_address_of_ollama_is_read_as_ollama_reads_it(tmp_path: Path, host: str, url: str) -> None:
    assert ollama_url(host) == url
    place = looked_for({"OLLAMA_HOST": host}, tmp_path)["ollama"]
    assert place.base_url == url
    assert place.is_local is any(part in url for part in ("//127.0.0.1:", "//[::1]:"))


def looked_for(environment: Mapping[str, str], home: Path) -> dict[str, Place]:
    return {place.name: place for place in places(environment, home)}


def test_without_a_word_the_usual_places_are_looked_at(tmp_path: Path) -> None:
    found = looked_for({}, tmp_path)
    assert {name: (place.settings.kind, place.base_url) for name, place in found.items()} == {
        "ollama": ("ollama", USUAL),
        "lmstudio": ("lmstudio", "http://127.0.0.1:1234"),
        "llama-server": ("llamacpp", "http://127.0.0.1:8080/v1"),
        "vllm": ("openai-compatible", "http://127.0.0.1:8000/v1"),
        "sglang": ("openai-compatible", "http://127.0.0.1:30000/v1"),
    }
    assert {place.source for place in found.values()} == {"its usual port"}
    assert {place.settings.priority for place in found.values()} == {FOUND}
    assert [(place.name, place.settings, place.source) for place in found.values()] == list(found_servers({}, tmp_path))


def test_they_rank_below_the_settings_and_above_the_embedded_model(tmp_path: Path) -> None:
    configured = {"mine": ProviderSettings(kind="openai-compatible", base_url="http://127.0.0.1:9/v1")}
    environment = {"OPENAI_API_KEY": "sk", "OLLAMA_HOST": ":9"}
    with LLMFactory(LLMSettings(home=tmp_path, providers=configured), environment=environment) as llm:
        ranked = [(recipe.name, recipe.priority) for recipe in llm.registry.recipes()]
        assert llm.registry.recipe("ollama").source == "the environment (OLLAMA_HOST)"
        assert llm.registry.recipe("ollama").is_local
        assert not llm.registry.recipe("openai").is_local
    assert ranked[0] == ("mine", 0)
    assert ranked[-1] == ("embedded", EMBEDDED_PRIORITY)
    assert {("lmstudio", FOUND), ("ollama", FOUND), ("openai", FOUND)} <= set(ranked[1:-1])
    assert {priority for _, priority in ranked[1:-1]} == {FOUND}


def test_what_the_settings_name_is_not_found_a_second_time(tmp_path: Path) -> None:
    configured = {
        "ollama": ProviderSettings(kind="ollama", base_url="http://127.0.0.1:9", priority=5),
        "lmstudio": ProviderSettings(kind="lmstudio", base_url="http://127.0.0.1:9", enabled=False),
    }
    with LLMFactory(LLMSettings(home=tmp_path, providers=configured), environment={"OLLAMA_HOST": ":7"}) as llm:
        recipes = {recipe.name: recipe for recipe in llm.registry.recipes()}
        assert (recipes["ollama"].priority, recipes["ollama"].source) == (5, "your settings")
        assert not recipes["lmstudio"].enabled
        assert llm.providers.get("ollama").where == "ollama at http://127.0.0.1:9"


def test_a_key_of_lm_studio_is_taken_from_its_own_variable(tmp_path: Path) -> None:
    studio = looked_for({}, tmp_path)["lmstudio"].settings
    assert studio.secret({"LM_API_TOKEN": "t"}) == "t"
    assert studio.secret({}) is None


def write_lmstudio(home: Path, text: str, folder: str = ".lmstudio") -> None:
    file = home / folder / ".internal" / "http-server-config.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("folder", [".lmstudio", ".cache/lm-studio"])
def test_lm_studio_is_looked_for_where_its_own_settings_say(tmp_path: Path, folder: str) -> None:
    write_lmstudio(tmp_path, '{"port": 4321, "networkInterface": "127.0.0.1"}', folder)
    studio = looked_for({}, tmp_path)["lmstudio"]
    assert (studio.base_url, studio.source) == ("http://127.0.0.1:4321", "LM Studio's own settings")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"port": "4321"}', '{"port": 0}', '{"port": 65536}', '{"port": true}', "\udcff"]
)
def test_settings_of_lm_studio_that_name_no_port_change_nothing(tmp_path: Path, text: str) -> None:
    write_lmstudio(tmp_path, text)
    assert lmstudio_port(tmp_path) is None
    assert looked_for({}, tmp_path)["lmstudio"].base_url == "http://127.0.0.1:1234"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"LLAMA_ARG_PORT": "9090"}, "http://127.0.0.1:9090/v1"),
        ({"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": "9090"}, "http://127.0.0.1:9090/v1"),
        ({"LLAMA_ARG_HOST": "::1"}, "http://[::1]:8080/v1"),
        ({"LLAMA_ARG_HOST": "192.0.2.7"}, "http://192.0.2.7:8080/v1"),
        ({"LLAMA_ARG_API_PREFIX": "/llm/"}, "http://127.0.0.1:8080/llm/v1"),
        ({"LLAMA_ARG_PORT": "many"}, "http://127.0.0.1:8080/v1"),
    ],
)
def test_llama_server_is_looked_for_where_its_own_variables_put_it(
    environment: dict[str, str], url: str, tmp_path: Path
) -> None:
    place = looked_for(environment, tmp_path)["llama-server"]
    assert place.base_url == url
    assert place.source == f"the environment ({', '.join(environment)})"


def test_a_llama_server_on_a_socket_file_is_not_looked_for(tmp_path: Path) -> None:
    assert "llama-server" not in looked_for({"LLAMA_ARG_HOST": "/run/llama.sock"}, tmp_path)


def test_of_several_keys_that_llama_server_takes_the_first_is_used(tmp_path: Path) -> None:
    place = looked_for({"LLAMA_API_KEY": "key-1, key-2"}, tmp_path)["llama-server"]
    assert place.settings.secret({}) == "key-1"
    assert "key-1" not in repr(place)


def test_a_base_url_that_is_none_is_passed_over_with_a_warning_and_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = looked_for({"OPENAI_BASE_URL": "user:secret@host", "OPENAI_API_KEY": "sk"}, tmp_path)
    assert "openai" not in found, "the key must not go to OpenAI when another address was meant"
    assert "OPENAI_BASE_URL" in caplog.text
    assert "secret" not in caplog.text


@given(*(st.text() | st.sampled_from(["[::1", "http://[", "http://a:0", ":0", "%", "::1%lo"]) for _ in range(4)))
def test_whatever_stands_in_the_environment_the_places_can_be_listed(a: str, b: str, c: str, d: str) -> None:
    environment = {"OLLAMA_HOST": a, "OPENAI_BASE_URL": b, "LLAMA_ARG_HOST": c, "LLAMA_ARG_API_PREFIX": d}
    found = looked_for(environment, Path("/nowhere"))
    assert {"ollama", "lmstudio", "vllm", "sglang"} <= set(found)


# -- what counts as finding one

Answering = Callable[[Request], Script]
NOTHING_HERE = reply("404 page not found", 404, "text/plain")


def by_path(answers: Mapping[str, Any], otherwise: Script = NOTHING_HERE, status: int = 200) -> Answering:
    def script(request: Request) -> Script:
        return reply(answers[request.path], status) if request.path in answers else otherwise

    return script


def openai_list(owner: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}


def loading(request: Request) -> Script:
    error = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    return reply(openai_list("llamacpp")) if request.path == "/v1/models" else reply(error, 503)


OLLAMA = by_path({"/api/version": {"version": "0.9.3"}, "/api/tags": {"models": [{"name": "m:latest"}]}})
EMPTY_OLLAMA = by_path({"/api/version": {"version": "0.33.0-rc2"}, "/api/tags": {"models": []}})
UNEXPECTED = reply({"error": "Unexpected endpoint or method. (GET /x). Returning 200 anyway"})
STUDIO_V1 = by_path({"/api/v1/models": {"models": [{"key": "m", "type": "llm"}]}}, UNEXPECTED)
STUDIO_EMPTY = by_path({"/api/v1/models": {"models": []}}, UNEXPECTED)
STUDIO_V0 = by_path({"/api/v0/models": {"data": [{"id": "m", "type": "llm", "state": "not-loaded"}]}}, UNEXPECTED)
LLAMA_LIST = {"models": [{"name": "m", "model": "m"}], **openai_list("llamacpp")}
# Its answer to /api/tags looks like Ollama's at first sight.
LLAMA = by_path({"/v1/models": LLAMA_LIST, "/api/tags": LLAMA_LIST, "/health": {"status": "ok"}})
VLLM = by_path({"/v1/models": openai_list("vllm"), "/version": {"version": "0.11.0"}})
SGLANG = by_path({"/v1/models": openai_list("sglang")})
GENERIC = by_path({"/v1/models": {"object": "list", "data": []}})

SERVERS = ("ollama", "lmstudio", "llama-server", "vllm", "sglang")
KINDS = {"llama-server": "llamacpp", "vllm": "openai-compatible", "sglang": "openai-compatible"}


def place(server: str, origin: str, **settings: Any) -> Place:
    kind = KINDS.get(server, server)
    url = origin if kind in ("ollama", "lmstudio") else f"{origin}/v1"
    return Place(server, ProviderSettings(kind=kind, base_url=url, **settings), "a test", server)


async def look(server: str, script: Script | Answering, **settings: Any) -> Finding:
    async with ScriptedServer(script) as running:
        (finding,) = await probe_all([place(server, running.origin, **settings)], environment={}, timeout=5)
    return finding


RIGHT = [
    ("ollama", OLLAMA, ProviderState.CONNECTED),
    ("ollama", EMPTY_OLLAMA, ProviderState.CONNECTED),
    ("lmstudio", STUDIO_V1, ProviderState.CONNECTED),
    ("lmstudio", STUDIO_EMPTY, ProviderState.CONNECTED),
    ("lmstudio", STUDIO_V0, ProviderState.CONNECTED),
    ("llama-server", LLAMA, ProviderState.CONNECTED),
    ("llama-server", loading, ProviderState.LOADING),
    ("vllm", VLLM, ProviderState.CONNECTED),
    ("sglang", SGLANG, ProviderState.CONNECTED),
    ("openai-compatible", GENERIC, ProviderState.CONNECTED),
    ("openai-compatible", VLLM, ProviderState.CONNECTED),
]


@pytest.mark.parametrize(("server", "script", "state"), RIGHT, ids=[f"{row[0]}-{n}" for n, row in enumerate(RIGHT)])
async def test_a_server_is_found_by_the_shape_of_what_it_answers(
    server: str, script: Answering, state: ProviderState
) -> None:
    finding = await look(server, script)
    assert isinstance(finding, Found), finding
    assert finding.state is state
    assert 0 < finding.latency < 5


TITLES = {
    "ollama": ("Ollama", OLLAMA), "lmstudio": ("LM Studio", STUDIO_V1), "llama-server": ("llama.cpp's server", LLAMA),
    "vllm": ("vLLM", VLLM), "sglang": ("SGLang", SGLANG),
}  # fmt: skip


@pytest.mark.parametrize("there", TITLES)
@pytest.mark.parametrize("wanted", TITLES)
async def test_another_server_on_a_usual_port_is_named_and_not_taken_for_the_one_looked_for(
    wanted: str, there: str
) -> None:
    finding = await look(wanted, TITLES[there][1])
    if wanted == there:
        assert isinstance(finding, Found)
    else:
        assert isinstance(finding, NotFound)
        assert finding.reason == f"{TITLES[there][0]} answers there, not {TITLES[wanted][0]}"


SAME_TO_ALL = {
    "html": reply("<html>It works!</html>", 200, "text/html"),
    "html called JSON": reply("<html>It works!</html>"),
    "status ok": reply({"status": "ok"}),
    "nothing": reply(""),
    "null": reply("null"),
    "a list": reply([]),
    "no models": reply({"models": []}),
    "no data": reply({"object": "list", "data": []}),
    "version and models": reply({"version": "1.2.3", "models": []}),
    "all keys": reply({"version": "1.2.3", "models": [], "data": [], "status": "ok"}),
    "models": reply({"models": [{"name": "m", "key": "m", "type": "llm"}]}),
    "llama.cpp's list": reply(LLAMA_LIST),
    "loaded models": reply({"data": [{"id": "m", "type": "llm", "state": "loaded", "owned_by": "vllm"}]}),
    "version": reply({"version": "0.9.3"}),
    "loading": reply({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503),
    "nested without end": reply("[" * 100_000),
    "compressed": reply(b"\x1f\x8b" + bytes(100), headers=[("Content-Encoding", "gzip")]),
}


@pytest.mark.parametrize("server", [*SERVERS, "openai-compatible"])
async def test_a_web_server_that_says_one_thing_to_everything_is_none_of_them(server: str) -> None:
    for name, script in SAME_TO_ALL.items():
        finding = await look(server, script)
        assert isinstance(finding, NotFound), name
        assert finding.reason.startswith("what answers there is not "), name


async def test_a_status_proves_nothing_in_either_direction() -> None:
    answers = {"/api/version": {"version": "0.9.3"}, "/api/tags": {"models": []}}
    assert isinstance(await look("ollama", by_path(answers, status=500)), Found)
    assert isinstance(await look("ollama", by_path({path: {} for path in answers})), NotFound)


async def test_a_list_of_llama_cpp_is_not_ollamas_even_beside_a_version() -> None:
    imitation = by_path({"/api/version": {"version": "0.9.3"}, "/api/tags": LLAMA_LIST})
    assert isinstance(await look("ollama", imitation), NotFound)


async def test_only_lists_are_asked_for_so_that_no_model_is_loaded() -> None:
    async with ScriptedServer(STUDIO_V1) as server:
        await probe_all([place(name, server.origin) for name in SERVERS], timeout=5)
        assert {request.method for request in server.requests} == {"GET"}
        assert {request.path for request in server.requests} == {
            "/api/version", "/api/tags", "/api/v1/models", "/api/v0/models", "/v1/models", "/health", "/version"
        }  # fmt: skip


async def test_a_base_url_that_ends_otherwise_is_asked_below_itself() -> None:
    async with ScriptedServer(by_path({"/api/openai/models": {"data": []}})) as server:
        url = f"{server.origin}/api/openai"
        there = place_of("mine", ProviderSettings(kind="openai-compatible", base_url=url), "your settings")
        (finding,) = await probe_all([there], timeout=5)
    assert isinstance(finding, Found), finding


# -- keys


def locked(key: str, inside: Answering) -> Answering:
    def script(request: Request) -> Script:
        if request.headers.get("authorization") == f"Bearer {key}":
            return inside(request)
        return reply({"error": {"message": "no"}}, 401)

    return script


async def with_key(environment: Mapping[str, str]) -> Finding:
    async with ScriptedServer(locked("right", STUDIO_V1)) as server:
        studio = place("lmstudio", server.origin, api_key_env="LM_API_TOKEN")
        (finding,) = await probe_all([studio], environment=environment, timeout=5)
    return finding


async def test_a_locked_server_is_found_with_its_key() -> None:
    assert isinstance(await with_key({"LM_API_TOKEN": "right"}), Found)


async def test_a_locked_server_says_which_variable_is_missing_or_wrong() -> None:
    missing, wrong = await with_key({}), await with_key({"LM_API_TOKEN": "wrong"})
    assert isinstance(missing, NotFound)
    assert missing.wants_key
    assert missing.reason == "it wants a key, and LM_API_TOKEN is not set"
    assert isinstance(wrong, NotFound)
    assert wrong.wants_key
    assert wrong.reason == "it refuses the key in LM_API_TOKEN"


async def test_a_key_is_not_shown_to_a_server_that_asks_for_none() -> None:
    async with ScriptedServer(STUDIO_V1) as server:
        studio = place("lmstudio", server.origin, api_key_env="LM_API_TOKEN")
        (finding,) = await probe_all([studio], environment={"LM_API_TOKEN": "secret"}, timeout=5)
        assert isinstance(finding, Found)
        assert [request for request in server.requests if "authorization" in request.headers] == []


# -- the real ones


@pytest.mark.live
async def test_a_real_ollama_is_found_and_is_not_lm_studio(ollama: Ollama) -> None:
    (there, other) = await probe_all([place("ollama", ollama.url), place("lmstudio", ollama.url)], timeout=5)
    assert isinstance(there, Found)
    assert isinstance(other, NotFound)
    assert other.reason == "Ollama answers there, not LM Studio"


@pytest.mark.live
async def test_a_real_llama_server_is_found_with_its_key_and_is_not_ollama(weights: Path) -> None:
    process = await LlamaProcess.start(weights, "m", LaunchPlan(context=512, threads=1))
    try:
        looked = [place(name, process.url, api_key=process.api_key) for name in ("llama-server", "ollama")]
        (there, other) = await probe_all(looked, timeout=5)
        environment = {"LLAMA_ARG_PORT": process.url.rpartition(":")[2]}
        (locked_out,) = await probe_all([looked_for(environment, Path("/nowhere"))["llama-server"]], timeout=5)
    finally:
        await process.stop()
    assert isinstance(there, Found)
    assert isinstance(other, NotFound)
    assert other.reason == "llama.cpp's server answers there, not Ollama"
    assert isinstance(locked_out, NotFound)
    assert locked_out.reason == "it wants a key, and LLAMA_API_KEY is not set"


# -- servers that misbehave

OK = head(200)
LONG = b'{"models": [' + b"0," * 2_000_000


def drip(_: Request) -> Script:
    return [step for letter in OK + b'{"models": []}' for step in (bytes([letter]), Pause(1.0))]


def endless(_: Request) -> Script:
    return [OK, *([LONG] * 100)]


MISBEHAVING: dict[str, tuple[Script | Answering, str]] = {
    "says nothing": ([End.HOLD], "it did not answer within 0.3 s"),
    "stops after the status": ([OK, End.HOLD], "it did not answer within 0.3 s"),
    "drips one byte a second": (drip, "it did not answer within 0.3 s"),
    "closes at once": ([End.CLOSE], "it hung up before it answered"),
    "resets": ([End.RESET], "it hung up before it answered"),
    "cuts its answer": (
        [head(200, headers=[("Content-Length", "99")]) + b'{"models"'], "it hung up before it answered"
    ),
    "talks without end": (endless, "what answers there says more than a list of models"),
    "speaks no HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], "what answers there does not speak HTTP"),
    "sends endless headers": ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000], "what answers there does not speak HTTP"),
}  # fmt: skip


@pytest.mark.parametrize("server", ["ollama", "lmstudio", "llama-server"])
@pytest.mark.parametrize("habit", MISBEHAVING)
async def test_a_server_that_misbehaves_is_not_found_and_costs_no_more_than_the_limit(habit: str, server: str) -> None:
    script, reason = MISBEHAVING[habit]
    # Where no wait for the limit is expected, a busy machine may take its time: then the reason is the proof.
    limit = DISCOVERY_TIMEOUT if "within" in reason else 5.0
    async with ScriptedServer(script) as running:
        started = time.perf_counter()
        (finding,) = await probe_all([place(server, running.origin)], timeout=limit)
        seconds = time.perf_counter() - started
    assert isinstance(finding, NotFound)
    assert finding.reason == reason
    assert seconds < limit + BUSY


async def test_a_redirect_is_not_followed() -> None:
    async with ScriptedServer(OLLAMA) as target:

        def elsewhere(request: Request) -> Script:
            return reply("", 302, headers=[("Location", target.origin + request.path)])

        finding = await look("ollama", elsewhere)
        assert target.visits == []
    assert isinstance(finding, NotFound)
    assert finding.reason == "what answers there sends us elsewhere, where we do not go"


async def test_a_server_that_speaks_tls_on_a_plain_port_is_not_found() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # refuses with an alert before any certificate is needed
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        started = time.perf_counter()
        (finding,) = await probe_all([place("ollama", f"http://127.0.0.1:{port}")], timeout=5)
        assert time.perf_counter() - started < 5
    assert isinstance(finding, NotFound)
    assert finding.reason in ("what answers there does not speak HTTP", "it hung up before it answered")


async def test_where_nothing_listens_that_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as briefly:
        port = briefly.getsockname()[1]
    (finding,) = await probe_all([place("ollama", f"http://127.0.0.1:{port}")], timeout=5)
    assert isinstance(finding, NotFound)
    assert finding.reason == "nothing listens there"
    assert finding.was_asked


async def test_a_full_backlog_takes_no_longer_than_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        started = time.perf_counter()
        (finding,) = await probe_all([place("ollama", f"http://127.0.0.1:{deaf.getsockname()[1]}")])
        assert time.perf_counter() - started < DISCOVERY_TIMEOUT + BUSY
        for one in waiting:
            one.close()
    assert isinstance(finding, NotFound)
    assert finding.reason == "it did not answer within 0.3 s"


async def test_all_places_are_looked_at_at_once_and_the_good_ones_found_beside_the_bad_ones() -> None:
    scripts: list[Script | Answering] = [script for script, _ in MISBEHAVING.values()]
    good = {"ollama": OLLAMA, "lmstudio": STUDIO_V1, "llama-server": LLAMA}
    bad = [ScriptedServer(script) for script in scripts]
    nice = {name: ScriptedServer(script) for name, script in good.items()}
    for server in (*bad, *nice.values()):
        server.__enter__()
    try:
        looked = [place("ollama", server.origin) for server in bad]
        looked += [place(name, server.origin) for name, server in nice.items()]
        started = time.perf_counter()
        findings = await probe_all(looked, timeout=1.5)
        seconds = time.perf_counter() - started
    finally:
        for server in (*bad, *nice.values()):
            await asyncio.to_thread(server.close)
    print(f"{len(looked)} places in {seconds * 1000:.0f} ms")
    assert [finding.place for finding in findings] == looked
    assert [isinstance(finding, Found) for finding in findings] == [False] * len(bad) + [True] * len(nice)
    assert seconds < 1.5 + BUSY


async def test_what_did_not_answer_is_let_go_of_when_the_look_is_over() -> None:
    async with ScriptedServer([End.HOLD]) as server:
        await probe_all([place("ollama", server.origin)])
        ended = time.monotonic()
        left = [await visit.until_left() for visit in server.visits]
    assert left
    assert max(left) - ended < 0.1 + TICK


async def test_a_look_that_is_cancelled_leaves_nothing_behind() -> None:
    gate = Gate()
    async with ScriptedServer([gate]) as server:
        looking = asyncio.create_task(probe_all([place("ollama", server.origin)], timeout=30))
        await asyncio.to_thread(gate.reached.wait)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert [await visit.until_left() for visit in server.visits]


# -- who is not asked

UIDS = (0, 120, os.getuid(), os.getuid() + 1001)


async def test_a_server_of_another_user_is_not_contacted(tmp_path: Path) -> None:
    async with ScriptedServer(OLLAMA) as server:
        table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        for owner, there in ((os.getuid() + 1001, False), (os.getuid(), True)):
            row = f"   0: 0100007F:{server.port:04X} 00000000:0000 0A 0:0 00:0 0 {owner} 0 1 1\n"
            (tmp_path / "tcp").write_text(table + row)
            foreign = partial(foreign_among, tables=tmp_path)
            (finding,) = await probe_all([place("ollama", server.origin)], foreign=foreign, timeout=5)
            assert isinstance(finding, Found) is there
            assert bool(server.visits) is there
            if isinstance(finding, NotFound):
                assert finding.reason == "it belongs to another user of this machine"
                assert not finding.was_asked


@given(
    st.lists(st.tuples(st.sampled_from([80, 443, 9001, 9002]), st.sampled_from(["0A", "01"]), st.sampled_from(UIDS))),
    st.sampled_from(["", "cut off\n", "1 2 3 0A\n"]),
)
def test_whose_servers_they_are_is_told_for_all_at_once_as_for_each_alone(
    rows: list[tuple[int, str, int]], rest: str
) -> None:
    urls = ["http://127.0.0.1", "https://127.0.0.1", "http://localhost:9001/v1", "http://[::1]:9002"]
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"  0: {'0' * 32}:{port:04X} 00000000:0000 {state} 0:0 00:0 0 {uid} 0 1 1" for port, state, uid in rows
        ]
        (Path(folder) / "tcp6").write_text("\n".join(["head", *lines]) + "\n" + rest)
        among = foreign_among(urls, Path(folder))
        assert among == {url for url in urls if is_foreign(url, Path(folder))}
        assert bool(among) is any(state == "0A" and uid == UIDS[-1] for _, state, uid in rows)


async def test_remote_places_are_listed_and_not_asked(tmp_path: Path) -> None:
    remote = looked_for({"OPENAI_API_KEY": "sk", "OLLAMA_HOST": "192.0.2.1"}, tmp_path)
    findings = await probe_all([remote["openai"], remote["ollama"]])
    assert [type(finding) for finding in findings] == [NotFound, NotFound]
    for finding in findings:
        assert isinstance(finding, NotFound)
        assert finding.reason == "it is remote, and asked only when you name it"
        assert not finding.was_asked


AUDITED = """
import asyncio, json, os, sys
from pathlib import Path
from llm_jupyter.discovery import places, probe_all
seen = []
def hook(event, arguments):
    if event == "socket.connect": seen.append(str(arguments[1][0]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"): seen.append(event)
sys.addaudithook(hook)
looked = list(places(os.environ, Path(sys.argv[1])))
findings = asyncio.run(probe_all(looked))
found = {f.place.name: type(f).__name__ for f in findings}
print(json.dumps({"seen": sorted(set(seen)), "found": found}))
"""


@pytest.mark.parametrize("more", [{}, {"OPENAI_BASE_URL": "https://api.example.com/v1", "OLLAMA_HOST": "192.0.2.1"}])
def test_nothing_but_loopback_is_ever_connected_to_though_a_key_is_in_the_environment(
    more: dict[str, str], tmp_path: Path
) -> None:
    with ScriptedServer(OLLAMA) as server:
        environment = {
            **os.environ, "OPENAI_API_KEY": "sk-secret", "LLAMA_ARG_PORT": str(server.port),
            "OLLAMA_HOST": f"localhost:{server.port}", "HTTP_PROXY": "http://192.0.2.9:3128",
            "http_proxy": "http://192.0.2.9:3128", "ALL_PROXY": "http://192.0.2.9:3128", "NO_PROXY": "", **more,
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-c", AUDITED, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
        )
        assert server.visits, "something was looked at"
    report = json.loads(run.stdout)
    assert set(report["seen"]) <= {"127.0.0.1", "::1"}
    assert "127.0.0.1" in report["seen"], "the hook must see a real connection"
    assert report["found"]["openai"] == "NotFound"
    assert report["found"]["ollama"] == ("NotFound" if more else "Found")
