"""What would become of the settings if the person's file had another text."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import Key
from llm_jupyter.settings.layers import layers_around, merged, use_one_name
from llm_jupyter.settings.model import LLMSettings
from llm_jupyter.settings.problems import faults
from llm_jupyter.settings.provenance import Layer, Provenance, Source
from llm_jupyter.settings.schema import Schema


@dataclass(frozen=True, slots=True)
class Trial:
    """`faults` is what is wrong with that text, by key; `provenance` tells which places go over it."""

    faults: Mapping[Key, ConfigurationError]
    provenance: Provenance


def tried(
    file: Path,
    text: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    system: Sequence[Path] | None = None,
) -> Trial:
    """Judge a text, which is valid TOML, as that of the person's file. Arguments are those of `load_settings`.

    All that the text says is judged, whatever goes over it; what it leaves out may stand in other places. Where one of
    those cannot be read, it is judged by itself.
    """
    person = Layer(Source.PERSON, tomllib.loads(text), str(file), text)
    try:
        use_one_name(person)
    except ConfigurationError as contradiction:
        return Trial({(): contradiction}, Provenance([person]))
    try:
        layers = layers_around(person, overrides or {}, environment, system)
    except ConfigurationError:
        layers = [person]
    strongest = [person, *(layer for layer in layers if layer is not person)]
    judged = Provenance(strongest, values := merged(strongest))
    try:
        LLMSettings.model_validate({"home": file.parent, **values})
    except ValidationError as error:
        return Trial(faults(error, judged, Schema(LLMSettings)), Provenance(layers))
    return Trial({}, Provenance(layers))
