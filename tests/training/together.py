"""One of several processes that train what a test asks for; started by `test_distributed`.

Its arguments are a file of settings by name, each with the number of steps to take, and a folder
for what comes out. A checkpoint in a folder named ``<name>-from`` is gone on with. Where the seed
is `BAD_SEED`, the last process finds no number for a loss in one step.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.cli import _status
from vitreous.core.config import from_mapping
from vitreous.core.console import Console
from vitreous.data.cache import entry_bytes
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.faces import EXPRESSIONS, draw_face, write_faces
from vitreous.data.folder import list_labelled
from vitreous.data.loader import PictureSet
from vitreous.data.packing import pack
from vitreous.data.stream import StreamedPixels
from vitreous.processes import first_leads
from vitreous.training.checkpoint import load_newest_checkpoint, snapshot, write_checkpoint
from vitreous.training.config import RunConfig
from vitreous.training.distributed import team
from vitreous.training.follow import share
from vitreous.training.learner import ClassLearner, Learner
from vitreous.training.plan import plan_epochs
from vitreous.training.pretrain import PatchLearner

CLASSES = ("angry", "happy", "sad")
PLAN = plan_epochs(10, 4)
BAD_SEED, BAD_STEP = 13, 3


def pictures(folder: Path) -> PictureSet:
    """As training has them: mapped from a file, of which some rows belong to others."""
    rng, labels = np.random.default_rng(0), [index % 3 for index in range(48)]
    pixels = [draw_face(EXPRESSIONS[label], 32, rng) for label in labels]
    np.save(folder / "pixels.npy", np.stack(pixels))
    mapped = np.load(folder / "pixels.npy", mmap_mode="r")
    rows = np.arange(1, 48)
    return PictureSet(mapped, rows, torch.tensor(labels)[rows], ())


def streamed(config: RunConfig, folder: Path) -> tuple[RunConfig, PictureSet]:
    """From shards, of which the cache has room for a few pictures."""
    write_faces(folder / "faces", 20, size=32)
    pack(folder / "faces", folder / "shards", shard_mb=0.01, console=Console(quiet=True))
    room_gb = (entry_bytes(6, config.preprocess) + 1) / 1e9
    data = DataConfig(
        str(folder / "shards"), str(folder / "cache"), max_cache_gb=room_gb, shuffle_buffer=16
    )
    dataset = open_dataset(list_labelled(folder / "shards"), data, config.preprocess, seed=0)
    assert isinstance(dataset.pixels.array, StreamedPixels)
    return replace(config, data=data), dataset.sets["train"]


def made(config: RunConfig, faces: PictureSet) -> Learner:
    if config.pretrain:
        return PatchLearner(config, faces)
    return ClassLearner(config, faces, CLASSES)


_loss = ClassLearner.loss


def sometimes_bad(self, model, *inputs):
    loss, last = _loss(self, model, *inputs), self.team.rank == self.team.size - 1
    is_bad = self.config.train.seed == BAD_SEED and self.state.step == BAD_STEP and last
    return loss * torch.nan if is_bad else loss


def work(settings: dict, folder: Path) -> dict[str, list[float]]:
    """The losses of each training; its state is written as a checkpoint."""
    faces, losses = pictures(folder), {}
    for name, (values, steps) in settings.items():
        config, own = from_mapping(RunConfig, values), faces
        if name == "streamed":
            config, own = streamed(config, folder)
        learner = made(config, own)
        load_newest_checkpoint(folder / f"{name}-from", learner.state)
        if name == "gone":  # the leader has it mapped, the others have yet to
            (folder / "pixels.npy").unlink()
        share(learner)
        losses[name] = [learner.learn(PLAN).item() for _ in range(steps)]
        tensors = learner.tensors()
        (folder / name).mkdir()
        write_checkpoint(folder / name, snapshot(learner.state, tensors))
        average = learner.averaged().state_dict()
        assert all(torch.equal(average[key], tensors[f"ema.{key}"]) for key in average)
    return losses


def digest(learner: Learner) -> str:
    state, found = learner.state, hashlib.sha256()
    for model in (state.model, state.ema.model):
        for value in model.state_dict().values():
            found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def main(settings: Path, folder: Path) -> int:
    learn, seen = Learner.learn, []

    def noted(self, plan):
        loss = learn(self, plan)
        if self.config.train.parallel == "ddp":
            seen.append(digest(self))
        return loss

    Learner.learn, ClassLearner.loss = noted, sometimes_bad
    result = {}
    asked = json.loads(settings.read_text())
    status = _status(lambda: first_leads(lambda: result.update(work(asked, folder))))
    (folder / f"process-{team().rank}.json").write_text(json.dumps([result, seen]))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
