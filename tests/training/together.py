"""One of several processes that train what a test asks for; started by `test_distributed`.

Its arguments are a file of settings by name, each with the number of steps to take, and a folder
for what comes out. A checkpoint in a folder named ``<name>-from`` is gone on with.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.core.config import from_mapping
from vitreous.data.config import AugmentConfig
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.loader import PictureSet
from vitreous.training.checkpoint import load_newest_checkpoint, save_checkpoint
from vitreous.training.config import RunConfig
from vitreous.training.distributed import Joined, join
from vitreous.training.follow import follow, share
from vitreous.training.learner import ClassLearner, Learner
from vitreous.training.plan import plan_epochs
from vitreous.training.pretrain import PatchLearner

CLASSES = ("angry", "happy", "sad")
PLAN = plan_epochs(10, 4)


def pictures(folder: Path) -> PictureSet:
    """As training has them: mapped from a file; some rows belong to others."""
    rng, labels = np.random.default_rng(0), [index % 3 for index in range(48)]
    if not (folder / "pixels.npy").exists():
        pixels = [draw_face(EXPRESSIONS[label], 32, rng) for label in labels]
        np.save(folder / "pixels.npy", np.stack(pixels))
    mapped = np.load(folder / "pixels.npy", mmap_mode="r")
    rows = np.arange(1, 48)
    return PictureSet(mapped, rows, torch.tensor(labels)[rows], ())


def made(config: RunConfig, faces: PictureSet) -> Learner:
    if config.pretrain:
        return PatchLearner(config, faces)
    return ClassLearner(config, faces, CLASSES)


def digest(tensors) -> str:
    found = hashlib.sha256()
    for value in tensors:
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def work(settings: dict, folder: Path) -> dict:
    """What each training's losses, weights and averages are."""
    faces, results = pictures(folder), {}
    for name, (values, steps) in settings.items():
        learner = made(from_mapping(RunConfig, values), faces)
        load_newest_checkpoint(folder / f"{name}-from", learner.state)
        share(learner)
        losses = [learner.learn(PLAN).item() for _ in range(steps)]
        tensors = learner.tensors()
        (folder / name).mkdir(exist_ok=True)
        save_checkpoint(folder / name, learner.state, tensors)
        average = learner.averaged().state_dict()
        assert all(torch.equal(average[key], tensors[f"ema.{key}"]) for key in average)
        results[name] = {"losses": losses}
    return results


def main(settings: Path, folder: Path) -> None:
    team, seen = join(), []
    learn = Learner.learn

    def noted(self, plan):
        loss = learn(self, plan)
        if not self._is_divided:
            seen.append(digest([*self.state.model.state_dict().values(),
                                *self.state.ema.model.state_dict().values()]))  # fmt: skip
        return loss

    Learner.learn = noted
    if team.leads:
        results = work(json.loads(settings.read_text()), folder)
        (folder / "results.json").write_text(json.dumps(results))
        team.tell("end")
    else:
        assert isinstance(team, Joined)
        follow(team)
    (folder / f"weights-{team.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
