"""A model server as a program of its own, for what starts one: `python hosted.py PORT PIECES SECONDS`.

Its model `m` answers `from the host` in so many pieces, so many seconds apart.
"""

import http.server
import json
import sys
import time

PORT, PIECES, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
ANSWER = [*[{"delta": {"content": "from the host"}}] * PIECES, {"delta": {}, "finish_reason": "stop"}]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send("application/json", json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        events = [json.dumps({"choices": [{**choice, "index": 0}], "model": "m"}) for choice in ANSWER]
        self.send("text/event-stream", *[f"data: {event}\n\n" for event in (*events, "[DONE]")])

    def send(self, kind: str, *parts: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len("".join(parts))))
        self.end_headers()
        for number, part in enumerate(parts):
            time.sleep(SECONDS if number else 0)
            self.wfile.write(part.encode())
            self.wfile.flush()


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
