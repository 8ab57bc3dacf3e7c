"""The ground that everything stands on: the data folder, the package itself, Jupyter."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from llm_jupyter import __version__
from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding, Remedy, error, note, ok, warning
from llm_jupyter.errors import LLMError

DISTRIBUTION = "jupyter-llm"
STRANGER = "llm-jupyter"
"""Somebody else's distribution, which installs into the same folder `llm_jupyter`."""

FOLDER, PACKAGE, JUPYTER = "data folder", "package", "Jupyter"
LOW_SPACE = 100 * 2**20
"""Bytes; less is soon used up by conversations and logs."""


# -- the data folder


def look_at_folder(case: Case) -> Iterator[Finding]:
    """Whether this user can write where everything is kept, and how much room is there."""
    home = case.settings.home
    try:
        _try_to_write(home)
    except OSError as failure:
        yield _unwritable(case, home, failure)
        return
    free = shutil.disk_usage(_existing(home)).free
    room = f"{free / 1e9:,.1f} GB free"
    if free < LOW_SPACE:
        yield warning(FOLDER, "disk-short", f"{home}: only {free / 1e6:,.0f} MB are free", elsewhere(case))
    else:
        yield from _look_at_owner(case, home)
        yield ok(FOLDER, "folder", f"{home} ({room if home.exists() else f'made at first need; {room}'})")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _try_to_write(home: Path) -> None:
    """Write into the folder and those below it, and leave nothing behind. Raises `OSError`."""
    place = _existing(home)
    if place != home:
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return
    for folder in (home, home / "models", home / "hosts"):
        if folder == home or folder.exists():
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
                pass


def _unwritable(case: Case, home: Path, failure: OSError) -> Finding:
    what = f"{home} cannot be written by {_user()}: {failure.strerror or failure}"
    place = Path(failure.filename).parent if failure.filename and Path(failure.filename) != home else home
    folder = place if place.is_relative_to(home) and place.exists() else home
    if failure.errno == errno.EACCES and os.name != "nt" and _is_mine(folder):
        return error(FOLDER, "folder-read-only", what, Remedy("", (f"chmod u+rwx {shlex.quote(str(folder))}",)))
    return error(FOLDER, "folder-read-only", what, elsewhere(case))


def no_home(case: Case, failure: LLMError) -> Finding:
    """There is no folder in which anything could be."""
    return error(FOLDER, "no-home", failure.what, _new_folder(case, "HOME"))


def elsewhere(case: Case) -> Remedy:
    """Another folder, which this user can write to, and whose it is alone."""
    with contextlib.suppress(OSError):
        folder = platformdirs.user_data_path("llm_jupyter")
        _try_to_write(folder)
        if folder != case.settings.home and (os.name == "nt" or _is_mine(_existing(folder))):
            return Remedy(case.before_start, (case.variable("LLM_JUPYTER_HOME", str(folder)),))
    if os.name == "nt":
        return Remedy("Set LLM_JUPYTER_HOME to a folder that you may write to")
    return _new_folder(case, "LLM_JUPYTER_HOME")


def _new_folder(case: Case, variable: str) -> Remedy:
    """A folder that is made now. Under a name that can be guessed another user may have made it, with their settings in it."""
    folder = Path(tempfile.gettempdir()) / f"llm_jupyter-{_user()}-{secrets.token_hex(4)}"
    make = f"mkdir -m 700 {shlex.quote(str(folder))} && {case.variable(variable, str(folder))}"
    return Remedy(case.before_start, (make,))


def _is_mine(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return folder.stat().st_uid == os.getuid()
    return False


def _look_at_owner(case: Case, home: Path) -> Iterator[Finding]:
    """Whether another ordinary user could change what is set there, and read what is asked."""
    if os.name != "nt" and home.exists() and (owner := home.stat().st_uid) not in (0, os.getuid()):
        what = f"{home} belongs to another user (uid {owner}), who can change what is set and read what is asked"
        yield warning(FOLDER, "folder-strangers", what, elsewhere(case))


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "this user"


def look_at_settings_file(case: Case) -> Iterator[Finding]:
    """Whether others can read a key that stands in the settings file."""
    file = case.settings.file
    holds_key = any(provider.api_key for provider in case.settings.providers.values())
    if os.name == "nt" or not holds_key or not file.exists():
        return
    if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        remedy = Remedy("", (f"chmod 600 {shlex.quote(str(file))}",))
        yield warning("settings", "key-readable", f"{file} holds a key, and other users can read it", remedy)


# -- the package and Jupyter


def look_at_package() -> Iterator[Finding]:
    """Whether the package is ours alone."""
    stranger = _version(STRANGER)
    if stranger is not None:
        pip = f"{_python()} -m pip"
        remedy = Remedy("", (f"{pip} uninstall -y {STRANGER}", _reinstall(pip)))
        yield error(
            PACKAGE,
            "strangers-package",
            f"somebody else's distribution {STRANGER} {stranger} is installed: it writes into the same folder llm_jupyter",
            remedy,
        )
    elif _version(DISTRIBUTION) is None:
        yield note(PACKAGE, "not-installed", f"llm_jupyter is used from {_package_folder()} without being installed")
    else:
        yield ok(PACKAGE, "package", f"{DISTRIBUTION} {__version__} in {_package_folder()}")


def _reinstall(pip: str) -> str:
    """How to bring back files that the stranger's may have replaced: from where ours came, if that is known."""
    source = DISTRIBUTION
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        import json
        from urllib.parse import unquote, urlsplit

        direct = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        editable = direct.get("dir_info", {}).get("editable", False)
        path = unquote(urlsplit(direct["url"]).path)
        source = ("-e " if editable else "") + shlex.quote(path if direct["url"].startswith("file:") else direct["url"])
    return f"{pip} install --force-reinstall --no-deps {source}"


def look_at_jupyter(case: Case) -> Iterator[Finding]:
    """Whether a notebook can run with this Python."""
    kernel, shell = _version("ipykernel"), _version("ipython")
    if kernel is None:
        remedy = Remedy("", (f"{_python()} -m pip install 'ipykernel>=6.31'",))
        what = f"no ipykernel in {sys.executable}: no notebook can use this Python"
        yield (warning if case.face == "terminal" else note)(JUPYTER, "no-ipykernel", what, remedy)
        return
    yield ok(JUPYTER, "jupyter", f"ipykernel {kernel}, IPython {shell}, Python {sys.version.split()[0]}")


def _package_folder() -> Path:
    return Path(__file__).parents[1]


def _python() -> str:
    return shlex.quote(sys.executable)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
