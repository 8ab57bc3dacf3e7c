"""What a conversation is set to, as the store keeps it."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_jupyter.types import GenerationOptions


def told(options: GenerationOptions) -> dict[str, Any]:
    """Options as they are stored: those that say something."""
    plain = GenerationOptions()
    given = {
        n: v for n in options.__struct_fields__ if (v := getattr(options, n)) != getattr(plain, n) and n != "timeout"
    }
    values: dict[str, Any] = msgspec.to_builtins(given)
    return values
