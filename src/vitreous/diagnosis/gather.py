"""From a run's pictures, settings, log and weights to its signals."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vitreous.core.rng import numpy_stream, torch_stream
from vitreous.data.dataset import Dataset
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import normalise
from vitreous.data.transforms import augment
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.inside import look_inside
from vitreous.diagnosis.movement import relative_distance, relative_step
from vitreous.diagnosis.signals import Answers, Signals
from vitreous.evaluation.inference import BATCH_SIZE, TorchNetwork, predict_set, probabilities_of
from vitreous.evaluation.thumbnails import thumbnail_answers
from vitreous.model.vit import ViT
from vitreous.training.config import RunConfig

#: Training pictures that are looked at, and those of them that are looked at from inside.
SAMPLE, INSIDE = 512, 64


@dataclass(frozen=True)
class Weights:
    """What a run left, on the device that computes.

    Args:
        first: what it began with; ``None`` where that can't be had any more.
        best: what is scored.
        last: what it ended with.
    """

    first: ViT | None
    best: ViT
    last: ViT


def gather(
    config: RunConfig,
    dataset: Dataset,
    split: str,
    course: Course,
    weights: Weights | None,
    probabilities: np.ndarray | None = None,
    copies: Collection[int] | None = None,
) -> Signals:
    """Look at everything that costs little.

    Args:
        config: of the run.
        dataset: its pictures.
        split: the one that is scored.
        course: what its log says.
        weights: what it left; ``None`` where it stopped before there were any.
        probabilities: (pictures, classes) of the split, where they are known already.
        copies: positions in the split of pictures that training has too; ``None`` to find those
            with equal pixels.
    """
    train, held_out = dataset.sets["train"], dataset.sets[split]
    pixels, labels = train_sample(train, config.train.seed)
    images = normalise(pixels, config.preprocess)
    copies = exact_copies(dataset, split) if copies is None else copies
    thumbnails = thumbnail_answers(train, held_out, config.train.seed)
    found = Signals(
        course=course,
        counts=tuple(train.labels.bincount(minlength=len(dataset.classes)).tolist()),
        floor=blind_loss(train, config),
        input_mean=float(images.mean()),
        input_std=float(images.std()),
        leaked=len(copies),
        thumbnails=None
        if thumbnails is None
        else Answers.of(np.eye(len(dataset.classes))[thumbnails], held_out.labels.numpy()),
    )
    if weights is None:
        return found
    if probabilities is None:
        probabilities = predict_set(TorchNetwork(weights.best), held_out, config.preprocess)
    changed = augment(images, config.augment, torch_stream(config.train.seed, "augment", 0))
    right = probabilities.argmax(1) == held_out.labels.numpy()
    is_copy = np.isin(np.arange(len(held_out)), list(copies))
    few, classes = images[:INSIDE], labels[:INSIDE]
    last, first = weights.last, weights.first
    return replace(
        found,
        parameters=sum(weight.numel() for weight in last.parameters()),
        right_if_leaked=float(right[is_copy].mean()) if is_copy.any() else None,
        right_if_not=float(right[~is_copy].mean()) if not is_copy.all() else None,
        train=Answers.of(answer(weights.best, images), labels.numpy()),
        augmented=Answers.of(answer(weights.best, changed), labels.numpy()),
        held_out=Answers.of(probabilities, held_out.labels.numpy()),
        before=look_inside(first, few, classes) if first else None,
        after=look_inside(last, few, classes),
        step=relative_step(first.state_dict(), config.train) if first else None,
        moved=relative_distance(first.state_dict(), last.state_dict()) if first else None,
    )


def train_sample(train: PictureSet, seed: int) -> tuple[Tensor, Tensor]:
    """The training pictures that are looked at, and their classes.

    Shape:
        -> (pictures, height, width, 3) uint8, (pictures,)
    """
    return train.batch(numpy_stream(seed, "diagnosis").permutation(len(train))[:SAMPLE])


@torch.inference_mode()
def answer(model: ViT, images: Tensor) -> np.ndarray:
    """Probabilities for normalised pictures.

    Shape:
        (pictures, channels, height, width) -> (pictures, classes)
    """
    network = TorchNetwork(model)
    parts = [network(part.to(network.device)).cpu() for part in images.split(BATCH_SIZE)]
    return probabilities_of(torch.cat(parts)[:, None].numpy())


def exact_copies(dataset: Dataset, split: str) -> list[int]:
    """Positions in a split of pictures whose pixels a training picture has too."""
    prints = dataset.pixels.fingerprints
    known = {prints[row] for row in dataset.sets["train"].rows}
    return [at for at, row in enumerate(dataset.sets[split].rows) if prints[row] in known]


def blind_loss(train: PictureSet, config: RunConfig) -> float:
    """The lowest training loss that answers without looking at the pictures can have, in nats.

    The cross-entropy of the mean target with itself, each class with its weight.
    """
    count, settings = config.model.num_classes, config.train
    shares = train.labels.bincount(minlength=count).double() / len(train)
    weights = 1 / (count * shares) if settings.class_weights == "balanced" else torch.ones(count)
    if settings.soft_labels and train.votes is not None:
        shares = train.votes.double().mean(0)
    even = settings.label_smoothing / count
    mass = weights * (shares * (1 - settings.label_smoothing) + even)
    return -float(torch.special.xlogy(mass, mass / mass.sum()).sum())
