"""What the peers of `finetune.py` share: minutes, pictures, weights, and the loop of two of them.

A peer measures its pace and plans, so that its schedule ends within the minutes; where the machine
becomes slower or faster the rest is stretched, as the product's is. It validates once an epoch, or
ten times where there are more epochs (less often where that would take too much of the time), and
keeps the weights with the best balanced accuracy.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pace import Pace
from picture_links import labels_of, samples_of
from PIL import Image
from result_files import score
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision_operators import name_operators

from vitreous.data.folder import Listing, list_labelled
from vitreous.training.checkpoint import Best
from vitreous.training.plan import Plan, Stretch, keep_budget

#: Processes that read pictures; timm's default of 4 is for more cores than 2.
WORKERS = 2
MOST_VALIDATIONS = 10
#: Of the time, at most, as in the product.
VALIDATION_SHARE = 1 / 12

Transform = Callable[[Image.Image], Any]


@dataclass(frozen=True)
class Task:
    """What a peer's process is told.

    Args:
        folder: pictures below split and class.
        weights: the pretrained file, or its folder for transformers.
        model: what timm calls it.
        seed: of every random draw.
        budget_s: seconds from the start of the process to the end of training.
        started: value of `time.time` when the process was started.
    """

    folder: Path
    weights: Path
    model: str
    seed: int
    budget_s: float
    started: float

    def listing(self) -> Listing:
        """All pictures, in the order that they are scored in."""
        return list_labelled(self.folder)


def timm_model(weights: Path, name: str, num_classes: int | None = None) -> Any:
    """A pretrained model, as timm's train.py makes it of `--pretrained --pretrained-path`.

    Args:
        weights: the file.
        name: what timm calls the model.
        num_classes: of a new head; ``None`` keeps the old one.
    """
    name_operators()
    import timm

    overlay: dict[str, Any] = {"file": str(weights)}
    if num_classes is None:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    overlay["num_classes"] = -1  # of the file: so its head is always replaced
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes
    )


class Pictures(TorchDataset):
    """The files of a split, read as they are asked for, with their classes' numbers."""

    def __init__(self, listing: Listing, split: str, transform: Transform) -> None:
        self.transform = transform
        self.paths = [sample.path for sample in samples_of(listing, split)]
        self.labels = labels_of(listing, split)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[position]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[position])


@torch.inference_mode()
def answers(
    model: nn.Module, logits: Callable[[Tensor], Tensor], pictures: Pictures, mirror: bool
) -> np.ndarray:
    """Probabilities of pictures and, where wanted, of their mirror images.

    Args:
        model: is put into evaluation mode.
        logits: of a batch, by that model.
        pictures: with the transform of validation.
        mirror: whether mirror images are wanted.

    Shape:
        -> (1 or 2, pictures, classes)
    """
    model.eval()
    parts = []
    for images, _ in DataLoader(pictures, batch_size=64, num_workers=WORKERS):
        views = (images, images.flip(-1)) if mirror else (images,)
        parts.append([logits(view).float().softmax(1).cpu().numpy() for view in views])
    return np.concatenate(parts, axis=1)


class Diary:
    """A peer's minutes: its plan from now to their end, its validations, and the weights kept.

    Args:
        task: when the minutes began, and how many there are.
        steps_per_epoch: batches that hold every training picture once.
        step_s: measured seconds of a step.
        validation_s: measured seconds of a validation.
    """

    def __init__(
        self, task: Task, steps_per_epoch: int, step_s: float, validation_s: float
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._budget_s = task.budget_s
        self._began = time.monotonic() - (time.time() - task.started)
        self.step, self._validation_s = 0, validation_s
        self.curve: list[dict[str, float]] = []
        self.best: Best | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.plan = self._make_plan(step_s)
        self._restart_pace()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._began

    def _make_plan(self, step_s: float) -> Plan:
        """Fill what is left of the minutes."""
        left_s = self._budget_s - self.elapsed_s
        epochs = left_s / step_s / self.steps_per_epoch
        affordable = VALIDATION_SHARE * left_s / self._validation_s
        validations = max(1, int(min(MOST_VALIDATIONS, round(epochs), affordable)))
        total = max(1, int((left_s - validations * self._validation_s) / step_s))
        every = math.ceil(total / validations)
        return Plan((Stretch(0, 0.0, total),), every, step_s, self._validation_s)

    @property
    def progress(self) -> float:
        """Share of the schedule that lies behind."""
        return self.plan.progress(self.step)

    @property
    def is_over(self) -> bool:
        """Whether the schedule is at its end, or the minutes are over."""
        return self.step >= self.plan.total_steps or self.elapsed_s >= self._budget_s

    @property
    def is_due(self) -> bool:
        """Whether it is time to validate in the midst of the schedule."""
        return self.step % self.plan.evaluate_every == 0

    def note_step(self) -> None:
        """A step was taken; the plan is changed where the machine's pace has."""
        self.step += 1
        if self.is_over or self.step % self.plan.pace_every:
            return
        step_s = (time.monotonic() - self._pace_began) / (self.step - self._pace_step)
        left_s = self._budget_s - self.elapsed_s - self._validation_s
        self.plan = keep_budget(self.plan, self.step, step_s, self._validation_s, left_s, math.inf)
        self._restart_pace()

    def note_validation(self, found: dict[str, Any], model: nn.Module, seconds: float) -> None:
        """Keep a score, and the weights where they are the best so far."""
        self._validation_s = seconds
        self._pace_began += seconds  # the pace of the steps leaves validations out
        now = Best(self.step, found["balanced_accuracy"], found["loss"])
        if now.beats(self.best):
            self.best = now
            self.best_weights = {name: one.clone() for name, one in model.state_dict().items()}
        where = {"step": self.step, "epoch": self.step / self.steps_per_epoch}
        kept = {name: found[name] for name in ("accuracy", "balanced_accuracy", "loss")}
        self.curve.append({**where, "seconds": round(self.elapsed_s, 2), **kept})
        print(
            f"{self.elapsed_s:.0f} s, step {self.step} of {self.plan.total_steps}, valid "
            f"{kept['accuracy']:.3f} balanced {kept['balanced_accuracy']:.3f}",
            flush=True,
        )

    def _restart_pace(self) -> None:
        self._pace_began, self._pace_step = time.monotonic(), self.step


@dataclass(frozen=True)
class Trained:
    """What is left of a peer's training.

    Args:
        diary: with the curve and the weights kept.
        model: in which those weights are now.
        logits: of a batch, by that model.
        transform: from a picture to its input.
        seconds: from the start of the process.
        settings: how it was trained.
    """

    diary: Diary
    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    transform: Transform
    seconds: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class Learner:
    """A model in a plain loop of forward, backward and step.

    Args:
        model: that learns.
        batches: of inputs and labels, without end.
        steps_per_epoch: batches of an epoch.
        loss: from logits and labels.
        optimizer: of all weights.
        set_rate: from the share of the schedule behind to the rate of the next step.
        transform: of validation.
        precision: in which layers compute where they may.
        settings: to be written down.
    """

    model: nn.Module
    batches: Iterator[tuple[Tensor, Tensor]]
    steps_per_epoch: int
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    set_rate: Callable[[float], None]
    transform: Transform
    precision: torch.dtype
    settings: dict[str, Any]

    def logits(self, images: Tensor) -> Tensor:
        """Of a batch, on the model's device."""
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, self.precision, self.precision != torch.float32):
            return self.model(images.to(device)).float()

    def learn(self, progress: float) -> None:
        """Take a step, with this share of the schedule behind it."""
        self.set_rate(progress)
        self.model.train()
        images, labels = next(self.batches)
        logits = self.logits(images)
        self.loss(logits, labels.to(logits.device)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def train_in_loop(task: Task, make: Callable[[Task, Listing], Learner]) -> Trained:
    """Measure the pace with one learner, then train another one to the end of the minutes."""
    listing = task.listing()
    probe = make(task, listing)
    pace = Pace()
    while not pace.is_known:
        probe.learn(0.0)
        pace.note_step()
    _, validation_s = _validate(probe, listing)
    del probe
    learner = make(task, listing)
    diary = Diary(task, learner.steps_per_epoch, pace.step_s, validation_s)
    is_over = False
    while not is_over:
        learner.learn(diary.progress)
        diary.note_step()
        is_over = diary.is_over
        if is_over or diary.is_due:
            found, seconds = _validate(learner, listing)
            diary.note_validation(found, learner.model, seconds)
    seconds = diary.elapsed_s
    learner.model.load_state_dict(diary.best_weights)
    return Trained(
        diary, learner.model, learner.logits, learner.transform, seconds, learner.settings
    )


def _validate(learner: Learner, listing: Listing) -> tuple[dict[str, Any], float]:
    """Scores on the validation pictures, as they are, and the seconds that took."""
    began = time.monotonic()
    pictures = Pictures(listing, "valid", learner.transform)
    probabilities = answers(learner.model, learner.logits, pictures, mirror=False)[0]
    found = score(probabilities, pictures.labels, listing.classes)
    return found, time.monotonic() - began
