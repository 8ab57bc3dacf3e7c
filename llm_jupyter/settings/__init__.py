"""The settings: TOML files, the environment over them, and what the caller says over both.

`LLM_JUPYTER_HOME` is the one folder (settings, store, cache, leases, weights); `config.toml` in it is the person's file.
Every setting can be given as `LLM_JUPYTER_<NAME>`, nested ones with a double underscore:
`LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL`. A system's file on Jupyter's config path stands below the person's, and its
`[locked]` over everything.
"""

from llm_jupyter.settings.keys import PREFIX
from llm_jupyter.settings.layers import SYSTEM_FILE, all_faults, load_settings, system_files, with_overrides
from llm_jupyter.settings.listing import Entry, Explanation, entries, explanation, is_table
from llm_jupyter.settings.model import FILE_NAME, LLMSettings, home_folder
from llm_jupyter.settings.provenance import Layer, Provenance, Source
from llm_jupyter.settings.sections import (
    ConnectionSettings,
    HostSettings,
    LimitSettings,
    ModelSettings,
    ProviderSettings,
    SessionSettings,
)
from llm_jupyter.settings.values import memory_size, written_size
from llm_jupyter.settings.writing import write_default_model

__all__ = [
    "FILE_NAME",
    "PREFIX",
    "SYSTEM_FILE",
    "ConnectionSettings",
    "Entry",
    "Explanation",
    "HostSettings",
    "LLMSettings",
    "Layer",
    "LimitSettings",
    "ModelSettings",
    "Provenance",
    "ProviderSettings",
    "SessionSettings",
    "Source",
    "all_faults",
    "entries",
    "explanation",
    "home_folder",
    "is_table",
    "load_settings",
    "memory_size",
    "system_files",
    "with_overrides",
    "write_default_model",
    "written_size",
]
