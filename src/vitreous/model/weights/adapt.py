"""A checkpoint for other pictures or classes than it was made for, and into the model.

Nothing is drawn anew but the classifier, and that is said.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import ConfigError, WeightsError, first_line
from vitreous.model.config import ModelConfig
from vitreous.model.patches import fold_channels, resize_projection
from vitreous.model.positions import resize_positions
from vitreous.model.vit import ViT
from vitreous.model.weights.naming import listed
from vitreous.model.weights.translation import Translation

#: Above it, a file without so many tensors isn't worth a list of what is missing.
_MOST_BLOCKS = 100
#: Numbers: 1024 channels for each 16 px patch of 4096 px a side.
_MOST_POSITIONS = 2**26


def to_channels(found: Translation, in_channels: int) -> Translation:
    """Fold the projection's (or the stem's first) colour channels: see `patches.fold_channels`."""
    config = found.config
    if in_channels == config.in_channels:
        return found
    name = "patch_embed.convs.0.weight" if config.stem else "patch_embed.proj.weight"
    state = {**found.state, name: fold_channels(found.state[name], in_channels)}
    note = f"{config.in_channels} colour channels folded into {in_channels}"
    return replace(
        found,
        config=replace(config, in_channels=in_channels),
        state=state,
        notes=(*found.notes, note),
    )


def to_sizes(
    where: Path,
    found: Translation,
    image_size: tuple[int, int],
    patch_size: tuple[int, int],
) -> Translation:
    """Interpolate positions and resize the patch projection.

    Raises:
        WeightsError: for a stem or a "flatten" head, which fit one size only.
    """
    config, state, notes = found.config, dict(found.state), list(found.notes)
    wanted = replace(config, image_size=image_size, patch_size=patch_size)
    if wanted == config:
        return found
    if config.pool == "flatten" and wanted.num_patches != config.num_patches:
        raise WeightsError(
            f"{where} has a 'flatten' head, which fits {_size(config.image_size)} px only"
        )
    if patch_size != config.patch_size:
        if config.stem:
            raise WeightsError(f"{where} has a stem, whose patches can't be resized")
        name = "patch_embed.proj.weight"
        state[name] = resize_projection(state[name], patch_size)
        notes.append(f"patches resized from {_size(config.patch_size)} to {_size(patch_size)} px")
    if config.pos_embed == "learned" and wanted.grid_size != config.grid_size:
        state["pos_embed"] = resize_positions(
            state["pos_embed"], config.grid_size, wanted.grid_size, int(config.class_token)
        )
        notes.append(
            f"positions interpolated from {_size(config.grid_size)} to {_size(wanted.grid_size)} "
            "patches"
        )
    return replace(found, config=wanted, state=state, notes=tuple(notes))


def to_classes(found: Translation, num_classes: int) -> Translation:
    """Put a new classifier, zeros as `initialise` has it, unless there is one of this width."""
    config = found.config
    if num_classes == config.num_classes:
        return found
    config = replace(config, num_classes=num_classes)
    state = {name: t for name, t in found.state.items() if not name.startswith("head.")}
    was = f"{found.config.num_classes} -> " if found.config.num_classes else ""
    note = f"head is new: {was}{num_classes} classes"
    if num_classes:
        features = config.head_hidden[-1] if config.head_hidden else config.pooled_dim
        state["head.weight"] = torch.zeros(num_classes, features)
        state["head.bias"] = torch.zeros(num_classes)
    else:
        note = "head left out"
    return replace(found, config=config, state=state, classes=None, notes=(*found.notes, note))


def unfilled(config: ModelConfig, tensors: Mapping[str, Tensor]) -> ViT:
    """The model that settings out of a file describe, without memory for its weights.

    Args:
        config: the settings, which nobody has to believe.
        tensors: of the same file.

    Raises:
        ConfigError: where it would have far more blocks than tensors, or too many positions.
    """
    layers = config.depth + sum(config.stem_blocks) + len(config.stem) + len(config.head_hidden)
    if layers > max(len(tensors), _MOST_BLOCKS):
        raise ConfigError(f"{len(tensors):,} tensors are fewer than the model has blocks")
    # Computed positions are the one thing that takes real memory.
    head_dim = config.attention_dim // config.num_heads
    channels = {"sincos2d": config.embed_dim, "rope2d": head_dim}.get(config.pos_embed, 0)
    if config.num_patches * channels > _MOST_POSITIONS:
        raise ConfigError(
            f"pictures of {_size(config.image_size)} px are {config.num_patches:,} patches, whose "
            f"positions of {channels:,} channels would fill the memory"
        )
    try:
        with torch.device("meta"):
            return ViT(config)
    except (RuntimeError, TypeError) as error:  # numbers of more than 64 bits
        raise ConfigError(f"no model has its sizes: {first_line(error)}") from None


def load(where: Path, config: ModelConfig, state: Mapping[str, Tensor]) -> ViT:
    """The model with these weights, in evaluation mode.

    Raises:
        ConfigError: as `unfilled`.
        WeightsError: listing what is missing, left over or of another shape.
    """
    model = unfilled(config, state)
    if words := misfits(model.state_dict(), state):
        raise WeightsError(f"{where} isn't a model that can be built here; {words}")
    model.load_state_dict(
        {name: tensor.contiguous() for name, tensor in state.items()}, assign=True
    )
    return model.requires_grad_().eval()


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What is missing, left over, of another shape or of whole numbers, in words; "" for nothing.

    Args:
        expected: of a model, whose values don't matter.
        found: to go into it.
    """
    both = [name for name in expected if name in found]
    problems = {
        "missing": [name for name in expected if name not in found],
        "left over": [f"{name} {_shape(found[name])}" for name in found if name not in expected],
        "of another shape": [
            f"{name} {_shape(found[name])} instead of {_shape(expected[name])}"
            for name in both
            if found[name].shape != expected[name].shape
        ],
        "not made of fractions": [
            f"{name} {str(found[name].dtype).removeprefix('torch.')}"
            for name in both
            if expected[name].is_floating_point() != found[name].is_floating_point()
        ],
    }
    return "; ".join(
        f"{what}: {len(names)} ({listed(names)})" for what, names in problems.items() if names
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _size(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
