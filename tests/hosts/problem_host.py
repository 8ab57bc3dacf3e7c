"""A model server that misbehaves on command: a real process for the tests of whoever looks after it.

    python problem_host.py PORT [deaf] [exit CODE] [never] [once FILE] [slow SECONDS]

`deaf` ignores SIGTERM, `exit` ends before it serves, `never` serves nothing, `once` serves the first time only and ends
at the next starts, `slow` answers 503 for so long.
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
STARTED = time.monotonic()
HOARD = []


def grandchild(*, leaves: bool) -> int:
    """Start a process that ignores SIGTERM; `leaves`: in a session of its own, as daemons do."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=leaves
    )
    assert child.stdout is not None
    child.stdout.readline()
    return child.pid


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(*self.act(self.path.lstrip("/").split("/")))

    def act(self, words: list[str]) -> tuple[int, object]:
        match words:
            case ["health"]:
                return (503, {}) if time.monotonic() - STARTED < float(option("slow") or 0) else (200, {"status": "ok"})
            case ["exit", code]:
                print("ending on command", file=sys.stderr, flush=True)
                os._exit(int(code))
            case ["abort"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["grow", megabytes]:
                HOARD.append(bytearray(os.urandom(1 << 20) * int(megabytes)))
            case ["fork"]:
                return 200, grandchild(leaves=False)
            case ["daemon"]:
                return 200, grandchild(leaves=True)
            case ["work", seconds]:
                end = time.monotonic() + float(seconds)
                while time.monotonic() < end:
                    pass
            case ["say", text]:
                print(text, flush=True)
            case ["environment", name]:
                return 200, os.environ.get(name)
            case ["command"]:
                return 200, sys.argv
            case ["signals"]:
                ignored = [
                    n for n in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) == signal.SIG_IGN
                ]
                return 200, [int(number) for number in ignored]
            case _:
                return 404, {}
        return 200, {}

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def option(name: str) -> str | None:
    words = sys.argv[2:]
    return [*words, ""][words.index(name) + 1] if name in words else None


def main() -> None:
    if (code := option("exit")) is not None:
        print("this cannot work", file=sys.stderr, flush=True)
        sys.exit(int(code))
    if option("deaf") is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (file := option("once")) is not None:
        if Path(file).exists():
            sys.exit(9)
        Path(file).touch()
    if option("never") is not None:
        threading.Event().wait()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
