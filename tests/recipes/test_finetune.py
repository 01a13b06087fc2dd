"""The size that pictures are fed at, from their own, the weights' and the time."""

import pytest
import torch

from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ModelConfig
from vitreous.recipes.facts import Facts
from vitreous.recipes.finetune import MIN_EPOCHS, PROBE_EPOCHS, finetune
from vitreous.training.encoder import Encoder


def encoder(native: int, patch: int) -> Encoder:
    model = ModelConfig(image_size=(native, native), patch_size=(patch, patch), num_classes=2)
    return Encoder(model, Preprocess((native, native)), {"norm.weight": torch.ones(1)})


def side_of(typical: int, native: int = 224, patch: int = 16, **more) -> int:
    facts = Facts("faces", 10_000, 3, typical, encoder=encoder(native, patch), init="w", **more)
    return finetune(facts).config.model.image_size[0]


@pytest.mark.parametrize(
    ("typical", "native", "patch", "side"),
    [
        (48, 224, 16, 112),
        (500, 224, 16, 224),
        (10, 224, 16, 64),
        (500, 96, 32, 96),  # three patches wide: no larger than it ever was
    ],
)
def test_the_size_goes_with_the_pictures_up_to_the_weights_own(typical, native, patch, side):
    assert side_of(typical, native, patch) == side


def test_a_head_alone_needs_to_see_them_only_once():
    epochs = 0.5 * (PROBE_EPOCHS + MIN_EPOCHS)

    def pace(config) -> float:
        return epochs * 10_000 / (0.9 * 600) * (224 / config.model.image_size[0]) ** 2

    timed = {"budget_s": 600.0, "pictures_per_s": pace}
    assert side_of(500, **timed, rungs=("probe",)) == 224
    assert side_of(500, **timed, rungs=("probe", "full")) < 224
    assert side_of(500, **timed) < 224


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.02])
def test_with_little_time_few_sizes_are_measured(share):
    """Each measurement takes true steps, out of the time that is to be planned."""
    sides = []

    def pace(config) -> float:
        sides.append(side := config.model.image_size[0])
        enough = MIN_EPOCHS * 10_000 / (0.9 * 600)
        return share * enough * (224 / side) ** 2

    side = side_of(500, budget_s=600.0, pictures_per_s=pace)
    assert side == sides[-1]
    assert len(sides) <= 3
    assert side == 64 or share * (224 / side) ** 2 >= 1
    assert share * (224 / (side + 32)) ** 2 < 1 or side == 224
