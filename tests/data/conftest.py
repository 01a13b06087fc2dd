"""Pictures and folders that the tests of the data layer share."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth light with some grain, as in a photograph: (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    picture = np.zeros((height, width, 3))
    for _ in range(6):
        fy, fx, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 6, 3)
        picture += rng.uniform(5, 20, 3) * np.sin((fy * y + fx * x)[..., None] * 6 + phase)
    picture += 128 + rng.normal(0, 2, picture.shape)
    return picture.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def photo():
    return draw_photo


@pytest.fixture(scope="session")
def snapshot():
    """Everything about a folder that writing into it would change."""

    def look(folder: Path) -> dict[str, tuple]:
        return {
            str(path.relative_to(folder)): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.lstat().st_ino,
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            )
            for path in [folder, *sorted(folder.rglob("*"))]
        }

    return look


@pytest.fixture(scope="session")
def class_folder():
    """Writes `counts[class]` different small pictures for each class below a folder."""

    def write(root: Path, counts: dict[str, int], side: int = 12, seed: int = 0) -> Path:
        for number, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True)
            for index in range(count):
                picture = draw_photo(side, side, seed * 10_000 + number * 1_000 + index)
                Image.fromarray(picture).save(root / name / f"{index:03}.png")
        return root

    return write
