"""A worker: a peer of `finetune.py` trains in a process of its own, for its minutes.

    python benchmarks/finetune_peers.py '{"peer": "timm-script", "folder": ..., "out": ...}'

writes what it came to as OUT.json, and as OUT.npz its answers for the pictures that are scored.
Here are the two peers in a plain loop; the third is in `finetune_transformers`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm_defaults
import torch
from finetune_loop import (
    WORKERS,
    Learner,
    Pictures,
    Task,
    Trained,
    answers,
    timm_model,
    train_in_loop,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision_operators import name_operators

from vitreous.core.files import write_json
from vitreous.core.memory import keep_freed_memory
from vitreous.data.folder import Listing
from vitreous.training.device import choose_device
from vitreous.training.plan import learning_rate_factor


def timm_script(task: Task, listing: Listing) -> Learner:
    """The parts of timm put together as its train.py does, at that script's defaults."""
    name_operators()
    from timm.data.config import resolve_data_config
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.data.transforms_factory import create_transform
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler.scheduler_factory import create_scheduler_v2
    from timm.utils.random import random_seed

    random_seed(task.seed, 0)
    device = choose_device("auto")
    model = timm_model(task.weights, task.model, len(listing.classes)).to(device)
    prepared = resolve_data_config({}, model=model)
    dataset = create_dataset(
        "",
        root=str(task.folder),
        split="train",
        is_training=True,
        class_map={name: number for number, name in enumerate(listing.classes)},
    )
    # An incomplete batch is left out, so that fewer pictures than one batch would be none.
    batch_size = min(timm_defaults.BATCH_SIZE, len(dataset))
    loader = create_loader(
        dataset,
        input_size=prepared["input_size"],
        batch_size=batch_size,
        is_training=True,
        mean=prepared["mean"],
        std=prepared["std"],
        num_workers=WORKERS,
        device=device,
        **timm_defaults.TRANSFORM,
    )
    rate = timm_defaults.learning_rate(batch_size)
    optimizer = create_optimizer_v2(model, lr=rate, **timm_defaults.OPTIMIZER)
    # In updates, because few epochs fit; one of these is a three hundredth of the run.
    scheduler, length = create_scheduler_v2(
        optimizer, **timm_defaults.SCHEDULE, step_on_epochs=False, updates_per_epoch=1
    )
    changed = {
        "batch_size": batch_size,
        "lr": rate,
        "workers": WORKERS,
        "sched_on_updates": "true instead of false: its 300 epochs are squeezed into the minutes",
        "crop_pct": prepared["crop_pct"],
        "input_size": prepared["input_size"],
    }
    return Learner(
        model=model,
        batches=_endless(loader),
        steps_per_epoch=len(loader),
        loss=LabelSmoothingCrossEntropy(timm_defaults.SMOOTHING),
        optimizer=optimizer,
        set_rate=lambda progress: scheduler.step_update(progress * length),
        transform=create_transform(**prepared, is_training=False),
        precision=torch.float32,
        settings={"train.py's defaults": timm_defaults.ALL, "as run": changed},
    )


def plain_loop(task: Task, listing: Listing) -> Learner:
    """What many write themselves: timm's model, torchvision's transforms, AdamW, bfloat16."""
    name_operators()
    torch.manual_seed(task.seed)
    model = timm_model(task.weights, task.model, len(listing.classes)).to(choose_device("auto"))
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import v2 as transforms

    prepared = resolve_data_config({}, model=model)
    side = prepared["input_size"][-1]
    cover = int(side / prepared["crop_pct"])
    change = transforms.Compose([
        transforms.Resize(cover, transforms.InterpolationMode.BICUBIC),
        transforms.RandomCrop(side),
        transforms.RandomHorizontalFlip(),
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(prepared["mean"], prepared["std"]),
    ])  # fmt: skip
    rate, batch_size = 1e-4, 32
    pictures = Pictures(listing, "train", change)
    loader = DataLoader(
        pictures,
        batch_size=batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)

    def set_rate(progress: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(progress, warmup=0.0, final=0.0)

    return Learner(
        model=model,
        batches=_endless(loader),
        steps_per_epoch=len(loader),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        set_rate=set_rate,
        transform=create_transform(**prepared, is_training=False),
        precision=torch.bfloat16,
        settings={
            "optimizer": "torch.optim.AdamW at its defaults",
            "lr": rate,
            "schedule": "cosine to 0, no warm-up",
            "batch_size": batch_size,
            "transform": f"shorter side to {cover}, random crop of {side}, flip",
            "precision": "bfloat16 autocast",
            "workers": WORKERS,
            "crop_pct": prepared["crop_pct"],
            "input_size": prepared["input_size"],
        },
    )


def _endless(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _transformers_script(task: Task) -> Trained:
    from finetune_transformers import transformers_script

    return transformers_script(task)


PEERS: dict[str, Callable[[Task], Trained]] = {
    "timm-script": partial(train_in_loop, make=timm_script),
    "transformers-script": _transformers_script,
    "plain-224": partial(train_in_loop, make=plain_loop),
}


def main(told: dict[str, Any]) -> None:
    """Train, write down, and answer for the pictures that are scored."""
    keep_freed_memory()  # as the command does for ours
    peer, out = told.pop("peer"), Path(told.pop("out"))
    paths = {name: Path(told.pop(name)) for name in ("folder", "weights")}
    task = Task(**paths, **told)
    trained = PEERS[peer](task)
    listing = task.listing()
    split = "test" if any(sample.split == "test" for sample in listing.samples) else "valid"
    pictures = Pictures(listing, split, trained.transform)
    given = answers(trained.model, trained.logits, pictures, mirror=True)
    with out.with_suffix(".npz").open("wb") as stream:
        np.savez(stream, probabilities=given)
    diary = trained.diary
    result = {
        "parameters": sum(weight.numel() for weight in trained.model.parameters()),
        "image_size": list(pictures[0][0].shape[1:]),
        "steps": diary.step,
        "epochs": round(diary.step / diary.steps_per_epoch, 3),
        "seconds": round(trained.seconds, 1),
        "curve": diary.curve,
        "settings": trained.settings,
    }
    write_json(out.with_suffix(".json"), result)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
