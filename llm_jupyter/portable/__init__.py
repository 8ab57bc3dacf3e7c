"""Conversations as files: out of a notebook, as Markdown for people, and as JSON with everything for another machine."""

from llm_jupyter.portable.exported import as_json, from_json
from llm_jupyter.portable.files import export, file_name
from llm_jupyter.portable.markdown import as_markdown
from llm_jupyter.portable.notebook import Rebuilt, RebuiltTurn, conversation_of
from llm_jupyter.portable.questions import AGAIN, digest_of

__all__ = [
    "AGAIN",
    "Rebuilt",
    "RebuiltTurn",
    "as_json",
    "as_markdown",
    "conversation_of",
    "digest_of",
    "export",
    "file_name",
    "from_json",
]
