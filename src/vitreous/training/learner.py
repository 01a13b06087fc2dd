"""What one training step does."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.rng import derive_seed, numpy_stream, torch_stream
from vitreous.core.threads import SideBySide
from vitreous.data.loader import PictureSet, TrainingOrder
from vitreous.data.mixing import mix, smooth
from vitreous.data.preprocess import normalise
from vitreous.data.transforms import augment
from vitreous.model.lora import add_lora, merge_lora
from vitreous.model.vit import ViT
from vitreous.training.ahead import Ahead
from vitreous.training.captured import Captured
from vitreous.training.checkpoint import TrainState
from vitreous.training.classifier import Classifier, save_classifier
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.device import choose_device, choose_precision, fuse_blocks
from vitreous.training.ema import Ema, Model
from vitreous.training.encoder import Encoder
from vitreous.training.feed import Feed
from vitreous.training.optim import make_optimizers, set_rates
from vitreous.training.plan import Plan, learning_rate_factor
from vitreous.training.shards import Shards


class Learner(ABC, Generic[Model]):
    """A model that learns from pictures, step by step.

    What a step does depends on the configuration, the state and the step's number alone: all its
    random draws are keyed by that number. What there is to learn, each subclass says in `loss`:
    classes in `ClassLearner`, hidden patches in `pretrain.PatchLearner`.

    Args:
        config: every setting.
        pictures: to learn from.
        make_model: makes the model; PyTorch's stream is seeded for its first weights.
    """

    #: The command that goes on with a stopped run.
    command = "train"

    def __init__(
        self, config: RunConfig, pictures: PictureSet, make_model: Callable[[], Model]
    ) -> None:
        self.config, self.pictures = config, pictures
        self.device = choose_device(config.train.device)
        self.precision = choose_precision(config.train.precision, self.device)
        torch.manual_seed(derive_seed(config.train.seed, "weights"))
        model = make_model().to(self.device)
        # A run's settings may come from a machine without this one's GPU, which takes all at once.
        threads = SideBySide(config.train.shards if self.device.type == "cpu" else 1)
        is_graph = self.device.type == "cuda" and _is_capturable(config.train)
        optimizers = make_optimizers(model, config.train, self.precision, threads, is_graph)
        average = Ema(model, torch.zeros((), device=self.device) if is_graph else 0.0)
        self.state = TrainState(model, average, optimizers)
        self.shards = Shards(model.train(), threads)
        self._update = Captured(self._take_step) if is_graph else self._take_step
        self.order = TrainingOrder(
            len(pictures), config.train.batch_size, config.train.seed, pictures.shuffle
        )
        self.feed = Feed(pictures, self.device)
        self._ahead = Ahead(self.device)
        if config.train.compile:
            fuse_blocks(model)

    @abstractmethod
    def inputs(self, step: int, progress: float) -> tuple[Tensor, ...]:
        """What a step's loss takes, each with the pictures of the batch as its first axis.

        Args:
            step: counted from 0.
            progress: share of the run that lies behind it.
        """

    @abstractmethod
    def loss(self, model: Model, *inputs: Tensor) -> Tensor:
        """The model's mean loss over some of a step's pictures, a scalar."""

    @abstractmethod
    def save_weights(self, path: Path) -> None:
        """Write the averaged weights with what it takes to use them."""

    def learn(self, plan: Plan) -> Tensor:
        """Take the next step of the plan.

        Returns:
            The loss before the step, a scalar that still lives on the device.
        """
        state, train = self.state, self.config.train
        now, then = state.step, state.step + 1
        # Nobody has tried two threads at once on MPS.
        is_last = then >= plan.total_steps or self.device.type == "mps"
        following = None if is_last else (then, plan.progress(then))
        inputs = self._ahead.take(self.inputs, (now, plan.progress(now)), following)
        # The rate at the step's end: at its beginning the first one would be zero.
        set_rates(state.optimizers, self.learning_rate(plan.progress(then)))
        state.ema.set_window(state.step, train.ema * plan.total_steps)
        torch.manual_seed(derive_seed(train.seed, "dropout", state.step))
        loss = self._update(*inputs)
        state.step += 1
        return loss

    def _take_step(self, *inputs: Tensor) -> Tensor:
        """Everything that a step does to the model, its average and the optimisers."""
        state, train = self.state, self.config.train
        seed = derive_seed(train.seed, "dropout", state.step)
        loss = self.shards.backward(self.loss, inputs, seed)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), train.clip_norm)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.ema.update(state.model)
        return loss

    def learning_rate(self, progress: float) -> float:
        """The rate at a share of the run."""
        train = self.config.train
        factor = learning_rate_factor(progress, train.warmup, train.final_learning_rate)
        return train.learning_rate * factor

    def measure_step_s(self, plan: Plan, seconds: float = 4.0) -> float:
        """Seconds of a step, by taking some for about as long as said; then it is of no use."""
        durations: list[float] = []
        # A few steps, the first two not counted; of a large model one has to do.
        while not durations or (
            len(durations) < 12 and sum(durations[2:]) < seconds and sum(durations) < 6 * seconds
        ):
            started = time.perf_counter()
            self.learn(plan).item()  # reading the value waits for the device
            durations.append(time.perf_counter() - started)
        # The first steps allocate memory and choose kernels.
        return sorted(durations[2:] or durations)[len(durations[2:] or durations) // 2]

    def autocast(self) -> torch.autocast:
        """The context in which the model computes at the chosen precision."""
        return torch.autocast(self.device.type, self.precision, self.precision != torch.float32)


def _is_capturable(train: TrainConfig) -> bool:
    """Whether a step asks for nothing that only the host knows.

    Recomputing does, for the state of the random stream, and Keras' epsilon, for the step's number.
    """
    return not train.grad_checkpointing and train.optimizer != "keras_adam"


class ClassLearner(Learner[ViT]):
    """Learns to tell classes apart.

    Args:
        config: every setting.
        pictures: to learn from.
        classes: names in output order.
        encoder: first weights of all but the head; ``None`` where all are drawn.
    """

    def __init__(
        self,
        config: RunConfig,
        pictures: PictureSet,
        classes: tuple[str, ...],
        encoder: Encoder | None = None,
    ) -> None:
        def make_model() -> ViT:
            model = draw_model(config, encoder)
            rank = config.train.lora_rank
            return add_lora(model, rank) if rank else model

        super().__init__(config, pictures, make_model)
        self.classes = classes
        self.class_weights = self._class_weights()

    def inputs(self, step: int, progress: float) -> tuple[Tensor, ...]:
        """Augmented pictures and their soft targets."""
        return self.batch(step, plain=self._is_plain(progress))

    def loss(self, model: ViT, *inputs: Tensor) -> Tensor:
        """Cross-entropy."""
        images, targets = inputs
        with self.autocast():
            logits = model(images)
        return F.cross_entropy(logits.float(), targets, self.class_weights)

    def batch(self, step: int, plain: bool = False) -> tuple[Tensor, Tensor]:
        """The augmented pictures and soft targets of a step.

        Args:
            step: counted from 0.
            plain: without erasing and mixing, as at the end of a run.

        Shape:
            -> (batch, channels, height, width), (batch, classes)
        """
        seed, settings = self.config.train.seed, self.config.augment
        positions = self.order.step(step)
        pixels, labels = self.feed.batch(positions)
        images = normalise(pixels, self.config.preprocess)
        images = augment(images, settings, torch_stream(seed, "augment", step), plain)
        targets = F.one_hot(labels, len(self.classes)).float()
        if self.config.train.soft_labels:
            assert self.pictures.votes is not None  # `opening.open_pictures` has seen to it
            targets = self.pictures.votes[positions]
        targets = smooth(targets.to(self.device), self.config.train.label_smoothing)
        if plain:
            return images, targets
        return mix(images, targets, settings, numpy_stream(seed, "mix", step))

    def save_weights(self, path: Path) -> None:
        """Write a `Classifier`, in plain layers."""
        model, preprocess = merge_lora(self.state.ema.model), self.config.preprocess
        majority = self.pictures.majority_class
        save_classifier(path, Classifier(model, preprocess, self.classes, majority))

    def _is_plain(self, progress: float) -> bool:
        return progress >= 1.0 - self.config.augment.plain_share

    def _class_weights(self) -> Tensor | None:
        if self.config.train.class_weights == "none":
            return None
        counts = torch.bincount(self.pictures.labels, minlength=len(self.classes))
        return (len(self.pictures) / (len(self.classes) * counts)).to(self.device)


def draw_model(config: RunConfig, encoder: Encoder | None) -> ViT:
    """A run's model from PyTorch's stream, the encoder's weights in their place."""
    model = ViT(config.model)
    model.grad_checkpointing = config.train.grad_checkpointing
    return encoder.load_into(model) if encoder else model


def first_weights(config: RunConfig, encoder: Encoder | None) -> ViT:
    """The model as a run began with it, drawn anew."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.train.seed, "weights"))
        return draw_model(config, encoder).eval()
