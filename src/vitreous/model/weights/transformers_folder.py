"""A model as the folder that transformers loads: settings, preprocessor and weights.

``transformers.pipeline("image-classification", FOLDER)`` reads it. Which names and words are the
library's, `transformers` says, which reads such a folder; here one of its classes with a classifier
is chosen and filled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitreous.model.config import ModelConfig
from vitreous.model.weights.naming import Rules, State, new_name
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
from vitreous.model.weights.transformers import (
    ACTIVATIONS,
    INTERPOLATIONS,
    WRITTEN_DINOV2,
    WRITTEN_GATED,
    WRITTEN_HEAD,
    WRITTEN_TOWER,
    WRITTEN_TWO_HEADS,
    WRITTEN_VIT,
)

#: Settings, rules of names, and tensors still by our names.
_Filled = tuple[dict[str, Any], Rules, State]


def write(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
) -> Outgoing:
    """Say a model in transformers' words.

    Args:
        config: of the model.
        state: its tensors.
        classes: names in output order.
        preprocessing: complete but for `resize` and `mirror`.

    Raises:
        WeightsError: listing what transformers has no place for.
    """
    found = choose(config)
    settings, rules, tensors = found.fill(config, with_position_table(config, state))
    notes: list[str] = []
    files = {
        "config.json": {
            "architectures": [found.architecture],
            "model_type": found.model_type,
            **settings,
            "id2label": {str(index): name for index, name in enumerate(classes)},
            "label2id": {name: index for index, name in enumerate(classes)},
        },
        "preprocessor_config.json": _preprocessor(preprocessing, notes),
    }
    heads = WRITTEN_TWO_HEADS if "head_dist.weight" in tensors else WRITTEN_HEAD
    named: State = {}
    for name, tensor in _split_attention(tensors).items():
        is_head = name.startswith("head")
        theirs = new_name(name, heads if is_head else rules)
        named[theirs if is_head else f"{found.encoder}.{theirs}"] = tensor
    return Outgoing(named, files, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class _Class(Place):
    """One of its classes with a classifier.

    Args:
        model_type: its family.
        fill: says a model with a table of positions in the words of the class.
    """

    model_type: str
    fill: Callable[[ModelConfig, State], _Filled]

    @property
    def encoder(self) -> str:
        """What stands before the names of all tensors but those of its heads."""
        return "vision_model" if self.model_type in ("clip", "siglip") else self.model_type


def _fill_vit(config: ModelConfig, state: State) -> _Filled:
    """ViT, and DeiT, which has a second token and in one of two classes a second head."""
    if config.pool == "prefix":
        state = split_prefix_head(state)
    if config.num_register_tokens:
        state = with_second_token(state)
    settings = {"intermediate_size": config.mlp_hidden_dim, "qkv_bias": config.qkv_bias}
    return _sizes(config) | settings, WRITTEN_VIT, state


def _fill_dinov2(config: ModelConfig, state: State) -> _Filled:
    """DINOv2: its head sees class token and patches, and its branches always have a factor."""
    head = state["head.weight"]
    if config.pool != "cls+mean":
        unseen = torch.zeros_like(head)
        state["head.weight"] = torch.cat(
            [head, unseen] if config.pool == "cls" else [unseen, head], dim=1
        )
    if config.layer_scale_init is None:
        for index in range(config.depth):
            for branch in (1, 2):
                state[f"blocks.{index}.ls{branch}.gamma"] = head.new_ones(config.embed_dim)
    state["mask_token"] = head.new_zeros(1, config.embed_dim)
    settings = {
        "mlp_ratio": _ratio(config),
        "qkv_bias": config.qkv_bias,
        "use_swiglu_ffn": config.gated_mlp,
    }
    if config.num_register_tokens:
        settings["num_register_tokens"] = config.num_register_tokens
    rules = WRITTEN_GATED if config.gated_mlp else WRITTEN_DINOV2
    return _sizes(config) | settings, rules, state


def _fill_tower(config: ModelConfig, state: State) -> _Filled:
    """CLIP and SigLIP: attention has biases, tokens and positions have no batch axis."""
    like = state["head.bias"]
    if not config.qkv_bias:
        for index in range(config.depth):
            state[f"blocks.{index}.attn.qkv.bias"] = like.new_zeros(3 * config.attention_dim)
    if config.pre_norm:
        state = without_patch_bias(config, state)
        # CLIP's classifier has a norm behind the blocks that it never asks.
        state["norm.weight"] = like.new_ones(config.embed_dim)
        state["norm.bias"] = like.new_zeros(config.embed_dim)
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].flatten()
    state["pos_embed"] = state["pos_embed"][0]
    tower = _sizes(config) | {"intermediate_size": config.mlp_hidden_dim}
    if not config.class_token:
        tower["vision_use_head"] = False
    return {"vision_config": tower}, WRITTEN_TOWER, state


def _square_problems(config: ModelConfig) -> list[str]:
    sizes = ("image_size", "patch_size")
    return [name_field(config, name) for name in sizes if len(set(getattr(config, name))) > 1]


def _dinov2_problems(config: ModelConfig) -> list[str]:
    wrong = _square_problems(config)
    if _ratio(config) is None:
        wrong.append(f"model.mlp_dim {config.mlp_hidden_dim}")
    if config.gated_mlp and config.activation != "silu":
        wrong.append(name_field(config, "activation"))
    return wrong


_SHARED: Values = NOWHERE | {
    "pos_embed": ("learned", "sincos2d", "none"),
    "fc_norm": (False,),
    "qk_norm": (False,),
}
_USUAL: Values = {"class_token": (True,), "pre_norm": (False,), "final_norm": (True,)}
_PLAIN = _SHARED | {"layer_scale_init": (None,), "gated_mlp": (False,)}
_VIT = _PLAIN | _USUAL | {"num_register_tokens": (0,), "pool": ("cls",)}
_DEIT = _VIT | {"num_register_tokens": (1,)}
_REGISTERS = _SHARED | _USUAL | {"pool": ("cls", "mean", "cls+mean")}
_SIGLIP = _VIT | {"class_token": (False,), "pool": ("mean",)}
_CLIP = _VIT | {"pre_norm": (True,), "final_norm": (False,), "pool": ("mean",)}

_CLASSES = (
    _Class("ViTForImageClassification", _VIT, model_type="vit", fill=_fill_vit),
    _Class("DeiTForImageClassification", _DEIT, model_type="deit", fill=_fill_vit),
    _Class(
        "DeiTForImageClassificationWithTeacher",
        _DEIT | {"pool": ("prefix",)},
        model_type="deit",
        fill=_fill_vit,
    ),
    _Class(
        "Dinov2ForImageClassification",
        _REGISTERS | {"num_register_tokens": (0,)},
        _dinov2_problems,
        model_type="dinov2",
        fill=_fill_dinov2,
    ),
    _Class(
        "Dinov2WithRegistersForImageClassification",
        _REGISTERS,
        _dinov2_problems,
        model_type="dinov2_with_registers",
        fill=_fill_dinov2,
    ),
    _Class(
        "SiglipForImageClassification",
        _SIGLIP,
        _square_problems,
        model_type="siglip",
        fill=_fill_tower,
    ),
    _Class(
        "CLIPForImageClassification",
        _CLIP,
        _square_problems,
        model_type="clip",
        fill=_fill_tower,
    ),
)


def choose(config: ModelConfig) -> _Class:
    """The class that can be a model.

    Raises:
        WeightsError: listing what the nearest one has no place for.
    """
    return find_place("transformers", _CLASSES, config)


def _sizes(config: ModelConfig) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_channels": config.in_channels,
        "image_size": whole_or_pair(config.image_size),
        "patch_size": whole_or_pair(config.patch_size),
        "hidden_act": names[config.activation],
        "layer_norm_eps": config.norm_eps,
    }


def _ratio(config: ModelConfig) -> int | None:
    """The whole number of which DINOv2 makes the hidden width of its MLPs, if there is one."""
    for ratio in range(1, 33):
        hidden = config.embed_dim * ratio
        if config.gated_mlp:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        if hidden == config.mlp_hidden_dim:
            return ratio
    return None


def _split_attention(state: State) -> State:
    """Queries, keys and values apart, as `translation` joins them."""
    apart: State = {}
    for name, tensor in state.items():
        layer, joined, kind = name.partition(".qkv.")
        if joined:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            apart |= {f"{layer}.{part}.{kind}": third.clone() for part, third in parts}
        else:
            apart[name] = tensor
    return apart


def _preprocessor(preprocessing: Preprocessing, notes: list[str]) -> dict[str, Any]:
    """Scale the shorter side, take the middle: what the library's processor for BiT does."""
    size, mean, std = preprocessing.image_size, preprocessing.mean, preprocessing.std
    assert size is not None
    height, width = preprocessing.resize or size
    if height != width:
        notes.append(
            f"transformers scales the shorter side of a picture, to {max(height, width)} px here, "
            f"instead of covering {height}x{width} px"
        )
    codes = {name: code for code, name in INTERPOLATIONS.items()}
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": max(height, width)},
        "resample": codes[preprocessing.interpolation or "bicubic"],
        "do_center_crop": True,
        "crop_size": {"height": size[0], "width": size[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
