"""Patches as a picture that one can look at."""

import math
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from vitreous.core.files import atomic_path
from vitreous.data.decode import read_picture
from vitreous.data.preprocess import Preprocess, fit
from vitreous.errors import ConfigError, DataError, UnreadablePicture
from vitreous.lecture.steps import extract_patches

#: Largest drawing of `patches`, in pixels.
_MAX_DRAWING = 64_000_000


def draw_patches(
    patches: Tensor, *, columns: int | None = None, channels: int = 3, gap: int = 2
) -> Tensor:
    """Lay square patches out as one picture, with white lines between them.

    Args:
        patches: of one picture, values from 0 to 255: the grid of `extract_patches`, or the same
            as a sequence.
        columns: patches in a row of a sequence; by default it is taken as a square.
        channels: of a pixel.
        gap: width of the lines in pixels.

    Shape:
        (rows, columns, values) or (patches, values) -> (height, width, channels), uint8

    Raises:
        ConfigError: where the numbers don't make a grid of square patches.
    """
    if patches.ndim == 2:
        columns = columns or math.isqrt(len(patches))
        if len(patches) % columns:
            raise ConfigError(f"{len(patches)} patches make no grid of {columns} columns")
        patches = patches.unflatten(0, (-1, columns))
    if patches.ndim != 3:
        raise ConfigError(
            f"patches have the shape {tuple(patches.shape)}: give those of one picture, "
            "(rows, columns, values) or (patches, values)"
        )
    rows, columns, values = patches.shape
    side = math.isqrt(values // channels)
    if side * side * channels != values:
        raise ConfigError(f"{values} values are no square patch of {channels} channels")
    step = side + gap
    drawing = torch.full((rows * step + gap, columns * step + gap, channels), 255.0)
    cells = drawing[gap:, gap:].unflatten(0, (rows, step)).unflatten(2, (columns, step))
    cells[:, :side, :, :side] = patches.view(rows, columns, side, side, channels).transpose(1, 2)
    return drawing.round().clamp(0, 255).to(torch.uint8)


def _cut(
    picture: Path,
    size: int,
    stride: int,
    rate: int,
    padding: Literal["VALID", "SAME"],
    image_size: int,
) -> Tensor:
    """A file's patches, on the grid of `extract_patches`."""
    if min(size, stride, image_size) < 1:
        raise ConfigError(f"size {size}, stride {stride} and image size {image_size} are above 0")
    most = -(-image_size // stride)
    if (most * (size + 2) + 2) ** 2 > _MAX_DRAWING:
        raise ConfigError(
            f"{most}x{most} patches of {size} px make a drawing of more than "
            f"{_MAX_DRAWING / 1e6:.0f} million pixels: choose a larger stride"
        )
    try:
        pixels = fit(read_picture(picture), Preprocess(image_size=(image_size, image_size)))
    except UnreadablePicture as error:
        raise DataError(f"{picture}: {error}") from None
    images = torch.from_numpy(pixels)[None].float()
    sizes, strides, rates = ([1, pixels, pixels, 1] for pixels in (size, stride, rate))
    cut = extract_patches(images, sizes, strides, rates, padding)[0]
    if not cut.numel():
        raise ConfigError(
            f"no patch of {size} px at rate {rate} fits into {image_size} px: choose a smaller one "
            "or padding SAME"
        )
    return cut


def patches(
    picture: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    size: int = 16,
    stride: int | None = None,
    rate: int = 1,
    padding: Literal["VALID", "SAME"] = "VALID",
    image_size: int = 256,
) -> Path:
    """Draw the patches of a picture: what a ViT is given instead of it.

    Args:
        picture: any file that can be decoded.
        out: the drawing, a PNG that must not exist; by default ``<picture>-patches.png`` in the
            present folder.
        size: side of a patch in pixels.
        stride: pixels from a patch to the next; by default its side.
        rate: pixels between neighbours inside a patch; above 1 a patch has gaps.
        padding: "VALID" leaves out what fills no patch, "SAME" adds black around the picture.
        image_size: side in pixels to which the picture is scaled and cropped first.

    Returns:
        The drawing's file.

    Raises:
        ConfigError: where the numbers make no patch, or too many to draw.
        DataError: where the picture can't be read.
    """
    picture = Path(picture)
    path = Path(f"{picture.stem}-patches.png") if out is None else Path(out)
    if path.exists():
        raise DataError(f"{path} exists already: name another file with --out")
    cut = _cut(picture, size, stride or size, rate, padding, image_size)
    with atomic_path(path) as staging:
        Image.fromarray(draw_patches(cut).numpy()).save(staging, "PNG")
    return path
