"""From pictures as a model gets them to their explanations, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import torch

from vitreous.core.config import did_you_mean
from vitreous.core.threads import SideBySide
from vitreous.data.cache import Progress
from vitreous.data.preprocess import normalise
from vitreous.errors import ConfigError
from vitreous.evaluation.inference import BATCH_SIZE, TorchNetwork, predict_pixels
from vitreous.evaluation.intervals import sample_interval
from vitreous.explanation.capture import capture
from vitreous.explanation.faithfulness import Faithfulness, blur, chance_gain, measure
from vitreous.explanation.methods import METHOD_NAMES, MethodName, Named
from vitreous.explanation.places import places, to_patches
from vitreous.explanation.result import Check, Explanation, Map
from vitreous.explanation.rollout import attention_by_head
from vitreous.explanation.sanity import similarity
from vitreous.training.classifier import Classifier

#: Pictures on which weights are shuffled: how alike maps are depends on the model, hardly on them.
_SHUFFLED_PICTURES = 4
#: Classes named where one is unknown.
_NAMES = 20


@dataclass(frozen=True)
class Question:
    """What to explain, and how.

    Args:
        methods: to try.
        keep_all: whether those that fail their check are kept; otherwise only the first is, where
            all fail.
        label: class to explain; ``None`` for each picture's most probable one.
        layer: of "attention": block counted from 1; ``None`` for what is looked at last.
        head: of "attention": counted from 1; ``None`` for the mean of all.
    """

    methods: tuple[MethodName, ...] = METHOD_NAMES
    keep_all: bool = False
    label: str | None = None
    layer: int | None = None
    head: int | None = None

    @classmethod
    def of(
        cls,
        method: MethodName | Literal["all"] | None,
        label: str | None,
        layer: int | None,
        head: int | None,
    ) -> "Question":
        """From what a person names; a layer or a head is one of "attention".

        Raises:
            ConfigError: for an unknown method, or one that has no layers and heads.
        """
        if method is None and (layer is not None or head is not None):
            method = "attention"
        if method not in (None, "all", *METHOD_NAMES):
            known = did_you_mean(method, ("all", *METHOD_NAMES))
            raise ConfigError(f"unknown method '{method}': {known}")
        if method != "attention" and (layer is not None or head is not None):
            raise ConfigError(f"a layer or a head is one of the method 'attention', not '{method}'")
        methods = METHOD_NAMES if method in (None, "all") else (method,)
        return cls(methods, method is not None, label, layer, head)

    def check(self, classifier: Classifier) -> None:
        """Refuse what a model doesn't have.

        Raises:
            ConfigError: naming what it has.
        """
        if self.label is not None and self.label not in classifier.classes:
            # Of a thousand names only the nearest help.
            near = get_close_matches(self.label, classifier.classes, n=_NAMES, cutoff=0)
            raise ConfigError(f"unknown class '{self.label}': {did_you_mean(self.label, near)}")
        config = classifier.model.config
        for what, number, count in (
            ("layer", self.layer, config.depth),
            ("head", self.head, config.num_heads),
        ):
            if number is not None and not 1 <= number <= count:
                raise ConfigError(f"{what} {number}: the model has {count}, counted from 1")

    def method(self, name: MethodName, mirror: bool) -> Named:
        """One of the methods, as a model has to be asked.

        Args:
            name: of the method.
            mirror: whether the answer is the mean over a picture and its mirror image. What one
                block or head looks at is shown of the picture alone, as `Explanation.heads` is.
        """
        layer, head = (None if number is None else number - 1 for number in (self.layer, self.head))
        return Named(name, layer, head, mirror and layer is None and head is None)


class Explainer:
    """A classifier that can be asked why, one picture after another.

    Args:
        classifier: its model is in evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._network = TorchNetwork(classifier.model)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """What `predict` answers.

        Shape:
            (pictures, height, width, 3) uint8 -> (pictures, classes)
        """
        threads = SideBySide(self._network.side_by_side)
        batches = torch.from_numpy(pictures).split(max(1, BATCH_SIZE // threads.count))

        def answer(batch: torch.Tensor) -> np.ndarray:
            return predict_pixels(self._network, batch, self.classifier.preprocess)

        return np.concatenate(threads.map(answer, batches))

    def maps(self, methods: Sequence[Named], picture: np.ndarray, target: int) -> dict[str, Map]:
        """How much each pixel counts for a class by some methods, and how faithful that is.

        Shape:
            (height, width, 3) uint8
        """
        found = [(method.name, self.map(method, picture, target)) for method in methods]
        patch_size = self.classifier.model.config.patch_size
        importance = [
            to_patches(torch.from_numpy(values)[None], patch_size)[0].numpy() for _, values in found
        ]
        measured = measure(
            lambda pictures: self.probabilities(pictures)[:, target],
            picture,
            importance,
            patch_size,
        )
        return {
            name: Map(values, faithfulness)
            for (name, values), faithfulness in zip(found, measured, strict=True)
        }

    def map(self, method: Named, picture: np.ndarray, target: int) -> np.ndarray:
        """How much each pixel counts for a class; the largest value, either way, is 1.

        Shape:
            (height, width, 3) uint8 -> (height, width) float32
        """
        inputs = self._inputs([picture], [target])
        values = method(self.classifier.model, *inputs)[0].detach().cpu().numpy()
        return values / max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny))

    def check(
        self,
        method: Named,
        pictures: Sequence[np.ndarray],
        targets: Sequence[int],
        found: Sequence[Faithfulness],
    ) -> Check:
        """Whether a method shows what this model goes by, from what was measured on pictures."""
        some = slice(_SHUFFLED_PICTURES)
        inputs = self._inputs(pictures[some], targets[some])
        return Check(
            gain=sample_interval([each.gain for each in found], -0.5, 0.5),
            luck=chance_gain(found),
            alike=similarity(method, self.classifier.model, *inputs),
        )

    def heads(self, picture: np.ndarray) -> torch.Tensor:
        """What each head of each block looks at.

        Shape:
            (height, width, 3) uint8 -> (layers, heads, patches)
        """
        images, _, _ = self._inputs([picture], [0])
        model = self.classifier.model
        return attention_by_head(model, capture(model, images, gradients=False))[0].cpu()

    def _inputs(
        self, pictures: Sequence[np.ndarray], targets: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures, the same blurred, and classes, where the model is."""
        patch_size = self.classifier.model.config.patch_size
        sharp, blurred = (
            normalise(torch.from_numpy(np.stack(each)), self.classifier.preprocess)
            for each in (pictures, [blur(picture, patch_size) for picture in pictures])
        )
        device = self._network.device
        return sharp.to(device), blurred.to(device), torch.tensor(targets, device=device)


def explain_pictures(
    classifier: Classifier,
    files: Sequence[str],
    pictures: Sequence[np.ndarray],
    question: Question,
    on_progress: Progress | None = None,
) -> tuple[tuple[Explanation, ...], dict[str, Check]]:
    """Explain a classifier's answers to some pictures, and check the methods on them.

    Args:
        classifier: its model is in evaluation mode.
        files: names of the pictures.
        pictures: as the model gets them.
        question: one that fits the classifier (see `Question.check`).
        on_progress: called with a description, the pictures done and their total.

    Returns:
        An explanation for each picture, and what came of each method that was tried, the most
        faithful first.

    Shape:
        pictures: (height, width, 3) uint8 each
    """
    if not pictures:
        return (), {}
    explainer = Explainer(classifier)
    probabilities = explainer.probabilities(np.stack(pictures))
    targets = probabilities.argmax(1).tolist()
    if question.label is not None:
        targets = [classifier.classes.index(question.label)] * len(pictures)
    methods = [question.method(name, classifier.preprocess.mirror) for name in question.methods]
    maps: list[dict[str, Map]] = []
    for picture, target in zip(pictures, targets, strict=True):
        if on_progress:
            on_progress("explaining", len(maps), len(pictures))
        maps.append(explainer.maps(methods, picture, target))
    if on_progress:
        on_progress("explaining", len(maps), len(pictures))
    checks: dict[str, Check] = {}
    for method in methods:
        if on_progress:
            on_progress("checking", len(checks), len(methods))
        found = [made[method.name].faithfulness for made in maps]
        checks[method.name] = explainer.check(method, pictures, targets, found)
    if on_progress:
        on_progress("checking", len(checks), len(methods))
    best_first = sorted(checks, key=lambda name: -checks[name].gain.value)
    kept = [name for name in best_first if question.keep_all or checks[name].passed]
    kept = kept or [question.methods[0]]
    explanations = tuple(
        Explanation(
            file=file,
            picture=picture,
            probabilities=dict(zip(classifier.classes, row.tolist(), strict=True)),
            label=classifier.classes[target],
            maps={name: made[name] for name in kept},
            checks={name: checks[name] for name in kept},
            heads=explainer.heads(picture),
            places=places(classifier.model.config, (picture.shape[0], picture.shape[1])),
        )
        for file, picture, row, target, made in zip(
            files, pictures, probabilities, targets, maps, strict=True
        )
    )
    return explanations, {name: checks[name] for name in best_first}
