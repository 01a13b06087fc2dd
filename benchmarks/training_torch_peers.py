"""A worker: training steps of timm's or transformers' ViT, in their own loops.

    PEERS/bin/python benchmarks/training_torch_peers.py \
        '{"library": "timm", "model": "S/16", "image_size": 224, "batch_size": 8, "best": false}'

timm as its `train.py` does with a model of that name: float32, SGD with momentum, label smoothing;
at its best as `--amp --amp-dtype bfloat16 --torchcompile --opt adamw`, at 48 px, where there are
convolutions, with `--channels-last`, too. transformers with its `Trainer`: float32 and AdamW; at
its best with `bf16` and `torch_compile`. On a GPU its best is the same without `Trainer`, which
would spend its time collating pictures; both have fused AdamW there.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from speed_turns import WARMUP, Turns
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision_operators import name_operators

name_operators()

NUM_CLASSES = 3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: Width, depth, heads.
SIZES = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}


class Stem(nn.Module):
    """The convolutions in front of the 48 px model, as a user of timm would write them.

    timm asks an `embed_layer` for these arguments and for `num_patches`.
    """

    dynamic_img_pad = False

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: object
    ) -> None:
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        self.patch_size, self.grid_size = (patch_size, patch_size), (img_size // patch_size,) * 2
        first, second, third = embed_dim // 4, embed_dim // 2, embed_dim
        self.convs = nn.Sequential(
            *_convolution(in_chans, first, 2), Residual(first),
            *_convolution(first, second, 2), Residual(second),
            *_convolution(second, third, 2),
        )  # fmt: skip
        self.proj = nn.Linear(third, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.convs(x).flatten(2).transpose(1, 2))

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        return self.patch_size[0] if as_scalar else self.patch_size


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, channels, 1), *_convolution(channels, channels, 1)[:2]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def _convolution(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]


def timm_model(model: str, side: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    if model.startswith("compact"):
        return VisionTransformer(
            img_size=side, patch_size=8, embed_dim=96, depth=6, num_heads=3,
            num_classes=NUM_CLASSES, class_token=False, global_pool="avg", embed_layer=Stem,
        )  # fmt: skip
    size, patch = model.split("/")
    width, depth, heads = SIZES[size]
    return VisionTransformer(
        img_size=side, patch_size=int(patch), embed_dim=width, depth=depth, num_heads=heads,
        num_classes=NUM_CLASSES,
    )  # fmt: skip


def run_timm(settings: dict[str, Any], images: Tensor, labels: Tensor, turns: Turns) -> None:
    model: Any = timm_model(settings["model"], settings["image_size"]).to(DEVICE).train()
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    best = settings["best"]
    if best and settings["model"].startswith("compact"):
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    fused = {"fused": True} if best else {}
    optimizer = create_optimizer_v2(
        model, opt="adamw" if best else "sgd", lr=1e-3, momentum=0.9, weight_decay=0.05, **fused
    )
    loop(model, optimizer, LabelSmoothingCrossEntropy(0.1), best, images, labels, turns)


def loop(
    model: Any,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[..., Tensor],
    best: bool,
    images: Tensor,
    labels: Tensor,
    turns: Turns,
) -> None:
    if best:
        model = torch.compile(model, backend="inductor")
    while True:
        turns.begin()
        with torch.autocast(DEVICE.type, torch.bfloat16) if best else nullcontext():
            loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        turns.end()


def transformers_model(model: str, side: int) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    size, patch = model.split("/")
    width, depth, heads = SIZES[size]
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, image_size=side, patch_size=int(patch),
        num_labels=NUM_CLASSES,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    return ViTForImageClassification(config)


def run_transformers(
    settings: dict[str, Any], images: Tensor, labels: Tensor, turns: Turns
) -> None:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Paced(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.end()

    rows = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(images, labels, strict=True)
    ]
    best = settings["best"]
    if best and DEVICE.type == "cuda":
        model = transformers_model(settings["model"], settings["image_size"]).to(DEVICE).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        loop(
            model,
            optimizer,
            lambda out, y: cross_entropy(out.logits, y),
            best,
            images,
            labels,
            turns,
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=100_000, per_device_train_batch_size=len(rows),
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
            use_cpu=DEVICE.type == "cpu", bf16=best, torch_compile=best,
        )  # fmt: skip
        model = transformers_model(settings["model"], settings["image_size"])
        Trainer(model, arguments, train_dataset=rows, callbacks=[Paced()]).train()  # pyright: ignore[reportArgumentType]


def main(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    batch_size, side = settings["batch_size"], settings["image_size"]
    images = torch.randn(batch_size, 3, side, side, device=DEVICE)
    labels = torch.arange(batch_size, device=DEVICE) % NUM_CLASSES
    is_gpu = DEVICE.type == "cuda"
    wait = torch.cuda.synchronize if is_gpu else lambda: None
    turns = Turns(batch_size, wait, 2 * WARMUP if is_gpu else WARMUP)
    run = {"timm": run_timm, "transformers": run_transformers}[settings["library"]]
    run(settings, images, labels, turns)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
