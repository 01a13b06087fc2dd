"""What every foreign format is turned into: our names, our shapes, one `ModelConfig`.

A format's own module renames tensors (`naming`) and says what its library implies; the rest, which
is the same for all of them, is here: joining queries, keys and values, giving prefix tokens their
positions, and reading the configuration off the shapes.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.config import Activation, ModelConfig, Pool, grid_of
from vitreous.model.weights.naming import State
from vitreous.model.weights.settings import Preprocessing

_HEAD_DIM = 64
#: Published widths whose heads are not 64 wide: SigLIP So400m, H, g and G of Zhai et al. 2022, and
#: those of more than one model: without a class token SigLIP 2's giant-opt, turned DINOv3's 7B.
_PUBLISHED_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
_PUBLISHED_WITHOUT_CLASS = {1536: 16}
_PUBLISHED_TURNED = {4096: 32}
#: LayerScale's start matters to a new model only; this is that of its paper for deep ones.
_LAYER_SCALE = 1e-5
_IMAGE_SIDE = 224


@dataclass(frozen=True)
class Translation:
    """A checkpoint in our words, at the size it was trained for.

    Args:
        format: where it comes from, for people.
        config: that its shapes and settings tell.
        state: by our names; what has none keeps its own, and is left over.
        classes: names in output order.
        preprocessing: what it says.
        notes: what was assumed or left out, in plain English.
    """

    format: str
    config: ModelConfig
    state: State
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the caller says of a checkpoint that doesn't say it itself."""

    num_heads: int | None = None
    image_size: tuple[int, int] | None = None


@dataclass
class Stated:
    """What a format or its settings say beside the shapes; ``None`` where nothing does.

    Args:
        num_heads: of each block.
        image_size: height and width in pixels that it was trained for.
        activation: of the MLPs.
        norm_eps: of every layer norm.
        pool: what the head sees.
        rope_theta: of turned queries and keys, where it has those instead of positions.
        notes: what was assumed so far.
    """

    num_heads: int | None = None
    image_size: tuple[int, int] | None = None
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    pool: Pool | None = None
    rope_theta: float | None = None
    notes: list[str] = field(default_factory=list)


def settle(
    where: Path,
    format_name: str,
    state: State,
    stated: Stated,
    wanted: Wanted,
    *,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Translation:
    """Bring renamed tensors into our shapes and read the configuration off them.

    Beside our names these are understood: ``attn.q``, ``attn.k``, ``attn.v`` of a block for
    ``attn.qkv``, ``mlp.gate`` and ``mlp.up`` for ``mlp.fc1``; ``dist_token`` and ``head_dist`` of
    a distilled DeiT; positions with or without places for class and register tokens.

    Raises:
        WeightsError: where the tensors aren't those of a ViT.
    """
    if wanted.num_heads and stated.num_heads and wanted.num_heads != stated.num_heads:
        raise WeightsError(f"{where} has {stated.num_heads} heads, not {wanted.num_heads}")
    if "reg_token" in state and not state["reg_token"].numel():
        del state["reg_token"]  # DINOv3 without registers saves none of them as a tensor
    _join_layers(where, state)
    _check_dimensions(where, state)
    patch_size = _pair(state["patch_embed.proj.weight"].shape[2:])
    preprocessing = _in_whole_patches(stated, preprocessing, patch_size)
    sizes = (stated.image_size, wanted.image_size)
    trained, hint = (size and grid_of(size, patch_size) for size in sizes)
    grid = _settle_prefix(where, state, trained, hint)
    _settle_heads(state, stated)
    config = _config(where, state, stated, wanted, grid)
    return Translation(format_name, config, state, classes, preprocessing, tuple(stated.notes))


def _join_layers(where: Path, state: State) -> None:
    """Put queries, keys and values, and the two halves of gated MLPs, into one layer each."""
    for name in [name for name in state if re.fullmatch(r"blocks\.\d+\.attn\.q\.weight", name)]:
        _join(where, state, name.removesuffix(".q.weight"), ("q", "k", "v"), "qkv")
    for name in [name for name in state if re.fullmatch(r"blocks\.\d+\.mlp\.up\.weight", name)]:
        mlp = name.removesuffix(".up.weight")
        parts = ("gate", "up") if f"{mlp}.gate.weight" in state else ("up",)
        _join(where, state, mlp, parts, "fc1")
    biases = ("attn.proj", "mlp.fc1", "mlp.fc2")
    for layer in biases:
        weights = [n for n in state if re.fullmatch(rf"blocks\.\d+\.{layer}\.weight", n)]
        _fill_biases(state, weights)
    if "norm_pre.weight" in state:
        _fill_biases(state, ["patch_embed.proj.weight"])


def _join(where: Path, state: State, layer: str, parts: tuple[str, ...], joined: str) -> None:
    weights = [state.pop(f"{layer}.{part}.weight", None) for part in parts]
    biases = [state.pop(f"{layer}.{part}.bias", None) for part in parts]
    if any(weight is None for weight in weights):
        raise WeightsError(f"{where} has not all of {', '.join(parts)} in {layer}")
    whole = [weight for weight in weights if weight is not None]
    state[f"{layer}.{joined}.weight"] = torch.cat(whole)
    if any(bias is not None for bias in biases):
        # DINOv3 has no bias on keys; zeros are the same.
        state[f"{layer}.{joined}.bias"] = torch.cat(
            [
                weight.new_zeros(weight.shape[0]) if bias is None else bias
                for weight, bias in zip(whole, biases, strict=True)
            ]
        )


def _fill_biases(state: State, weights: list[str]) -> None:
    """Zeros for a bias that no block has; one that some have and some don't is missing."""
    biases = [name.removesuffix("weight") + "bias" for name in weights]
    if not any(bias in state for bias in biases):
        for weight, bias in zip(weights, biases, strict=True):
            state[bias] = state[weight].new_zeros(state[weight].shape[0])


def _check_dimensions(where: Path, state: State) -> None:
    """See that the tensors whose shapes are read have as many axes as they should."""
    wanted = {"patch_embed.proj.weight": 4, "blocks.0.attn.proj.weight": 2}
    wanted |= {"blocks.0.mlp.fc1.weight": 2, "blocks.0.mlp.fc2.weight": 2}
    optional = {"pos_embed": 3, "cls_token": 3, "dist_token": 3, "reg_token": 3, "head.weight": 2}
    wanted |= {name: axes for name, axes in optional.items() if name in state}
    for name, axes in wanted.items():
        if name not in state:
            raise WeightsError(f"{where} has no {name}: it isn't a Vision Transformer")
        if state[name].ndim != axes or 0 in state[name].shape:
            raise WeightsError(
                f"{where} has {name} of shape {tuple(state[name].shape)} instead of {axes} axes"
            )


def _in_whole_patches(
    stated: Stated, preprocessing: Preprocessing | None, patch_size: tuple[int, int]
) -> Preprocessing | None:
    """Leave out of stated sizes what fills no patch, as the libraries' projections do.

    SigLIP's So400m has patches of 14 px and pictures of 384. The libraries leave out the last rows
    and columns, here the middle is taken.
    """
    sizes = (stated.image_size, preprocessing.image_size if preprocessing else None)
    filled = [size and _filled(size, patch_size) for size in sizes]
    for size, seen in dict(zip(sizes, filled, strict=True)).items():
        if size and seen and size != seen:
            stated.notes.append(
                f"{size[0]}x{size[1]} px are no whole number of patches of {patch_size[0]}x"
                f"{patch_size[1]} px: the middle {seen[0]}x{seen[1]} px of a picture are seen"
            )
    stated.image_size = filled[0]
    if preprocessing is None or filled[1] == sizes[1]:
        return preprocessing
    return replace(preprocessing, image_size=filled[1], resize=preprocessing.resize or sizes[1])


def _filled(size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """The largest size within that patches fill; the same where not even one fits."""
    return _pair(
        pixels // patch * patch or pixels for pixels, patch in zip(size, patch_size, strict=True)
    )


def _settle_prefix(
    where: Path,
    state: State,
    trained: tuple[int, int] | None,
    hint: tuple[int, int] | None,
) -> tuple[int, int] | None:
    """Give positions of prefix tokens to the tokens, and keep a row for the class token alone.

    Libraries differ in whether class and register tokens have places in the table. A token's own
    position is a constant added to a constant, so every case is this one.

    Args:
        where: the file.
        state: with the table and the tokens; changed.
        trained: rows and columns of patches, where the checkpoint says.
        hint: rows and columns wanted, for tables that are no square.

    Returns:
        Rows and columns of the table's patches; ``None`` without a table.
    """
    has_class = "cls_token" in state
    registers = [state.pop(name) for name in ("dist_token", "reg_token") if name in state]
    extra = torch.cat(registers, dim=1) if registers else None
    if extra is not None:
        state["reg_token"] = extra
    if "pos_embed" not in state:
        return None
    table = state["pos_embed"]
    count, after_class = table.shape[1], int(has_class)
    prefix = after_class + (0 if extra is None else extra.shape[1])
    places = sorted({prefix, after_class, 0}, reverse=True)
    for grid in (trained, hint, None):
        for held in places:
            found = grid or _square(count - held)
            if found and found[0] * found[1] == count - held:
                _hand_out(state, held, after_class, extra)
                return found
        if trained:
            size = f"{trained[0]}x{trained[1]}"
            raise WeightsError(f"{where} has {count} positions, which don't fit {size} patches")
    raise WeightsError(
        f"{where} has {count} positions, which make no square of patches: give "
        "image_size=(height, width)"
    )


def _hand_out(state: State, held: int, after_class: int, extra: Tensor | None) -> None:
    table = state["pos_embed"]
    before, patches = table[:, :held], table[:, held:]
    if extra is not None and held > after_class:
        state["reg_token"] = extra + before[:, after_class:]
    if after_class:
        row = before[:, :1] if held else torch.zeros_like(patches[:, :1])
        patches = torch.cat([row, patches], dim=1)
    state["pos_embed"] = patches.contiguous()


def _settle_heads(state: State, stated: Stated) -> None:
    """A distilled DeiT's two heads, whose answers are averaged, are one over both tokens."""
    if "head_dist.weight" in state and "head.weight" in state:
        for kind, join in (("weight", lambda a, b: torch.cat([a, b], dim=1)), ("bias", torch.add)):
            state[f"head.{kind}"] = join(state[f"head.{kind}"], state.pop(f"head_dist.{kind}")) / 2
        stated.pool = "prefix"


def _config(
    where: Path,
    state: State,
    stated: Stated,
    wanted: Wanted,
    grid: tuple[int, int] | None,
) -> ModelConfig:
    def has(pattern: str) -> bool:
        # Any one is enough, so that a tensor that the others lack is missing.
        return any(re.fullmatch(pattern, name) for name in state)

    projection, first = state["patch_embed.proj.weight"], "blocks.0"
    width, channels = projection.shape[:2]
    patch_size = _pair(projection.shape[2:])
    inner = state[f"{first}.attn.proj.weight"].shape[1]
    heads = stated.num_heads or wanted.num_heads or _assume_heads(where, state, stated)
    if inner % heads:
        raise WeightsError(
            f"{where} has attention of {inner} channels, not divisible by {heads} heads"
        )
    hidden = state[f"{first}.mlp.fc2.weight"].shape[1]
    has_class, registers = "cls_token" in state, state.get("reg_token")
    if grid is None and stated.rope_theta is None:
        raise WeightsError(f"{where} has no positions of a kind that is known")
    image_size = stated.image_size or (
        (grid[0] * patch_size[0], grid[1] * patch_size[1])
        if grid
        else _pair(_IMAGE_SIDE // pixels * pixels or pixels for pixels in patch_size)
    )
    pool = stated.pool or ("map" if has(r"attn_pool\..*") else None)
    if not has(r"(fc_)?norm\..*"):
        stated.notes.append("no norm behind the last block")
    return ModelConfig(
        image_size=image_size,
        patch_size=patch_size,
        in_channels=channels,
        num_classes=len(state["head.weight"]) if "head.weight" in state else 0,
        embed_dim=width,
        depth=len({n.split(".")[1] for n in state if re.match(r"blocks\.\d+\.", n)}),
        num_heads=heads,
        head_dim=None if inner == width else inner // heads,
        mlp_dim=hidden,
        pos_embed="learned" if grid else "rope2d",
        rope_theta=stated.rope_theta or ModelConfig.rope_theta,
        class_token=has_class,
        num_register_tokens=0 if registers is None else registers.shape[1],
        pool=pool or ("cls" if has_class else "mean"),
        fc_norm=has(r"fc_norm\..*"),
        pre_norm=has(r"norm_pre\..*"),
        qkv_bias=has(r"blocks\.\d+\.attn\.qkv\.bias"),
        qk_norm=has(r"blocks\.\d+\.attn\.[qk]_norm\..*"),
        layer_scale_init=_LAYER_SCALE if has(r"blocks\.\d+\.ls[12]\.gamma") else None,
        gated_mlp=is_gated(state),
        final_norm=has(r"norm\..*"),
        norm_eps=stated.norm_eps,
        activation=stated.activation,
    )


def is_gated(state: State) -> bool:
    """Whether the first layer of the MLPs is twice as wide as the second takes."""
    first, second = (state.get(f"blocks.0.mlp.fc{n}.weight") for n in (1, 2))
    if first is None or second is None or first.ndim != 2 or second.ndim != 2:
        return "blocks.0.mlp.gate.weight" in state
    return first.shape[0] == 2 * second.shape[1]


def published_heads(width: int, has_class: bool, turned: bool) -> int | None:
    """Heads of the published models of a width, where they aren't 64 wide."""
    if turned:
        return _PUBLISHED_TURNED.get(width)
    only_without = None if has_class else _PUBLISHED_WITHOUT_CLASS.get(width)
    return only_without or _PUBLISHED_HEADS.get(width)


def _assume_heads(where: Path, state: State, stated: Stated) -> int:
    width = state["patch_embed.proj.weight"].shape[0]
    turned = stated.rope_theta is not None
    if heads := published_heads(width, "cls_token" in state, turned):
        stated.notes.append(f"{heads} heads assumed, as in the published models of width {width}")
        return heads
    if width % _HEAD_DIM:
        raise WeightsError(
            f"{where} doesn't say its number of heads, and a width of {width} is no multiple of "
            f"{_HEAD_DIM}: give num_heads"
        )
    heads = width // _HEAD_DIM
    stated.notes.append(f"{_HEAD_DIM} channels per head assumed: {heads} heads")
    return heads


def _square(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


def _pair(values: Iterable[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
