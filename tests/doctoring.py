"""A person at a terminal: they call the doctor, and type what it says, to the letter.

patient = Patient(home)
patient.doctor().errors                 # Finding-like dictionaries
patient.type(command)                   # in a real shell; what it exports or unsets stays so
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import kernel_environment

ORDINARY_USER = 65534
"""Nobody, on every Linux."""

PROGRAMS = Path(sys.executable).parent
FREE_OF = ("OLLAMA_HOST", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "JUPYTER_PATH")


@dataclass(frozen=True)
class Report:
    """What `jupyter-llm doctor --json` answered."""

    exit_code: int
    text: str

    @property
    def findings(self) -> list[dict[str, Any]]:
        return list(json.loads(self.text)["findings"])

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["mark"] == "error"]

    @property
    def codes(self) -> list[str]:
        """The codes of errors and warnings."""
        return [finding["code"] for finding in self.findings if finding["mark"] in ("error", "warning")]

    def one(self, code: str) -> dict[str, Any]:
        """The one finding with that code."""
        (found,) = [finding for finding in self.findings if finding["code"] == code]
        return found


class Patient:
    """A home folder, an environment, and a shell in it; `ordinary` runs everything as an ordinary user."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str] | None = None,
        *,
        settings: str = "",
        ordinary: bool = False,
        user: int = ORDINARY_USER,
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        if settings:
            (home / "config.toml").write_text(settings, encoding="utf-8")
        known = {name: value for name, value in kernel_environment(home).items() if name not in FREE_OF}
        known["PATH"] = os.pathsep.join([str(PROGRAMS), known["PATH"]])
        self.environment = {**known, **(environment or {})}
        self._prefix = without_privileges(user) if ordinary else []

    def doctor(self, *options: str) -> Report:
        """`jupyter-llm doctor --json`."""
        ran = self.run("jupyter-llm", "doctor", "--json", *options)
        assert ran.stderr == ""
        return Report(ran.returncode, ran.stdout)

    def run(self, *command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program, with `typed` on its standard input."""
        return subprocess.run(
            [*self._prefix, *command], env=self.environment, input=typed, capture_output=True, text=True, timeout=60,
            cwd=self.home,
        )  # fmt: skip

    def type(self, line: str, typed: str = "") -> None:
        """Type a line into a shell; it must succeed. What it does to the environment stays."""
        ran = self._typed(line, typed)
        assert ran.returncode == 0, ran.stderr

    def _typed(self, line: str, typed: str) -> subprocess.CompletedProcess[str]:
        script = f"{line} || exit 9\nprintf '\\n%s' AFTERWARDS; env -0"
        ran = self.run("bash", "-c", script, typed=typed)
        _, mark, after = ran.stdout.rpartition("AFTERWARDS")
        if mark:
            pairs = [pair.partition("=") for pair in after.split("\0") if pair]
            self.environment = {name: value for name, _, value in pairs if name not in ("_", "SHLVL", "PWD", "OLDPWD")}
        return ran


def without_privileges(user: int = ORDINARY_USER) -> list[str]:
    """What stands before a command so that it may write only what an ordinary user may.

    Root becomes nobody, who may still read everything: the Python that runs the tests may lie in root's own folder.
    """
    if os.getuid() != 0:
        return []
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read]
