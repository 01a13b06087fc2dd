"""From probabilities and true labels to an evaluation that can be shown and sent."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vitreous.evaluation.intervals import Interval, balanced_interval, proportion_interval
from vitreous.evaluation.reliability import Reliability


@dataclass(frozen=True)
class ClassScore:
    """One class: how often it is found, and how often its name is right when given.

    Args:
        precision: share of the pictures given this class that have it; 0 where none was given.
        recall: share of the pictures that have this class that were given it.
        f1: harmonic mean of the two.
        support: pictures that have this class.
    """

    precision: float
    recall: Interval
    f1: float
    support: int


@dataclass(frozen=True)
class Untempered:
    """What it would be without the temperature that the head was divided by.

    Args:
        temperature: above 1 the model was too sure, below not sure enough.
        loss: mean negative log-likelihood in nats.
        ece: expected calibration error.
    """

    temperature: float
    loss: float
    ece: Interval


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a set of labelled pictures.

    Args:
        n: pictures evaluated, the unreadable ones not among them.
        accuracy: share of right answers.
        balanced_accuracy: mean recall of the classes present.
        loss: mean negative log-likelihood in nats.
        classes: names in the model's output order.
        per_class: scores by class name.
        confusion: pictures by true class (rows) and answered class (columns).
        top_k: share of pictures with the true class among the k likeliest, by k; only k below
            the number of classes.
        baselines: accuracy and balanced accuracy of answers that don't look at the picture
            ("chance", "majority"), or hardly do ("thumbnails", where there were training pictures).
        unreadable: files that could not be decoded, with the reason; they count as nothing.
        reliability: whether the probabilities can be taken at their word.
        untempered: the same without a temperature; ``None`` where none was fitted.
        chose_weights: whether these are the validation pictures, which also chose the weights and
            the temperature: then it is a little optimistic.
    """

    n: int
    accuracy: Interval
    balanced_accuracy: Interval
    loss: float
    classes: tuple[str, ...]
    per_class: Mapping[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]
    top_k: Mapping[str, Interval]
    baselines: Mapping[str, Mapping[str, Any]]
    unreadable: tuple[Mapping[str, str], ...] = ()
    reliability: Reliability | None = None
    untempered: Untempered | None = None
    chose_weights: bool = False

    def with_baseline(self, name: str, answers: np.ndarray, labels: np.ndarray) -> "Evaluation":
        """The same with one more answer to be held against.

        Shape:
            answers, labels: (pictures,)
        """
        right = answers == labels
        scores = {
            "accuracy": float(right.mean()),
            "balanced_accuracy": float(np.mean([right[labels == k].mean() for k in set(labels)])),
        }
        return replace(self, baselines={**self.baselines, name: scores})

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; undefined numbers (an absent class) become ``None``."""
        return _without_nan(asdict(self))


def evaluate_probabilities(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    majority_class: int | None,
    unreadable: Sequence[Mapping[str, str]] = (),
) -> Evaluation:
    """Score predicted probabilities against the truth.

    Args:
        probabilities: each row sums to 1.
        labels: true class index of each row.
        classes: names in index order.
        majority_class: the most frequent class in training, for the baseline; ``None`` for the most
            frequent one here.
        unreadable: ``{"file", "error"}`` of files left out.

    Shape:
        (n, classes), (n,) with n at least 1
    """
    # It takes a second to import, and predicting needs none of it.
    from sklearn.metrics import confusion_matrix

    answers = probabilities.argmax(1)
    if majority_class is None:
        majority_class = int(np.bincount(labels).argmax())
    confusion = confusion_matrix(labels, answers, labels=np.arange(len(classes)))
    per_class = _class_scores(confusion, labels, answers, classes)
    present = int(np.count_nonzero(confusion.sum(1)))
    return Evaluation(
        n=len(labels),
        accuracy=proportion_interval(int(np.trace(confusion)), len(labels)),
        balanced_accuracy=balanced_interval(answers == labels, labels),
        loss=negative_log_likelihood(probabilities, labels),
        classes=tuple(classes),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        top_k=_top_k(probabilities, labels, len(classes)),
        baselines=_baselines(confusion, classes, majority_class, present),
        unreadable=tuple(unreadable),
    )


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the pictures in nats.

    Shape:
        (pictures, classes), (pictures,)
    """
    given_to_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    # Float32 has nothing between 0 and this; a certain and wrong answer stays finite.
    return float(-np.log(given_to_truth.clip(np.finfo(np.float32).tiny)).mean())


def _class_scores(
    confusion: np.ndarray, labels: np.ndarray, answers: np.ndarray, classes: Sequence[str]
) -> dict[str, ClassScore]:
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(
        labels,
        answers,
        labels=np.arange(len(classes)),
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    precision, _, f1, support = map(np.asarray, scores)
    return {
        name: ClassScore(
            precision=float(precision[index]),
            recall=proportion_interval(int(confusion[index, index]), int(support[index])),
            f1=float(f1[index]),
            support=int(support[index]),
        )
        for index, name in enumerate(classes)
    }


def _top_k(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Interval]:
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    # Of classes that are as likely the first counts, as in the answer itself.
    before = (probabilities == own) & (np.arange(classes) < labels[:, None])
    places = ((probabilities > own) | before).sum(1)
    return {
        str(k): proportion_interval(int((places < k).sum()), len(labels))
        for k in (2, 5)
        if k < classes
    }


def _baselines(
    confusion: np.ndarray, classes: Sequence[str], majority_class: int, present: int
) -> dict[str, dict[str, Any]]:
    """What guessing evenly and always giving training's most frequent class would score."""
    support = confusion.sum(1)
    total = max(int(support.sum()), 1)
    return {
        "chance": {"accuracy": 1 / len(classes), "balanced_accuracy": 1 / len(classes)},
        "majority": {
            "label": classes[majority_class],
            "accuracy": float(support[majority_class] / total),
            "balanced_accuracy": float(support[majority_class] > 0) / max(present, 1),
        },
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
