"""What can be looked at: the figures and pictures of the libraries that notebooks use."""

from __future__ import annotations

import io
from typing import Any

from llm_jupyter.filling.shown import Shown, count, is_a, sides
from llm_jupyter.types import Image

LONGEST_SIDE = 1568
"""Pixels. Servers that see make what is larger smaller themselves, after it was sent."""

FIGURE_DPI = 100

_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {_PNG: "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def picture(value: Any) -> Shown | None:
    """Figures of matplotlib, pictures of Pillow, IPython and this package; nothing for other values."""
    if is_a(value, "PIL.Image", "Image"):
        return _from_pillow(value)
    if is_a(value, "matplotlib.axes", "Axes"):
        value = value.figure.canvas.figure  # its own `figure` may be a part of one
    if hasattr(type(value), "savefig"):  # seaborn's grids have it too
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", dpi=FIGURE_DPI)
        return _shown(Image(buffer.getvalue()))
    if is_a(value, "IPython.core.display", "Image"):
        value = _from_bytes(value.data)
    return _shown(value) if isinstance(value, Image) else None


def _from_pillow(original: Any) -> Shown:
    image = original if original.mode in _PNG_MODES else original.convert("RGB")
    is_large = max(image.size) > LONGEST_SIDE
    if is_large:
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    scaled = f", scaled to {sides(image.size)}" if is_large else ""
    return Shown("", f"image {sides(original.size)}{scaled}", Image(buffer.getvalue()), is_partial=is_large)


def _from_bytes(data: Any) -> Image | None:
    """An IPython image may be nothing but an address, or of a kind that no model reads."""
    kinds = [kind for start, kind in _SIGNATURES.items() if isinstance(data, bytes) and data.startswith(start)]
    return Image(data, kinds[0]) if kinds else None


def _shown(image: Image) -> Shown:
    data = image.data
    if data.startswith(_PNG):
        size = sides((int.from_bytes(data[16:20]), int.from_bytes(data[20:24])))
    else:
        size = f"of {count(len(data), 'byte')}"
    return Shown("", f"image {size}", image)
