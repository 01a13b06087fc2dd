"""Everything that a run says about itself, in numbers that can be judged.

Cheap: the log, the weights, the scores that there are, and a look at some hundred pictures. What
they mean is the business of `judge`.
"""

from dataclasses import dataclass

import numpy as np

from vitreous.diagnosis.course import Course
from vitreous.diagnosis.inside import Inside
from vitreous.evaluation.intervals import Interval, balanced_interval, proportion_interval


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the weights answer for some pictures.

    Args:
        n: pictures.
        accuracy: share of right answers.
        balanced: mean recall of the classes present, chance being one over their number.
        chance: that number's inverse.
        favourite: index of the class answered most often.
        favourite_share: of the answers.
    """

    n: int
    accuracy: Interval
    balanced: Interval
    chance: float
    favourite: int
    favourite_share: float

    @property
    def skill(self) -> float:
        """Balanced accuracy on a scale from chance, 0, to all right, 1."""
        return (self.balanced.value - self.chance) / (1 - self.chance)

    @property
    def is_guessing(self) -> bool:
        """Whether it isn't shown to tell the classes apart."""
        return self.balanced.low <= self.chance

    @classmethod
    def of(cls, answers: np.ndarray, labels: np.ndarray) -> "Answers":
        """Count them.

        Args:
            answers: index of the class answered.
            labels: of the true one.

        Shape:
            two of (pictures,)
        """
        right = answers == labels
        given = np.bincount(answers)
        return cls(
            n=len(labels),
            accuracy=proportion_interval(int(right.sum()), len(labels)),
            balanced=balanced_interval(right, labels),
            chance=1 / max(len(np.unique(labels)), 2),
            favourite=int(given.argmax()),
            favourite_share=float(given.max() / given.sum()),
        )


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of a run.

    Args:
        course: what the log says.
        counts: training pictures of each class.
        floor: lowest training loss that can be had without looking at the pictures, in nats.
        input_mean, input_std: of the normalised training pictures' values.
        likeness: how much of a training picture augmentation leaves, 1 for all of it (`gather`).
        parameters: of the model.
        leaked: pictures held back that are among the training pictures too.
        right_if_leaked, right_if_not: share of right answers for those and for the others.
        train: answers of the last weights for training pictures as they are; ``None``, as the
            rest, where the run left no weights.
        augmented: the same for some of those pictures as training sees them.
        held_out: answers of the best weights for the split that is scored.
        thumbnails: what a linear classifier of 8x8 pixels answers for that split.
        before, after: a look into the first and the last weights.
        step: size of a step at the highest rate, relative to the first weights.
        moved: how far the weights came, likewise.
    """

    course: Course
    counts: tuple[int, ...]
    floor: float
    input_mean: float
    input_std: float
    likeness: float
    parameters: int | None = None
    leaked: int = 0
    right_if_leaked: float | None = None
    right_if_not: float | None = None
    train: Answers | None = None
    augmented: Answers | None = None
    held_out: Answers | None = None
    thumbnails: Answers | None = None
    before: Inside | None = None
    after: Inside | None = None
    step: float | None = None
    moved: float | None = None
