"""What is asked of answers, whatever gives them."""

from dataclasses import dataclass

from vitreous.errors import ConfigError
from vitreous.serving.runtimes import Precision, Runtime
from vitreous.training.config import Device


@dataclass(frozen=True)
class Wish:
    """How pictures are to be answered.

    Args:
        runtime: what computes; ``None`` for what `tune` chose, or PyTorch.
        precision: of its matrix products.
        device: where PyTorch computes.
        sets: coverage of sets of classes; ``None`` for none.
        by_class: whether each class is to be covered as often.
        refuse: whether to say none of these.
    """

    runtime: Runtime | None = None
    precision: Precision = "float32"
    device: Device = "auto"
    sets: float | None = None
    by_class: bool = False
    refuse: bool = False

    def __post_init__(self) -> None:
        if self.by_class and self.sets is None:
            raise ConfigError(
                "by_class is about sets: name a share with it, such as sets=0.9 (--sets 0.9)"
            )
