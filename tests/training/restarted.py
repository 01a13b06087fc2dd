"""A script that `torchrun` starts twice: one of its processes is killed in the middle of training.

Its arguments are the pictures, a folder for two runs, and the number of the process that dies. The
second run is the same training, unbroken.
"""

import os
import signal
import sys
from pathlib import Path

import vitreous
from vitreous.training import diary
from vitreous.training.learner import Learner

SETTINGS = {
    "model": {"embed_dim": 16, "depth": 1, "num_heads": 1, "stem": [4, 8, 16], "dropout": 0.1},
    "train": {"batch_size": 8, "precision": "float32", "device": "cpu"},
    "augment": {"erase_chance": 0.5, "affine_chance": 0.5},
}


def main(faces: Path, folder: Path, victim: str) -> None:
    diary.CHECKPOINT_INTERVAL_S = 0.0
    learn = Learner.learn

    def die(self, plan):
        if self.state.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(self, plan)

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == victim:
        Learner.learn = die
    for name in ("killed", "straight"):
        run = vitreous.train(
            faces, folder / name, epochs=6, settings=SETTINGS, cache=folder / "cache"
        )
        assert (run.path / "last.safetensors").exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
