"""A real JupyterLab, a real Notebook 7 and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernels import NOBODY
from live import place
from playwright.sync_api import Browser, Page, sync_playwright

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ARTIFACTS = Path(__file__).parent / "artifacts"
TOKEN = "a-token-for-the-tests"
CHROMIUM_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Lab:
    """A running JupyterLab or Notebook 7: its address, the folder that it serves, and under which path it shows a notebook."""

    url: str
    root: Path
    path: str = "lab/tree/{name}?token={token}&reset"

    def notebook_url(self, name: str) -> str:
        return self.url + self.path.format(name=name, token=TOKEN)

    def end_kernels(self) -> None:
        """Shut down all that run: a page that is closed leaves its kernel behind."""
        for session in json.loads(self._call("GET", "api/sessions")):
            self._call("DELETE", f"api/sessions/{session['id']}")

    def _call(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return bytes(reply.read())


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A folder with a copy of the tutorials in `root`, a home with the real weights, and the settings of the front ends."""
    base = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, base / "root", ignore=shutil.ignore_patterns("executed", ".ipynb_checkpoints"))
    place(weights, base / "home")
    news = base / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    return base


@pytest.fixture(scope="session")
def lab(lab_folder: Path) -> Iterator[Lab]:
    """JupyterLab on a copy of the tutorials, with folders of its own and the real weights."""
    with serving("lab", lab_folder) as url:
        yield Lab(url, lab_folder / "root")


@pytest.fixture(scope="session")
def notebook7(lab_folder: Path) -> Iterator[Lab]:
    """Notebook 7 on the same notebooks, with the same home."""
    with serving("notebook", lab_folder) as url:
        yield Lab(url, lab_folder / "root", "notebooks/{name}?token={token}")


@contextmanager
def serving(program: str, base: Path) -> Iterator[str]:
    """Run one of Jupyter's servers on such a folder; gives its address."""
    runtime, log = base / f"{program}-runtime", base / f"{program}-log"
    environment = {
        **os.environ,
        "LLM_JUPYTER_HOME": str(base / "home"),
        "OLLAMA_HOST": NOBODY,
        "JUPYTER_CONFIG_DIR": str(base / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_DATA_DIR": str(base / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
    }
    command = [
        "-m", "jupyter", program, "--no-browser", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={base / 'root'}",
        f"--IdentityProvider.token={TOKEN}",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with log.open("wb") as output:
        server = subprocess.Popen([sys.executable, *command], env=environment, stdout=output, stderr=output)
    try:
        yield _address(runtime, server, log)
    finally:
        server.terminate()
        server.wait(20)


def _address(runtime: Path, server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.1)
    pytest.fail(f"Jupyter did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one module: while it is open an event loop runs in this thread, and no other can."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    assert path, "no chromium on this machine: run scripts/ensure_chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(30_000)
    yield page
    page.close()
