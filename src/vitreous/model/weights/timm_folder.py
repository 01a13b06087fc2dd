"""A model as the folder that timm loads: its ``config.json`` and ``model.safetensors``.

The layout is that of timm's own `save_for_hf`; ``timm.create_model("local-dir:FOLDER",
pretrained=True)`` reads it, and ``hf-hub:`` where it lies on a hub. Which names and arguments are
timm's, `timm` says, which reads such a folder.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vitreous.model.config import ModelConfig
from vitreous.model.weights.naming import State, new_name
from vitreous.model.weights.outgoing import (
    NOWHERE,
    Outgoing,
    Place,
    Values,
    find_place,
    name_field,
    split_prefix_head,
    whole_or_pair,
    with_position_table,
    with_second_token,
    without_patch_bias,
)
from vitreous.model.weights.settings import Preprocessing
from vitreous.model.weights.timm import ACTIVATIONS, DISTILLED, POOLS, TURNED, TURNED_RULES

#: The epsilon of timm's norms; smaller ones become it.
_EPS = 1e-6


def _vit_problems(config: ModelConfig) -> list[str]:
    two_norms = "two norms behind the last block (model.fc_norm and model.final_norm)"
    return [two_norms] * (config.fc_norm and config.final_norm) + _pool_problems(config)


def _turned_problems(config: ModelConfig) -> list[str]:
    if config.activation == ("silu" if config.gated_mlp else "gelu"):
        return _pool_problems(config)
    return [name_field(config, "activation"), *_pool_problems(config)]


def _pool_problems(config: ModelConfig) -> list[str]:
    """A pooling that attends has an MLP of its own, as wide there as both layers of a gated one."""
    is_gated = config.gated_mlp and config.pool == "map"
    return ["model.gated_mlp True with model.pool 'map'"] if is_gated else []


_ALL: Values = NOWHERE | {
    "pos_embed": ("learned", "sincos2d", "none"),
    "pool": tuple(POOLS.values()),
    "gated_mlp": (False,),
    "norm_eps": (_EPS,),
}
_TURNED: Values = _ALL | {
    "pos_embed": ("rope2d",),
    "pre_norm": (False,),
    "gated_mlp": (False, True),
}
#: What arguments can't say (epsilon, gates, a second head), the choice of the architecture does.
_PLACES = (
    Place("vit_base_patch16_224", _ALL, _vit_problems),
    Place("vit_base_patch16_clip_224", _ALL | {"norm_eps": (1e-5,)}, _vit_problems),
    Place("vit_giant_patch14_dinov2", _ALL | {"gated_mlp": (True,)}, _vit_problems),
    Place(
        DISTILLED,
        _ALL | {"pool": ("prefix",), "num_register_tokens": (1,), "fc_norm": (False,)},
    ),
    Place("vit_small_patch16_dinov3", _TURNED | {"norm_eps": (1e-5,)}, _turned_problems),
    Place("vit_small_patch16_rope_224", _TURNED, _turned_problems),
)


def choose(config: ModelConfig) -> Place:
    """The architecture that can be a model.

    Raises:
        WeightsError: listing what the nearest one has no place for.
    """
    return find_place("timm", _PLACES, replace(config, norm_eps=max(config.norm_eps, _EPS)))


def write(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
) -> Outgoing:
    """Say a model in timm's words.

    Args:
        config: of the model.
        state: its tensors.
        classes: names in output order.
        preprocessing: complete but for `resize` and `mirror`.

    Raises:
        WeightsError: listing what timm has no place for.
    """
    place, notes = choose(config), []
    if config.norm_eps < _EPS:
        notes.append(f"epsilon {config.norm_eps:g} of the norms became {_EPS:g}, timm's smallest")
    is_turned = config.pos_embed == "rope2d"
    arguments = _turned_arguments(config) if is_turned else _vit_arguments(config)
    tensors = _turned_tensors(state) if is_turned else _vit_tensors(config, state)
    settings = {
        "architecture": place.architecture,
        "num_classes": config.num_classes,
        "num_features": config.embed_dim,
        "global_pool": arguments["global_pool"],
        "label_names": list(classes),
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": config.num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if place.architecture == DISTILLED else "head",
            "fixed_input_size": not is_turned,
            "pool_size": None,
            **_preprocessing(config.in_channels, preprocessing, notes),
        },
    }
    return Outgoing(tensors, {"config.json": settings}, tuple(notes))


def _shared_arguments(config: ModelConfig) -> dict[str, Any]:
    pools = {ours: theirs for theirs, ours in POOLS.items()}
    return {
        "img_size": whole_or_pair(config.image_size),
        "patch_size": whole_or_pair(config.patch_size),
        "in_chans": config.in_channels,
        "global_pool": pools.get(config.pool, "token"),
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale_init,
        "class_token": config.class_token,
    }


def _vit_arguments(config: ModelConfig) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return _shared_arguments(config) | {
        "mlp_ratio": _ratio(config.mlp_hidden_dim * (1 + config.gated_mlp), config.embed_dim),
        "qk_norm": config.qk_norm,
        "act_layer": names[config.activation],
        "reg_tokens": 0 if config.pool == "prefix" else config.num_register_tokens,
        "no_embed_class": _are_folded(config),
        "pre_norm": config.pre_norm,
        "final_norm": config.final_norm or config.fc_norm,
        "fc_norm": config.fc_norm,
    }


def _turned_arguments(config: ModelConfig) -> dict[str, Any]:
    only_new_ones_know = {"qk_norm": True} if config.qk_norm else {}
    return _shared_arguments(config) | {
        **only_new_ones_know,
        "mlp_ratio": _ratio(config.mlp_hidden_dim, config.embed_dim),
        "swiglu_mlp": config.gated_mlp,
        "swiglu_align_to": 0,
        "attn_type": "rope",  # the other kind has no bias on keys
        "num_reg_tokens": config.num_register_tokens,
        "use_post_transformer_norm": config.final_norm,
        "use_fc_norm": config.fc_norm,
        "dynamic_img_size": True,
        "rope_temperature": config.rope_theta,
        **TURNED,
    }


def _are_folded(config: ModelConfig) -> bool:
    """Whether the class token holds its position, as in timm's own models with registers."""
    return config.num_register_tokens > 0 and config.pool != "prefix"


def _vit_tensors(config: ModelConfig, state: Mapping[str, Tensor]) -> State:
    tensors = with_position_table(config, state)
    if config.pre_norm:
        tensors = without_patch_bias(config, tensors)
    if config.pool == "prefix":
        return with_second_token(split_prefix_head(tensors))
    if _are_folded(config):
        row, tensors["pos_embed"] = tensors["pos_embed"].tensor_split([int(config.class_token)], 1)
        if config.class_token:
            tensors["cls_token"] = tensors["cls_token"] + row
    return tensors


def _turned_tensors(state: Mapping[str, Tensor]) -> State:
    return {new_name(name, TURNED_RULES): tensor for name, tensor in state.items()}


def _ratio(hidden: int, width: int) -> float:
    """One that timm, which rounds down, makes the hidden width of."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _preprocessing(
    in_channels: int, preprocessing: Preprocessing, notes: list[str]
) -> dict[str, Any]:
    size = preprocessing.image_size
    assert size is not None
    return {
        "input_size": [in_channels, *size],
        "crop_pct": crop_share(size, preprocessing.resize or size, notes),
        "crop_mode": "center",
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }


def crop_share(size: tuple[int, int], cover: tuple[int, int], notes: list[str]) -> float:
    """Side of the crop by side covered, of which timm makes the latter by rounding down.

    Args:
        size: height and width in pixels of the crop.
        cover: height and width in pixels that the picture covers before.
        notes: is added to where one share for both sides isn't enough.
    """

    def covers(share: float) -> bool:
        return share <= 1 and tuple(math.floor(side / share) for side in size) == cover

    share = size[0] / cover[0]
    candidates = [*(round(share, digits) for digits in range(1, 5)), size[0] / (cover[0] + 0.5)]
    if (found := next(filter(covers, candidates), None)) is not None:
        return found
    share = candidates[-1]
    covered = "x".join(str(math.floor(side / share)) for side in size)
    notes.append(
        f"timm scales both sides by one share: pictures cover {covered} px there, not "
        f"{cover[0]}x{cover[1]}"
    )
    return share
