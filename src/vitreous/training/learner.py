"""What one training step does."""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.core.memory import is_out_of_memory
from vitreous.core.rng import derive_seed, numpy_stream, streams_kept, torch_stream
from vitreous.core.threads import SideBySide
from vitreous.data.loader import Part, PictureSet, TrainingOrder
from vitreous.data.mixing import draw_mixing, smooth
from vitreous.data.preprocess import normalise
from vitreous.data.transforms import augment
from vitreous.model.lora import add_lora, merge_lora
from vitreous.model.onednn import prefer_onednn
from vitreous.model.vit import ViT
from vitreous.training.ahead import Ahead
from vitreous.training.captured import WARMUP, Captured
from vitreous.training.checkpoint import TrainState, restore_moments, state_tensors
from vitreous.training.classifier import Classifier, save_classifier
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.device import can_compile, choose_device, choose_precision, fuse_blocks
from vitreous.training.distributed import Team, team_for
from vitreous.training.ema import Ema, Model
from vitreous.training.encoder import Encoder
from vitreous.training.feed import Feed
from vitreous.training.guard import TooLittleMemory
from vitreous.training.optim import make_optimizers, set_rates, take_steps
from vitreous.training.plan import Plan, learning_rate_factor
from vitreous.training.sharding import divide, whole
from vitreous.training.shards import Division, Shards, check_team


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
        self.team = team_for(config.train.parallel)
        self.device = choose_device(config.train.device)
        check_team(self.team, config.train, self.device)
        self.precision = choose_precision(config.train.precision, self.device)
        torch.manual_seed(derive_seed(config.train.seed, "weights"))
        self._is_divided = config.train.parallel == "fsdp" and self.team.size > 1
        self.is_compiled = config.train.compile and can_compile(self.device)
        # Of a model that is to be divided, a device may have no room for the whole.
        model = make_model().to("cpu" if self._is_divided else self.device)
        if self.precision == torch.float32 and not (self._is_divided or self.is_compiled):
            prefer_onednn(model)
        # A run's settings may come from a machine without this one's GPU, which takes all at once.
        at_once = self.device.type != "cpu" or self._is_divided
        parts = 1 if at_once else config.train.shards
        self.division = Division(config.train.batch_size, parts, config.train.accumulate, self.team)
        self._threads = SideBySide(len(self.division.pieces()))
        is_graph = self.device.type == "cuda" and _is_capturable(config.train, self.team)
        #: First steps that compile or record what all others do.
        self.preparing_steps = WARMUP + 1 if is_graph else int(self.is_compiled)
        optimizers = make_optimizers(model, config.train, self.precision, self._threads, is_graph)
        average = Ema(model, torch.zeros((), device=self.device) if is_graph else 0.0)
        self.state = TrainState(model, average, optimizers)
        self.shards = Shards(model.train(), self._threads, self.division)
        self._statistics = _statistics(model)
        self._average: Model | None = None
        self._average_step = 0
        self._update = Captured(self._take_step) if is_graph else self._take_step
        self.order = TrainingOrder(
            len(pictures), config.train.batch_size, config.train.seed, pictures.shuffle
        )
        self.part = Part.among(config.train.batch_size, self.division.rows())
        self.feed = Feed(pictures, self.device)
        self._ahead = Ahead(self.device)
        if self.is_compiled:
            fuse_blocks(model)

    @abstractmethod
    def inputs(self, step: int, progress: float) -> tuple[Tensor, ...]:
        """What a step's loss takes, each with this process' pictures of the batch as first axis.

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
            The loss before the step, a scalar that still lives on the device; no number where loss
            or gradient were none, and nothing has changed but the step's number.

        Raises:
            TooLittleMemory: as much as is known of why is in its words.
        """
        if self.team.size > 1:
            self.team.tell("learn", plan=plan.to_json())
        state, train = self.state, self.config.train
        now, then = state.step, state.step + 1
        # Nobody has tried two threads at once on MPS.
        is_last = then >= plan.total_steps or self.device.type == "mps"
        following = None if is_last else (then, plan.progress(then))
        inputs = self._ahead.take(self.inputs, (now, plan.progress(now)), following)
        # The rate at the step's end: at its beginning the first one would be zero.
        set_rates(state.optimizers, self.rate_behind(then, plan))
        state.ema.set_window(state.step, train.ema * plan.total_at(state.step))
        torch.manual_seed(derive_seed(train.seed, "dropout", state.step))
        try:
            loss = self._update(*inputs)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise TooLittleMemory(train) from None
            raise
        state.step += 1
        return loss

    def _take_step(self, *inputs: Tensor) -> Tensor:
        """Everything that a step does to the model, its average and the optimisers."""
        state, train = self.state, self.config.train
        seed = derive_seed(train.seed, "dropout", state.step)
        before = [tensor.clone() for tensor in self._statistics]
        loss = self.shards.backward(self.loss, inputs, seed)
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), train.clip_norm)
        norm = whole(norm).to(loss.device)
        is_fine = loss.isfinite() & norm.isfinite()
        found_inf = (~is_fine).to(loss.dtype)
        take_steps(state.optimizers, found_inf)
        for tensor, old in zip(self._statistics, before, strict=True):
            tensor.copy_(torch.where(is_fine, tensor, old))
        state.ema.update(state.model, found_inf)
        return loss.masked_fill(~is_fine, torch.nan)

    def rate_behind(self, step: int, plan: Plan) -> float:
        """The rate at the end of a step of the plan, lower where the run has gone back."""
        return self.learning_rate(plan.progress(step)) * plan.rate_share

    def spread(self) -> None:
        """Leave this process its part of a state that all have alike, where it is to be divided."""
        if not self._is_divided:
            return
        state, train = self.state, self.config.train
        moments = {
            name.removeprefix("optimizer."): value
            for name, value in state_tensors(state)
            if name.startswith("optimizer.")
        }
        if self.team.leads:
            self._average = copy.deepcopy(state.ema.model).to(self.device)
        self._average_step = state.step
        state.losses = [loss.to(self.device) for loss in state.losses]
        for model in (state.model, state.ema.model):
            divide(model, self.device)
        state.optimizers = make_optimizers(state.model, train, self.precision, self._threads)
        restore_moments(state, moments)
        self.shards = Shards(state.model, self._threads, self.division, sharded=True)
        self._statistics = _statistics(state.model)

    def tensors(self) -> dict[str, Tensor]:
        """All of the state for a checkpoint, put together by all processes where it is divided."""
        if self._is_divided:
            self.team.tell("tensors")
        return {name: value for name, value in state_tensors(self.state) if self.team.leads}

    def averaged(self) -> Model:
        """The averaged weights as a model that the first process can use alone."""
        state = self.state
        if not self._is_divided:
            return state.ema.model
        if self._average_step != state.step:
            self.team.tell("averaged")
            own = self._average.state_dict() if self._average else {}
            for name, value in state.ema.model.state_dict().items():
                together = whole(value)
                if name in own:
                    own[name].copy_(together)
            self._average_step = state.step
        return state.ema.model if self._average is None else self._average

    def learning_rate(self, progress: float) -> float:
        """The rate at a share of the run."""
        train = self.config.train
        factor = learning_rate_factor(progress, train.warmup, train.final_learning_rate)
        return train.learning_rate * factor

    def measure_step_s(self, plan: Plan, seconds: float = 4.0) -> float:
        """Seconds of a step, by taking some for about as long as said; then it is of no use."""
        for _ in range(self.preparing_steps):
            self.learn(plan).item()  # reading the value waits for the device
        durations: list[float] = []
        # A few steps, the first two not counted; of a large model one has to do.
        while not durations or (
            len(durations) < 12 and sum(durations[2:]) < seconds and sum(durations) < 6 * seconds
        ):
            started = time.perf_counter()
            self.learn(plan).item()
            durations.append(time.perf_counter() - started)
        # The first steps allocate memory and choose kernels.
        return sorted(durations[2:] or durations)[len(durations[2:] or durations) // 2]

    def autocast(self) -> torch.autocast:
        """The context in which the model computes at the chosen precision."""
        return torch.autocast(self.device.type, self.precision, self.precision != torch.float32)


def _statistics(model: nn.Module) -> list[Tensor]:
    """What a forward pass changes, such as the running means of a batch norm."""
    weights = {id(weight) for weight in model.parameters()}
    kept = model.state_dict(keep_vars=True).values()
    return [tensor for tensor in kept if id(tensor) not in weights]


def _is_capturable(train: TrainConfig, team: Team) -> bool:
    """Whether a step asks for nothing that only the host knows.

    Recomputing does, for the state of the random stream, and Keras' epsilon, for the step's number.
    So do turns, which seed that stream. What several processes sum up has not been tried.
    """
    is_plain = not train.grad_checkpointing and train.optimizer != "keras_adam"
    is_plain = is_plain and train.accumulate == 1
    return is_plain and team.size == 1


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
        return F.cross_entropy(logits.float(), targets)

    def batch(self, step: int, plain: bool = False) -> tuple[Tensor, Tensor]:
        """The augmented pictures and soft targets of a step, those of this process.

        Args:
            step: counted from 0.
            plain: without erasing and mixing, as at the end of a run.

        Shape:
            -> (batch, channels, height, width), (batch, classes)
        """
        seed, settings = self.config.train.seed, self.config.augment
        size, stream = self.config.preprocess.image_size, numpy_stream(seed, "mix", step)
        mixing = None if plain else draw_mixing(self.part.batch, size, settings, stream)
        if mixing is None:
            return self._made(step, self.part, plain)
        # Partners may be another process' pictures, and are made here as well.
        seen = self.part.with_partners(mixing.partners)
        images, targets = self._made(step, seen, plain)
        own, others = (
            Part(self.part.batch, rows).places_in(seen).to(images.device)
            for rows in (self.part.rows, self.part.of(mixing.partners))
        )
        if len(own) < len(images):
            return mixing.blend(images[own], images[others], targets[own], targets[others])
        return mixing.blend(images, images[others], targets, targets[others])

    def _made(self, step: int, part: Part, plain: bool) -> tuple[Tensor, Tensor]:
        """Some pictures of a batch and their targets, before they are mixed."""
        seed, order = self.config.train.seed, self.order.step(step)
        positions = [order[row] for row in part.rows.tolist()]
        pixels, labels = self.feed.batch(positions)
        images = normalise(pixels, self.config.preprocess)
        draws = torch_stream(seed, "augment", step)
        images = augment(images, self.config.augment, draws, plain, part)
        targets = F.one_hot(labels, len(self.classes)).float()
        if self.config.train.soft_labels:
            assert self.pictures.votes is not None  # `opening.open_pictures` has seen to it
            targets = self.pictures.votes[positions]
        targets = targets.to(self.device)
        return images, self._weighed(targets, smooth(targets, self.config.train.label_smoothing))

    def save_weights(self, path: Path) -> None:
        """Write a `Classifier`, in plain layers."""
        model, preprocess = merge_lora(self.averaged()), self.config.preprocess
        majority = self.pictures.majority_class
        save_classifier(path, Classifier(model, preprocess, self.classes, majority))

    def _is_plain(self, progress: float) -> bool:
        return progress >= 1.0 - self.config.augment.plain_share

    def _weighed(self, targets: Tensor, smoothed: Tensor) -> Tensor:
        """Smoothed targets, each picture's with the weight of its class.

        `F.cross_entropy` weighs each entry of a target instead: what smoothing gives a rare class
        in a picture of a frequent one would come to more than that one has (pytorch issue 104776).
        """
        if self.class_weights is None:
            return smoothed
        return smoothed * (targets @ self.class_weights)[:, None]

    def _class_weights(self) -> Tensor | None:
        if self.config.train.class_weights == "none":
            return None
        counts = torch.bincount(self.pictures.labels, minlength=len(self.classes)).clamp(min=1)
        return (len(self.pictures) / (len(self.classes) * counts)).to(self.device)


def draw_model(config: RunConfig, encoder: Encoder | None) -> ViT:
    """A run's model from PyTorch's stream, the encoder's weights in their place."""
    model = ViT(config.model)
    model.grad_checkpointing = config.train.grad_checkpointing
    return encoder.load_into(model) if encoder else model


def first_weights(config: RunConfig, encoder: Encoder | None) -> ViT:
    """The model as a run began with it, drawn anew."""
    with streams_kept():
        torch.default_generator.manual_seed(derive_seed(config.train.seed, "weights"))
        return draw_model(config, encoder).eval()
