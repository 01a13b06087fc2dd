"""Pictures that were fitted beforehand are, to a sealed graph, what the whole pictures are."""

import numpy as np
import pytest
import torch

from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.exporting.contract import Contract
from vitreous.exporting.fitting import Fit
from vitreous.serving.sealed import SealedNetwork, fitting


class Graph:
    """A sealed file whose probabilities are the pixels that the graph sees, and what it was given.

    A real graph around them would hide which pixels those are.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self.contract = Contract("x", ("a",), preprocess, None, None, None, "", "")
        self.fit = Fit(preprocess)

    def answer(self, picture: np.ndarray) -> list[np.ndarray]:
        return [self.fit(torch.from_numpy(picture)).numpy().ravel() + 1]


@pytest.mark.parametrize("resize", [None, (38, 36), (37, 40), (33, 35), (32, 41)], ids=str)
@pytest.mark.parametrize("size", [(100, 70), (71, 100), (37, 41), (20, 20), (32, 32), (2, 90)])
def test_the_same_middle_is_seen(size, resize):
    preprocess = Preprocess((32, 32), resize)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    prepared = fitting(preprocess)
    images = normalise(torch.from_numpy(fit(picture, prepared))[None], prepared)
    graph = Graph(preprocess)
    seen = np.exp(SealedNetwork(graph, strangeness=False)(images).numpy()[0]) - 1
    np.testing.assert_array_equal(np.round(seen), fit(picture, preprocess).ravel())
