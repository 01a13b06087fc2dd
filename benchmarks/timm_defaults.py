"""Defaults of timm's train.py (pytorch-image-models, commit aa4b585 of August 2026)."""

from typing import Any

TRANSFORM: dict[str, Any] = {
    "scale": [0.08, 1.0],
    "ratio": [3 / 4, 4 / 3],
    "hflip": 0.5,
    "color_jitter": 0.4,
    "auto_augment": None,
    "re_prob": 0.0,
    "interpolation": "random",
}
OPTIMIZER: dict[str, Any] = {"opt": "sgd", "momentum": 0.9, "weight_decay": 2e-5}
SCHEDULE: dict[str, Any] = {
    "sched": "cosine",
    "num_epochs": 300,
    "warmup_epochs": 5,
    "warmup_lr": 1e-5,
    "min_lr": 0.0,
}
BATCH_SIZE = 128
SMOOTHING = 0.1
#: Rate for a batch of so many pictures; others take their share.
LR_BASE, LR_BASE_SIZE = 0.1, 256

#: All of them, as they are written down.
ALL: dict[str, Any] = {
    "transform": TRANSFORM,
    "optimizer": OPTIMIZER,
    "schedule": SCHEDULE,
    "batch_size": BATCH_SIZE,
    "lr_base": LR_BASE,
    "lr_base_size": LR_BASE_SIZE,
    "smoothing": SMOOTHING,
    "amp": False,
    "workers": 4,
}


def learning_rate(batch_size: int) -> float:
    """The highest learning rate for batches of that size."""
    return LR_BASE * batch_size / LR_BASE_SIZE
