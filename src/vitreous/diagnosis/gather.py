"""From a run's pictures, settings, log and weights to its signals."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.memory import is_out_of_memory
from vitreous.core.rng import numpy_stream, torch_stream
from vitreous.data.dataset import Dataset, joining_prints
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.data.transforms import augment
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.inside import Inside, look_inside
from vitreous.diagnosis.movement import relative_distance, relative_step
from vitreous.diagnosis.signals import Answers, Signals
from vitreous.evaluation.inference import BATCH_SIZE, TorchNetwork, predict_set
from vitreous.evaluation.thumbnails import SIDE
from vitreous.model.vit import ViT
from vitreous.training.config import RunConfig
from vitreous.training.device import free_memory

#: Training pictures that are looked at, those of them that are augmented too, and those that are
#: looked at from inside.
SAMPLE, AUGMENTED, INSIDE = 512, 128, 64


@dataclass(frozen=True)
class Weights:
    """A run's weights, on the device that computes; ``None`` for those that can't be had.

    Args:
        first: what it began with.
        best: what is scored.
        last: what it ended with.
    """

    first: ViT | None = None
    best: ViT | None = None
    last: ViT | None = None


def gather(
    config: RunConfig,
    dataset: Dataset,
    split: str,
    course: Course,
    weights: Weights,
    probabilities: np.ndarray | None = None,
    thumbnails: np.ndarray | None = None,
    copies: Collection[int] | None = None,
) -> Signals:
    """Look at everything that costs little.

    Args:
        config: of the run.
        dataset: its pictures.
        split: the one that is scored.
        course: what its log says.
        weights: what it left.
        probabilities: (pictures, classes) of the split; by default the best weights are asked.
        thumbnails: answers of the yardstick that hardly looks, for the same pictures.
        copies: positions in the split of pictures that training has too; by default those with
            equal pixels.
    """
    train, held_out = dataset.sets["train"], dataset.sets[split]
    seed, truth = config.train.seed, held_out.labels.numpy()
    pixels, labels = train_sample(train, seed)
    images = normalise(pixels[:AUGMENTED], config.preprocess)
    changed = augment(images, config.augment, torch_stream(seed, "augment", 0))
    if copies is None:
        copies = exact_copies(dataset, split)
    if probabilities is None and weights.best:
        probabilities = predict_set(TorchNetwork(weights.best), held_out, config.preprocess)
    found = Signals(
        course=course,
        counts=tuple(train.labels.bincount(minlength=len(dataset.classes)).tolist()),
        floor=blind_loss(train, config),
        input_mean=float(images.mean()),
        input_std=float(images.std()),
        likeness=likeness(images, changed),
        leaked=len(copies),
    )
    if thumbnails is not None:
        found = replace(found, thumbnails=Answers.of(thumbnails, truth))
    if probabilities is not None:
        answers = probabilities.argmax(1)
        right, is_copy = answers == truth, np.isin(range(len(truth)), list(copies))
        found = replace(
            found,
            held_out=Answers.of(answers, truth),
            right_if_leaked=float(right[is_copy].mean()) if is_copy.any() else None,
            right_if_not=float(right[~is_copy].mean()) if not is_copy.all() else None,
        )
    if last := weights.last:
        found = replace(
            found,
            parameters=sum(weight.numel() for weight in last.parameters()),
            train=Answers.of(_answers(last, pixels, config.preprocess), labels.numpy()),
            augmented=Answers.of(_answers(last, changed), labels[:AUGMENTED].numpy()),
            after=_inside(last, images, labels),
        )
    if first := weights.first:
        began = first.state_dict()
        found = replace(
            found,
            before=_inside(first, images, labels),
            step=relative_step(began, config.train),
            moved=relative_distance(began, last.state_dict()) if last else None,
        )
    return found


def _inside(model: ViT, images: Tensor, labels: Tensor) -> Inside:
    """A look at as many pictures as memory allows: training may have taken them in pieces."""
    device, count = next(model.parameters()).device, INSIDE
    while True:
        try:
            return look_inside(model, images[:count].to(device), labels[:count].to(device))
        except (RuntimeError, MemoryError) as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        count //= 2
        free_memory()


def cost_in_pictures(train_pictures: int) -> int:
    """What `gather` costs at most behind training, counted in pictures answered.

    The sample, some of it augmented, and two looks inside with gradients.
    """
    return min(train_pictures, SAMPLE) + AUGMENTED + 2 * 4 * INSIDE


def train_sample(train: PictureSet, seed: int) -> tuple[Tensor, Tensor]:
    """The training pictures that are looked at, and their classes.

    Shape:
        -> (pictures, height, width, 3) uint8, (pictures,)
    """
    return train.batch(numpy_stream(seed, "diagnosis").permutation(len(train))[:SAMPLE])


@torch.inference_mode()
def _answers(model: ViT, pictures: Tensor, preprocess: Preprocess | None = None) -> np.ndarray:
    """Classes for normalised pictures, or for pixels and how they are prepared."""
    network, answers = TorchNetwork(model), []
    for part in pictures.split(BATCH_SIZE):
        images = normalise(part, preprocess) if preprocess else part
        answers.append(network(images.to(network.device)).argmax(1).cpu())
    return torch.cat(answers).numpy()


def exact_copies(dataset: Dataset, split: str, known: Sequence[str] = ("train",)) -> list[int]:
    """Positions in a split of pictures whose pixels a picture of the known splits has too."""
    samples, pixels = dataset.listing.samples, dataset.pixels
    prints = joining_prints(samples, pixels, range(len(samples)))
    taken = {prints[row] for name in known for row in dataset.sets[name].rows} - {""}
    return [at for at, row in enumerate(dataset.sets[split].rows) if prints[row] in taken]


def blind_loss(train: PictureSet, config: RunConfig) -> float:
    """The lowest training loss that answers without looking at the pictures can have, in nats.

    The cross-entropy of the mean target with itself, each picture with its class' weight.
    """
    count, settings = config.model.num_classes, config.train
    shares = train.labels.bincount(minlength=count).double() / len(train)
    weights = torch.ones(count, dtype=torch.float64)
    if settings.class_weights == "balanced":
        weights = 1 / (count * shares.clamp(min=1 / len(train)))
    mass = weights * shares
    if settings.soft_labels and train.votes is not None:
        votes = train.votes.double()
        mass = (votes @ weights) @ votes / len(votes)
    even = settings.label_smoothing / count * mass.sum()
    return blind_entropy(mass * (1 - settings.label_smoothing) + even)


def blind_entropy(mass: Tensor) -> float:
    """Cross-entropy of targets with their own shares, in nats.

    Args:
        mass: of each class, its weight times its share.
    """
    return -float(torch.special.xlogy(mass, mass / mass.sum()).sum())


def likeness(images: Tensor, changed: Tensor) -> float:
    """How much augmented pictures still have of their own originals, beyond any other picture.

    The mean correlation of thumbnails: 1 where nothing is changed, 0 where an augmented picture is
    as much like every other picture as like its own. A mirror image counts as the original.

    Shape:
        (pictures, channels, height, width) twice
    """
    originals = _thumbnails(images)
    seen = torch.maximum(
        _thumbnails(changed) @ originals.T, _thumbnails(changed) @ _thumbnails(images.flip(-1)).T
    )
    count = len(images)
    own = seen.diagonal().mean()
    others = (seen.sum() - seen.diagonal().sum()) / max(count * (count - 1), 1)
    return float((own - others) / (1 - others))


def _thumbnails(images: Tensor) -> Tensor:
    small = F.adaptive_avg_pool2d(images, SIDE).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)
