"""Pictures inside a page, as data URIs."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.decode import read_picture
from vitreous.errors import UnreadablePicture

#: Reads the pixels of a file for a page; ``None`` where it can't be read.
PictureOf = Callable[[Path], np.ndarray | None]

_LOSSLESS_SIDE = 64
_PIXEL_ART_SIDE = 32
#: A large JPEG of which a page shows little is decoded no larger than a few times this side.
_READ_SIDE = 128


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, and whether its pixels should stay squares when enlarged."""

    uri: str
    pixelated: bool


def picture_at(path: Path) -> np.ndarray | None:
    """The pixels of a file for a page; nothing where it can't be read any more.

    Shape:
        -> (height, width, 3) uint8
    """
    try:
        return read_picture(path, cover=(_READ_SIDE, _READ_SIDE))
    except UnreadablePicture:
        return None


def picture_uri(picture: np.ndarray, max_side: int) -> Embedded:
    """A picture to stand inside the page.

    Args:
        picture: as decoded.
        max_side: longest side in pixels; a larger picture is made smaller.

    Shape:
        picture: (height, width, 3) uint8
    """
    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    longest = max(image.size)
    kind = "png" if longest <= _LOSSLESS_SIDE else "webp"
    return Embedded(image_uri(image, kind), pixelated=longest <= _PIXEL_ART_SIDE)


def image_uri(image: Image.Image, kind: str) -> str:
    """An image as "png", or as "webp" with small losses."""
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "png", optimize=True)
    else:
        image.save(buffer, "webp", quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
