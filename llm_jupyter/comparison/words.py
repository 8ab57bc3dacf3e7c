"""Figures as one says them."""

from __future__ import annotations


def seconds(value: float | None) -> str:
    """A time as people read it; empty where it is not known."""
    return "" if value is None else f"{value:.2f} s" if value < 9.95 else f"{value:.0f} s"
