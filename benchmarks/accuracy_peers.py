"""The contenders of `accuracy.py` that aren't the product: each a model and how it is trained.

They differ in the fields of `Peer` and share the loop of `accuracy_loop`. The ResNets are He et
al. 2016 with a 3x3 stem of stride 2 and no pooling behind it, as pictures of 48 px want.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Literal

import numpy as np
import timm_defaults
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision_operators import name_operators

from vitreous.core.rng import derive_seed, torch_stream
from vitreous.data.config import NO_AUGMENTATION, AugmentConfig
from vitreous.data.loader import PictureSet, TrainingOrder
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.data.transforms import augment
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.recipes.facts import Facts
from vitreous.recipes.scratch import scratch

SIDE = 48
PREPROCESS = Preprocess(image_size=(SIDE, SIDE))
#: What timm's recipes for ViTs change, beside its default crops and flips.
_RANDAUGMENT = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
#: Pictures, and which of the set they are.
Batches = Iterator[tuple[Tensor, list[int] | Tensor]]


@dataclass(frozen=True)
class Peer:
    """A contender and its tuning.

    Args:
        name: of its files.
        title: of its row.
        build: the model for a number of classes.
        batches: augmented, normalised batches without end, from pictures, batch size and seed.
        optimizer: "sgd" is with Nesterov's momentum of 0.9.
        learning_rate: highest rate.
        weight_decay: on matrices and kernels only.
        warmup: share of the steps in which the rate rises; then half a cosine down to 0.
        clip_norm: largest norm of the gradient.
        batch_size: pictures in a step.
        label_smoothing: share of each target spread evenly.
        mixing: mixup and CutMix, switched off at the end by its `plain_share`.
        ema: window of the weights' moving average as a share of all steps; 0 for none.
        channels_last: memory layout that convolutions are faster in.
        side: height and width of its pictures in pixels; only the ResNets take another.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    batches: Callable[[PictureSet, int, int], Batches]
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    weight_decay: float
    warmup: float
    clip_norm: float = math.inf
    batch_size: int = 128
    label_smoothing: float = 0.1
    mixing: AugmentConfig = NO_AUGMENTATION
    ema: float = 0.02
    channels_last: bool = False
    side: int = SIDE

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the input."""
        return Preprocess(image_size=(self.side, self.side))

    def settings(self) -> dict[str, Any]:
        """What is written down with a result."""
        values = asdict(self)
        # The side stands in a result as its image size.
        for name in ("name", "title", "build", "batches", "mixing", "side"):
            del values[name]
        # JSON has no infinity.
        values["clip_norm"] = None if math.isinf(self.clip_norm) else self.clip_norm
        if self.mixing.mix_chance:
            values |= {
                name: getattr(self.mixing, name)
                for name in ("mixup_alpha", "cutmix_alpha", "mix_chance", "plain_share")
            }
        return values


def shifted_batches(pictures: PictureSet, batch_size: int, seed: int, pad: int) -> Batches:
    """Batches flipped at random and shifted by up to `pad` pixels, mirrored at the border."""
    order = TrainingOrder(len(pictures), batch_size, seed)
    for step in count():
        positions = order.step(step)
        pixels, _ = pictures.batch(positions)
        changed = shift_and_flip(pixels, pad, torch_stream(seed, "augment", step))
        yield normalise(changed, PREPROCESS), positions


def our_batches(pictures: PictureSet, batch_size: int, seed: int) -> Batches:
    """Batches changed as the product's default recipe changes them but in long runs."""
    changes = scratch(Facts("", len(pictures), 2, SIDE, epochs=1.0)).config.augment
    order = TrainingOrder(len(pictures), batch_size, seed)
    for step in count():
        positions = order.step(step)
        pixels, _ = pictures.batch(positions)
        images = normalise(pixels, PREPROCESS)
        yield augment(images, changes, torch_stream(seed, "augment", step)), positions


def shift_and_flip(pixels: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Padding by reflection, a random crop of the old size and a random flip, as one gather.

    Shape:
        (batch, height, width, channels) -> the same
    """
    batch, height, width, _ = pixels.shape

    def places(size: int) -> Tensor:
        offsets = torch.randint(-pad, pad + 1, (batch, 1), generator=generator)
        inside = (torch.arange(size) + offsets).abs()
        return size - 1 - (size - 1 - inside).abs()

    rows, columns = places(height), places(width)
    flip = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    return pixels[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


class _TimmPictures(TorchDataset):
    """Pictures through timm's transform for training."""

    def __init__(self, pictures: PictureSet, changes: Mapping[str, Any]) -> None:
        self.pictures = pictures
        self.transform = _timm().data.create_transform(
            (3, SIDE, SIDE),
            is_training=True,
            mean=PREPROCESS.mean,
            std=PREPROCESS.std,
            **changes,
        )

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        pixels = self.pictures.pixels[self.pictures.rows[position]]
        return self.transform(Image.fromarray(np.array(pixels))), position  # pyright: ignore[reportCallIssue]


def timm_batches(
    pictures: PictureSet, batch_size: int, seed: int, changes: Mapping[str, Any]
) -> Batches:
    """As timm makes them: by Pillow, picture by picture, in worker processes that run ahead."""
    order = TrainingOrder(len(pictures), batch_size, seed)
    loader = DataLoader(
        _TimmPictures(pictures, changes),
        batch_sampler=(order.step(step) for step in count()),  # pyright: ignore[reportArgumentType]
        num_workers=2,
        generator=torch.Generator().manual_seed(derive_seed(seed, "augment")),
    )
    return iter(loader)


def _timm():
    name_operators()
    import timm.data
    import timm.models.vision_transformer

    timm.data.auto_augment.NAME_TO_OP["PosterizeIncreasing"] = _posterize
    return timm


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    # At its strongest RandAugment keeps no bit, which Pillow 13 refuses and older ones drew black.
    black = Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits) if bits else black


def timm_vit(num_classes: int) -> nn.Module:
    return _timm().models.vision_transformer.VisionTransformer(
        img_size=SIDE,
        patch_size=6,
        embed_dim=192,
        depth=6,
        num_heads=3,
        num_classes=num_classes,
    )


def plain_vit(num_classes: int) -> nn.Module:
    return ViT(
        ModelConfig(
            image_size=(SIDE, SIDE),
            patch_size=(6, 6),
            embed_dim=192,
            depth=6,
            num_heads=3,
            num_classes=num_classes,
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.around = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.around = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.around(x))


class ResNet(nn.Module):
    """A ResNet of basic blocks; blocks of each of the four stages are given."""

    def __init__(self, num_classes: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        stages, channels = [], 64
        for stage, depth in enumerate(blocks):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                stages.append(BasicBlock(channels, 64 * 2**stage, stride))
                channels = 64 * 2**stage
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, BasicBlock):
                # Every block begins as the identity (Goyal et al. 2017, section 5.1).
                nn.init.zeros_(module.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


_RESNET18 = Peer(
    name="resnet18",
    title="ResNet-18",
    build=partial(ResNet, blocks=(2, 2, 2, 2)),
    batches=partial(shifted_batches, pad=4),
    # Over five epochs this came before the rates 1e-3 and 2e-3 and before SGD (the log has them).
    optimizer="adamw",
    learning_rate=4e-3,
    weight_decay=0.05,
    warmup=0.1,
    clip_norm=1.0,
    channels_last=True,
)
_RESNET34 = replace(
    _RESNET18, name="resnet34", title="ResNet-34", build=partial(ResNet, blocks=(3, 4, 6, 3))
)
_PLAIN = Peer(
    name="plain-vit",
    title="plain ViT, AdamW and flips",
    build=plain_vit,
    batches=partial(shifted_batches, pad=0),
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup=0.1,
    clip_norm=1.0,
)
_TIMM = replace(
    _PLAIN,
    name="timm-vit",
    title="timm's ViT and RandAugment, AdamW",
    build=timm_vit,
    batches=partial(timm_batches, changes=_RANDAUGMENT),
)
#: As train.py does by default, its 300 epochs squeezed into the minutes; but for its float32,
#: which is slower, and for its cosine, which counts from the start of the warm-up and so is lower
#: by up to 1.5 % of the highest rate.
_TIMM_SCRIPT = Peer(
    name="timm-script",
    title="timm's ViT, augmentation and schedule, as its train.py by default",
    build=timm_vit,
    batches=partial(timm_batches, changes=timm_defaults.TRANSFORM),
    optimizer="sgd",
    learning_rate=timm_defaults.learning_rate(timm_defaults.BATCH_SIZE),
    weight_decay=timm_defaults.OPTIMIZER["weight_decay"],
    warmup=timm_defaults.SCHEDULE["warmup_epochs"] / timm_defaults.SCHEDULE["num_epochs"],
    batch_size=timm_defaults.BATCH_SIZE,
    label_smoothing=timm_defaults.SMOOTHING,
    ema=0.0,
)
_MIXUP = replace(NO_AUGMENTATION, mixup_alpha=0.2, cutmix_alpha=0.0, mix_chance=1.0)
_CUTMIX = replace(NO_AUGMENTATION, mixup_alpha=0.0, cutmix_alpha=1.0, mix_chance=0.5)

PEERS = (_PLAIN, _TIMM, _TIMM_SCRIPT, _RESNET18, _RESNET34)
#: Changes to the ResNets, by name and in words.
_CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ours", "our augmentation", {"batches": our_batches}),
    ("mixup", "mixup", {"mixing": _MIXUP}),
    ("cutmix", "CutMix", {"mixing": _CUTMIX}),
    ("32", "pictures of 32 px", {"side": 32}),
    ("sgd", "SGD", {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "warmup": 0.2,
                    "clip_norm": math.inf}),
)  # fmt: skip
#: Other tunings of the ResNets, which run where they are named.
TUNINGS = tuple(
    replace(peer, name=f"{peer.name}-{name}", title=f"{peer.title}, {words}", **changes)
    for peer in (_RESNET18, _RESNET34)
    for name, words, changes in _CHANGES
)
