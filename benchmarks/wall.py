"""The lecture's 44 %: why its model answers "happy" every time, one change after another.

    python benchmarks/wall.py EMOTIONS --out benchmarks/results/DATE_wall

draws as many faces of each class as the lecture is believed to have had (1525 angry, 3019 happy,
2255 sad; 267, 528 and 395 for validation: 44.4 % happy in both) and trains lecture-small at 96 px
on them, once for each condition below. Each condition writes a file of its own, and one that is
there already is not run again; at the end `curves.svg`, `units.svg` and `table.md` are written.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from wall_page import write_page

from vitreous.core.files import write_json
from vitreous.core.rng import numpy_stream
from vitreous.data.config import DataConfig
from vitreous.data.dataset import Dataset, open_dataset
from vitreous.data.folder import Listing, list_labelled
from vitreous.data.loader import PictureSet, TrainingOrder
from vitreous.data.preprocess import normalise
from vitreous.evaluation.inference import TorchNetwork
from vitreous.evaluation.score import evaluate_set
from vitreous.recipes.configure import configure
from vitreous.training.config import RunConfig
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs

COUNTS = {
    "train": {"angry": 1525, "happy": 3019, "sad": 2255},
    "valid": {"angry": 267, "happy": 528, "sad": 395},
}
#: Steps at which the inside of the model is looked at, beside every epoch.
EARLY = (0, 1, 5, 20, 100)
PROBED = 64


@dataclass(frozen=True)
class Condition:
    """One way of training.

    Args:
        name: of its file.
        title: what differs from the lecture.
        change: of the lecture's settings.
        sorted_classes: whether the pictures come class by class instead of shuffled.
        preset: the model.
        image_size: side in pixels.
        epochs: where not as many as the others.
    """

    name: str
    title: str
    change: Callable[[RunConfig], RunConfig] = lambda config: config
    sorted_classes: bool = False
    preset: str = "lecture-small"
    image_size: int = 96
    epochs: float | None = None


def model(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, model=replace(config.model, **changes))


def train(**changes: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, train=replace(config.train, **changes))


def pixels(low: float, high: float) -> Callable[[RunConfig], RunConfig]:
    """Rescale the input so that black is `low` and white is `high`."""
    std = 1.0 / (high - low)
    scale = {"mean": (-low * std,) * 3, "std": (std,) * 3}
    return lambda config: replace(config, preprocess=replace(config.preprocess, **scale))


def both(*changes: Callable[[RunConfig], RunConfig]) -> Callable[[RunConfig], RunConfig]:
    def change(config: RunConfig) -> RunConfig:
        for one in changes:
            config = one(config)
        return config

    return change


CONDITIONS = (
    Condition("lecture", "as in the lecture: pixels 0 to 255"),
    Condition("scale01", "pixels 0 to 1", pixels(0, 1)),
    Condition("scale11", "pixels -1 to 1", pixels(-1, 1)),
    Condition("lr1e-4", "learning rate 1e-4", train(learning_rate=1e-4)),
    Condition("lr1e-5", "learning rate 1e-5", train(learning_rate=1e-5)),
    Condition("warmup", "warm-up over a tenth of the steps", train(warmup=0.1)),
    Condition("xavier", "Xavier weights, zero classifier", model(init="xavier")),
    Condition("one-gelu", "no second GELU in the blocks", model(mlp_output_activation=False)),
    Condition("head-dim", "heads of 192, a quarter of the token", model(head_dim=192)),
    Condition("norm", "a layer norm before the flatten head", model(final_norm=True)),
    Condition("sorted", "pictures class by class", sorted_classes=True),
    Condition(
        "scale11-lr1e-4",
        "pixels -1 to 1 and learning rate 1e-4",
        both(pixels(-1, 1), train(learning_rate=1e-4)),
    ),
    Condition(
        "scale01-lr1e-4",
        "pixels 0 to 1 and learning rate 1e-4",
        both(pixels(0, 1), train(learning_rate=1e-4)),
    ),
)


#: Longer runs and the lecture's own sizes, which run where they are named.
LARGE = (
    Condition(
        "learns",
        "pixels -1 to 1, rate 1e-4 with warm-up and cosine, 10 epochs",
        both(
            pixels(-1, 1), train(learning_rate=1e-4, warmup=0.1, final_learning_rate=0.01)
        ),
        epochs=10.0,
    ),
    Condition("longer", "as in the lecture, for 10 epochs", epochs=10.0),
    Condition("small-256", "lecture-small at 256 px", image_size=256, epochs=1.0),
    Condition("full-256", "the whole lecture model at 256 px", preset="lecture", image_size=256,
              epochs=0.5),
)  # fmt: skip


class SortedOrder(TrainingOrder):
    """Epoch after epoch in the order of the files: all of one class, then all of the next."""

    def _draw_epoch_order(self, epoch: int) -> np.ndarray:
        return np.arange(self.count)


def draw_set(source: Path, seed: int) -> Listing:
    """The lecture's numbers of pictures, drawn from the two folders of the emotions."""
    listing = list_labelled(source)
    rng = numpy_stream(seed, "wall")
    chosen: list[int] = []
    for split, counts in COUNTS.items():
        for label, count in counts.items():
            there = [
                row
                for row, sample in enumerate(listing.samples)
                if (sample.split, sample.label) == (split, label)
            ]
            chosen += sorted(rng.choice(there, count, replace=False).tolist())
    return replace(listing, samples=tuple(listing.samples[row] for row in chosen))


def probe(learner: ClassLearner, pictures: PictureSet, config: RunConfig) -> dict[str, Any]:
    """Look inside the model with 64 pictures, without changing it.

    Returns:
        For each stage the root mean square of its values, the share of them that differs from
        picture to picture (1 where pictures have nothing in common, 0 where the stage doesn't see
        them any more) and the share of units that are off for all pictures; for each part of the
        model the norm of its gradient.
    """
    network = learner.state.model.eval()
    stages: dict[str, dict[str, float]] = {}

    def look(name: str, activation: Callable[[torch.Tensor], torch.Tensor] | None = None):
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            values = (activation(output) if activation else output).detach().flatten(1).double()
            rms = values.square().mean().sqrt()
            spread = values.var(0, unbiased=False).mean().sqrt()
            stages[name] = {
                "rms": float(rms),
                "differs": float(spread / rms.clamp_min(1e-30)),
                "off": float((values.abs().amax(0) < 1e-3).double().mean()),
            }

        return hook

    handles = [network.patch_embed.register_forward_hook(look("patches"))]
    for index, block in enumerate(network.blocks):
        handles.append(block.register_forward_hook(look(f"block {index + 1}")))
    for index, layer in enumerate(network.head_mlp):
        handles.append(layer.register_forward_hook(look(f"dense {index + 1}", network.act)))
    handles.append(network.head.register_forward_hook(look("logits")))
    rows = numpy_stream(0, "probe").choice(len(pictures), PROBED, replace=False)
    values, labels = pictures.batch(rows)
    loss = F.cross_entropy(network(normalise(values, config.preprocess)), labels)
    loss.backward()
    gradients: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        part = name.split(".")[0]
        if parameter.grad is not None:
            gradients[part] = gradients.get(part, 0.0) + float(parameter.grad.square().sum())
    network.zero_grad()
    for handle in handles:
        handle.remove()
    return {
        "loss": loss.item(),
        "stages": stages,
        "gradients": {part: math.sqrt(square) for part, square in gradients.items()},
    }


def run(condition: Condition, config: RunConfig, dataset: Dataset, epochs: float) -> dict[str, Any]:
    """Train under one condition; the curves of it."""
    config = condition.change(config)
    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]
    learner = ClassLearner(config, train_set, dataset.classes)
    if condition.sorted_classes:
        learner.order = SortedOrder(len(train_set), config.train.batch_size, 0)
    steps_per_epoch = len(train_set) / config.train.batch_size
    epoch = round(steps_per_epoch)
    plan = plan_epochs(epochs, steps_per_epoch)
    probes, scores, losses = [], [], []
    started = time.monotonic()
    while True:
        step = learner.state.step
        if step in EARLY or step % epoch == 0 or step == plan.total_steps:
            probes.append({"step": step, **probe(learner, valid_set, config)})
        if step % epoch == 0 or step == plan.total_steps:
            score, _ = evaluate_set(
                TorchNetwork(learner.state.model),
                valid_set,
                config.preprocess,
                dataset.classes,
                train_set.majority_class,
            )
            scores.append(
                {
                    "epoch": step / steps_per_epoch,
                    "accuracy": score.accuracy.value,
                    "balanced_accuracy": score.balanced_accuracy.value,
                    "loss": score.loss if math.isfinite(score.loss) else None,
                    "confusion": score.confusion,
                }
            )
            print(
                f"{condition.name:16} epoch {scores[-1]['epoch']:5.2f}  "
                f"accuracy {score.accuracy.value:.4f}  balanced {score.balanced_accuracy.value:.4f}"
                f"  {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if step == plan.total_steps:
            break
        losses.append(learner.learn(plan).item())
    return {
        "name": condition.name,
        "title": condition.title,
        "classes": dataset.classes,
        "epochs": epochs,
        "precision": config.train.precision,
        "scores": scores,
        "probes": probes,
        "losses": [float(np.mean(part)) for part in np.array_split(losses, 60)],
    }


def main() -> None:
    """Run the conditions that are missing, then draw what there is."""
    conditions = {condition.name: condition for condition in (*CONDITIONS, *LARGE)}
    parser = argparse.ArgumentParser()
    parser.add_argument("emotions", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", nargs="*", choices=conditions,
                        default=[condition.name for condition in CONDITIONS])  # fmt: skip
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    listing = draw_set(arguments.emotions, seed=0)
    for name in arguments.only:
        condition, file = conditions[name], arguments.out / f"{name}.json"
        if file.exists():
            continue
        config = configure(
            arguments.emotions,
            listing,
            recipe="lecture",
            model=condition.preset,
            image_size=condition.image_size,
            changes={"train": {"precision": arguments.precision}},
        ).config
        dataset = open_dataset(listing, DataConfig(str(arguments.emotions)), config.preprocess, 0)
        epochs = condition.epochs or arguments.epochs
        write_json(file, run(condition, config, dataset, epochs))
    files = [arguments.out / f"{name}.json" for name in conditions]
    write_page(arguments.out, [json.loads(file.read_text()) for file in files if file.exists()])


if __name__ == "__main__":
    main()
