"""Records what a real front end tells a kernel when a person runs cells: each execute_request, without its code.

    python record.py lab /path/to/python        # of an environment with jupyterlab
    python record.py notebook /path/to/python   # of one with notebook 7
    python record.py nbclient /path/to/python   # and so on
    python record.py papermill /path/to/python

For the first two it starts that server and a browser, and works on a notebook as a person does: Run All, one cell again, one
deleted and one written anew, the notebook renamed and its kernel restarted, a console beside it. The others run the notebook
twice. What the kernel heard is written beside this file. The name of the person is replaced; the rest is as it came.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HEAR = """import json, os
_parent = get_ipython().get_parent()
_heard = {
    "what": %r,
    "header": _parent["header"],
    "metadata": _parent["metadata"],
    "content": {name: value for name, value in _parent["content"].items() if name != "code"},
    "notebook": os.path.basename(os.environ.get("JPY_SESSION_NAME", "")),
    "kernel": os.path.basename(get_ipython().config["IPKernelApp"]["connection_file"]),
}
with open("heard.jsonl", "a") as file:
    file.write(json.dumps(_heard, default=str) + chr(10))"""

SERVERS = {
    "lab": ("lab", "--LabApp.expose_app_in_browser=True", "lab/tree/{name}?token={token}&reset"),
    "notebook": ("notebook", "--JupyterNotebookApp.expose_app_in_browser=True", "notebooks/{name}?token={token}"),
}
PROGRAMS = {
    "nbclient": "import nbformat, nbclient; nbclient.execute(nbformat.read('talk.ipynb', 4))",
    "papermill": "import papermill; papermill.execute_notebook('talk.ipynb', 'final.ipynb', {'word': 'a parameter'})",
}
TOKEN = "a-token"
CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")


def main(which: str, python: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        root = base / "root"
        root.mkdir()
        (root / "talk.ipynb").write_text(json.dumps(notebook()))
        recording: dict[str, Any] = {"front_end": which, "version": version(which, python)}
        if which in PROGRAMS:
            for _ in range(2):
                subprocess.run([python, "-c", PROGRAMS[which]], cwd=root, check=True)
        else:
            browse(which, python, base)
            recording["saved_cells"] = [cell["id"] for cell in json.loads((root / "final.ipynb").read_text())["cells"]]
        heard = [json.loads(line) for line in (root / "heard.jsonl").read_text().splitlines()]
        for one in heard:
            one["header"]["username"] = "person"
        text = json.dumps(recording | {"requests": heard}, indent=1) + "\n"
        (Path(__file__).parent / f"{which}.json").write_text(text)


def version(which: str, python: str) -> str:
    """Of the package that has the front end's name."""
    package = {"lab": "jupyterlab"}.get(which, which)
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def browse(which: str, python: str, base: Path) -> None:
    server = start(which, python, base)
    try:
        with sync_playwright() as playwright:
            path = os.environ.get("CHROMIUM") or shutil.which("chromium")
            page = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM)).new_page()
            work(page, which, address(base / "runtime"), base / "root")
    finally:
        server.terminate()
        server.wait(20)


def notebook() -> dict[str, Any]:
    cells = [
        {"id": f"first-{n}", "cell_type": "code", "metadata": {}, "source": HEAR % f"cell {n}", "outputs": [],
         "execution_count": None}
        for n in range(1, 5)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}


def start(which: str, python: str, base: Path) -> subprocess.Popen[bytes]:
    program, exposed, _ = SERVERS[which]
    news = base / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }  # fmt: skip
    environment = {**os.environ, **{name: str(base / place) for name, place in places.items()}}
    command = [
        python, "-m", "jupyter", program, "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", exposed,
        f"--ServerApp.root_dir={base / 'root'}", f"--IdentityProvider.token={TOKEN}",
    ]  # fmt: skip
    with (base / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def address(runtime: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.1)
    raise TimeoutError("the server did not start")


def work(page: Page, which: str, url: str, root: Path) -> None:
    heard = root / "heard.jsonl"

    def command(name: str, **arguments: Any) -> None:
        page.evaluate("([name, args]) => void window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def until(count: int) -> None:
        end = time.monotonic() + 60
        while (len(heard.read_text().splitlines()) if heard.exists() else 0) < count:
            page.wait_for_timeout(100)
            if time.monotonic() > end:
                raise TimeoutError(f"not heard: {count}")

    def select(number: int) -> None:
        page.locator(".jp-Notebook .jp-Cell .jp-InputArea-prompt").nth(number).click()

    page.goto(url + SERVERS[which][2].format(name="talk.ipynb", token=TOKEN))
    page.wait_for_selector(".jp-Notebook .jp-Cell >> nth=3")
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
    )
    command("notebook:run-all-cells")
    until(4)
    select(1)
    command("notebook:run-cell")
    until(5)
    select(2)
    command("notebook:delete-cell")
    select(0)
    command("notebook:insert-cell-below")
    page.wait_for_timeout(500)
    page.keyboard.press("Enter")
    page.keyboard.insert_text(HEAR % "a new cell")
    command("notebook:run-cell")
    until(6)
    command("docmanager:save")
    page.wait_for_timeout(1000)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.context.rename('final.ipynb')")
    page.wait_for_timeout(1500)
    select(0)
    command("notebook:run-cell")
    until(7)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_timeout(3000)
    command("notebook:run-cell")
    until(8)
    command("docmanager:save")
    page.wait_for_timeout(1000)
    # a console on the notebook's kernel: Notebook 7 has none, and a kernel hears no difference
    page.evaluate(
        """async code => {
            const context = window.jupyterapp.shell.currentWidget.sessionContext;
            const other = window.jupyterapp.serviceManager.sessions.connectTo({model: context.session.model});
            await other.kernel.requestExecute({code}).done;
        }""",
        HEAR % "another client",
    )
    until(9)


if __name__ == "__main__":
    main(*sys.argv[1:])
