"""Evaluations with known confusion matrices, for what is said and drawn of them."""

from collections.abc import Sequence

import numpy as np

from vitreous.evaluation.intervals import mean_share_interval, proportion_interval
from vitreous.evaluation.metrics import ClassScore, Evaluation

FACES = ("angry", "happy", "sad")


def scored(confusion: Sequence[Sequence[int]], classes: Sequence[str], majority=0) -> Evaluation:
    """An evaluation with exactly this confusion matrix."""
    counts = np.array(confusion)
    support, given, hits = counts.sum(1), counts.sum(0), counts.diagonal()
    per_class = {
        name: ClassScore(
            precision=float(hits[at] / max(given[at], 1)),
            recall=proportion_interval(int(hits[at]), int(support[at])),
            f1=float(2 * hits[at] / max(given[at] + support[at], 1)),
            support=int(support[at]),
        )
        for at, name in enumerate(classes)
    }
    present = support > 0
    chance = {"accuracy": 1 / len(classes), "balanced_accuracy": 1 / len(classes)}
    return Evaluation(
        n=int(counts.sum()),
        accuracy=proportion_interval(int(hits.sum()), int(counts.sum())),
        balanced_accuracy=mean_share_interval(hits[present].tolist(), support[present].tolist()),
        loss=0.5,
        classes=tuple(classes),
        per_class=per_class,
        confusion=tuple(tuple(map(int, row)) for row in counts),
        top_k={"2": proportion_interval(int(counts.sum()), int(counts.sum()))},
        baselines={
            "chance": chance,
            "majority": {
                "label": classes[majority],
                "accuracy": float(support[majority] / support.sum()),
                "balanced_accuracy": float(support[majority] > 0) / len(present),
            },
        },
    )


LEARNED = scored([[200, 30, 24], [14, 840, 26], [60, 57, 334]], FACES, majority=1)
TINY = scored([[9, 6, 5], [6, 8, 6], [5, 6, 9]], FACES)
MAJORITY = scored([[4, 90, 6], [12, 260, 8], [5, 90, 5]], FACES, majority=1)
UNEVEN = scored([[60, 20, 20], [80, 130, 70], [20, 20, 60]], FACES, majority=1)
WORSE = scored([[2, 9, 9], [9, 2, 9], [9, 9, 2]], FACES)
BELOW = scored([[60, 120, 120], [4, 8, 3], [4, 5, 6]], FACES)
RARE = scored([[40, 130, 130], [0, 15, 0], [0, 0, 15]], FACES, majority=1)
COLLAPSED = scored([[0, 323, 0], [0, 880, 0], [0, 382, 0]], FACES, majority=1)
ONE_CLASS = scored([[0, 0, 0], [3, 35, 2], [0, 0, 0]], FACES, majority=1)
PERFECT = scored([[20, 0], [0, 30]], ("cat", "dog"))


def many(classes: int) -> Evaluation:
    counts = np.random.default_rng(0).poisson(0.2, (classes, classes)) + 20 * np.eye(classes)
    return scored(
        counts.astype(int).tolist(), [f"bird_{at:03d}.Long_Name" for at in range(classes)]
    )
