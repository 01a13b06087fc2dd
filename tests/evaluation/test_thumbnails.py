from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from vitreous.data.loader import PictureSet
from vitreous.evaluation.thumbnails import thumbnail_answers


def pictures(count: int, side: tuple[int, int], seed: int, classes: int = 3) -> PictureSet:
    """Noise with a bright eighth of a column, which tells the class by its place."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 200, (count, *side, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    columns = slice(side[1] // 4, side[1] // 2)
    for at, label in enumerate(labels):
        top, bottom = ((label + step) * side[0] // 8 for step in (2, 3))
        pixels[at, top:bottom, columns] += 40
    return PictureSet(pixels, np.arange(count), torch.from_numpy(labels), (Path(),) * count)


def test_answers_are_those_of_a_linear_classifier_of_pillows_thumbnails():
    train, new = pictures(300, (48, 64), 0), pictures(100, (48, 64), 1)
    found = thumbnail_answers(train, new, seed=0)

    def small(part):
        images = (Image.fromarray(one).resize((8, 8), Image.Resampling.BOX) for one in part.pixels)
        return np.stack([np.asarray(image).ravel() for image in images]) / 255

    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    wanted = oracle.fit(small(train), train.labels.numpy()).predict(small(new))
    assert np.mean(found == wanted) >= 0.97  # Pillow rounds to bytes
    assert np.mean(found == new.labels.numpy()) > 0.9


def test_sizes_that_eight_does_not_divide():
    train, new = pictures(120, (50, 13), 0), pictures(30, (50, 13), 1)
    assert np.mean(thumbnail_answers(train, new, seed=0) == new.labels.numpy()) > 0.5
    tiny = pictures(30, (5, 3), 0)
    assert thumbnail_answers(tiny, tiny, seed=0).shape == (30,)


def test_as_many_classes_as_pictures_teach_nothing():
    train = pictures(3, (16, 16), 0)
    assert thumbnail_answers(train, train, seed=0) is None
