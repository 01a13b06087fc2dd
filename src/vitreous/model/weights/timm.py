"""timm's names, and those of the papers' own PyTorch code, which are nearly the same.

Original DINO, DINOv2, DINOv3, MAE and DeiT files name the parts of a block as timm does; what they
have beside it (registers, gates, projection heads, decoders) is told from its own names. Written is
a folder as timm itself saves it, in `timm_folder`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.config import Activation, Pool
from vitreous.model.weights.files import Source
from vitreous.model.weights.naming import State, head_behind_tanh, rename, unwrapped
from vitreous.model.weights.settings import (
    Preprocessing,
    names_in_order,
    positive,
    size_of,
    three_numbers,
)
from vitreous.model.weights.translation import Stated, Translation, Wanted, is_gated, settle

_RULES = (
    ("register_tokens|storage_tokens", "reg_token"),
    (r"(blocks\.\d+)\.gamma_([12])", r"\1.ls\2.gamma"),
    (r"(blocks\.\d+\.mlp)\.(?:fc1_g|w1)\.(\w+)", r"\1.gate.\2"),
    (r"(blocks\.\d+\.mlp)\.(?:fc1_x|w2)\.(\w+)", r"\1.up.\2"),
    (r"(blocks\.\d+\.mlp)\.w12\.(\w+)", r"\1.fc1.\2"),
    (r"(blocks\.\d+\.mlp)\.w3\.(\w+)", r"\1.fc2.\2"),
)
#: The other way round, where timm turns queries and keys.
TURNED_RULES = ((r"(blocks\.\d+)\.ls([12])\.gamma", r"\1.gamma_\2"),)
_UNUSED = {
    "mask_token": "the mask token of pretraining",
    r"decoder_\w+(\..*)?": "the decoder of pretraining",
    r"(head|dino_head|ibot_head)\.(mlp|last_layer)\..*": "the projection head of pretraining",
    r"local_cls_norm\.\w+": "a norm that only pretraining uses",
    r"rope_embed\.periods|rope\.periods": "the rates of turning, which are computed",
}
#: timm's architectures that are this model; of those that only look like it, the second tells.
_PLAIN = re.compile(r"(vit|deit3?|flexivit|eva_giant|eva_large)_")
_OTHER = re.compile(r"_(rpn|rope|pe|relpos|srelpos)_")
_LARGER_EPS = re.compile(r"vit_.*_(clip|dinov3)")
#: The one kind of its architectures with a second token and head.
DISTILLED = "deit_tiny_distilled_patch16_224"
#: Arguments with which queries and keys are turned as they are here.
TURNED = {
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_grid_indexing": "ij",
    "rope_rotate_half": True,
}
#: Names of its rooms for the head, and of activations, ours behind them.
POOLS: dict[str, Pool] = {"token": "cls", "avg": "mean", "map": "map"}
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: timm's architectures whose heads aren't as wide as usual, where no setting says it.
_HEADS = (("giantopt_", 16), ("_7b_", 32), ("base_patch16_gap_", 16))
#: timm's architectures whose activation isn't the exact GELU, where no setting says it.
_BY_ARCHITECTURE: tuple[tuple[str, Activation], ...] = (
    ("quickgelu", "quick_gelu"),
    ("patch32_siglip|large_patch16_siglip(_gap)?_512", "gelu_tanh"),
    ("(so400m|giantopt)_patch16_siglip", "gelu_tanh"),
)


def matches(source: Source) -> bool:
    """Whether the tensors have these names."""
    names = _inside(source.tensors)
    return "patch_embed.proj.weight" in names and "blocks.0.norm1.weight" in names


def translate(source: Source, wanted: Wanted) -> Translation:
    """Read a state dict, with timm's ``config.json`` where it lies beside it.

    Raises:
        WeightsError: where it isn't a plain ViT.
    """
    tensors = _inside(source.tensors)
    settings = source.config
    architecture = str(settings.get("architecture", ""))
    if architecture and not is_plain(architecture, _mapping(settings, "model_args")):
        raise WeightsError(f"{source.path} is timm's {architecture}, which isn't a plain ViT")
    unused = _UNUSED | head_behind_tanh(tensors, r"pre_logits\..*", r"head\..*")
    state, notes = rename(tensors, _RULES, unused, source.path)
    if not architecture:
        notes += _check_table(source, tensors)
    _drop_key_bias(state)
    _join_partial_bias(state)
    stated = _stated(source, architecture, state)
    stated.notes = [*notes, *stated.notes]
    pretrained = _mapping(settings, "pretrained_cfg")
    return settle(
        source.path,
        _format(tensors),
        state,
        stated,
        wanted,
        classes=names_in_order(pretrained.get("label_names") or settings.get("label_names")),
        preprocessing=_preprocessing(pretrained, stated.notes),
    )


def is_plain(architecture: str, arguments: Mapping[str, Any]) -> bool:
    """Whether one of timm's architectures, with some arguments, is this model."""
    if not _PLAIN.match(architecture):
        return False
    return not _OTHER.search(architecture) or _is_turned(architecture, arguments)


def epsilon_of(architecture: str) -> float:
    """Of the norms of one of timm's architectures, which no argument says."""
    return 1e-5 if _LARGER_EPS.match(architecture) else 1e-6


def heads_of(architecture: str) -> int | None:
    """Of the blocks of one of timm's architectures, where their width doesn't tell."""
    return next((heads for part, heads in _HEADS if part in architecture), None)


def _is_turned(architecture: str, arguments: Mapping[str, Any]) -> bool:
    """Whether queries and keys are turned, and as they are here."""
    stated = {name: arguments.get(name) for name in TURNED}
    return "_dinov3" in architecture or stated == TURNED


def _inside(tensors: Mapping[str, Tensor]) -> State:
    named = unwrapped(tensors)
    # A backbone stands beside a projection head, whose names are kept apart by theirs.
    if "backbone.patch_embed.proj.weight" in named:
        inside = {name.removeprefix("backbone."): tensor for name, tensor in named.items()}
        named = inside if len(inside) == len(named) else named
    return named


def _format(names: Mapping[str, Tensor]) -> str:
    markers = {
        "storage_tokens": "DINOv3's own",
        "register_tokens": "DINOv2's own",
        "head.last_layer.weight_g": "DINO's own",
        "decoder_embed.weight": "MAE's own",
        "mask_token": "DINOv2's own",
    }
    return next((name for marker, name in markers.items() if marker in names), "timm")


def _check_table(source: Source, tensors: Mapping[str, Tensor]) -> list[str]:
    """Some models turn queries and keys beside their table, and don't save by how much."""
    if "pos_embed" in tensors and "blocks.0.attn.q_bias" in tensors:
        raise WeightsError(
            f"{source.path} may be an EVA-02, which isn't a plain ViT, or an EVA, which is: only "
            "timm's config.json in the same folder tells them apart"
        )
    if "pos_embed" in tensors and "blocks.0.gamma_1" in tensors:
        return ["factors of residual branches called gamma: DeiT III assumed"]
    return []


def _drop_key_bias(state: State) -> None:
    """DINOv3's own files mask the bias of keys, whatever numbers stand there."""
    for mask in [name for name in state if name.endswith("attn.qkv.bias_mask")]:
        del state[mask]
        state[mask.removesuffix("_mask")].chunk(3)[1].zero_()


def _join_partial_bias(state: State) -> None:
    """Models of timm without a bias on keys keep those of queries and values apart."""
    for name in [name for name in state if name.endswith("attn.q_bias")]:
        attention = name.removesuffix("q_bias")
        query, value = state.pop(name), state.pop(f"{attention}v_bias", None)
        if value is not None:
            bias = torch.cat([query, torch.zeros_like(query), value])
            state[f"{attention}qkv.bias"] = bias


def _stated(source: Source, architecture: str, state: State) -> Stated:
    settings = source.config
    arguments = _mapping(settings, "model_args")
    stated = Stated(rope_theta=_theta(source, architecture, arguments, state))
    if stated.rope_theta and not architecture:
        stated.notes.append("no table of positions: queries and keys turned as in DINOv3 assumed")
    if architecture:
        stated.norm_eps = epsilon_of(architecture)
    else:
        is_clip_or_dinov3 = "norm_pre.weight" in state or stated.rope_theta is not None
        stated.norm_eps = 1e-5 if is_clip_or_dinov3 else 1e-6
    stated.image_size = size_of(
        arguments.get("img_size") or _mapping(settings, "pretrained_cfg").get("input_size")
    )
    if arguments.get("pool_include_prefix"):
        raise WeightsError(
            f"{source.path} takes its mean over class and register tokens too "
            "(pool_include_prefix), which isn't done here"
        )
    heads = arguments.get("num_heads")
    stated.num_heads = heads if isinstance(heads, int) and heads > 0 else heads_of(architecture)
    pool = str(settings.get("global_pool") or "")
    if pool and pool not in POOLS and "head.weight" in state:
        raise WeightsError(
            f"{source.path}: its global_pool is '{pool}'; read are {', '.join(POOLS)}"
        )
    stated.pool = POOLS.get(pool)
    if stated.pool is None and "fc_norm.weight" in state and "attn_pool.latent" not in state:
        stated.pool = "mean"
    stated.activation = _activation(architecture, arguments, state, stated.notes)
    return stated


def _theta(
    source: Source, architecture: str, arguments: Mapping[str, Any], state: State
) -> float | None:
    """Of turned queries and keys, which a model without a table of positions has."""
    if "pos_embed" in state:
        return None
    if not architecture:
        return 100.0 if {"cls_token", "reg_token"} <= state.keys() else None
    if not _is_turned(architecture, arguments):
        raise WeightsError(f"{source.path} is timm's {architecture}: its positions aren't known")
    return positive(source.path, arguments, "rope_temperature", 100.0)


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _activation(
    architecture: str, arguments: Mapping[str, Any], state: State, notes: list[str]
) -> Activation:
    if "act_layer" in arguments:
        name = str(arguments["act_layer"])
        if name not in ACTIVATIONS:
            raise WeightsError(f"unknown activation '{name}': known are {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]
    for pattern, activation in _BY_ARCHITECTURE:
        if re.search(pattern, architecture):
            return activation
    if is_gated(state):
        return "silu"
    if "norm_pre.weight" in state and not architecture:
        notes.append("CLIP with GELU assumed; as OpenAI trained it, it has quick_gelu")
    if "attn_pool.latent" in state and not architecture:
        notes.append("exact GELU assumed; some of SigLIP's models have its tanh form")
    return "gelu"


def _preprocessing(settings: Mapping[str, Any], notes: list[str]) -> Preprocessing | None:
    if not settings:
        return None
    size = size_of(settings.get("input_size"))
    share = settings.get("crop_pct")
    resize = None
    if size and isinstance(share, int | float) and 0 < share <= 1:
        resize = (math.floor(size[0] / share), math.floor(size[1] / share))
    if settings.get("crop_mode", "center") != "center":
        notes.append(
            f"its pictures were fitted by '{settings['crop_mode']}'; here they're cropped centrally"
        )
    interpolation = settings.get("interpolation")
    if interpolation not in (None, "bicubic", "bilinear"):
        notes.append(f"its resampling ({str(interpolation)[:20]}) isn't known here")
    return Preprocessing(
        image_size=size,
        resize=resize,
        interpolation=interpolation if interpolation in ("bicubic", "bilinear") else None,
        mean=three_numbers(settings.get("mean")),
        std=three_numbers(settings.get("std")),
    )
