"""What goes wrong in the last of several processes; started by `test_distributed`.

Its arguments are which misfortune, the pictures, and a folder for runs.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch

import vitreous
from vitreous.core.config import merge
from vitreous.errors import VitreousError
from vitreous.training import diary
from vitreous.training.distributed import team
from vitreous.training.learner import ClassLearner, Learner

SETTINGS = {
    "model": {"embed_dim": 16, "depth": 1, "num_heads": 1, "stem": [4, 8, 16], "dropout": 0.1},
    "train": {"batch_size": 8, "precision": "float32", "device": "cpu"},
    "augment": {"erase_chance": 0.5, "affine_chance": 0.5},
}
#: A rate that rises to the end.
RISING = {"train": {"learning_rate": 1e-3, "warmup": 0.99}}


def killed(faces: Path, folder: Path) -> None:
    """It is killed in training, and `torchrun` starts all again; then the same, unbroken."""
    diary.CHECKPOINT_INTERVAL_S = 0.0
    learn = Learner.learn

    def die(self, plan):
        if self.state.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(self, plan)

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
        Learner.learn = die
    for name in ("killed", "straight"):
        run = vitreous.train(
            faces, folder / name, epochs=6, settings=SETTINGS, cache=folder / "cache"
        )
        assert (run.path / "last.safetensors").exists()


def no_number(faces: Path, folder: Path) -> None:
    """Above a learning rate its losses are no numbers."""
    loss = ClassLearner.loss

    def limited(self, model, *inputs):
        (group, *_) = self.state.optimizers[0].param_groups
        is_bad = team().rank == team().size - 1 and group["lr"] > 0.5e-3
        return loss(self, model, *inputs) * (torch.nan if is_bad else 1.0)

    ClassLearner.loss = limited
    settings = merge(SETTINGS, RISING)
    vitreous.train(faces, folder / "run", epochs=20, settings=settings, cache=folder / "cache")


def error(faces: Path, folder: Path) -> None:
    """The first one finds nothing to learn from, and tries another time."""
    for source in (folder / "gone", faces):
        with suppress(VitreousError):
            vitreous.train(source, folder / "run", settings=SETTINGS, cache=folder / "cache")


if __name__ == "__main__":
    misfortunes = {"killed": killed, "no-number": no_number, "error": error}
    misfortunes[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
