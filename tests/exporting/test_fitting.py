"""The graph's own scaling and cropping is `fit`, which is PyTorch's, byte for byte but for ties."""

import numpy as np
import pytest
import torch

from vitreous.data.preprocess import Preprocess, fit
from vitreous.exporting import fitting
from vitreous.exporting.fitting import Fit

SIZES = [(1, 1), (1, 2), (5, 3), (32, 32), (33, 32), (37, 40), (64, 48), (97, 61), (61, 97),
         (388, 24), (24, 388), (3, 700), (1, 20_000), (9_000, 2), (500, 375),
         (1201, 807)]  # fmt: skip
PREPARED = [
    Preprocess((32, 32)),
    Preprocess((24, 48)),
    Preprocess((32, 32), (37, 40)),
    Preprocess((32, 32), interpolation="bilinear"),
    Preprocess((64, 48), (67, 50), "bilinear"),
]


def drawn(size: tuple[int, int], blocks: int) -> np.ndarray:
    """Noise, whose scaled edges overshoot, in blocks of some size."""
    rng = np.random.default_rng(sum(size))
    small = [-(-side // blocks) for side in size]
    noise = rng.integers(0, 256, (*small, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((blocks, blocks, 1), np.uint8))[: size[0], : size[1]]


def differences(preprocess: Preprocess) -> np.ndarray:
    graph, found = Fit(preprocess), []
    for size in SIZES:
        picture = np.ascontiguousarray(drawn(size, 1 if size[0] % 2 else 3))
        pixels = graph(torch.from_numpy(picture)).numpy()
        assert (pixels == np.round(pixels)).all()
        found.append(np.abs(fit(picture, preprocess) - pixels).ravel())
    return np.concatenate(found)


@pytest.mark.parametrize("preprocess", PREPARED, ids=str)
def test_pictures_of_any_size_come_out_alike(preprocess):
    apart = differences(preprocess)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-5


def test_a_picture_of_the_right_size_stays_as_it_is():
    for preprocess in PREPARED:
        picture = drawn(preprocess.cover, 1)
        pixels = Fit(preprocess)(torch.from_numpy(picture)).numpy()
        np.testing.assert_array_equal(pixels, fit(picture, preprocess))
    np.testing.assert_array_equal(Fit(PREPARED[0])(torch.from_numpy(drawn((32, 32), 1))).numpy(),
                                  drawn((32, 32), 1))  # fmt: skip


def test_another_filter_would_be_noticed(monkeypatch):
    monkeypatch.setattr(fitting, "_CUBIC", -0.75)
    assert differences(PREPARED[0]).max() > 1
