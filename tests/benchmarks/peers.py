"""What others do, each in an environment of its own below `.cache/bench`; never in this project's."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.server import ROOT

FOLDER = ROOT / ".cache" / "bench"


class PeerMissing(Exception):
    """A peer's environment could not be made."""


def python_of(peer: str, *also: str) -> str:
    """The interpreter of an environment that has the peer, made now if there is none. Raises `PeerMissing`."""
    folder = FOLDER / peer
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing {peer} into {folder.relative_to(ROOT)}", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
            subprocess.run([python, "-m", "pip", "install", "-q", peer, *also], check=True, capture_output=True)
        except (subprocess.CalledProcessError, OSError) as error:
            told = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
            reason = next((line for line in told if line.startswith("ERROR")), str(error))
            raise PeerMissing(f"{peer} could not be installed: {reason}") from error
        complete.touch()
    return str(python)


def version_of(python: str, distribution: str) -> str:
    """The installed version of a distribution in that environment."""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
