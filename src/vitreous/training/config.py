"""Every setting of a run, in one frozen tree that is written to `config.toml`."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig

#: "auto" takes CUDA, then MPS, then the CPU.
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are learned.

    Args:
        epochs: passes over the training pictures; with a budget, the most there may be.
        budget_s: seconds from the command's start to its end; ``None`` for epochs alone.
        seed: of every random draw.
        batch_size: pictures in a step.
        shards: parts of a batch that threads of a CPU work on side by side (see `shards`).
        accumulate: pieces of a batch that are computed one after the other, for less memory; the
            same result but for rounding, for the draws of dropout, and for batch norm, whose
            statistics are then of a piece. More where memory turns out to be too small.
        learning_rate: highest rate, reached after the warm-up.
        final_learning_rate: last rate of the cosine, as a share of the highest.
        layer_decay: what each block's rate is of the next one's, the head's being the whole rate
            (Bao et al. 2022, "BEiT", appendix); 1 for one rate.
        warmup: share of the steps in which the rate rises from 0.
        optimizer: "adamw"; "muon" for the blocks' matrices and AdamW for the rest; or
            "keras_adam": AdamW with Keras' epsilon (see `optim`).
        weight_decay: decoupled, on weight matrices only (not biases, norms, tokens, positions).
        betas: of AdamW's moments.
        clip_norm: largest norm of the gradient of all weights together; ``inf`` for any.
        label_smoothing: share of each target spread evenly over the classes.
        soft_labels: learn the shares of several annotators (a table's columns `votes_<class>`)
            instead of the label alone.
        class_weights: "balanced" weighs each class' loss by the inverse of its frequency.
        lora_rank: the blocks' matrices stay as they are and low-rank updates beside them are
            learned (see `model.lora`); 0 learns all weights.
        ema: window of the weights' moving average as a share of all steps, at most a half; 0 for
            none.
        grad_checkpointing: keep only the inputs of the model's blocks for the way back and compute
            the rest anew: much less memory, about a third more time, the same result.
        compile: fuse the operations of each block by `torch.compile` first, which takes some
            seconds, on a CPU a C++ compiler and one part of the batch; the same result but for
            rounding. `recipes.configure` does so on an NVIDIA GPU.
        precision: of the forward and backward pass and of Muon's products; "auto" is bfloat16 where
            the device computes it natively. Weights, moments and validation are float32.
        device: "auto" takes CUDA, then MPS, then the CPU.
        deterministic: on a GPU add in the same order every time, so that a run ends in the same
            bits each time, resumed or not; slower. On a CPU that is so anyway.
        parallel: what several processes of one training do (see `distributed`): "ddp" has each
            compute a part of every batch, "fsdp" also keep only a part of all weights and moments,
            "none" leaves all to the first one.
    """

    epochs: float = 300.0
    budget_s: float | None = None
    seed: int = 0
    batch_size: int = 128
    shards: int = 1
    accumulate: int = 1
    learning_rate: float = 5e-4
    final_learning_rate: float = 0.01
    layer_decay: float = 1.0
    warmup: float = 0.1
    optimizer: Literal["adamw", "muon", "keras_adam"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    soft_labels: bool = False
    class_weights: Literal["none", "balanced"] = "none"
    lora_rank: int = 0
    ema: float = 0.02
    grad_checkpointing: bool = False
    compile: bool = False
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: Device = "auto"
    deterministic: bool = False
    parallel: Literal["none", "ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: a number above 0")
        for name in ("batch_size", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it is above 0")
        for name in ("weight_decay", "final_learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it is 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"train.betas is {list(self.betas)}: both lie in [0, 1)")
        if not 1 <= self.shards <= self.batch_size:
            raise ConfigError(
                f"train.shards is {self.shards}: it is 1 to train.batch_size, {self.batch_size}"
            )
        if not 1 <= self.accumulate <= self.batch_size // self.shards:
            raise ConfigError(
                f"train.accumulate is {self.accumulate}: it is 1 to train.batch_size / "
                f"train.shards, {self.batch_size // self.shards}"
            )
        if self.compile and self.shards > 1:
            raise ConfigError(
                f"train.shards is {self.shards}, but a compiled model has one part (train.compile)"
            )
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ConfigError(
                "train.parallel 'fsdp' leaves each process a part of every matrix, and Muon needs "
                "whole ones: set train.optimizer=adamw too"
            )
        if self.budget_s is not None and not 0 < self.budget_s < math.inf:
            raise ConfigError(f"train.budget_s is {self.budget_s}: a number of seconds above 0")
        if self.lora_rank < 0:
            raise ConfigError(f"train.lora_rank is {self.lora_rank}: it is 0 or more")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ConfigError(f"train.layer_decay is {self.layer_decay}: it lies in (0, 1]")
        if self.ema > 0.5:
            raise ConfigError(
                f"train.ema is {self.ema}: it is the window as a share of all steps, at most 0.5, "
                "not a decay such as 0.9998"
            )
        for name in ("warmup", "label_smoothing", "ema"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it lies in [0, 1)")


Rung = Literal["probe", "lora", "full"]


@dataclass(frozen=True)
class LadderConfig:
    """How a pretrained model is tuned, from the simplest way to the costliest (see `ladder`).

    Args:
        rungs: those that are climbed and compared, the simplest first: a new head alone ("probe"),
            low-rank updates ("lora"), all weights ("full").
        neighbors: of the nearest-neighbour answers that the rungs are held against.
        lora_rank: of the low-rank updates.
        lora_learning_rate: their highest rate; `train.learning_rate` is that of "full".
        lora_share: of the time left for training, or of the epochs, that they get before "full".
    """

    rungs: tuple[Rung, ...] = ("probe", "lora", "full")
    neighbors: int = 20
    lora_rank: int = 8
    lora_learning_rate: float = 2e-3
    lora_share: float = 0.25

    def of_lora(self, train: TrainConfig) -> TrainConfig:
        """A run's settings as the rung "lora" has them."""
        rank, rate = self.lora_rank, self.lora_learning_rate
        return replace(train, lora_rank=rank, learning_rate=rate, layer_decay=1.0)

    def __post_init__(self) -> None:
        order = get_args(Rung)
        if not self.rungs or list(self.rungs) != [name for name in order if name in self.rungs]:
            raise ConfigError(
                f"ladder.rungs is {list(self.rungs)}: some of {', '.join(order)}, in this order"
            )
        for name in ("neighbors", "lora_rank", "lora_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"ladder.{name} is {getattr(self, name)}: a number above 0")
        if not 0.0 < self.lora_share < 1.0:
            raise ConfigError(f"ladder.lora_share is {self.lora_share}: it lies between 0 and 1")


@dataclass(frozen=True)
class FoldsConfig:
    """How a run is scored by cross-validation (see `folds`).

    Args:
        count: parts that the pictures are divided into; each is held out once.
        repeats: how often, each time divided otherwise.
    """

    count: int = 5
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"folds.count is {self.count}: it is 2 or more")
        if self.repeats < 1:
            raise ConfigError(f"folds.repeats is {self.repeats}: it is 1 or more")


@dataclass(frozen=True)
class PretrainConfig:
    """What is hidden in pretraining, and the decoder that has to fill it in (see `pretrain`).

    Args:
        mask_ratio: share of each picture's patches that is hidden.
        decoder_dim: width of the decoder's tokens.
        decoder_depth: number of its blocks.
        decoder_heads: attention heads in each of them.
    """

    mask_ratio: float = 0.75
    decoder_dim: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"pretrain.mask_ratio is {self.mask_ratio}: it lies between 0 and 1")
        for name in ("decoder_dim", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"pretrain.{name} is {getattr(self, name)}: it is at least 1")
        if self.decoder_dim % 4 or self.decoder_dim % self.decoder_heads:
            raise ConfigError(
                f"pretrain.decoder_dim {self.decoder_dim} is not a multiple of 4 and of "
                f"decoder_heads {self.decoder_heads}"
            )

    def num_visible(self, num_patches: int) -> int:
        """How many of a picture's patches the encoder sees."""
        return round(num_patches * (1 - self.mask_ratio))


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
        init: weights or checkpoint whose encoder this run begins with; ``None`` for none.
        init_preprocess: how that one's pictures are prepared, where it doesn't say it.
        init_num_heads: its attention heads, where it doesn't say them.
        ladder: tunes `init` rung by rung; ``None`` learns all weights at once.
        folds: scores the same training on pictures held out in turn; ``None`` doesn't.
        pretrain: makes it a run without labels (`vitreous.pretrain`); ``None`` for classes.
    """

    recipe: str
    data: DataConfig
    model: ModelConfig
    preprocess: Preprocess
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    init: str | None = None
    init_preprocess: tuple[str, ...] = ()
    init_num_heads: int | None = None
    ladder: LadderConfig | None = None
    folds: FoldsConfig | None = None
    pretrain: PretrainConfig | None = None

    def __post_init__(self) -> None:
        if self.pretrain:
            self._check_pretraining(self.pretrain)
        if self.ladder and self.init is None:
            raise ConfigError("ladder tunes pretrained weights, but there are none: name --weights")
        if self.model.image_size != self.preprocess.image_size:
            raise ConfigError(
                f"model.image_size {self.model.image_size} and preprocess.image_size "
                f"{self.preprocess.image_size} differ: set both"
            )
        if self.preprocess.mirror and not self.augment.flip:
            raise ConfigError(
                "preprocess.mirror is true but augment.flip is 0: a model that never learned from "
                "mirror images can't answer for them, so set preprocess.mirror=false too"
            )
        if self.train.lora_rank and self.init is None:
            raise ConfigError(
                f"train.lora_rank is {self.train.lora_rank}, but nothing is loaded that low-rank "
                "updates could change: name weights with --weights, or leave it out"
            )
        if self.model.in_channels != 3:
            raise ConfigError(f"model.in_channels is {self.model.in_channels}: pictures are RGB, 3")

    def _check_pretraining(self, pretrain: PretrainConfig) -> None:
        num_patches = self.model.num_patches
        if not 0 < pretrain.num_visible(num_patches) < num_patches:
            raise ConfigError(
                f"pretrain.mask_ratio {pretrain.mask_ratio} leaves "
                f"{pretrain.num_visible(num_patches)} of {num_patches} patches visible: change it "
                "or the image size"
            )
        without_effect = {
            "init": self.init is not None,
            "data.overlay": self.data.overlay is not None,
            "data.calibration_share": self.data.calibration_share > 0,
            "augment.erase_chance": self.augment.erase_chance > 0,
            "augment.mix_chance": self.augment.mix_chance > 0,
            "preprocess.mirror": self.preprocess.mirror,
            "train.label_smoothing": self.train.label_smoothing > 0,
            "train.soft_labels": self.train.soft_labels,
            "train.class_weights": self.train.class_weights != "none",
            "train.lora_rank": self.train.lora_rank > 0,
            "ladder": self.ladder is not None,
            "folds": self.folds is not None,
            "train.layer_decay": self.train.layer_decay < 1,
        }
        for name, is_set in without_effect.items():
            if is_set:
                raise ConfigError(f"{name} has no effect in pretraining: leave it out")
