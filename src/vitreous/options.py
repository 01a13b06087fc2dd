"""What several commands share: options, the clock and the console; see `cli`."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vitreous.core.console import Console

#: A budget counts from here: as early as this process can tell.
STARTED = time.monotonic()


class _Place(click.Path):
    """A path whose ~ is the home folder, which a shell leaves as it is in --out=~/runs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111 (ids of a hub)


PATH = _Place(path_type=Path)
#: A path or a hub's id, of which a `Path` would keep only one slash of two.
PLACE = _Place()
json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value, nothing else.")
quiet = click.option("--quiet", is_flag=True, help="Say only warnings.")
cache = click.option("--cache", type=PATH, help="Folder of decoded pictures.")
source = click.argument("source", type=PATH, required=False)
resume = click.option(
    "--resume", "resumed", type=PATH, metavar="RUN", help="Go on with a stopped run."
)
budget = click.option(
    "--budget", help="Time from start to end, everything included: 90s, 20m, 1.5h."
)
epochs = click.option("--epochs", type=float, help="Passes over the pictures, instead of a budget.")
model = click.option("--model", help="A preset, such as compact-64 or S/16. [chosen by the recipe]")
image_size = click.option("--image-size", type=int, help="Side in pixels that the model sees.")
seed = click.option("--seed", type=int, help="Of every random draw. [0]")
config = click.option("--config", type=PATH, help="TOML file with all or some settings.")
assignments = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, such as train.learning_rate=5e-4.",
)
runtime = click.option("--runtime", type=click.Choice(["torch", "onnxruntime", "openvino"]),
                        help="What computes. [chosen by tune, else torch]")  # fmt: skip
_DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])
device = click.option("--device", type=_DEVICES, default="auto",
                      help="Where PyTorch computes. [a GPU where there is one]")  # fmt: skip
#: Of training, where a file of settings may name one, too.
train_device = click.option("--device", type=_DEVICES,
                            help="Where to compute. [a GPU where there is one]")  # fmt: skip
precision = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="Faster ones change answers a little; how much is said.",
)
tensorboard = click.option("--tensorboard", is_flag=True, help="Write TensorBoard's files too.")
num_heads = click.option(
    "--num-heads",
    type=click.IntRange(min=1),
    help="Of a checkpoint that doesn't say it. [as published, or each 64 wide]",
)
preprocess = click.option(
    "--preprocess",
    multiple=True,
    metavar="WORD",
    help="Of a checkpoint that doesn't say it: imagenet, half or clip, and single settings such as "
    "crop=384, resize=438, mean=0.5, std=0.5, interpolation=bilinear.",
)
_labels = click.option(
    "--labels",
    type=PATH,
    metavar="FILE",
    help="Of a checkpoint: its class names, one a line. [their index]",
)


def split(default: str) -> Callable[..., Any]:
    """Which part of the pictures, where they are divided."""
    names = click.Choice(["train", "valid", "calibration", "test"])
    return click.option("--split", type=names, help=f"Which pictures of DATA. [{default}]")


def checkpoint(command: Callable[..., Any]) -> Callable[..., Any]:
    """What RUN may leave unsaid, where it is a checkpoint of another library."""
    return _labels(preprocess(num_heads(command)))


def console(quiet: bool) -> "Console":
    """Where messages go."""
    from vitreous.core.console import Console

    return Console(quiet)
