"""A few drawn faces and a model small enough to train in a second."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.data.config import NO_AUGMENTATION, AugmentConfig, DataConfig
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ModelConfig
from vitreous.training.config import RunConfig, TrainConfig


@pytest.fixture(scope="session")
def faces() -> PictureSet:
    rng = np.random.default_rng(0)
    labels = [index % 3 for index in range(36)]
    pixels = np.stack([draw_face(EXPRESSIONS[label], 32, rng) for label in labels])
    return PictureSet(pixels, np.arange(36), torch.tensor(labels), ())


@pytest.fixture(scope="session")
def base_config() -> RunConfig:
    """Every source of randomness is on."""
    return RunConfig(
        recipe="test",
        data=DataConfig(source="faces"),
        model=ModelConfig(
            image_size=(32, 32),
            patch_size=(8, 8),
            num_classes=3,
            embed_dim=32,
            depth=2,
            num_heads=2,
            stem=(8, 16, 32),
            pool="seq",
            class_token=False,
            drop_path_rate=0.2,
            dropout=0.1,
            attention_dropout=0.1,
            patch_dropout=0.2,
        ),
        preprocess=Preprocess(image_size=(32, 32)),
        augment=AugmentConfig(erase_chance=0.5),
        # At the same precision on every machine.
        train=TrainConfig(epochs=5.0, batch_size=12, device="cpu", precision="float32", ema=0.2),
    )


@pytest.fixture
def config(base_config: RunConfig) -> RunConfig:
    return base_config


@pytest.fixture
def calm_config(config: RunConfig) -> RunConfig:
    """The same model without anything random but its first weights."""
    model = replace(
        config.model, drop_path_rate=0.0, dropout=0.0, attention_dropout=0.0, patch_dropout=0.0
    )
    train = replace(config.train, label_smoothing=0.0, learning_rate=3e-3)
    return replace(config, model=model, augment=NO_AUGMENTATION, train=train)
