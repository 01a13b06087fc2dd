"""Draws `faces.png` and `patches.png`: python docs/pictures/draw.py."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.lecture import draw_patches, extract_patches

HERE = Path(__file__).parent


def save(picture: np.ndarray, name: str) -> None:
    Image.fromarray(picture).quantize(200).save(HERE / name, optimize=True)


def faces(side: int = 96, columns: int = 10) -> np.ndarray:
    rows = [
        [draw_face(name, side, np.random.default_rng([7, index, at])) for at in range(columns)]
        for index, name in enumerate(EXPRESSIONS)
    ]
    return np.concatenate([np.concatenate(row, 1) for row in rows])


def patches(side: int = 192, size: int = 32) -> np.ndarray:
    """A face, and the same as the patches that a model is given, side by side."""
    face = draw_face("happy", side, np.random.default_rng([7, 1, 9]))
    square = [1, size, size, 1]
    images = torch.from_numpy(face)[None].float()
    cut = extract_patches(images, square, square, [1, 1, 1, 1], "VALID")[0]
    drawing = draw_patches(cut, gap=6).numpy()
    page = np.full((len(drawing), side + 24 + drawing.shape[1], 3), 255, np.uint8)
    top = (len(drawing) - side) // 2
    page[top : top + side, :side] = face
    page[:, side + 24 :] = drawing
    return page


save(faces(), "faces.png")
save(patches(), "patches.png")
