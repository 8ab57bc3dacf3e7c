"""The process that runs llama.cpp: started by `LlamaProcess` or by a host's supervisor, never imported.

It reads one line of JSON from standard input (the API key among it: a command line would show it to everyone on the
machine), loads the model, prints `READY <url>` and serves until its parent is gone. Native code that aborts or hangs
takes this process with it and nothing else.

It must not outlive its parent, whatever ends that: on Linux the kernel kills it with the thread that started it; on every
system the end of standard input does, watched from a thread (deaf for the half second of loading, which holds the GIL).
"""

import ctypes
import json
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the parent's thread ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_stdin() -> None:
    """End this process when nobody holds the other end of standard input any more."""
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def main() -> None:
    """Serve one model."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a Python handler would not run during a native call
    line = sys.stdin.buffer.readline()
    if not line:
        return
    config = json.loads(line)
    if sys.platform == "linux" and os.getppid() != config["parent"]:
        return  # it was gone before the request above was made
    threading.Thread(target=end_with_stdin, daemon=True).start()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    params.n_ctx = config["context"]
    params.n_parallel = config["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.endpoint_props = True
    params.verbosity = 2
    if config.get("prompt_log"):
        params.path_prompts_log_dir = config["prompt_log"]
    server = xllamacpp.Server(params)  # returns when the model is loaded and the port is open
    sys.stdout.write(f"READY {server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
