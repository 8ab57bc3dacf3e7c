"""How the commands of `%llm` write: lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_jupyter.tables import table as table
from llm_jupyter.wording import counts as counts
from llm_jupyter.wording import duration as duration
from llm_jupyter.wording import shortened as shortened
from llm_jupyter.wording import size as size
from llm_jupyter.wording import visible
from llm_jupyter.wording import window as window


def say(lines: Sequence[str]) -> None:
    """Write lines below the cell. What a server wrote in them steers no terminal."""
    sys.stdout.write("\n".join(map(visible, lines)) + "\n")
