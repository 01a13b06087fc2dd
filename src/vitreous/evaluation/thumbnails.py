"""A yardstick that hardly looks: a linear classifier of thumbnails."""

import numpy as np

from vitreous.core.rng import numpy_stream
from vitreous.data.loader import PictureSet, some_of_each_class

#: Pixels on a side of a thumbnail.
SIDE = 8
#: Training pictures that it learns from.
_MOST = 4000
#: Share of the covariance that is replaced by an even one, for numbers as alike as near pixels.
_SHRINKAGE = 0.1
_CHUNK = 64


def thumbnail_answers(train: PictureSet, pictures: PictureSet, seed: int) -> np.ndarray | None:
    """What a linear discriminant (Fisher 1936) of eight by eight pixels answers.

    What it gets right, colours and the roughest shapes tell. It has a closed form and takes about a
    second however many classes there are.

    Args:
        train: to learn from, at most some thousand of them.
        pictures: to answer for.
        seed: of the choice of training pictures.

    Returns:
        Class indices (pictures,); ``None`` where there are no more training pictures than classes.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    chosen = some_of_each_class(train.labels, _MOST, numpy_stream(seed, "thumbnails"))
    labels = train.labels.numpy()[chosen]
    if not 1 < len(np.unique(labels)) < len(chosen):
        return None
    fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE)
    fit.fit(_thumbnails(train, chosen), labels)
    return np.asarray(fit.predict(_thumbnails(pictures, np.arange(len(pictures)))))


def _thumbnails(pictures: PictureSet, positions: np.ndarray) -> np.ndarray:
    """Means over the fields of a grid.

    Shape:
        -> (positions, 3 * SIDE * SIDE)
    """
    height, width = pictures.pixels.shape[1:3]
    rows, columns = (np.arange(SIDE) * side // SIDE for side in (height, width))
    parts = []
    for chunk in np.array_split(positions, -(-len(positions) // _CHUNK)):
        pixels = pictures.pixels[pictures.rows[chunk]].astype(np.float32)
        sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=1), columns, axis=2)
        parts.append(sums.reshape(len(chunk), -1))
    return np.concatenate(parts) * (SIDE * SIDE / (255 * height * width))
