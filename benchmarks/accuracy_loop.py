"""The loop that trains every contender of `accuracy.py` that isn't the product.

It plans as the product does, with the product's own functions: measure a step and a validation,
fill the budget, stretch or shorten the rest where the machine's pace changes, validate the moving
average just as often, and keep its last weights unless those that validated best are better by more
than one standard error; looking at that takes nothing of the time here.
"""

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from accuracy_peers import Peer
from pace import Pace
from torch import Tensor, nn

from vitreous.core.rng import derive_seed, numpy_stream
from vitreous.core.threads import SideBySide
from vitreous.data.dataset import Dataset
from vitreous.data.loader import PictureSet
from vitreous.data.mixing import mix, smooth
from vitreous.data.preprocess import Preprocess
from vitreous.errors import TrainingError
from vitreous.evaluation.choose import simplest_within_one_error
from vitreous.evaluation.inference import TorchNetwork, predict_set
from vitreous.evaluation.score import evaluate_set
from vitreous.training.checkpoint import Best
from vitreous.training.config import TrainConfig
from vitreous.training.device import choose_device, choose_precision
from vitreous.training.ema import Ema
from vitreous.training.optim import parameter_groups
from vitreous.training.plan import (
    Plan,
    keep_budget,
    learning_rate_factor,
    plan_budget,
    plan_epochs,
)
from vitreous.training.shards import Shards, choose_shards


@dataclass(frozen=True)
class Trained:
    """What is left of a training, by the product or by the loop here.

    Args:
        kept: the weights to use.
        last: the weights at the end.
        keeps: whether those are the ones to use: "last", or "best".
        preprocess: from a picture to the input.
        steps: taken.
        epochs: passes over the training pictures.
        seconds: from start to end, everything included.
        curve: a row for each validation, seconds counted from the start.
        settings: how it was trained.
    """

    kept: nn.Module
    last: nn.Module
    keeps: str
    preprocess: Preprocess
    steps: int
    epochs: float
    seconds: float
    curve: list[dict[str, float]]
    settings: dict[str, Any]


class PeerLearner:
    """A peer's model that learns from its batches, step by step."""

    def __init__(self, peer: Peer, dataset: Dataset, seed: int) -> None:
        self.peer, self.seed, self.step = peer, seed, 0
        self.num_classes = len(dataset.classes)
        self.device = choose_device("auto")
        self.precision = choose_precision("auto", self.device)
        layout = torch.channels_last if peer.channels_last else torch.contiguous_format
        self.place = {"device": self.device, "memory_format": layout}
        torch.manual_seed(derive_seed(seed, "weights"))
        self.model = peer.build(self.num_classes).to(**self.place).train()
        self.ema = Ema(self.model)
        #: As the product: each thread takes a part of the batch, some of batch norm's pictures.
        parts = choose_shards(self.device, peer.batch_size, smallest=8)
        self.shards = Shards(self.model, SideBySide(parts))
        _, groups = parameter_groups(self.model, TrainConfig(weight_decay=peer.weight_decay))
        if peer.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        pictures = dataset.sets["train"]
        self.batches = peer.batches(pictures, peer.batch_size, seed)
        #: Annotators' shares where the pictures have them, as the product with soft_labels.
        self.targets = pictures.votes
        if self.targets is None:
            self.targets = F.one_hot(pictures.labels, self.num_classes).float()

    def learn(self, plan: Plan) -> Tensor:
        """Take the next step of the plan; the loss before it."""
        peer = self.peer
        inputs = self._batch(plan.progress(self.step))
        seed = derive_seed(self.seed, "dropout", self.step)
        torch.manual_seed(seed)
        loss = self.shards.backward(self._loss, inputs, seed)
        if math.isfinite(peer.clip_norm):
            nn.utils.clip_grad_norm_(self.model.parameters(), peer.clip_norm)
        rate = learning_rate_factor(plan.progress(self.step + 1), peer.warmup, final=0.0)
        for group in self.optimizer.param_groups:
            group["lr"] = peer.learning_rate * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.set_window(self.step, peer.ema * plan.total_steps)
        self.ema.update(self.model, torch.zeros((), device=self.device))
        self.step += 1
        return loss

    def _loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.precision, self.precision != torch.float32):
            logits = model(images)
        return F.cross_entropy(logits.float(), targets)

    def measure_step_s(self, plan: Plan) -> float:
        """Seconds of a step; the learner is of no use afterwards."""
        pace = Pace()
        while not pace.is_known:
            self.learn(plan).item()
            pace.note_step()
        return pace.step_s

    def _batch(self, progress: float) -> tuple[Tensor, Tensor]:
        images, positions = next(self.batches)
        images = images.to(**self.place)
        targets = smooth(self.targets[positions].to(self.device), self.peer.label_smoothing)
        mixing = self.peer.mixing
        if progress >= 1.0 - mixing.plain_share:
            return images, targets
        return mix(images, targets, mixing, numpy_stream(self.seed, "mix", self.step))


class _Diary:
    """Validates as the product does: the moving average, in float32; notes its best weights."""

    def __init__(self, peer: Peer, dataset: Dataset) -> None:
        self.peer, self.dataset = peer, dataset
        self.started = time.monotonic()
        self.steps_per_epoch = len(dataset.sets["train"]) / peer.batch_size
        self.curve: list[dict[str, float]] = []
        self.best: Best | None = None
        self.best_model: nn.Module | None = None
        self.validation_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the budget."""
        return time.monotonic() - self.started

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Scores on the validation pictures; how long that takes is kept."""
        began = time.monotonic()
        sets = self.dataset.sets
        score, _ = evaluate_set(
            TorchNetwork(model),
            sets["valid"],
            self.peer.preprocess,
            self.dataset.classes,
            sets["train"].majority_class,
        )
        self.validation_s = time.monotonic() - began
        return {
            "accuracy": score.accuracy.value,
            "balanced_accuracy": score.balanced_accuracy.value,
            "loss": score.loss,
        }

    def note(self, learner: PeerLearner, plan: Plan) -> None:
        """Validate, note the weights where they are the best so far, and say so."""
        model, step = learner.ema.model, learner.step
        score = self.validate(model)
        if not math.isfinite(score["loss"]):
            raise TrainingError(f"{self.peer.name}: the loss is not a number at step {step}")
        now = Best(step, score["balanced_accuracy"], score["loss"])
        if now.beats(self.best):
            self.best, self.best_model = now, copy.deepcopy(model)
        where = {"step": step, "epoch": step / self.steps_per_epoch}
        self.curve.append({**where, "seconds": round(self.elapsed_s, 2), **score})
        print(
            f"{self.peer.name} {self.elapsed_s:.0f} s, step {step} of {plan.total_steps}, "
            f"valid {score['accuracy']:.3f} balanced {score['balanced_accuracy']:.3f}",
            flush=True,
        )


def train_peer(peer: Peer, dataset: Dataset, seed: int, budget_s: float) -> Trained:
    """Train a peer to the end of the budget, which begins now."""
    peer.build(len(dataset.classes))  # imports what it needs before the clock starts
    diary = _Diary(peer, dataset)
    plan = _make_plan(peer, dataset, seed, budget_s, diary)
    learner = PeerLearner(peer, dataset, seed)
    most_steps = max(1, round(TrainConfig.epochs * diary.steps_per_epoch))
    began, pace_step = time.monotonic(), 0
    while learner.step < plan.total_steps:
        learner.learn(plan)
        at_end = learner.step == plan.total_steps
        if at_end or learner.step % plan.evaluate_every == 0:
            diary.note(learner, plan)
            began += diary.validation_s  # the pace of the steps leaves validations out
        if learner.step % plan.pace_every == 0 and not at_end:
            step_s = (time.monotonic() - began) / (learner.step - pace_step)
            left_s = budget_s - diary.elapsed_s - diary.validation_s
            plan = keep_budget(plan, learner.step, step_s, diary.validation_s, left_s, most_steps)
            began, pace_step = time.monotonic(), learner.step
    seconds = diary.elapsed_s
    kept = _choose(peer, dataset.sets["valid"], diary.best_model, learner.ema.model)
    return Trained(
        kept=kept,
        last=learner.ema.model,
        keeps="last" if kept is learner.ema.model else "best",
        preprocess=peer.preprocess,
        steps=learner.step,
        epochs=learner.step / diary.steps_per_epoch,
        seconds=seconds,
        curve=diary.curve,
        settings=peer.settings(),
    )


def _choose(peer: Peer, pictures: PictureSet, best: nn.Module | None, last: nn.Module) -> nn.Module:
    """The product's rule (`serving.calibrate.choose_weights`), with mirror images for everybody."""
    assert best is not None
    looks, labels = replace(peer.preprocess, mirror=True), pictures.labels.numpy()
    models = (last, best)
    ways = [predict_set(TorchNetwork(one), pictures, looks).argmax(1) == labels for one in models]
    return models[simplest_within_one_error(ways, labels)]


def _make_plan(peer: Peer, dataset: Dataset, seed: int, budget_s: float, diary: _Diary) -> Plan:
    """Measure a step and a validation, then fill what is left of the budget."""
    probe = PeerLearner(peer, dataset, seed)
    step_s = probe.measure_step_s(plan_epochs(TrainConfig.epochs, diary.steps_per_epoch))
    diary.validate(probe.ema.model)
    left = budget_s - diary.elapsed_s - diary.validation_s
    return plan_budget(left, step_s, diary.validation_s, diary.steps_per_epoch, TrainConfig.epochs)
