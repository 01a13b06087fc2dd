"""A worker: how fast pictures reach the model in vitreous.

    python benchmarks/feeding_ours.py '{"what": "training", "pictures": FOLDER, "side": 48}'

"training": steps of the recipe's 48 px model, its pictures from the cache, augmented as they come;
"fixed": the same steps on one batch that lies ready. "epochs": what those steps are fed, without a
model, epoch after epoch. "photos": decoding and resizing alone, without a cache. With
"max_cache_gb" below what the pictures take, those in shards are streamed.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed_turns import Turns
from training_ours import ReadyLearner

from vitreous.core.config import merge
from vitreous.data.cache import decode_fitted
from vitreous.data.dataset import Dataset, open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess
from vitreous.recipes.configure import configure
from vitreous.training.config import RunConfig
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs


def open_pictures(folder: Path, side: int, max_cache_gb: float = 20.0) -> tuple[RunConfig, Dataset]:
    """What `vitreous train FOLDER --image-size SIDE` learns from, all of it for training."""
    listing = list_labelled(folder)
    cache = {"data": {"cache_dir": str(folder.parent / "cache"), "max_cache_gb": max_cache_gb}}
    choice = configure(
        folder, listing, image_size=side, changes=merge(cache, {"train": {"epochs": 10.0}})
    )
    config = choice.config
    return config, open_dataset(listing, config.data, config.preprocess, 0)


def prepare(settings: dict[str, Any]) -> tuple[Callable[[], object], int]:
    """A step, and the pictures in it."""
    folder, side = Path(settings["pictures"]), settings["side"]
    if settings["what"] == "photos":
        files = sorted(folder.glob("*/*.jpg"))
        preprocess = Preprocess(image_size=(side, side))
        return lambda: list(decode_fitted(files, preprocess)), len(files)
    config, dataset = open_pictures(folder, side, settings.get("max_cache_gb", 20.0))
    pictures, batch_size = dataset.sets["train"], config.train.batch_size
    if settings["what"] == "epochs":
        learner = ClassLearner(config, pictures, dataset.classes)
        count = len(pictures) // batch_size
        return lambda: [learner.inputs(step, 0.0) for step in range(count)], count * batch_size
    plan = plan_epochs(1.0, 1_000_000)
    if settings["what"] == "fixed":
        learner = ReadyLearner(config, pictures, dataset.classes).ready(batch_size)
    else:
        learner = ClassLearner(config, pictures, dataset.classes)
    return lambda: learner.learn(plan), batch_size


def main(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    step, count = prepare(settings)
    turns = Turns(count)
    while True:
        turns.begin()
        step()
        turns.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
