"""Drawn faces with three expressions: a data set that is made, not downloaded.

The demo, the tests and the documentation need pictures of faces that anyone may copy. These are
drawn from random numbers. The person (`Look`) and the photograph (`Shot`) are sampled without
knowing the expression, so brows, eyes and mouth (`Expression`) alone tell the classes apart.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from vitreous.data.face_look import EXPRESSIONS, Expression, Look, Shot
from vitreous.data.face_parts import draw
from vitreous.errors import UserError

__all__ = ["EXPRESSIONS", "draw_face", "write_faces"]

SMALLEST, LARGEST = 16, 1024


def draw_face(expression: str, size: int, rng: Generator) -> np.ndarray:
    """Draw one face.

    Equal generators give the same person, pose and expression at every size; only the sensor's
    noise differs.

    Args:
        expression: one of `EXPRESSIONS`.
        size: width and height, 16 to 1024 pixels.
        rng: source of everything that varies; it is advanced.

    Returns:
        RGB values 0 to 255 as uint8, of shape (size, size, 3).

    Raises:
        UserError: for an unknown expression or a size that is out of range.

    Example:
        >>> draw_face("happy", 32, np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    _check(expression, size)
    look, shot = Look.sample(rng), Shot.sample(rng)
    face = Expression.sample(rng, expression, rng.random())
    return draw(look, shot, face, size, rng)


def write_faces(
    folder: Path,
    per_class: int | Mapping[str, int],
    size: int = 64,
    seed: int = 0,
    on_done: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write a folder of drawn faces, one sub-folder per expression.

    Each picture depends on the seed, its expression and its number only, so a larger set begins
    with the pictures of a smaller one.

    Args:
        folder: new or empty; gets ``<expression>/<00000>.png``.
        per_class: pictures of every expression, or of each expression named.
        size: width and height, 16 to 1024 pixels.
        seed: 0 or more; another seed draws other faces.
        on_done: called with 1 after each picture.

    Returns:
        The files written, by expression and number.

    Raises:
        UserError: for a folder that isn't empty, an unknown expression, or a size, count or seed
            that is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     files = write_faces(Path(place), {"happy": 2}, size=16)
        >>> [file.name for file in files]
        ['00000.png', '00001.png']
    """
    counts = per_class if isinstance(per_class, Mapping) else dict.fromkeys(EXPRESSIONS, per_class)
    for expression, count in counts.items():
        _check(expression, size)
        if count < 0:
            raise UserError(f"{count} pictures of {expression}: give 0 or more")
    if seed < 0:
        raise UserError(f"seed {seed}: give 0 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder: name a new one or empty it")
    files: list[Path] = []
    for expression, count in counts.items():
        (folder / expression).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng([seed, zlib.crc32(expression.encode()), index])
            files.append(folder / expression / f"{index:05d}.png")
            Image.fromarray(draw_face(expression, size, rng)).save(files[-1])
            if on_done:
                on_done(1)
    return files


def _check(expression: str, size: int) -> None:
    if expression not in EXPRESSIONS:
        raise UserError(f"unknown expression {expression!r}: use one of {', '.join(EXPRESSIONS)}")
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size {size} is out of range: use {SMALLEST} to {LARGEST} pixels")
