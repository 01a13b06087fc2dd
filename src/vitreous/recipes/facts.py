"""What a recipe is told, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.encoder import Encoder

#: With neither epochs nor a budget named, a run ends after this many seconds at the latest.
DEFAULT_BUDGET_S = 20 * 60.0

#: What is left of a budget for training, beside decoding, probing, validation and the report.
TRAINING_SHARE = 0.9


@dataclass(frozen=True)
class Facts:
    """The pictures in numbers, and the time there is.

    Args:
        source: the folder or table, as it will be opened again.
        num_pictures: to be trained on, nearly: those that will be held back aren't chosen yet.
        num_classes: of them.
        typical_side: median shorter side in pixels.
        image_size: side in pixels that the model sees, where it was named.
        epochs: passes over the pictures asked for; with a budget, the most there may be.
        budget_s: seconds from start to end; ``None`` for epochs alone.
        trainings: that share these seconds, one behind the other.
        embed_dim: width of the model, where a model was named.
        init: path of the weights to begin with.
        encoder: those weights.
        rungs: of the ladder, where some were named.
        pictures_per_s: measures how many pictures a second this machine learns from with a
            configuration, with what was named laid over it; only asked where there is a budget, so
            that epochs need no clock.
    """

    source: str
    num_pictures: int
    num_classes: int
    typical_side: int
    image_size: int | None = None
    epochs: float = TrainConfig.epochs
    budget_s: float | None = None
    trainings: int = 1
    embed_dim: int | None = None
    init: str | None = None
    encoder: Encoder | None = None
    rungs: tuple[str, ...] | None = None
    pictures_per_s: Callable[[RunConfig], float] | None = None

    @property
    def learning_s(self) -> float | None:
        """Seconds that one training has for its steps; ``None`` without a budget."""
        return None if self.budget_s is None else TRAINING_SHARE * self.budget_s / self.trainings


@dataclass(frozen=True)
class Reason:
    """Why a recipe chose some settings.

    Args:
        settings: their dotted names, such as "model.depth".
        why: half a sentence.
    """

    settings: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Choice:
    """All settings of a run, with reasons for those that the pictures and the machine decided.

    Args:
        config: every setting.
        reasons: in the order in which they were decided.
    """

    config: RunConfig
    reasons: tuple[Reason, ...] = ()

    def applied_to(self, config: RunConfig) -> "Choice":
        """What came of it once a person's own settings lay over the recipe's."""
        reasons = []
        for reason in self.reasons:
            recipe, final = _values(self.config, reason), _values(config, reason)
            why = reason.why if recipe == final else f"named; the recipe would take {recipe}"
            reasons.append(replace(reason, why=why))
        return Choice(config, tuple(reasons))

    def rows(self) -> list[tuple[str, str, str]]:
        """Settings, their values and why, as text."""
        return [
            (", ".join(reason.settings), _values(self.config, reason), reason.why)
            for reason in self.reasons
        ]


def _values(config: RunConfig, reason: Reason) -> str:
    texts = []
    for name in reason.settings:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        texts.append("x".join(map(str, value)) if isinstance(value, tuple) else f"{value}")
    return ", ".join(texts)


def batch_size(num_pictures: int, most: int) -> int:
    """The most, or less where an epoch would have fewer than eight steps, but at least 16."""
    size = most
    while size > 16 and num_pictures < 8 * size:
        size //= 2
    return size
