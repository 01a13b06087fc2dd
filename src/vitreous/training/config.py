"""Every setting of a run, in one frozen tree that is written to `config.toml`."""

from dataclasses import dataclass, field
from typing import Literal

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are learned.

    Args:
        epochs: passes over the training pictures; with a budget, the most there may be.
        budget_s: seconds from the command's start to its end; ``None`` for epochs alone.
        seed: of every random draw.
        batch_size: pictures in a step.
        learning_rate: highest rate, reached after the warm-up.
        final_learning_rate: last rate of the cosine, as a share of the highest.
        warmup: share of the steps in which the rate rises from 0.
        optimizer: "adamw", or "keras_adam": the same with Keras' epsilon (see `optim`).
        weight_decay: decoupled, on weight matrices only (not biases, norms, tokens, positions).
        betas: of the moments.
        clip_norm: largest norm of the gradient of all weights together; ``inf`` for any.
        label_smoothing: share of each target spread evenly over the classes.
        class_weights: "balanced" weighs each class' loss by the inverse of its frequency.
        ema: window of the weights' moving average as a share of all steps; 0 for none.
        precision: of the forward and backward pass; "auto" is bfloat16 where the device computes
            it natively. Weights, optimiser and validation are float32.
        device: "auto" takes CUDA, then MPS, then the CPU.
    """

    epochs: float = 300.0
    budget_s: float | None = None
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 5e-4
    final_learning_rate: float = 0.01
    warmup: float = 0.1
    optimizer: Literal["adamw", "muon", "keras_adam"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    class_weights: Literal["none", "balanced"] = "none"
    ema: float = 0.02
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it is above 0")
        if self.budget_s is not None and self.budget_s <= 0:
            raise ConfigError(f"train.budget_s is {self.budget_s}: it is above 0")
        for name in ("warmup", "label_smoothing", "ema"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it lies in [0, 1)")


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Args:
        recipe: name of the function in `vitreous.recipes` that chose the settings.
        data: where the pictures are.
        model: the architecture.
        preprocess: from a picture to the model's input.
        augment: random changes to training pictures.
        train: how the weights are learned.
    """

    recipe: str
    data: DataConfig
    model: ModelConfig
    preprocess: Preprocess
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.model.image_size != self.preprocess.image_size:
            raise ConfigError(
                f"model.image_size {self.model.image_size} and preprocess.image_size "
                f"{self.preprocess.image_size} differ: set both"
            )
        if self.model.in_channels != 3:
            raise ConfigError(f"model.in_channels is {self.model.in_channels}: pictures are RGB, 3")
