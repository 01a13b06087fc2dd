"""transformers' `Trainer` as its example script for pictures and that script's README have it.

examples/pytorch/image-classification/run_image_classification.py: its transforms, its model from a
folder with a new head, the README's settings, the Trainer's defaults for all else. Pictures are
read file by file, as its data set of class folders does. The README's five epochs become what fits
into the minutes; nothing is logged or saved on the way, which would cost time.
"""

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finetune_loop import Diary, Pictures, Task, Trained, timm_model
from pace import Pace
from result_files import score
from safetensors.torch import save_file
from torch import Tensor
from torchvision_operators import name_operators

from vitreous.data.folder import Listing

name_operators()

from transformers import (  # noqa: E402
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessor,
)

README = {
    "learning_rate": 2e-5,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "remove_unused_columns": False,
}
#: More steps than any minutes hold: the diary says when to stop.
_WITHOUT_END = 10**9

#: timm's names and those of a checkpoint of transformers.
_NAMES = (
    (r"cls_token", r"vit.embeddings.cls_token"),
    (r"pos_embed", r"vit.embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(\w+)", r"vit.embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"vit.encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"vit.encoder.layer.\1.layernorm_after.\2"),
    (
        r"blocks\.(\d+)\.attn\.(query|key|value)\.(\w+)",
        r"vit.encoder.layer.\1.attention.attention.\2.\3",
    ),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"vit.encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"vit.encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"vit.encoder.layer.\1.output.dense.\2"),
    (r"norm\.(\w+)", r"vit.layernorm.\1"),
    (r"head\.(\w+)", r"classifier.\1"),
)


def write_checkpoint(weights: Path, name: str, folder: Path) -> None:
    """Write a model of timm as a folder that transformers loads, and see that both answer the same.

    Args:
        weights: the file.
        name: what timm calls the model.
        folder: exists and is empty.
    """
    from timm.data.config import resolve_data_config

    model = timm_model(weights, name).eval()
    block, patches = model.blocks[0], model.patch_embed
    config = ViTConfig(
        hidden_size=model.embed_dim,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features,
        layer_norm_eps=model.norm.eps,
        image_size=patches.img_size[0],
        patch_size=patches.patch_size[0],
        num_labels=model.num_classes,  # pyright: ignore[reportCallIssue]
        architectures=["ViTForImageClassification"],
    )
    config.save_pretrained(folder)
    save_file(_renamed(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    prepared = resolve_data_config({}, model=model)
    height, width = prepared["input_size"][1:]
    ViTImageProcessor(
        size={"height": height, "width": width},
        image_mean=list(prepared["mean"]),
        image_std=list(prepared["std"]),
    ).save_pretrained(folder)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    with torch.inference_mode():
        ours = model.double()(images)
        theirs = AutoModelForImageClassification.from_pretrained(folder).double().eval()
        difference = (theirs(images).logits - ours).abs().max().item()
    if not difference < 1e-6:
        raise RuntimeError(f"transformers' logits differ from timm's by {difference:.1e}")


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                parts[name.replace("qkv", part)] = piece.contiguous()
        else:
            parts[name] = tensor
    renamed = {}
    for name, tensor in parts.items():
        rule = next((rule for rule in _NAMES if re.fullmatch(rule[0], name)), None)
        if rule is None:
            raise RuntimeError(f"transformers' plain ViT has no place for {name}")
        renamed[re.sub(*rule, name)] = tensor
    return renamed


class _MeasurePace(TrainerCallback):
    """Takes a few steps and stops."""

    def __init__(self) -> None:
        self.pace = Pace()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pace.note_step()
        control.should_training_stop = self.pace.is_known


class _KeepMinutes(TrainerCallback):
    """Validates when the diary says so, and stops when it does."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.diary.note_step()
        control.should_training_stop = self.diary.is_over
        control.should_evaluate = control.should_training_stop or self.diary.is_due
        self.began = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        found = {name.removeprefix("eval_"): value for name, value in given["metrics"].items()}
        self.diary.note_validation(found, given["model"], time.monotonic() - self.began)


def transformers_script(task: Task) -> Trained:
    """Measure the pace with one Trainer, then train with another to the end of the minutes."""
    listing = task.listing()
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = _make_trainer(task, listing, folder)
        measure = _MeasurePace()
        trainer.add_callback(measure)
        trainer.train()
        began = time.monotonic()
        trainer.evaluate()
        validation_s = time.monotonic() - began
        trainer, transform = _make_trainer(task, listing, folder)
        optimizer = trainer.create_optimizer()
        steps_per_epoch = len(trainer.get_train_dataloader())
        diary = Diary(task, steps_per_epoch, measure.pace.step_s, validation_s)
        # The Trainer's own linear decay to 0, over as many steps as fit.
        trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 - diary.plan.progress(step)
        )
        trainer.add_callback(_KeepMinutes(diary))
        trainer.train()
    seconds, arguments = diary.elapsed_s, trainer.args
    model: Any = trainer.model
    model.load_state_dict(diary.best_weights)
    settings = {
        **README,
        "num_train_epochs": "what fits instead of 5",
        "optim": arguments.optim,
        "weight_decay": arguments.weight_decay,
        "max_grad_norm": arguments.max_grad_norm,
        "lr_scheduler_type": "linear to 0, no warm-up",
        "dataloader_num_workers": arguments.dataloader_num_workers,
        "precision": "float32",
        "transform": "RandomResizedCrop and RandomHorizontalFlip; Resize and CenterCrop",
    }
    device = next(model.parameters()).device
    return Trained(diary, model, lambda x: model(x.to(device)).logits, transform, seconds, settings)


def _make_trainer(task: Task, listing: Listing, folder: str) -> tuple[Trainer, Any]:
    """The script's model, transforms and Trainer; and the transform of validation."""
    from torchvision.transforms import (
        CenterCrop,
        Compose,
        Normalize,
        RandomHorizontalFlip,
        RandomResizedCrop,
        Resize,
        ToTensor,
    )

    torch.manual_seed(task.seed)
    processor = AutoImageProcessor.from_pretrained(task.weights)
    size = (processor.size["height"], processor.size["width"])
    end = [ToTensor(), Normalize(processor.image_mean, processor.image_std)]
    change = Compose([RandomResizedCrop(size), RandomHorizontalFlip(), *end])
    transform = Compose([Resize(size), CenterCrop(size), *end])
    model = AutoModelForImageClassification.from_pretrained(
        task.weights, num_labels=len(listing.classes), ignore_mismatched_sizes=True
    )
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=_WITHOUT_END,
        seed=task.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **README,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=_collate,
        train_dataset=Pictures(listing, "train", change),
        eval_dataset=Pictures(listing, "valid", transform),
        compute_metrics=lambda given: _score(given, listing),
    )
    return trainer, transform


def _collate(examples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    images, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def _score(given: Any, listing: Listing) -> dict[str, Any]:
    probabilities = torch.from_numpy(np.asarray(given.predictions)).softmax(1).numpy()
    return score(probabilities, np.asarray(given.label_ids), listing.classes)
