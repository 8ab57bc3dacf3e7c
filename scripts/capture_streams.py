"""Record what a real llama.cpp server sends, for the tests of the wire: `capture_streams.py MODEL.gguf [FOLDER]`.

`NAME.sse` is the body of a streamed reply, byte for byte; `NAME.json` beside it tells what the server itself answered to
the same request without streaming. `NAME.http` is a whole error reply, with its status line and headers. Temperature 0,
a fixed seed, one thread and no prompt cache make a second run say the same.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

RECORDINGS = Path(__file__).parent.parent / "tests" / "providers" / "recordings"
KEY_VARIABLE = "CAPTURE_STREAMS_KEY"
MODEL = "smollm2-135m"

STEADY = {"model": MODEL, "temperature": 0, "seed": 7, "cache_prompt": False}
# French makes the model write letters of more than one byte.
CHAT = {
    "messages": [{"role": "user", "content": "Translate into French: the student was at the café late in summer."}],
    "max_tokens": 48,
}
COMPLETION = {"prompt": "Les élèves de l'école étaient très fatigués après la fête d'été, et", "max_tokens": 40}

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "completion": ("/v1/completions", COMPLETION),
}
ERRORS: dict[str, tuple[str, str, Any, bool]] = {
    "error_wrong_key": ("POST", "/v1/chat/completions", {**STEADY, **CHAT}, False),
    "error_unknown_address": ("POST", "/v2/chat/completions", {**STEADY, **CHAT}, True),
    "error_no_messages": ("POST", "/v1/chat/completions", STEADY, True),
    "error_image": (
        "POST",
        "/v1/chat/completions",
        {
            **STEADY,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}],
                }
            ],
        },
        True,
    ),
    "error_context": (
        "POST",
        "/v1/chat/completions",
        {**STEADY, "messages": [{"role": "user", "content": "again " * 600}], "stream": True},
        True,
    ),
}


def serve(model: str) -> None:
    """Be the server: it says its address on standard output and runs until it is ended."""
    import xllamacpp

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # die at once, even inside native model loading
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = model, {MODEL}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [os.environ[KEY_VARIABLE]]
    params.n_ctx, params.n_parallel = 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print("READY", server.listening_address, flush=True)
    sys.stdin.read()  # until whoever started this is gone


def exchange(address: tuple[str, int], method: str, path: str, body: Any, key: str) -> bytes:
    """Every byte that the server sends back on one connection."""
    data = json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(head.encode() + data)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def body_of(address: tuple[str, int], path: str, body: Any, key: str) -> bytes:
    """The body of a good reply, with the framing of HTTP taken off."""
    connection = http.client.HTTPConnection(*address, timeout=120)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"{path}: HTTP {reply.status}: {reply.read()[:300]!r}")
        return reply.read()
    finally:
        connection.close()


def capture_stream(address: tuple[str, int], path: str, body: dict[str, Any], key: str) -> tuple[bytes, dict[str, Any]]:
    """A streamed body, and what the server says to the same request as a whole."""
    request = {**STEADY, **body}
    whole = json.loads(body_of(address, path, request, key))
    streaming = {**request, "stream": True, "stream_options": {"include_usage": True}}
    stream = body_of(address, path, streaming, key)
    choice = whole["choices"][0]
    expected = {
        "request": body,
        "text": choice["text"] if "text" in choice else choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "prompt_tokens": whole["usage"]["prompt_tokens"],
        "completion_tokens": whole["usage"]["completion_tokens"],
    }
    return stream, expected


def capture(address: tuple[str, int], key: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, body) in STREAMS.items():
        stream, expected = capture_stream(address, path, body, key)
        (folder / f"{name}.sse").write_bytes(stream)
        (folder / f"{name}.json").write_text(json.dumps(expected, ensure_ascii=False, indent=2) + "\n", "utf-8")
        print(f"{name}: {len(stream)} bytes, {expected['text']!r}")
    for name, (method, path, content, is_key_right) in ERRORS.items():
        reply = exchange(address, method, path, content, key if is_key_right else "wrong")
        (folder / f"{name}.http").write_bytes(reply)
        print(name, reply.partition(b"\r\n\r\n")[2][:200])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="the weights, a GGUF file")
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDINGS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.model)
        return
    key = secrets.token_urlsafe(16)
    command = [sys.executable, __file__, options.model, "--serve"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, KEY_VARIABLE: key},
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            first, _, url = server.stdout.readline().strip().partition(" ")
            if first != "READY":
                raise SystemExit("the server did not start: is the model a GGUF file, and xllamacpp installed?")
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            capture((parts.hostname, parts.port), key, options.folder)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
