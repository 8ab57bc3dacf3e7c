"""Figures and pictures in a prompt, with the real libraries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from IPython.display import Image as NotebookImage
from matplotlib.figure import Figure

from llm_jupyter.filling import FilledValue, fill
from llm_jupyter.types import Image


def opened(image: Image) -> PIL.Image.Image:
    assert image.media_type == "image/png"
    return PIL.Image.open(io.BytesIO(image.data))


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 3)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def figure() -> Figure:
    figure = Figure(figsize=(6.4, 4.8))
    figure.subplots().plot([1, 2, 3])
    return figure


def test_a_figure_is_an_image_and_the_text_says_which(figure: Figure) -> None:
    filled = fill(
        "What does {figure} show, and {other}? {figure}!", {"figure": figure, "other": PIL.Image.new("L", (5, 6))}
    )
    assert filled.text == "What does [image 1] show, and [image 2]? [image 1]!"
    assert [opened(image).size for image in filled.images] == [(640, 480), (5, 6)]
    assert filled.filled == (FilledValue("figure", "image 640 x 480"), FilledValue("other", "image 5 x 6"))


def test_axes_stand_for_their_figure(figure: Figure) -> None:
    names = {"axes": figure.axes[0], "inner": figure.subfigures().subplots()}
    assert [opened(image).size for image in fill("{axes} {inner}", names).images] == [(640, 480), (640, 480)]


def test_axes_without_a_figure_stay_as_they_are(figure: Figure) -> None:
    axes = figure.axes[0]
    axes.remove()
    filled = fill("{axes}", {"axes": axes})
    assert filled.text == "{axes}"
    assert filled.hints == ("{axes} stays as it is: reading it raised AttributeError.",)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I", "I;16"])
def test_a_picture_of_any_mode_is_sent_as_png(mode: str) -> None:
    (image,) = fill("{picture}", {"picture": PIL.Image.new(mode, (40, 30))}).images
    assert opened(image).size == (40, 30)


def test_a_large_picture_is_made_smaller_and_stays_as_it_was() -> None:
    picture = PIL.Image.new("RGB", (4000, 1000))
    filled = fill("{picture}", {"picture": picture})
    assert opened(filled.images[0]).size == (1568, 392)
    assert filled.filled == (FilledValue("picture", "image 4,000 x 1,000, scaled to 1,568 x 392", True),)
    assert picture.size == (4000, 1000)


@pytest.mark.parametrize(
    ("kind", "media_type", "size"),
    [("PNG", "image/png", "image 4 x 3"), ("JPEG", "image/jpeg", "image of"), ("GIF", "image/gif", "image of")],
)
def test_an_image_of_the_notebook_is_sent_as_it_is(kind: str, media_type: str, size: str) -> None:
    data = encoded(kind)
    filled = fill("{image}", {"image": NotebookImage(data)})
    assert filled.images == (Image(data, media_type),)
    assert filled.filled[0].size.startswith(size)


def test_an_image_that_is_only_an_address_is_text() -> None:
    filled = fill("{image}", {"image": NotebookImage(url="http://example.org/a.png")})
    assert filled.images == ()
    assert filled.text.startswith("<IPython.core.display.Image object")


def test_an_image_of_a_message_is_sent_again(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded("JPEG"))
    image = Image.from_file(file)
    assert fill("{image}", {"image": image}).images == (image,)


def test_whatever_can_save_itself_as_a_figure_is_one(figure: Figure) -> None:
    class Grid:
        """As seaborn has them."""

        def savefig(self, *arguments: Any, **options: Any) -> None:
            figure.savefig(*arguments, **options)

    assert fill("{grid}", {"grid": Grid()}).text == "[image 1]"


def test_a_figure_that_cannot_be_drawn_stays_as_it_is() -> None:
    class Broken:
        def savefig(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("latex could not be found")

    filled = fill("{figure}", {"figure": Broken()})
    assert (filled.text, filled.images) == ("{figure}", ())
    assert filled.hints == ("{figure} stays as it is: reading it raised RuntimeError.",)


def test_a_budget_does_not_cut_an_image(figure: Figure) -> None:
    assert fill("{figure}", {"figure": figure}, budget=0).text == "[image 1]"
